"""Readers of pictures, and what is measured with them: swaps, interpolations, videos."""

import json

import numpy as np
import pytest
import torch
from found_faces import make_points
from torch.testing import assert_close

from facemodels.evaluation.after_swap import after_swap, slope
from facemodels.evaluation.interpolation import monotonicity
from facemodels.evaluation.jitter import jitter
from facemodels.evaluation.readers import (
    LandmarkReader,
    PersonReader,
    Readers,
    Reading,
    TaughtReader,
    reader_errors,
    teach_reader,
)
from facemodels.fitting.landmarks import Landmarks
from facemodels.fitting.shape import fit
from facemodels.rendering import euler_to_matrix

CHANNELS = {"expression": 0, "light": 1, "pose": 2}
"""Where pictures of these tests show their factors."""


def turned(yaw):
    still = torch.zeros(len(yaw))
    return euler_to_matrix(yaw, still, still).flatten(1)


class Colours:
    """Reads expression from red, light from green and yaw from blue; of black pictures nothing."""

    def read(self, images):
        red, green, blue = images.mean((2, 3)).T
        values = {"expression": torch.stack([red, 2 * red], 1), "light": green[:, None], "pose": turned(blue)}
        return Reading(values, red > 0)


def swap(source, target, factor):
    edited = source.clone()
    if factor in CHANNELS:
        edited[:, CHANNELS[factor]] = target[:, CHANNELS[factor]]
    return edited


def blend(source, target, factor, steps):
    amounts = torch.linspace(0, 1, steps)
    return torch.cat([torch.lerp(source, swap(source, target, factor), float(amount)) for amount in amounts])


@pytest.fixture
def pairs():
    colours = 0.1 + 0.8 * torch.rand(2, 12, 3, 1, 1)
    return colours.expand(-1, -1, -1, 8, 8)


class TestAfterSwap:
    def test_of_a_perfect_editor(self, pairs):
        result = after_swap(swap, *pairs, Colours(), ["expression", "pose", "light"])
        assert result.read == ("expression", "pose", "light") and result.found == 1 and result.pairs == 12
        np.testing.assert_allclose(result.moved, np.eye(3), atol=1e-5)
        yaw = torch.rad2deg((pairs[0] - pairs[1])[:, 2, 0, 0].abs()).mean()
        assert result.pose_degrees < 0.1 and result.unedited_pose_degrees == pytest.approx(float(yaw), rel=1e-3)

    def test_half_of_the_way_and_a_leak(self, pairs):
        def timid(source, target, factor):
            whole = torch.lerp(source, swap(source, target, factor), 0.5)
            return swap(whole, target, "light") if factor == "expression" else whole

        result = after_swap(timid, *pairs, Colours(), ["expression", "light"])
        assert result.moved[0, 0] == pytest.approx(0.5, abs=1e-4)
        assert result.moved[0, 2] == pytest.approx(1, abs=1e-4), "an expression swap brought the light"
        assert result.moved[1, 2] == pytest.approx(0.5, abs=1e-4)
        assert np.isnan(result.pose_degrees) and result.to_dict()["pose_degrees"] is None

    def test_reconstructions_are_where_edits_start(self, pairs):
        """What encoding and decoding change is no work of the swap."""

        def reddish(source, target, factor):
            return swap(source, target, factor) + torch.tensor([0.05, 0, 0])[:, None, None]

        assert after_swap(reddish, *pairs, Colours(), ["light"]).moved[0] == pytest.approx([0, 0, 1], abs=1e-4)

    def test_truth_comes_before_the_donor(self, pairs):
        truth = {"light": torch.lerp(*pairs, 0.5)}
        result = after_swap(swap, *pairs, Colours(), ["light"], truth)
        assert result.moved[0, 2] == pytest.approx(2, abs=1e-4)

    def test_faces_not_found_do_not_count(self, pairs):
        source, target = pairs.clone()
        target[:3] = 0
        result = after_swap(swap, source, target, Colours(), ["light"])
        assert result.found == 0.75 and result.moved[0, 2] == pytest.approx(1, abs=1e-4)
        nobody = after_swap(swap, source, torch.zeros_like(target), Colours(), ["pose"])
        assert nobody.found == 0 and np.isnan(nobody.moved).all()
        assert json.loads(json.dumps(nobody.to_dict()))["moved"] == [[None] * 3]

    def test_bad_input(self, pairs):
        with pytest.raises(ValueError, match="as many donors as sources, got 12 and 1"):
            after_swap(swap, pairs[0], pairs[1][:1], Colours())

    def test_slope(self):
        asked = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        assert slope(0.25 * asked, asked) == pytest.approx(0.25)
        assert slope(asked.flip(1), asked) == 0 and np.isnan(slope(asked, 0 * asked))


