import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.testing import assert_close

from facemodels.fitting.shape import Fit
from facemodels.fitting.temporal import move_camera, smooth, whittaker
from facemodels.rendering import euler_to_matrix, project_weak_perspective

COUNT = 60


def noise(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def moving_head(tremble=0.0, count=COUNT):
    """A head that turns and drifts slowly, with noise of so many degrees, pixels and tenths of a deviation."""
    time = torch.linspace(0, 1, count)
    angles = torch.stack([0.5 * torch.sin(3 * time), 0.2 * time, 0 * time])
    return Fit(
        rotation=euler_to_matrix(*(angles + math.radians(tremble) * noise(3, count, seed=0))),
        scale=0.4 + 0.05 * time,
        shift=torch.stack([30 + 8 * time, 35 - 3 * time], dim=1) + tremble * noise(count, 2, seed=1),
        identity=torch.ones(count, 4) + 0.1 * tremble * noise(count, 4, seed=2),
        expression=torch.sin(4 * time)[:, None].repeat(1, 3) + 0.1 * tremble * noise(count, 3, seed=3),
        error=torch.full((count,), 0.7),
    )


def same_crops(count=COUNT):
    return torch.eye(2, 3).repeat(count, 1, 1)


class TestWhittaker:
    def test_is_the_minimiser(self):
        """Against the dense normal equations, with frames missing."""
        random = np.random.default_rng(0)
        frames = np.array([3, 4, 6, 7, 8, 11, 12, 13])
        values = random.normal(size=(8, 2))
        length = 11
        weight = np.zeros(length)
        weight[frames - 3] = 1
        second = np.diff(np.eye(length), 2, axis=0)
        right = np.zeros((length, 2))
        right[frames - 3] = values
        expected = np.linalg.solve(np.diag(weight) + 5 * second.T @ second, right)[frames - 3]
        assert_allclose(whittaker(values, frames, 5.0), expected, atol=1e-10)

    def test_a_steady_motion_costs_nothing(self):
        line = np.stack([np.arange(20.0), 3 - 2 * np.arange(20.0)], axis=1)
        assert_allclose(whittaker(line, np.arange(20), 1e4), line, atol=1e-6)

    def test_halves_what_repeats_every_eleven_frames(self):
        time = np.arange(400)
        for period, kept in ((11.2, 0.5), (35, 0.99)):
            wave = np.sin(2 * np.pi * time / period)[:, None]
            smoothed = whittaker(wave, time, 10.0)[100:300]
            assert abs(np.abs(smoothed).max() - kept) < 0.02


class TestMoveCamera:
    def test_moves_what_is_projected(self):
        fit = moving_head(count=5)
        angle, scale = 0.3, 1.7
        plane = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        transform = torch.cat([plane, torch.tensor([[4.0], [-2.0]])], dim=1)
        moved = move_camera(fit, transform.repeat(5, 1, 1))
        points = noise(5, 7, 3, seed=0) * 50
        before = project_weak_perspective(points, fit.rotation, fit.scale, fit.shift)[..., :2]
        after = project_weak_perspective(points, moved.rotation, moved.scale, moved.shift)[..., :2]
        assert_close(after, before @ plane.T + transform[:, 2], atol=1e-3, rtol=0)


class TestSmooth:
    def test_takes_the_tremble_out(self):
        truth, seen = moving_head(), moving_head(tremble=1.0)
        found = smooth(seen, range(COUNT), ["a"] * COUNT, same_crops())
        for name, share in (("rotation", 0.6), ("shift", 0.6), ("expression", 0.6), ("identity", 0.3)):
            before = (getattr(seen, name) - getattr(truth, name)).square().mean().sqrt()
            after = (getattr(found, name) - getattr(truth, name)).square().mean().sqrt()
            assert after < share * before, name
        assert_close(found.rotation @ found.rotation.mT, torch.eye(3).expand(COUNT, 3, 3), atol=1e-5, rtol=0)

    def test_nothing_to_smooth(self):
        fit = moving_head(tremble=1.0)
        assert smooth(fit, range(COUNT), ["a"] * COUNT, same_crops(), strength=0) is fit
        two = fit[:2]
        assert smooth(two, range(2), ["a"] * 2, same_crops(2)) is two

    def test_other_clips_and_jumps_are_other_shots(self):
        fit = moving_head(tremble=1.0)
        clips = ["a"] * 30 + ["b"] * 30
        apart = smooth(fit, [*range(30), *range(30)], clips, same_crops())
        alone = smooth(fit[:30], range(30), ["a"] * 30, same_crops(30))
        assert_close(apart[:30].shift, alone.shift)
        jumped = Fit(
            **{**vars(fit), "shift": fit.shift + torch.tensor([40.0, 0.0]) * (torch.arange(COUNT) >= 30)[:, None]}
        )
        assert_close(smooth(jumped, range(COUNT), ["a"] * COUNT, same_crops())[:30].shift, alone.shift)

    @pytest.mark.parametrize(("gap", "goes_on"), [(5, True), (6, False)])
    def test_more_than_five_frames_without_a_face_end_a_shot(self, gap, goes_on):
        fit = moving_head(tremble=1.0)
        found = smooth(fit, [*range(30), *range(30 + gap, 60 + gap)], ["a"] * COUNT, same_crops())
        alone = smooth(fit[:30], range(30), ["a"] * 30, same_crops(30))
        assert torch.allclose(found[:30].shift, alone.shift, atol=1e-6) != goes_on

    def test_crops_that_tremble(self):
        """Cameras move steadily in the photo; crops that jump about must not spoil that."""
        truth = moving_head()
        transforms = same_crops()
        transforms[:, :, 2] = 3 * noise(COUNT, 2, seed=5)
        seen = move_camera(truth, transforms)
        found = smooth(seen, range(COUNT), ["a"] * COUNT, transforms)
        assert_close(found.shift, seen.shift, atol=0.05, rtol=0)

    def test_rejects_negative_strength(self):
        with pytest.raises(ValueError, match="a strength from 0 to 1e\\+09, got -1"):
            smooth(moving_head(), range(COUNT), ["a"] * COUNT, same_crops(), strength=-1)
