"""The network that comes with the package."""

import numpy as np
import pytest
import torch

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.cli.networks import load_network
from facemodels.data.synthetic import synthesise
from facemodels.morphable import MorphableModel
from facemodels.pretrained import SHIPPED


@pytest.fixture(scope="module")
def network():
    return NeuroTensorialAutoencoder.from_pretrained("facefactors")


@pytest.fixture(scope="module")
def faces():
    return list(synthesise(16, seed=5, images_per_person=1))


@pytest.fixture(scope="module")
def images(faces):
    return torch.stack([torch.from_numpy(face["image"]).permute(2, 0, 1) for face in faces]).float() / 255


def test_is_small_and_has_a_card():
    path = SHIPPED["facefactors"]
    assert sum(file.stat().st_size for file in path.iterdir()) < 17_000_000
    assert "license: apache-2.0" in (path / "README.md").read_text()


def test_reconstructs_rendered_faces(network, images):
    errors = (network.decode(network.encode(images)).image - images).square().mean((1, 2, 3))
    assert (-10 * errors.log10()).mean() > 23.5  # dB, the target of a network trained for two hours on a CPU


def test_its_shapes_are_nearer_than_the_mean_face(network, faces, images):
    model = MorphableModel.procedural()
    identity, expression = (
        torch.tensor(np.stack([face[name] for face in faces])) for name in ("identity", "expression")
    )
    true = model.vertices(identity.float(), expression.float())
    found = network.decode(network.encode(images)).shape
    assert found is not None and found.shape == true.shape
    assert (found - true).norm(dim=-1).mean() < (model.mean - true).norm(dim=-1).mean()


def test_stands_in_where_there_is_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert load_network(None).config.cores
    assert "taking the network of the package" in capsys.readouterr().err


def test_a_directory_of_that_name_comes_first(tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    network.save_pretrained("facefactors")
    (tmp_path / "facefactors" / "README.md").write_text("another card")
    assert NeuroTensorialAutoencoder.from_pretrained("facefactors").card == "another card"