class TestMonotonicity:
    def test_of_a_straight_way(self, pairs):
        result = monotonicity(blend, *pairs, Colours(), "expression")
        assert result.spearman == 1 and result.deviation == 0 and result.pairs == 12
        assert result.course == pytest.approx(np.linspace(0, 1, 11), abs=1e-5)
        assert json.loads(json.dumps(result.to_dict())) == result.to_dict()

    def test_of_a_way_back(self, pairs):
        def back(source, target, factor, steps):
            return blend(source, target, factor, steps).flip(0)

        assert monotonicity(back, *pairs, Colours(), "light").spearman == -1

    def test_of_a_code_that_does_nothing(self, pairs):
        result = monotonicity(
            lambda source, target, factor, steps: source.expand(steps, -1, -1, -1), *pairs, Colours(), "pose"
        )
        assert result.spearman == 0 and result.course == pytest.approx([0] * 11, abs=1e-6)

    def test_of_what_cannot_be_read(self, pairs):
        assert monotonicity(blend, *pairs, Colours(), "identity") is None
        assert monotonicity(blend, *(0 * pairs), Colours(), "pose") is None
        with pytest.raises(ValueError, match="as many donors as sources"):
            monotonicity(blend, pairs[0], pairs[1][:2], Colours(), "pose")


class TestJitter:
    def test_steady_motion_has_none(self):
        frames = torch.linspace(0.1, 0.9, 9)[:, None, None, None].expand(-1, 3, 4, 4)
        result = jitter(frames, Colours())
        assert result.pixels < 1e-6 and result.readings["light"] < 1e-6 and result.frames == 9
        assert result.readings["pose"] < 1e-3

    def test_by_hand(self):
        """To and fro by a tenth: every second difference is two tenths, of the yaw in radians."""
        frames = 0.5 + 0.1 * (torch.arange(6) % 2)[:, None, None, None].expand(-1, 3, 4, 4)
        result = jitter(frames, Colours())
        assert result.pixels == pytest.approx(0.2, abs=1e-6) == result.readings["light"]
        assert result.readings["pose"] == pytest.approx(np.rad2deg(0.2) / 3**0.5, rel=1e-3)

    def test_lost_frames_do_not_count(self):
        frames = torch.linspace(0.1, 0.9, 9)[:, None, None, None].repeat(1, 3, 4, 4)
        frames[4] = 0
        result = jitter(frames, Colours())
        assert result.readings["light"] < 1e-6 and result.frames == 8 and result.pixels > 0.1

    def test_too_short(self):
        with pytest.raises(ValueError, match="three frames or more, got 2"):
            jitter(torch.zeros(2, 3, 4, 4))


@pytest.fixture(scope="module")
def taught():
    """Grey pictures with a bright disc: where it lies is the expression, how bright all is the light."""
    random = np.random.default_rng(0)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    place = torch.from_numpy(random.uniform(20, 44, (60, 1))).float()
    light = torch.from_numpy(random.uniform(0.4, 1, (60, 1))).float()
    disc = ((x - place[..., None]).square() + (y - 32).square() < 100).float()
    images = (light[..., None] * (0.3 + 0.6 * disc))[:, None].expand(-1, 3, -1, -1)
    return images, {"expression": place, "light": light, "pose": turned((place[:, 0] - 32) / 20)}


