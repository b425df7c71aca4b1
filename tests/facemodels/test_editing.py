import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facemodels.data.alignment import AlignedPhoto
from facemodels.editing import (
    EDITABLE,
    decode_edit,
    edit_photo,
    interpolate,
    refine,
    to_tensor,
    transfer,
    turn_in_place,
)


@pytest.fixture
def pair():
    return torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)


class TestRefine:
    def test_faces_come_nearer_to_the_photos(self, model):
        """Towards photos that the network can draw: those of other codes of identity and light."""
        images = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            read = model.encode(images)
            drawn = model.paint(read.pose, read.expression, read.identity * 1.3, read.light * 1.2).image
            mask = model.surround(read)[0].sigmoid()
            images = mask * drawn.clamp(0, 1) + (1 - mask) * images
        errors = [self.error(model, images, refine(model, images, steps)) for steps in (0, 10, 60)]
        assert (errors[0] > errors[1]).all() and (errors[1] > errors[2]).all()

    def test_each_face_by_itself_and_nothing_else_changes(self, model):
        images = torch.rand(22, 3, 64, 64)  # more than are refined at once
        network = {name: weight.clone() for name, weight in model.state_dict().items()}
        codes = refine(model, images, steps=3)
        with torch.no_grad():
            read = model.encode(images)
        for name in ("pose", "expression", "background", "mask"):
            assert_close(getattr(codes, name), getattr(read, name))
        for name in ("identity", "light"):
            assert not getattr(codes, name).requires_grad
            assert ((getattr(codes, name) - getattr(read, name)).abs().amax(1) > 0).all()
            assert_close(getattr(refine(model, images[19:], steps=3), name), getattr(codes, name)[19:])
        assert all(torch.equal(weight, network[name]) for name, weight in model.state_dict().items())
        assert all(weight.grad is None for weight in model.parameters())

    def test_only_the_face_inside_the_mask_counts(self, model, pair, monkeypatch):
        images, _ = pair
        left = torch.arange(64).expand(2, 1, 64, 64) < 32
        with torch.no_grad():
            read = model.encode(images)
        monkeypatch.setattr(model, "encode", lambda _: read)
        monkeypatch.setattr(model, "surround", lambda _: (torch.where(left, 100.0, -200.0), None))
        own, inside, outside = (
            refine(model, shown, steps=3).identity
            for shown in (images, torch.where(left, 1 - images, images), torch.where(left, images, 1 - images))
        )
        assert_close(outside, own)
        assert ((inside - own).abs().amax(1) > 1e-4).all()

    def test_no_step_is_what_the_encoder_reads(self, model, pair):
        images, _ = pair
        with torch.no_grad():
            assert_close(refine(model, images, steps=0).identity, model.encode(images).identity)

    def test_refusals(self, model, pair):
        with pytest.raises(ValueError, match="refine: takes 0 steps or more, got -1"):
            refine(model, pair[0], steps=-1)
        with pytest.raises(ValueError, match="refine"):
            refine(model, torch.rand(1, 3, 32, 32))

    @staticmethod
    def error(model, images, codes):
        with torch.no_grad():
            mask = model.surround(codes)[0].sigmoid()
            face = model.paint(codes.pose, codes.expression, codes.identity, codes.light).image
            return (mask * (face - images).square()).mean((1, 2, 3))


@pytest.mark.parametrize("factor", EDITABLE)
def test_transfer_takes_one_code(model, pair, factor):
    source, target = pair
    edit = transfer(model, source, target, factor)
    own, donor = model.encode(source), model.encode(target)
    for name in EDITABLE:
        assert_close(getattr(edit.codes, name), getattr(donor if name == factor else own, name))
    assert edit.image.shape == (2, 3, 64, 64) and 0 <= edit.image.min() <= edit.image.max() <= 1


def test_transfer_of_nothing_is_the_reconstruction(model, pair):
    source, target = pair
    with torch.no_grad():
        assert_close(transfer(model, source, target, []).image, model.decode(model.encode(source)).image)


def test_transfer_from_itself_changes_nothing(model, pair):
    source, _ = pair
    assert_close(transfer(model, source, source, "expression").image, transfer(model, source, source, []).image)


