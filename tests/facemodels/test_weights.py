"""The network that comes with the package."""

import pytest
import torch

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.cli import _load
from facemodels.data.synthetic import synthesise
from facemodels.morphable import MorphableModel
from facemodels.pretrained import SHIPPED


@pytest.fixture(scope="module")
def network():
    return NeuroTensorialAutoencoder.from_pretrained("facefactors")


@pytest.fixture(scope="module")
def images():
    faces = [torch.from_numpy(face["image"]).permute(2, 0, 1) for face in synthesise(8, seed=5, images_per_person=1)]
    return torch.stack(faces).float() / 255


def test_is_small_and_has_a_card():
    path = SHIPPED["facefactors"]
    assert sum(file.stat().st_size for file in path.iterdir()) < 15_000_000
    assert "license: apache-2.0" in (path / "README.md").read_text()


def test_reconstructs_rendered_faces(network, images):
    picture = network.decode(network.encode(images)).image
    error = (picture - images).square().mean()
    assert -10 * error.log10() > 20  # dB


def test_its_shapes_are_those_of_the_built_in_model(network, images):
    shape = network.decode(network.encode(images)).shape
    mean = MorphableModel.procedural().mean
    assert shape is not None and shape.shape == (8, *mean.shape)
    assert (shape - mean).norm(dim=-1).mean() < 10  # mm


def test_stands_in_where_there_is_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _load(None).config.cores
    assert "taking the network of the package" in capsys.readouterr().err


def test_a_directory_of_that_name_comes_first(tmp_path, monkeypatch, network):
    monkeypatch.chdir(tmp_path)
    network.save_pretrained("facefactors")
    (tmp_path / "facefactors" / "README.md").write_text("another card")
    assert NeuroTensorialAutoencoder.from_pretrained("facefactors").card == "another card"
