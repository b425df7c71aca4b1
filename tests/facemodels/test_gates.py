"""Gates on constructed cases whose answer is known."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from facemodels.editing import exchanged
from facemodels.evaluation import encode_all, gates
from facemodels.evaluation.exchange import composite, donors, paint
from facemodels.evaluation.gates import background_knows_face, leak, moved_by


@pytest.fixture
def faces(prepared):
    return prepared.faces("test")


@pytest.fixture
def codings(model, faces):
    return encode_all(model, faces)


def pictures(seed, count=6, size=16):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(count, 1, size, size)
    for number in range(count):
        mask[number, :, 2 + number % 3 : 13, 3 : 12 + number % 2] = 1
    return torch.rand(count, 3, size, size, generator=generator), mask


@given(st.integers(2, 40), st.integers(0, 9), st.integers(1, 5))
def test_donors_are_others_and_each_serves_once(count, seed, step):
    other = donors(count, seed, step)
    assert sorted(other.tolist()) == list(range(count))
    assert bool((other != torch.arange(count)).all()) or step % count == 0
    if step > 1:
        assert_close(donors(count, seed)[donors(count, seed, step - 1)], other)


class TestBackgroundKnowsFace:
    def test_own_photo_is_known_in_any_tone(self):
        photos, mask = pictures(0)
        tone = torch.rand(len(photos), 3, 1, 1)
        assert background_knows_face(photos, photos, mask) == pytest.approx(1, abs=1e-6)
        assert background_knows_face(photos + tone, photos, mask) == pytest.approx(1, abs=1e-6)

    @settings(max_examples=20)
    @given(st.integers(0, 1000), st.floats(0, 5))
    def test_what_is_the_same_for_all_knows_nobody(self, seed, contrast):
        photos, mask = pictures(seed)
        shared = contrast * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed + 1))
        tone = torch.rand(len(photos), 3, 1, 1)
        assert background_knows_face(shared + tone, photos, mask) == pytest.approx(0, abs=1e-5)

    def test_the_mean_face_knows_nobody(self):
        photos, mask = pictures(2)
        assert background_knows_face(photos.mean(0, keepdim=True).expand_as(photos), photos, mask) == pytest.approx(
            0, abs=1e-6
        )

    def test_it_rises_with_what_is_known(self):
        photos, mask = pictures(3, count=12)
        values = [background_knows_face(share * photos, photos, mask) for share in (0.0, 0.1, 0.3, 0.6, 1.0)]
        assert values == sorted(values) and values[0] == pytest.approx(0, abs=1e-6) and values[1] < 0.25

    def test_unrelated_pictures_know_nobody_and_others_less_than_that(self):
        photos, mask = pictures(4, count=40)
        assert abs(background_knows_face(pictures(5, count=40)[0], photos, mask)) < 0.05
        assert background_knows_face(photos[donors(40)], photos, mask) < -0.1

    def test_only_what_lies_under_the_face_counts(self):
        photos, mask = pictures(6)
        around = torch.where(mask.amax(0) > 0, 0.5, photos)
        assert background_knows_face(around, photos, mask) == pytest.approx(0, abs=1e-6)

    def test_one_face(self):
        photos, mask = pictures(7, count=1)
        assert background_knows_face(photos, photos, mask) == 0


class TestLeak:
    @torch.no_grad()
    def test_is_what_decoding_with_other_surroundings_shows(self, model, faces, codings):
        """The measure exchanges decoded pictures; here codes, pooling indices and skips are exchanged."""
        codes = model.encode(faces.pictures())
        other = donors(len(faces))
        moved = model.decode(
            dataclasses.replace(
                codes,
                mask=codes.mask[other],
                background=codes.background[other],
                context=codes.context[other],
                background_context=codes.background_context[other],
            )
        ).image
        mask = faces.masks()
        both = mask * mask[other]
        change = ((moved - codings.image).abs() * both).sum()
        difference = ((codings.image[other] - codings.image).abs() * both).sum()
        assert leak(codings, mask, other) == pytest.approx(float(change / difference), rel=1e-3)

    def test_of_a_face_that_the_face_stream_paints(self, codings, faces):
        opaque = dataclasses.replace(codings, mask=torch.ones_like(codings.mask))
        assert leak(opaque, faces.masks(), donors(len(faces))) == 0

    def test_of_a_face_that_the_background_paints(self, codings, faces):
        photo = faces.pictures()
        hidden = dataclasses.replace(codings, background=photo, mask=torch.zeros_like(codings.mask))
        assert leak(hidden, faces.masks(), donors(len(faces))) == pytest.approx(1, abs=1e-5)

    def test_of_half_a_mask_is_a_half(self, codings, faces):
        alike = dataclasses.replace(
            codings,
            background=faces.pictures(),
            face=torch.zeros_like(codings.face),
            mask=torch.full_like(codings.mask, 0.5),
        )
        assert leak(alike, faces.masks(), donors(len(faces))) == pytest.approx(1, abs=1e-5)
        painted = dataclasses.replace(alike, face=faces.pictures())
        assert leak(painted, faces.masks(), donors(len(faces))) == pytest.approx(0.5, abs=1e-5)


class TestMovedBy:
    def test_a_code_that_does_nothing(self, model, codings, faces, monkeypatch):
        """A network that paints from its identity code alone is moved by that code wholly, and by no other."""
        full = dataclasses.replace(codings, mask=torch.ones_like(codings.mask))
        real = type(model).paint
        still = codings.codes

        def from_identity(self, pose, expression, identity, light):
            count = len(identity)
            first = [code[:1].expand(count, -1) for code in (still.pose, still.expression)]
            return real(self, *first, identity, still.light[:1].expand(count, -1))

        monkeypatch.setattr(type(model), "paint", from_identity)
        full = dataclasses.replace(full, face=paint(model, full.codes).image.clamp(0, 1))
        moved = moved_by(model, full, faces.masks(), donors(len(faces)))
        assert moved["moved_by_identity"] == pytest.approx(1, abs=1e-4)
        assert all(moved[f"moved_by_{name}"] < 1e-4 for name in ("expression", "pose", "light"))

    def test_all_codes_together_make_the_other_face(self, model, codings):
        other = donors(len(codings))
        swapped = exchanged(codings.codes, codings.codes[other], ["pose", "expression", "identity", "light"])
        assert_close(paint(model, swapped).image.clamp(0, 1), codings.face[other], atol=1e-5, rtol=0)
        assert_close(composite(codings.face, codings), codings.image, atol=1e-5, rtol=0)


def test_gates_are_named_and_finite(model, faces, codings):
    values = gates(model, faces, codings, 4)
    names = {"leak", "background_knows_face", *(f"moved_by_{code}" for code in ("expression", "pose", "light"))}
    assert names < set(values) and all(abs(value) < 100 for value in values.values())
