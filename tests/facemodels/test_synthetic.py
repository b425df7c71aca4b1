import dataclasses
import os

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from facemodels.data.factors import sample_factors
from facemodels.data.synthetic import aligned_camera, draw, factors_of, synthesise, synthesise_set
from facemodels.errors import InputError
from facemodels.morphable import MorphableModel
from facemodels.rendering import matrix_to_euler, project_weak_perspective, shade

FIVE = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))
TEMPLATE = [(22.675, 31.6), (41.75, 31.55), (32.2, 41.8), (23.95, 52.05), (40.6, 52.05)]


@pytest.fixture(scope="module")
def samples():
    return list(synthesise(16, seed=3))


def angles(rotation):
    return np.rad2deg(torch.stack(matrix_to_euler(torch.from_numpy(rotation).view(3, 3))).numpy())


class TestFactors:
    def test_depend_on_seed_and_number_only(self):
        first, again, other = sample_factors(1, 7), sample_factors(1, 7), sample_factors(2, 7)
        assert_array_equal(first.expression, again.expression)
        assert_array_equal(first.background, again.background)
        assert (first.identity != other.identity).any()

    def test_persons_keep_identity_and_colours_only(self):
        first, second, stranger = (sample_factors(0, index, images_per_person=3) for index in (3, 5, 6))
        assert first.person == second.person == 1
        assert stranger.person == 2
        assert_array_equal(first.identity, second.identity)
        assert first.complexion.melanin == second.complexion.melanin
        assert (first.expression != second.expression).any()
        assert (first.light != second.light).any()
        assert (first.identity != stranger.identity).any()

    def test_distributions(self):
        drawn = [sample_factors(0, index, images_per_person=1) for index in range(400)]
        identity = np.stack([one.identity for one in drawn])
        assert_allclose(identity.std(), 1, atol=0.05)
        assert np.abs(identity).max() <= 2.6
        yaw, pitch, _ = np.rad2deg([one.angles for one in drawn]).T
        assert_allclose(yaw.std(), 17.5, atol=2)
        assert np.abs(yaw).max() <= 45
        assert_allclose(pitch.std(), 8, atol=1)
        assert np.mean([one.emotion == "happy" for one in drawn]) == pytest.approx(0.3, abs=0.07)
        assert abs(np.corrcoef(identity[:, 0], yaw)[0, 1]) < 0.15


class TestAlignedCamera:
    def five(self, angles, framing):
        """The five points of three faces in pixels, and the rotations of their cameras."""
        model, generator = MorphableModel.procedural(), torch.Generator().manual_seed(0)
        vertices = model.vertices(torch.randn(3, 157, generator=generator))
        camera = aligned_camera(vertices, torch.tensor(angles).expand(3, 3), torch.tensor(framing).expand(3, 3))
        screen = project_weak_perspective(vertices, *camera)
        return torch.stack([screen[:, model.landmarks[a:b], :2].mean(dim=1) for a, b in FIVE], dim=1).double(), camera[
            0
        ]

    def test_points_lie_at_the_template_as_near_as_possible(self):
        points, _ = self.five([0.3, -0.1, 0.0], [0.0, 0.0, 0.0])
        template = torch.tensor(TEMPLATE, dtype=torch.float64)
        assert_close(points.mean(dim=1), template.mean(dim=0).expand(3, 2), atol=1e-3, rtol=0)
        centred, error = points - points.mean(dim=1, keepdim=True), points - template
        quarter_turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
        zero = torch.zeros(3, dtype=torch.float64)
        assert_close((error * centred).sum(dim=(1, 2)), zero, atol=1e-2, rtol=0)  # another scale fits no better
        assert_close((error * (centred @ quarter_turn)).sum(dim=(1, 2)), zero, atol=1e-2, rtol=0)  # nor another roll

    def test_framing_moves_and_enlarges(self):
        exact, _ = self.five([0.3, -0.1, 0.0], [0.0, 0.0, 0.0])
        moved, _ = self.five([0.3, -0.1, 0.0], [2.0, -1.0, 0.1])
        middle = exact.mean(dim=1, keepdim=True)
        expected = middle + torch.tensor([2.0, -1.0]) + np.exp(0.1) * (exact - middle)
        assert_close(moved, expected, atol=1e-3, rtol=0)

    def test_roll_turns_about_the_middle_of_the_points(self):
        exact, rotation = self.five([0.3, -0.1, 0.0], [0.0, 0.0, 0.0])
        tilted, tilted_rotation = self.five([0.3, -0.1, 0.2], [0.0, 0.0, 0.0])
        assert_close(tilted.mean(dim=1), exact.mean(dim=1), atol=1e-3, rtol=0)
        roll = torch.stack(matrix_to_euler(tilted_rotation @ rotation.transpose(1, 2)))
        assert_close(roll, torch.tensor([0.0, 0.0, 0.2])[:, None].expand(3, 3), atol=1e-4, rtol=0)

    def test_angles_come_back(self):
        _, rotation = self.five([0.4, 0.0, 0.0], [0.0, 0.0, 0.0])
        assert_close(matrix_to_euler(rotation)[0], torch.full((3,), 0.4), atol=0.03, rtol=0)


