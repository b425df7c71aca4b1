"""MediaPipe's points on the built-in head: the table, how it is found, and what it is good for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial import KDTree
from torch.testing import assert_close

from facemodels.data.factorial import cell_factors
from facemodels.data.synthetic import aligned_camera, draw
from facemodels.errors import InputError
from facemodels.evaluation.calibration import Sightings, look_at_heads, nearest_vertices
from facemodels.evaluation.measures import angle_between
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.landmarks import INNER_POINTS, MediaPipeDetector, canonical_face, find_model
from facemodels.fitting.mirror import MIRRORED_POINTS
from facemodels.fitting.shape import correspond, fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, project_weak_perspective


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def detector():
    try:
        made = MediaPipeDetector()
    except InputError as error:
        pytest.skip(str(error))
    yield made
    made.close()


class TestTable:
    def test_mirrored_points_mark_mirrored_vertices(self, morphable):
        match = mediapipe_correspondence(morphable)
        vertex = dict(zip(match.points.tolist(), match.vertices.tolist(), strict=True))
        assert len(vertex) == len(match.points) > 300
        for point, marked in vertex.items():
            other = morphable.mean[vertex[MIRRORED_POINTS[point]]] * torch.tensor([-1.0, 1.0, 1.0])
            assert_close(other, morphable.mean[marked], atol=1e-3, rtol=0)

    def test_points_lie_near_their_place_in_anatomy(self, morphable):
        """Brows reach farthest from it; a shift of one row in the table would be seen."""
        match = mediapipe_correspondence(morphable)
        vertex = dict(zip(match.points.tolist(), match.vertices.tolist(), strict=True))
        pairs = [
            (vertex[p], v) for p, v in zip(INNER_POINTS, morphable.landmarks[17:].tolist(), strict=True) if p in vertex
        ]
        assert len(pairs) >= 40
        first, second = (morphable.mean[list(numbers)] for numbers in zip(*pairs, strict=True))
        far = (first - second).norm(dim=1)
        assert far.median() < 4 and far.max() < 15

    def test_inner_points_count_in_full(self, morphable):
        match = mediapipe_correspondence(morphable)
        inner = torch.isin(match.points, torch.tensor(INNER_POINTS))
        assert (match.weights[inner] == 1).all() and (match.weights[~inner] < 1).all()

    def test_other_models_are_warped_as_before(self, morphable):
        try:
            canonical = canonical_face(find_model())
        except InputError as error:
            pytest.skip(str(error))
        other = replace(morphable, mean=morphable.mean + 1)
        found, expected = mediapipe_correspondence(other), correspond(other, canonical)
        assert_close(found.vertices, expected.vertices)
        assert found.depth_weight == 1


class TestNearestVertices:
    def test_finds_the_vertices_that_points_were_put_on(self, morphable):
        generator = torch.Generator().manual_seed(0)
        _, mirrored = KDTree(morphable.mean.numpy()).query(morphable.mean.numpy() * [-1, 1, 1])
        near = (morphable.mean - morphable.mean[morphable.landmarks[30]]).norm(dim=1) < 40
        skin = near & (morphable.mean[:, 2] > morphable.mean[near, 2].median())
        middle = skin & (torch.from_numpy(mirrored) == torch.arange(len(mirrored)))
        chosen = torch.empty(468, dtype=torch.int64)
        for point, partner in enumerate(MIRRORED_POINTS[:468]):
            among = (middle if partner == point else skin).nonzero()[:, 0]
            chosen[point] = among[torch.randint(len(among), (), generator=generator)]
            if partner < point:
                chosen[point] = int(mirrored[chosen[partner]])
        angles = 0.3 * torch.randn(40, 3, generator=generator)
        scale, shift = torch.full((40,), 2.0), torch.full((40, 2), 64.0)
        vertices = morphable.vertices(0.5 * torch.randn(40, morphable.n_identity, generator=generator))
        screen = project_weak_perspective(vertices, euler_to_matrix(*angles.T), scale, shift)[..., :2]
        points = screen[:, chosen] + 0.2 * torch.randn(40, 468, 2, generator=generator)
        found, distance = nearest_vertices(Sightings(points, screen, scale))
        off = (morphable.mean[found] - morphable.mean[chosen]).norm(dim=1)
        assert (off < 0.5).float().mean() > 0.95
        assert distance.median() < 0.3


class TestDepthWeight:
    """The camera in which depth counts less, of faces whose shape is known."""

    @pytest.fixture
    def rigid(self, morphable):
        return replace(morphable, identity=0 * morphable.identity, expression=0 * morphable.expression)

    @pytest.fixture
    def flattened(self, rigid):
        """Heads as a detector sees them that takes them for flatter than they are."""
        generator = torch.Generator().manual_seed(0)
        match = replace(correspond(rigid), depth_weight=0.02)
        rotation = euler_to_matrix(*(torch.rand(3, 5, generator=generator) - 0.5))
        marked = rigid.mean[match.vertices].expand(5, -1, -1)
        screen = project_weak_perspective(marked, rotation, torch.full((5,), 0.4), torch.full((5, 2), 32.0))
        points = torch.zeros(5, 478, 3)
        points[:, match.points] = screen * torch.tensor([1.0, 1.0, 0.4 * 0.6])
        return match, points, rotation

    def test_flattened_depth_turns_no_head(self, rigid, flattened):
        match, points, rotation = flattened
        plain = angle_between(fit(points, rigid, replace(match, depth_weight=1.0)).rotation, rotation)
        found = fit(points, rigid, match)
        assert angle_between(found.rotation, rotation).max() < plain.max() / 5
        assert_close(found.scale, torch.full((5,), 0.4), atol=0, rtol=0.01)

    def test_is_the_optimum(self, rigid, flattened):
        match, points, _ = flattened
        points = points + torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
        found = fit(points, rigid, match)
        source = rigid.mean[match.vertices].double().numpy()
        weights = np.sqrt([1, 1, match.depth_weight])
        for face in range(len(points)):
            target = points[face, match.points].double().numpy() * [1, -1, -1]

            def residual(camera, target=target):
                rotation = euler_to_matrix(*torch.from_numpy(camera[:3])).numpy()
                return ((camera[3] * source @ rotation.T + camera[4:] - target) * weights).ravel()

            best = least_squares(residual, [0, 0, 0, 0.4, 32, -32, 0], x_scale=[1, 1, 1, 1, 30, 30, 30]).x
            rotation = euler_to_matrix(*torch.from_numpy(best[:3]))
            assert_close(found.rotation[face].double(), rotation, atol=1e-4, rtol=0)
            assert_close(found.scale[face].double(), torch.tensor(best[3]), atol=1e-5, rtol=0)


@pytest.mark.photos
class TestOnRenders:
    def test_table_is_what_the_detector_sees(self, morphable, detector):
        """Other heads than those it was made of; the head or its colours have changed if this fails: make it anew."""
        sightings = look_at_heads(detector, 32, seed=5)
        match = mediapipe_correspondence(morphable)
        seen = sightings.points[:, match.points] - sightings.vertices[:, match.vertices]
        far = seen.norm(dim=2) / sightings.scale[:, None]
        inner = match.weights == 1
        assert far[:, inner].median() < 3.0
        plain = correspond(morphable)
        before = sightings.points[:, plain.points] - sightings.vertices[:, plain.vertices]
        assert far[:, inner].mean() < (before.norm(dim=2) / sightings.scale[:, None]).mean()

    def test_rotation_of_held_out_persons(self, morphable, detector):
        factors = [cell_factors(0, number) for number in range(43 * 192, 54 * 192, 52)]
        identity, expression, angles, framing = (
            torch.from_numpy(np.stack([getattr(one, name) for one in factors])).float()
            for name in ("identity", "expression", "angles", "framing")
        )
        truth, _, _ = aligned_camera(morphable.vertices(identity, expression), angles, framing)
        images = (255 * draw(factors)[0]).round().byte().permute(0, 2, 3, 1).numpy()
        found = [detector.detect(image) for image in images]
        seen = [number for number, landmarks in enumerate(found) if landmarks is not None]
        points = torch.from_numpy(np.stack([landmarks.points for landmarks in found if landmarks is not None]))
        found_fit = fit(points.float(), morphable, mediapipe_correspondence(morphable))
        assert len(seen) > 0.9 * len(found)
        assert found_fit.error.median() < 0.55  # 0.72 with the warped canonical face
        assert angle_between(found_fit.rotation, truth[seen]).median() < 7