class TestTaughtReader:
    def test_learns(self, taught):
        images, values = taught
        reader = TaughtReader(images[:45], {name: value[:45] for name, value in values.items()})
        reading = reader.read(images[45:])
        assert reading.found.all() and len(reading) == 15
        errors = reader_errors(reading, {name: value[45:] for name, value in values.items()})
        assert errors["r2_of_expression"] > 0.9 and errors["r2_of_light"] > 0.8 and errors["pose_degrees"] < 8
        pose = reading.values["pose"].unflatten(1, (3, 3))
        assert_close(pose @ pose.mT, torch.eye(3).expand(15, 3, 3), atol=1e-4, rtol=0)

    def test_from_prepared_faces(self, prepared):
        faces = prepared.faces("train")
        reading = teach_reader(faces, components=5).read(faces.pictures()[:2])
        assert {name: value.shape[1] for name, value in reading.values.items()} == {
            "expression": 3,
            "pose": 9,
            "light": 9,
        }

    def test_beside_other_readers(self, pairs):
        class Verifier:
            def embed(self, images):
                return images.mean((2, 3))

        reading = Readers(Colours(), PersonReader(Verifier())).read(pairs[0])
        assert_close(reading.values["identity"], pairs[0].mean((2, 3)))
        assert_close(reading.values["light"], Colours().read(pairs[0]).values["light"])
        nothing = Readers(PersonReader(Verifier()), Colours()).read(0 * pairs[0])
        assert not nothing.found.any() and set(nothing.values) == {"expression", "light", "pose", "identity"}

    def test_bad_input(self):
        with pytest.raises(ValueError, match="ten pictures or more and a row of values for each, got 4 pictures"):
            TaughtReader(torch.rand(4, 3, 64, 64), {"light": torch.rand(4, 1)})
        with pytest.raises(ValueError, match="got 12 pictures and 3 rows of light"):
            TaughtReader(torch.rand(12, 3, 64, 64), {"light": torch.rand(3, 1)})


class TestLandmarkReader:
    class Detector:
        """Sees in each picture the points that its first pixel's brightness counts."""

        def __init__(self, points):
            self.points = points

        def detect(self, image):
            assert image.dtype == np.uint8 and image.shape == (128, 128, 3)
            number = int(image[0, 0, 0])
            return Landmarks.from_points(self.points[number]) if number < len(self.points) else None

    def test_reads_what_the_landmarks_say(self, morphable):
        coefficients = torch.randn(2, morphable.n_identity), torch.randn(2, morphable.n_expression)
        angles = (torch.tensor([0.2, -0.3]), torch.tensor([0.1, 0.0]), torch.zeros(2))
        points = make_points(morphable, angles, *coefficients)
        images = torch.zeros(3, 3, 128, 128)
        images[:, :, 0, 0] = torch.tensor([1, 200, 0])[:, None] / 255
        reading = LandmarkReader(self.Detector(points), morphable).read(images)
        assert reading.found.tolist() == [True, False, True]
        expected = fit(torch.from_numpy(points), morphable)
        assert_close(reading.values["expression"][[2, 0]], expected.expression, atol=1e-4, rtol=1e-3)
        assert_close(reading.values["pose"][[2, 0]], expected.rotation.flatten(1), atol=1e-4, rtol=1e-3)
        errors = reader_errors(
            reading, {"pose": euler_to_matrix(*angles).flatten(1)[[1, 0, 0]], "light": torch.zeros(3, 9)}
        )
        assert errors["found"] == pytest.approx(2 / 3) and set(errors) == {"found", "pose_degrees"}

    def test_of_nobody(self, morphable):
        reading = LandmarkReader(self.Detector([]), morphable).read(torch.zeros(2, 3, 128, 128))
        assert not reading.found.any() and reading.values["pose"].shape == (2, 9)
