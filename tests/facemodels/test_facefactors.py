"""FaceFactors: all combinations, with exact labels; and the wild, with everything at random."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from facemodels.data.factorial import EXPRESSIONS, LIGHTS, POSES, SHAPE, Cell, cell_factors
from facemodels.data.occluders import OCCLUDERS, Sight, cover_image
from facemodels.data.synthetic import FACEFACTORS, draw, factors_of, synthesise, synthesise_set
from facemodels.data.wild import occlude, photograph, wild_factors
from facemodels.errors import InputError
from facemodels.morphable.procedural import emotion_coefficients
from facemodels.rendering import irradiance_basis, matrix_to_euler


def angles(rotation):
    return np.rad2deg(torch.stack(matrix_to_euler(torch.from_numpy(rotation).view(3, 3))).numpy())


@pytest.fixture(scope="module")
def cells():
    return list(synthesise(32, seed=2, design="facefactors"))


@pytest.fixture(scope="module")
def wild():
    return list(synthesise(32, seed=4, design="wild", images_per_person=2))


class TestDesign:
    def test_has_the_number_of_the_paper(self):
        assert FACEFACTORS == 54 * 6 * 8 * 4 == 10368

    def test_every_cell_is_there_once(self):
        cells = [Cell.of(number) for number in range(FACEFACTORS)]
        assert len(set(cells)) == FACEFACTORS
        assert cells[192 * 7 + 32 * 2 + 4 * 5 + 3] == Cell(person=7, expression=2, pose=5, light=3)

    def test_no_image_beyond_the_last(self):
        with pytest.raises(ValueError, match="number must be from 0 to 10367, got 10368"):
            Cell.of(10368)

    def test_turned_pose_is_another_one_and_each_occurs(self):
        cells = [Cell.of(number) for number in range(0, FACEFACTORS, 7)]
        assert all(cell.turned != cell.pose for cell in cells)
        assert {(cell.pose, cell.turned) for cell in cells} == set(itertools.permutations(range(8), 2))

    def test_a_label_means_the_same_factor_everywhere(self):
        here, there = cell_factors(0, 192 * 3 + 32 * 2 + 4 * 5 + 1), cell_factors(0, 192 * 50 + 32 * 4 + 4 * 5 + 1)
        assert_array_equal(here.angles, there.angles)
        assert_array_equal(here.light, there.light)
        assert (here.identity != there.identity).any()
        assert here.emotion == "surprised" and there.emotion == "disgusted"

    def test_persons_keep_their_identity_and_their_manner(self):
        first, pose, light, other = (cell_factors(0, number) for number in (0, 4, 1, 32))
        for one in (pose, light):
            assert_array_equal(one.identity, first.identity)
            assert_array_equal(one.expression, first.expression)
            assert (one.background != first.background).any()
        assert_array_equal(other.identity, first.identity)
        assert (other.expression != first.expression).any()

    def test_expressions_are_those_of_their_name(self):
        for index, emotion in enumerate(EXPRESSIONS):
            drawn = np.stack([cell_factors(0, 192 * person + 32 * index).expression for person in range(20)])
            book = emotion_coefficients(emotion)
            strong = book > 1
            assert_allclose(drawn.mean(0)[strong], book[strong], atol=0.25)

    def test_lamps_stand_where_their_names_say(self):
        sides = torch.tensor([[-0.8, 0.0, 0.6], [0.8, 0.0, 0.6], [0.0, 0.8, 0.6], [0.0, -0.8, 0.6]])
        shading = {
            name: (irradiance_basis(sides) @ torch.from_numpy(cell_factors(0, number).light).float()).tolist()
            for number, name in enumerate(LIGHTS)
        }
        left, right, up, down = shading["left"]
        assert left > 1.5 * right
        left, right, up, down = shading["right"]
        assert right > 1.5 * left
        left, right, up, down = shading["above"]
        assert up > 1.5 * down and left == pytest.approx(right, abs=1e-4)

    def test_poses_are_those_of_the_table(self):
        assert len(POSES) == SHAPE[2] and POSES[0] == (0, 0)
        assert_allclose(np.rad2deg(cell_factors(0, 4 * 6).angles), [45, 0, 0])

    def test_shares_no_person_with_other_designs(self):
        mine = cell_factors(0, 0).identity
        assert (mine != wild_factors(0, 0).identity).any()


class TestFaceFactors:
    def test_labels_and_factors_agree(self, cells):
        for number, sample in enumerate(cells):
            assert (sample["pose_index"], sample["light_index"]) == (number // 4, number % 4)
            assert (sample["person"], sample["expression_index"], sample["emotion"]) == (0, 0, "neutral")
            yaw, pitch, _ = angles(sample["rotation"])
            assert abs(yaw - POSES[number // 4][0]) < 4 and abs(pitch - POSES[number // 4][1]) < 4
            assert sample["name"] == f"facefactors-2-{number:06d}"

    def test_images_are_those_of_the_factors(self, cells):
        factors = [cell_factors(2, number) for number in (0, 13, 31)]
        images, masks = draw(factors)
        for image, mask, number in zip(images, masks, (0, 13, 31), strict=True):
            assert_allclose(cells[number]["image"], 255 * image.permute(1, 2, 0), atol=0.51)
            assert_array_equal(cells[number]["mask"], 255 * mask[0])

    def test_turned_view_is_that_of_its_pose(self, cells):
        for number in (0, 9, 30):
            pose = Cell.of(number).turned
            assert_array_equal(cells[number]["turned_rotation"], cells[4 * pose]["rotation"])
            assert_array_equal(cells[number]["turned_normals"], cells[4 * pose]["normals"])
            assert_array_equal(cells[number]["turned_mask"], cells[4 * pose]["mask"])
            partner = cells[4 * pose + number % 4]  # under the same light
            assert_array_equal(cells[number]["turned_image"], partner["image"])
            assert_array_equal(cells[number]["turned_weight"], partner["mask"])
            assert cells[number]["turned_partner"] == partner["name"]

    def test_a_partner_beyond_the_end_of_a_smaller_set_is_not_named(self, tmp_path):
        prepared = synthesise_set(tmp_path / "set", design="facefactors", count=16, held_out=0)
        names, partners = prepared.table["name"][:], prepared.table["turned_partner"][:]
        assert set(partners) <= {"", *names} and 0 < partners.count("") < 16

    def test_light_changes_the_image_alone(self, cells):
        first, second = cells[8], cells[9]
        for name in ("mask", "normals", "rotation", "expression"):
            assert_array_equal(first[name], second[name])
        inside = first["mask"] > 0
        assert np.abs(first["image"][inside].astype(int) - second["image"][inside]).mean() > 5

    def test_nobody_is_in_both_splits(self):
        numbers = [(person, "test" if person >= 54 - round(0.2 * 54) else "train") for person in range(54)]
        assert sum(split == "test" for _, split in numbers) == 11

    def test_has_no_more_than_all_images(self):
        with pytest.raises(ValueError, match="FaceFactors has 10368 images, got count 10369"):
            synthesise(10369, design="facefactors")
        with pytest.raises(ValueError, match="there is no design 'cubist'; choose one of facefactors, wild, portraits"):
            synthesise(1, design="cubist")
        with pytest.raises(ValueError, match="there is no design 'cubist'"):
            synthesise_set("nowhere", design="cubist")


class TestWild:
    def test_columns_of_a_prepared_set(self, wild):
        for sample in wild:
            assert sample["image"].shape == sample["normals"].shape == (64, 64, 3)
            assert sample["image"].dtype == np.uint8 and sample["normals"].dtype == np.int8
            assert isinstance(sample["occluder"], str) and 0 <= sample["visible"] <= 1
            outside = sample["mask"] == 0
            assert (sample["normals"][outside] == 0).all()

    def test_a_sample_does_not_depend_on_the_request(self, wild):
        later = next(synthesise(None, seed=4, design="wild", images_per_person=2, start=29))
        for name, value in wild[29].items():
            assert_array_equal(later[name], value)

    def test_turned_view_is_clear(self, wild):
        """No occluder, the same camera: what it makes of the face as the factors draw it."""
        for number, sample in enumerate(wild[:4]):
            factors = wild_factors(4, number)
            (image,), (mask,) = draw([dataclasses.replace(factors, angles=factors.turned_angles)])
            assert_array_equal(sample["turned_image"], photograph(4, number, image.permute(1, 2, 0).double().numpy()))
            assert_array_equal(sample["turned_weight"], 255 * mask[0])
            assert_array_equal(sample["turned_mask"], sample["turned_weight"])
            assert sample["turned_partner"] == ""

    def test_swapped_face_is_clear_and_has_the_expression_of_another(self, wild):
        places = {sample["name"]: place for place, sample in enumerate(wild)}
        for number in (0, 3):
            lender = places[wild[number]["swapped_partner"]]
            assert wild[lender]["person"] != wild[number]["person"]
            factors = [wild_factors(4, place) for place in (number, lender)]
            (image,), (mask,) = draw([dataclasses.replace(factors[0], expression=factors[1].expression)])
            picture = photograph(4, number, image.permute(1, 2, 0).double().numpy())
            assert_array_equal(wild[number]["swapped_image"], picture)
            assert_array_equal(wild[number]["swapped_weight"], 255 * mask[0])

    def test_every_second_face_is_behind_something(self, wild):
        share = np.mean([bool(sample["occluder"]) for sample in wild])
        assert 0.3 < share < 0.7
        assert all(sample["visible"] == 1 for sample in wild if not sample["occluder"])
        assert min(sample["visible"] for sample in wild) < 0.97

    def test_factors_are_wider_than_those_of_portraits(self):
        drawn = [wild_factors(0, index, images_per_person=1) for index in range(200)]
        yaw, pitch, roll = np.rad2deg([one.angles for one in drawn]).T
        assert yaw.std() > 17 and pitch.std() > 8 and 1.5 < roll.std() < 3
        assert np.abs(yaw).max() <= 50
        assert 0.015 < np.std([one.framing[2] for one in drawn]) < 0.04  # as landmarks in spoilt photos scatter
        assert [one.person for one in drawn[:3]] == [0, 1, 2]
        assert all(0 <= one.background.min() and one.background.max() <= 1 for one in drawn)

    def test_photograph_depends_on_seed_and_number_only(self):
        image = np.random.default_rng(0).random((64, 64, 3))
        assert_array_equal(photograph(1, 2, image), photograph(1, 2, image))
        spoilt = np.stack([photograph(1, number, image) for number in range(20)])
        assert len(np.unique(spoilt.reshape(20, -1), axis=0)) > 10

    def test_true_factors_come_back(self, tmp_path):
        prepared = synthesise_set(tmp_path / "set", design="wild", count=8, held_out=0.5, images_per_person=2)
        assert set(prepared.split("test")["person"][:]) == {2, 3}
        factors = factors_of(prepared, "test")
        stored = np.asarray(prepared.split("test")["expression"][:])
        assert_allclose(stored, np.stack([one.expression for one in factors]), atol=1e-6)
        again = synthesise_set(tmp_path / "set", design="wild", count=8, held_out=0.5, images_per_person=2)
        assert len(again) == 8
        with pytest.raises(InputError, match="exists already"):
            synthesise_set(tmp_path / "set", design="wild", count=9, held_out=0.5, images_per_person=2)


class TestOccluders:
    @pytest.fixture
    def sight(self):
        points = np.full((68, 2), 32.0)
        points[36:42], points[42:48] = (22.7, 31.6), (41.7, 31.6)
        points[17:27, 1], points[27], points[8] = 26, (32, 31), (32, 62)
        points[48:60], points[0], points[16] = (32, 52), (8, 33), (56, 33)
        return Sight(points, np.array([0.8, 0.6, 0.5]), np.array([0.2, 0.1, 0.1]), 0.9)

    @pytest.mark.parametrize("name", OCCLUDERS)
    def test_hides_a_part_of_the_picture(self, name, sight):
        shares = []
        for seed in range(8):
            image, seen = cover_image(np.full((64, 64, 3), 0.5), OCCLUDERS[name](sight, np.random.default_rng(seed)))
            assert 0 <= image.min() and image.max() <= 1 and 0 <= seen.min() and seen.max() <= 1
            assert_allclose(image[seen == 1], 0.5)
            shares.append(1 - seen.mean())
        assert 0.002 < np.mean(shares) < 0.4

    @pytest.mark.parametrize("name", OCCLUDERS)
    def test_hides_as_much_of_a_larger_picture(self, name, sight):
        for seed in range(3):
            seen = []
            for size in (64, 128):
                there = dataclasses.replace(sight, size=size)
                layers = OCCLUDERS[name](there, np.random.default_rng(seed))
                seen.append(cover_image(np.full((size, size, 3), 0.5), layers)[1])
            halved = seen[1].reshape(64, 2, 64, 2).mean(axis=(1, 3))
            assert_allclose(halved, seen[0], atol=0.13)  # samples lie more densely

    def test_no_hair_falls_from_a_bald_head(self, sight):
        image = np.full((64, 64, 3), 0.5)
        bald = dataclasses.replace(sight, bald=True)
        for head, expected in ((sight, True), (bald, False)):
            names = "+".join(occlude(0, number, image, head)[2] for number in range(60))
            assert ("hair" in names) is expected and "glasses" in names

    def test_sunglasses_hide_the_eyes(self, sight):
        _, seen = cover_image(np.zeros((64, 64, 3)), OCCLUDERS["sunglasses"](sight, np.random.default_rng(0)))
        assert seen[31, 22] < 0.4 and seen[31, 41] < 0.4 and seen[52, 32] == 1

    def test_glasses_show_the_eyes(self, sight):
        _, seen = cover_image(np.zeros((64, 64, 3)), OCCLUDERS["glasses"](sight, np.random.default_rng(0)))
        assert seen[31, 22] > 0.6 and seen.min() < 0.4
