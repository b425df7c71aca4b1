"""Vertex errors against shapes that are known, and on a synthetic set."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig
from facemodels.data.dataset import PreparedSet
from facemodels.data.synthetic import synthesise_set
from facemodels.errors import InputError
from facemodels.evaluation.shapes import fitted_shapes, shape_errors, vertex_errors
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.landmarks import Landmarks
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix


@pytest.fixture(scope="module")
def procedural():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> PreparedSet:
    return synthesise_set(tmp_path_factory.mktemp("sets") / "ff", design="facefactors", count=32, held_out=0.0)


@pytest.fixture
def network(procedural):
    config = NetworkConfig(channels=(4, 4, 4), intermediate=8, background=4, mask=4, identity=6, expression=3)
    return NeuroTensorialAutoencoder(dataclasses.replace(config, shape_space="coordinates"), procedural).eval()


class TestVertexErrors:
    def test_of_a_moved_face_is_nothing(self, procedural):
        turn = euler_to_matrix(torch.tensor([0.4]), torch.tensor([-0.3]), torch.tensor([0.2]))
        moved = procedural.mean @ turn.mT + torch.tensor([10.0, -20.0, 30.0])
        assert vertex_errors(moved, procedural.mean[None], procedural) < 1e-3

    def test_of_a_larger_face_only_a_similarity_is_free(self, procedural):
        larger, truth = 1.05 * procedural.mean[None], procedural.mean[None]
        used = procedural.triangles[procedural.face].unique()
        expected = 0.05 * (procedural.mean[used] - procedural.mean[used].mean(0)).norm(dim=1).mean()
        assert_close(vertex_errors(larger, truth, procedural), expected[None], rtol=1e-3, atol=0)
        assert vertex_errors(larger, truth, procedural, "similarity") < 1e-3

    def test_does_not_mirror(self, procedural):
        mirrored = procedural.mean * torch.tensor([-1.0, 1.0, 1.0])
        lopsided = procedural.vertices(3 * torch.eye(procedural.n_identity)[:1])
        assert vertex_errors(mirrored[None] @ torch.eye(3), lopsided, procedural) > 0.5

    def test_counts_the_face_alone(self, procedural):
        changed = procedural.mean.clone()
        used = procedural.triangles[procedural.face].unique()
        rest = torch.ones(len(changed), dtype=torch.bool)
        rest[used] = False
        changed[rest] += 40
        assert vertex_errors(changed[None], procedural.mean[None], procedural) < 1e-4

    def test_refusals(self, procedural):
        mean = procedural.mean[None]
        with pytest.raises(ValueError, match="there is no alignment 'affine'"):
            vertex_errors(mean, mean, procedural, "affine")
        with pytest.raises(ValueError, match=r"shapes must be alike, got \(1, 9375, 3\) and \(2, 9375, 3\)"):
            vertex_errors(mean, mean.expand(2, -1, -1), procedural)


class Knowing:
    """A detector that is told the answers: the true landmarks of the faces, one after the other, of every second."""

    def __init__(self, faces, morphable):
        match = mediapipe_correspondence(morphable)
        vertices = morphable.vertices(faces.identity, faces.expression) @ faces.rotation.unflatten(1, (3, 3)).mT
        self.points = torch.zeros(len(faces), 478, 3)
        self.points[:, match.points] = vertices[:, match.vertices] * torch.tensor([1.2, -1.2, -1.2]) + 128
        self.seen = 0

    def detect(self, image):
        self.seen += 1
        assert image.shape == (256, 256, 3)
        if self.seen % 2 == 0:
            return None
        return Landmarks.from_points(self.points[self.seen - 1].numpy())


def test_on_a_set(rendered, network, procedural):
    detector = Knowing(rendered.faces("train"), procedural)
    errors = shape_errors(network, rendered, split="train", limit=None, detector=detector)
    assert list(errors) == ["stream", "coefficients", "fit", "mean"]
    count = len(rendered.split("train"))
    assert all(one.faces + one.missed == count and one.missed == count // 2 for one in errors.values())
    assert 0 < errors["fit"].similarity < 0.5 * errors["mean"].similarity  # the exact landmarks tell most
    assert errors["mean"].rigid >= errors["mean"].similarity > 1
    truth = procedural.vertices(*(getattr(rendered.faces("train"), name)[::2] for name in ("identity", "expression")))
    by_hand = vertex_errors(procedural.mean.expand_as(truth), truth, procedural, "similarity")
    assert errors["mean"].similarity == pytest.approx(float(by_hand.mean()), abs=1e-4)
    pose = errors["mean"].by_factor["pose"]
    assert set(errors["mean"].by_factor) == {"expression", "pose", "light", "person"} and list(pose) == sorted(pose)
    assert errors["fit"].to_dict()["by_factor"]["expression"].keys() == {"neutral"}


def test_without_cores_and_detector(rendered, network, procedural):
    bare = NeuroTensorialAutoencoder(dataclasses.replace(network.config, cores=False), procedural).eval()
    assert list(shape_errors(bare, rendered, split="train", limit=4)) == ["coefficients", "mean"]


def test_refusals(rendered, network, prepared, model, procedural):
    with pytest.raises(InputError, match="holds photos"):
        shape_errors(network, prepared)
    with pytest.raises(InputError, match="'tiny', the set's 'procedural': their vertices do not correspond"):
        shape_errors(model, rendered)
    network.morphable = None
    with pytest.raises(InputError, match="carries no morphable model"):
        shape_errors(network, rendered)


def test_no_landmarks_at_all(rendered, procedural):
    class Blind:
        def detect(self, image):
            return None

    faces = rendered.faces("train")[:3]
    shapes, rows = fitted_shapes(faces, procedural, Blind())
    assert len(shapes) == len(rows) == 0
