import numpy as np
import pytest
import torch
from drawn_faces import face_points
from torch.testing import assert_close

from facemodels.baselines.landmark_warp import LandmarkWarp


def gradient(size):
    """Red is x, green is y, both from 0 to 1."""
    along = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])


def test_nothing_moves():
    picture = torch.rand(3, 48, 48)
    points = face_points()
    assert_close(
        LandmarkWarp(picture, points)(np.stack([points, points])), picture.expand(2, -1, -1, -1), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("size", [64, 128])
def test_landmarks_carry_what_they_lie_on(size):
    """The colour of a landmark's old place is found at its new one, between the triangles of neighbours, too."""
    start = face_points()
    around = start[:, :2] - 32
    end = start.copy()
    end[:, :2] += 4 * np.exp(-np.square(around).sum(1) / 400)[:, None] * np.array([1.0, -0.5])  # one to one
    warped = LandmarkWarp(gradient(size), start)(end[None])[0]
    inner = np.abs(around).max(1) < 16
    place = (end[inner, :2] * size / 64).astype(int)
    found = warped[:2, place[:, 1], place[:, 0]].T * 64
    assert (found - torch.from_numpy(start[inner, :2])).abs().max() < 1.5  # of 64 pixels; moved by up to 4


def test_the_nearer_part_covers_the_other():
    start = face_points()
    near = (start[:, 0] > 32) & (start[:, 0] < 50)
    start[:, 2] = np.where(near, -20, 0)
    end = start.copy()
    end[near, 0] -= 16  # over what lies to the left
    warped = LandmarkWarp(gradient(64), start)(end[None])[0]
    assert warped[0, 26:38, 20:28].mean() > 0.5  # what was right of the middle
    assert torch.isfinite(warped).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"the picture must be \(3, size, size\), got \(3, 4, 5\)"):
        LandmarkWarp(torch.zeros(3, 4, 5), face_points())
    with pytest.raises(ValueError, match=r"landmarks must have shape \(478, 3\), got \(468, 3\)"):
        LandmarkWarp(torch.zeros(3, 8, 8), face_points()[:468])
    with pytest.raises(ValueError, match=r"landmarks must have shape \(n, 478, 3\), got \(478, 3\)"):
        LandmarkWarp(torch.zeros(3, 8, 8), face_points())(face_points())
