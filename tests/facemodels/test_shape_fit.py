from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from facemodels.fitting.landmarks import INNER_POINTS
from facemodels.fitting.shape import FitConfig, correspond, fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, project_weak_perspective

FAITHFUL = FitConfig(identity_prior=1e-6, expression_prior=1e-6, depth_weight=1.0, rounds=2000)
"""Trusts the landmarks alone, for points that are exact."""


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def small(morphable):
    """A model with few components, smooth random waves over the head, all of which the landmarks show."""
    generator = torch.Generator().manual_seed(0)
    waves = 0.03 * torch.randn(12, 3, 3, generator=generator)  # radians per mm
    phase = torch.randn(12, 1, 3, generator=generator)
    components = 3 * torch.sin(morphable.mean @ waves + phase)
    return replace(
        morphable,
        identity=components[:8],
        expression=components[8:],
        expression_names=morphable.expression_names[:4],
    )


def project(model, identity, expression, rotation, scale, shift):
    """MediaPipe's points of known faces: pixel x, pixel y, depth in pixels."""
    vertices = model.vertices(identity, expression)
    match = correspond(model)
    marked = project_weak_perspective(vertices[:, match.vertices], rotation, scale, shift)
    points = torch.full((len(identity), 478, 3), torch.nan)
    points[:, match.points] = torch.cat([marked[..., :2], marked[..., 2:] * scale[:, None, None]], dim=2)
    return points


@pytest.fixture
def faces(small):
    generator = torch.Generator().manual_seed(0)
    count = 6
    angles = (torch.rand(3, count, generator=generator) - 0.5) * torch.tensor([[1.4], [0.8], [0.6]])
    return (
        torch.randn(count, 8, generator=generator),
        torch.randn(count, 4, generator=generator),
        euler_to_matrix(*angles),
        0.25 + 0.1 * torch.rand(count, generator=generator),
        32 + 5 * torch.randn(count, 2, generator=generator),
    )


def angle_between(first, second):
    """Angle of the rotation between two rotations, in degrees; exact for small angles."""
    difference = (first.mT @ second - torch.eye(3)).flatten(1).norm(dim=1)
    return torch.rad2deg(2 * torch.asin((difference / 8**0.5).clamp(max=1)))


class TestFit:
    def test_recovers_camera_and_shape(self, small, faces):
        identity, expression, rotation, scale, shift = faces
        found = fit(project(small, *faces), small, config=FAITHFUL)
        assert angle_between(found.rotation, rotation).max() < 0.1
        assert_close(found.scale, scale, atol=0, rtol=2e-3)
        assert_close(found.shift, shift, atol=0.1, rtol=0)
        assert_close(found.identity, identity, atol=0.05, rtol=0)
        assert_close(found.expression, expression, atol=0.05, rtol=0)
        assert found.error.max() < 0.01

    def test_signs_of_the_angles(self, small):
        """A head turned to the right of the image has its nose to the right of its eyes."""
        still = torch.zeros(1, 8), torch.zeros(1, 4)
        yaw, pitch, roll = (torch.tensor([value]) for value in (0.4, 0.2, 0.1))
        points = project(small, *still, euler_to_matrix(yaw, pitch, roll), torch.ones(1), torch.zeros(1, 2))
        eyes = (points[0, 33] + points[0, 263]) / 2
        assert points[0, 4, 0] > eyes[0]
        assert points[0, 33, 1] > points[0, 263, 1]  # anticlockwise: the eye on the right of the image is higher
        rotation = fit(points, small).rotation[0]
        assert rotation[0, 2] > 0.3  # the viewing direction of the face, R e_z, points to the right
        assert rotation[1, 2] < -0.1  # and down

    def test_default_prior_keeps_the_pose(self, morphable, faces):
        generator = torch.Generator().manual_seed(1)
        identity = torch.randn(6, morphable.n_identity, generator=generator)
        expression = torch.randn(6, morphable.n_expression, generator=generator)
        found = fit(project(morphable, identity, expression, *faces[2:]), morphable)
        assert angle_between(found.rotation, faces[2]).median() < 5
        assert found.error.max() < 1

    def test_a_batch_is_its_faces(self, small, faces):
        points = project(small, *faces)
        together = fit(points, small)
        for number in range(len(points)):
            alone = fit(points[number : number + 1], small)
            for name, value in vars(alone).items():
                assert_close(getattr(together, name)[number : number + 1], value, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("zoom", [0.1, 7.0])
    def test_scales_with_the_image(self, small, faces, zoom):
        points = project(small, *faces)
        found, zoomed = fit(points, small), fit(zoom * points, small)
        assert_close(zoomed.identity, found.identity, atol=1e-4, rtol=1e-4)
        assert_close(zoomed.scale, zoom * found.scale)
        assert_close(zoomed.error, zoom * found.error)

    def test_mean_error_is_what_it_says(self, small, faces):
        points = project(small, *faces)
        points[:, :, 0] += torch.randn(478, generator=torch.Generator().manual_seed(1))
        found = fit(points, small)
        match = correspond(small)
        marked = small.vertices(found.identity, found.expression)[:, match.vertices]
        pixels = project_weak_perspective(marked, found.rotation, found.scale, found.shift)[..., :2]
        off = (pixels - points[:, match.points, :2]).square().sum(2).mean(1).sqrt()
        assert_close(found.error, off, atol=1e-3, rtol=1e-3)

    def test_no_faces(self, small):
        assert len(fit(torch.zeros(0, 478, 3), small)) == 0

    def test_rejects_other_points(self, small):
        with pytest.raises(ValueError, match=r"fit: landmarks must have shape \(faces, 478, 3\), got \(478, 3\)"):
            fit(torch.zeros(478, 3), small)

    def test_rows(self, small, faces):
        found = fit(project(small, *faces), small)
        assert_close(found[1:3].rotation, found.rotation[1:3])
        assert len(found[found.scale > 0]) == len(found)


class TestCorrespond:
    def test_inner_points_alone(self, morphable):
        match = correspond(morphable)
        assert match.points.tolist() == list(INNER_POINTS)
        assert_close(match.vertices, morphable.landmarks[17:])

    def test_dense_points_find_their_vertices(self, morphable):
        """A canonical face made of the model's own vertices, in cm and moved, is matched to these vertices."""
        generator = torch.Generator().manual_seed(0)
        on_face = morphable.triangles[morphable.face].unique()
        chosen = on_face[torch.randperm(len(on_face), generator=generator)[:468]]
        chosen[torch.tensor(INNER_POINTS)] = morphable.landmarks[17:]
        turn = euler_to_matrix(*torch.tensor([0.2, -0.1, 0.3]))
        canonical = 0.1 * morphable.mean[chosen] @ turn.T + 3
        match = correspond(morphable, canonical.numpy())
        assert len(match.points) > 400
        distance = (morphable.mean[match.vertices] - morphable.mean[chosen[match.points]]).norm(dim=1)
        assert (distance < 1.0).float().mean() > 0.95
        assert match.weights[:51].min() == 1 and match.weights[51:].max() == FitConfig().dense_weight
