"""The example that edits a public-domain photo runs."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image

from facemodels.autoencoder import NeuroTensorialAutoencoder


@pytest.mark.photos
@pytest.mark.parametrize("size", [64, 128])
def test_the_astronaut_is_edited(network_config, morphable, size, tmp_path, monkeypatch):
    pytest.importorskip("mediapipe", reason="the extra `landmarks` is not installed")
    path = Path(__file__).parents[2] / "examples" / "edit_astronaut.py"
    spec = importlib.util.spec_from_file_location("edit_astronaut", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "edit_astronaut", example)
    spec.loader.exec_module(example)
    network = NeuroTensorialAutoencoder(dataclasses.replace(network_config, size=size), morphable)
    network.save_pretrained(tmp_path / "model")
    example.main(str(tmp_path / "model"), str(tmp_path / "astronaut.png"))
    with Image.open(tmp_path / "astronaut.png") as picture:
        assert picture.width > 11 * 2 * size and picture.height > 3 * 2 * size