class TestSynthesise:
    def test_shapes_and_types(self, samples):
        expected = {
            "image": ((64, 64, 3), np.uint8), "normals": ((64, 64, 3), np.int8), "mask": ((64, 64), np.uint8),
            "rotation": ((9,), np.float32), "identity": ((157,), np.float32), "expression": ((28,), np.float32),
            "light": ((9,), np.float32),
        }  # fmt: skip
        expected |= {f"turned_{name}": expected[name] for name in ("image", "normals", "mask", "rotation")}
        expected["turned_weight"] = expected["swapped_weight"] = expected["turned_mask"]
        expected["swapped_image"] = expected["image"]
        for name, (shape, dtype) in expected.items():
            assert samples[5][name].shape == shape, name
            assert samples[5][name].dtype == dtype, name
        assert [type(samples[5][name]) for name in ("name", "person", "emotion", "frontal")] == [str, int, str, bool]
        assert len({sample["name"] for sample in samples}) == 16

    def test_sample_does_not_depend_on_the_request(self, samples):
        later = list(synthesise(23, seed=3, start=13))
        assert [sample["name"] for sample in later] == [f"synthetic-3-{index:06d}" for index in range(13, 23)]
        for name, value in samples[14].items():
            assert_array_equal(later[1][name], value)

    def test_normals_are_unit_in_the_mask_and_zero_outside(self, samples):
        for sample in samples:
            for view in ("", "turned_"):
                length = np.linalg.norm(sample[f"{view}normals"] / 127.0, axis=2)
                inside = sample[f"{view}mask"] == 255
                assert_allclose(length[inside], 1, atol=0.01)
                assert (length[~inside] == 0).all()
                assert (sample[f"{view}mask"][~inside] == 0).all()
                assert 0.2 < inside.mean() < 0.75

    def test_image_is_shaded_by_its_normals_and_light(self, samples):
        found = []
        for sample in samples:
            normals = torch.from_numpy(sample["normals"]).float().permute(2, 0, 1)[None] / 127
            shading = shade(normals, torch.from_numpy(sample["light"])[None])[0, 0].numpy()
            cheeks = (sample["mask"] > 0) & (sample["normals"][..., 2] > 60)
            found.append(np.corrcoef(shading[cheeks], sample["image"].mean(axis=2)[cheeks])[0, 1])
        assert np.median(found) > 0.4

    def test_mask_covers_the_template_eyes_and_mouth(self, samples):
        for sample in (sample for sample in samples if sample["frontal"]):
            for x, y in TEMPLATE:
                assert sample["mask"][int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].any()

    def test_turned_view_is_the_same_face_from_elsewhere(self, samples):
        difference = [np.abs(angles(sample["rotation"]) - angles(sample["turned_rotation"]))[0] for sample in samples]
        assert np.median(difference) > 8
        assert all((sample["image"] != sample["turned_image"]).any() for sample in samples)
        assert all((sample["turned_weight"] == sample["turned_mask"]).all() for sample in samples)
        assert {sample["turned_partner"] for sample in samples} == {""}

    def test_swapped_face_is_the_same_with_the_expression_of_another(self, samples):
        places = {sample["name"]: place for place, sample in enumerate(samples)}
        factors = [sample_factors(3, number) for number in range(16)]
        for number in (0, 7, 15):
            lender = places[samples[number]["swapped_partner"]]
            assert samples[lender]["person"] != samples[number]["person"]
            (image,), (mask,) = draw([dataclasses.replace(factors[number], expression=factors[lender].expression)])
            assert_allclose(samples[number]["swapped_image"], 255 * image.permute(1, 2, 0), atol=0.51)
            assert_array_equal(samples[number]["swapped_weight"], 255 * mask[0])

    def test_frontal_says_what_the_rotation_says(self, samples):
        for sample in samples:
            yaw, pitch, _ = angles(sample["rotation"])
            assert sample["frontal"] == (abs(yaw) <= 15 and abs(pitch) <= 15)
        assert {sample["frontal"] for sample in samples} == {True, False}

    def test_progress_counts_up(self):
        counted = []
        assert len(list(synthesise(5, progress=counted.append))) == 5
        assert counted == [1, 2, 3, 4, 5]

    def test_nothing_to_do(self):
        assert list(synthesise(0)) == []
        assert list(synthesise(7, start=7)) == []

    @pytest.mark.slow
    def test_processes_make_the_same(self, samples):
        together = list(synthesise(33, seed=3, workers=2))
        assert len(together) == 33
        for name, value in samples[9].items():
            assert_array_equal(together[9][name], value)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"count": -1}, "count, seed and start must not be negative, got -1, 0 and 0"),
            ({"count": 1, "workers": 0}, "images_per_person and workers must be at least 1, got 4 and 0"),
        ],
    )
    def test_rejects_numbers_out_of_range(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            synthesise(**arguments)


class TestSynthesiseSet:
    def test_nobody_is_in_both_splits(self, tmp_path):
        prepared = synthesise_set(tmp_path / "set", count=12, held_out=0.4, images_per_person=3)
        persons = {split: set(prepared.split(split)["person"]) for split in ("train", "test")}
        assert persons == {"train": {0, 1}, "test": {2, 3}}
        assert prepared.morphable.name == "procedural"

    def test_rejects_a_share_above_one(self, tmp_path):
        with pytest.raises(ValueError, match="held_out must be at least 0 and below 1, got 1"):
            synthesise_set(tmp_path / "set", held_out=1)

    def test_rejects_no_images_per_person(self, tmp_path):
        with pytest.raises(ValueError, match="must be at least 1, got 0 and 1"):
            synthesise_set(tmp_path / "set", images_per_person=0)

    @pytest.mark.parametrize("count", [0, -5])
    def test_rejects_no_faces(self, tmp_path, count):
        with pytest.raises(ValueError, match=f"count must be at least 1, got {count}"):
            synthesise_set(tmp_path / "set", count=count)
        assert os.listdir(tmp_path) == []

    def test_does_not_write_over_a_folder(self, tmp_path):
        with pytest.raises(InputError, match="exists"):
            synthesise_set(tmp_path, count=2)


class TestSize:
    @pytest.mark.parametrize("design", ["portraits", "facefactors", "wild"])
    @pytest.mark.slow
    def test_larger_images_show_the_same_faces(self, design):
        small, large = (list(synthesise(4, seed=3, design=design, size=size)) for size in (64, 128))
        pictures = {name for name, value in small[0].items() if np.shape(value)[:2] == (64, 64)}
        swapped = set() if design == "facefactors" else {"swapped_image", "swapped_weight"}
        views = {f"{view}{name}" for view in ("", "turned_") for name in ("image", "normals", "mask")}
        assert pictures == views | {"turned_weight"} | swapped
        for one, other in zip(small, large, strict=True):
            for name in {*one} - pictures - {"visible"}:
                assert_array_equal(one[name], other[name])
            for name in pictures:
                assert other[name].shape == (128, 128, *one[name].shape[2:]) and other[name].dtype == one[name].dtype
            for view in ("", "turned_"):
                halved = other[f"{view}mask"].reshape(64, 2, 64, 2).mean(axis=(1, 3))
                assert np.mean((halved > 127) != (one[f"{view}mask"] > 0)) < 0.02
            halved = other["turned_image"].astype(float).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
            assert np.abs(halved - one["turned_image"]).mean() < (8 if design == "wild" else 3)  # the camera adds noise
            if design != "wild":
                smaller = other["turned_image"][::2, ::2].astype(float)
                assert np.abs(smaller - other["turned_image"][1::2, 1::2]).mean() > 0.5  # and has detail of its own

    def test_default_is_64(self):
        default, asked = (list(synthesise(1, seed=3, **options)) for options in ({}, {"size": 64}))
        for name, value in default[0].items():
            assert_array_equal(asked[0][name], value)

    @pytest.mark.slow
    def test_is_kept_with_the_set(self, tmp_path):
        prepared = synthesise_set(tmp_path / "set", design="wild", count=3, held_out=0, size=128)
        assert prepared.size == prepared.info["size"] == 128
        images, _ = draw(factors_of(prepared, "train"))
        assert images.shape == (3, 3, 128, 128)
        with pytest.raises(InputError, match="exists already"):
            synthesise_set(tmp_path / "set", design="wild", count=3, held_out=0)

    @pytest.mark.parametrize("size", [16, 72, 1024])
    def test_rejects_sizes_that_no_network_takes(self, size):
        with pytest.raises(InputError, match=f"size must be 32 to 512 pixels, a multiple of 16, got {size}"):
            synthesise(1, size=size)