def test_turned_faces_stand_in_their_own_outline(model, pair):
    """With a new pose the mask is the face stream's, and nothing of the old face is left beside it."""
    source, target = pair
    edit = transfer(model, source, target, "pose")
    outside = edit.rendering.face_mask < 1e-3
    inside = edit.rendering.face_mask > 1 - 1e-3
    assert_close(edit.image * inside, edit.rendering.face * inside, atol=2e-3, rtol=0)
    assert edit.image.shape == source.shape and outside.shape == inside.shape


def test_nothing_of_the_old_face_is_left_beside_the_new():
    old, new = torch.zeros(2, 1, 64, 64)[:, None].unbind()
    old[:, :, 20:44, 12:40], new[:, :, 20:44, 24:52] = 1, 1
    around = torch.nn.functional.max_pool2d(old, 5, 1, 2)  # where the old face may still show
    background = torch.full((1, 3, 64, 64), 0.3) + 0.6 * around
    image = turn_in_place(torch.full_like(background, 0.8), new, background, old)
    assert_close(image, 0.3 + 0.5 * new.expand_as(image))


def test_the_region_holds_the_old_face_and_the_new(model, pair):
    source, target = pair
    edit, own = transfer(model, source, target, "pose"), transfer(model, source, target, [])
    assert (edit.region >= edit.rendering.face_mask).all() and (edit.region >= edit.rendering.mask).all()
    assert_close(own.region, own.rendering.mask)


def test_a_photo_gives_several_factors(model, pair):
    crop = np.random.default_rng(0).integers(256, size=(64, 64, 3)).astype(np.uint8)
    target = AlignedPhoto("target.jpg", crop, crop, np.eye(2, 3), None)
    source = pair[0][:1]
    wanted = {"smile": ["expression"], "both": ["pose", "light"]}
    edited = edit_photo(model, transfer(model, source, source, []), target, wanted)
    assert edited.name == "target.jpg" and list(edited.edits) == ["smile", "both"]
    assert_close(edited.target, to_tensor(crop)[0])
    for label, factors in wanted.items():
        assert_close(edited.edits[label].image, transfer(model, source, to_tensor(crop), factors).image)
    both = transfer(model, *pair, [])
    with pytest.raises(ValueError, match="there is no code 'hair'"):
        edit_photo(model, both[0], target, {"hair": ["hair"]})
    with pytest.raises(ValueError, match="edit_photo: takes one face to edit, got 2"):
        edit_photo(model, both, target, wanted)


@pytest.mark.parametrize("factor", ["expression", "light"])
def test_interpolation_of_refined_codes(model, pair, factor):
    source, target = pair[0][:1], pair[1][:1]
    own = refine(model, source, steps=3)
    pictures = interpolate(model, source, target, factor, steps=2, own=own)
    assert_close(pictures[:1], decode_edit(model, own).image)
    lent = {factor: getattr(model.encode(target), factor)}  # as the encoder reads it
    assert_close(pictures[1:], decode_edit(model, own.replace(**lent)).image)
    assert not torch.equal(pictures, interpolate(model, source, target, factor, steps=2))


@pytest.mark.parametrize("factor", EDITABLE)
def test_interpolation_runs_from_source_to_edit(model, pair, factor):
    source, target = pair[0][:1], pair[1][:1]
    pictures = interpolate(model, source, target, factor, steps=3)
    assert pictures.shape == (3, 3, 64, 64)
    assert_close(pictures[2:], transfer(model, source, target, factor).image)
    if factor != "pose":  # a pose puts even its own source into the face stream's mask
        assert_close(pictures[:1], transfer(model, source, target, []).image)


def test_refusals(model, pair):
    source, target = pair
    with pytest.raises(ValueError, match="there is no code 'hair'"):
        transfer(model, source, target, "hair")
    with pytest.raises(ValueError, match=r"expression has shape \(2, 6\), got \(1, 6\)"):
        transfer(model, source, target[:1], "expression")
    with pytest.raises(ValueError, match="takes one face on each side, got 2 and 2"):
        interpolate(model, source, target, "pose")
    with pytest.raises(ValueError, match="takes at least 2 steps, got 1"):
        interpolate(model, source[:1], target[:1], "pose", steps=1)
    with pytest.raises(ValueError, match=r"must have shape \(size, size, 3\), got"):
        to_tensor(torch.zeros(3, 64, 64).numpy())
