"""Small faces for tests: a morphable model of a dozen vertices and a prepared set of random pictures."""

import pytest
import torch
from tiny import EXPRESSION, IDENTITY, VERTICES, make_rows

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import LossWeights, NetworkConfig, TrainingConfig
from facemodels.data.dataset import PreparedSet, write_prepared
from facemodels.morphable import MorphableModel


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def morphable() -> MorphableModel:
    generator = torch.Generator().manual_seed(1)
    return MorphableModel(
        mean=50 * torch.randn(VERTICES, 3, generator=generator),
        identity=2 * torch.randn(IDENTITY, VERTICES, 3, generator=generator),
        expression=torch.randn(EXPRESSION, VERTICES, 3, generator=generator),
        triangles=torch.randint(VERTICES, (20, 3), generator=generator),
        face=torch.ones(20, dtype=torch.bool),
        landmarks=torch.randint(VERTICES, (68,), generator=generator),
        expression_names=("open", "smile", "frown"),
        name="tiny",
        licence="none",
        source="made for tests",
    )


@pytest.fixture(scope="session")
def network_config() -> NetworkConfig:
    return NetworkConfig(
        channels=(6, 5, 4),
        bottleneck="tanh",
        intermediate=16,
        background=7,
        mask=6,
        identity=9,
        expression=6,
        morphable_identity=IDENTITY,
        morphable_expression=EXPRESSION,
        vertices=VERTICES,
        shape_space="coordinates",
        frontal_rank=4,
        face_mask=True,
        cut_background=True,
    )


@pytest.fixture
def model(network_config, morphable) -> NeuroTensorialAutoencoder:
    return NeuroTensorialAutoencoder(network_config, morphable).eval()


@pytest.fixture(scope="session")
def training_config() -> TrainingConfig:
    weights = LossWeights(
        swapped_shape=0.5,
        decorrelation=8.0,
        turned_normals=2.0,
        face_mask=0.3,
        turned_face=2.0,
        swapped_face=2.0,
        swapped_codes=0.1,
        background=1.0,
        carried_codes=0.1,
        cycle=0.1,
    )
    return TrainingConfig(weights=weights, known_mask=True, surround_share=0.5, batch=4, steps=6, precision="no")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, morphable) -> PreparedSet:
    path = tmp_path_factory.mktemp("sets") / "prepared"
    return write_prepared(path, make_rows(24, held_out=8), morphable, {"source": "made for tests"})
