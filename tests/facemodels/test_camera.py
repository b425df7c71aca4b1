import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from facemodels.rendering import euler_to_matrix, matrix_to_euler, project_perspective, project_weak_perspective

angle = st.floats(-1.4, 1.4)


def rotation(yaw=0.0, pitch=0.0, roll=0.0):
    return euler_to_matrix(*torch.tensor([yaw, pitch, roll], dtype=torch.float64))


class TestEulerToMatrix:
    @pytest.mark.parametrize(
        ("angles", "axis", "image"),
        [
            ({"yaw": math.pi / 2}, [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]),  # the nose turns to the right
            ({"pitch": math.pi / 2}, [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]),  # the nose tips down
            ({"roll": math.pi / 2}, [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]),  # the left ear goes up
        ],
    )
    def test_directions(self, angles, axis, image):
        assert_close(
            rotation(**angles) @ torch.tensor(axis, dtype=torch.float64), torch.tensor(image, dtype=torch.float64)
        )

    @given(angle, angle, angle)
    def test_is_a_rotation(self, yaw, pitch, roll):
        matrix = rotation(yaw, pitch, roll)
        assert_close(matrix @ matrix.T, torch.eye(3, dtype=torch.float64))
        assert_close(torch.linalg.det(matrix), torch.tensor(1.0, dtype=torch.float64))

    @given(angle, angle, angle)
    def test_angles_come_back(self, yaw, pitch, roll):
        angles = torch.stack(matrix_to_euler(rotation(yaw, pitch, roll)))
        assert_close(angles, torch.tensor([yaw, pitch, roll], dtype=torch.float64))

    def test_leading_dimensions_broadcast(self):
        assert euler_to_matrix(torch.zeros(4, 1), torch.zeros(3), torch.tensor(0.0)).shape == (4, 3, 3, 3)


class TestProjections:
    def test_weak_perspective_ignores_depth(self):
        points = torch.tensor([[[10.0, 20.0, -50.0], [10.0, 20.0, 80.0]]])
        screen = project_weak_perspective(points, torch.eye(3)[None], torch.tensor([0.5]), torch.tensor([[32.0, 30.0]]))
        assert_close(screen[0], torch.tensor([[37.0, 20.0, 50.0], [37.0, 20.0, -80.0]]))

    def test_perspective_shows_near_things_larger(self):
        points = torch.tensor([[[10.0, 0.0, 0.0], [10.0, 0.0, 250.0]]])
        away, centre = torch.tensor([[0.0, 0.0, -500.0]]), torch.tensor([[32.0, 32.0]])
        screen = project_perspective(points, torch.eye(3)[None], away, torch.tensor([100.0]), centre)
        assert_close(screen[0], torch.tensor([[34.0, 32.0, 500.0], [36.0, 32.0, 250.0]]))

    def test_perspective_from_far_is_weak_perspective(self):
        points = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(0)) * 80
        turn, shift = rotation(0.4, -0.2, 0.1).float().expand(2, 3, 3), torch.tensor([[32.0, 32.0], [30.0, 35.0]])
        distance, scale = 1e6, torch.tensor([0.4, 0.5])
        away = torch.tensor([[0.0, 0.0, -distance]]).expand(2, 3)
        near = project_perspective(points, turn, away, scale * distance, shift)
        assert_close(near[..., :2], project_weak_perspective(points, turn, scale, shift)[..., :2], atol=0.02, rtol=0)
