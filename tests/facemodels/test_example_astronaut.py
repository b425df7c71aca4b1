"""The example that edits a public-domain photo runs."""

import importlib.util
import sys
from pathlib import Path

import pytest
from PIL import Image


@pytest.mark.photos
def test_the_astronaut_is_edited(model, tmp_path, monkeypatch):
    pytest.importorskip("mediapipe", reason="the extra `landmarks` is not installed")
    path = Path(__file__).parents[2] / "examples" / "edit_astronaut.py"
    spec = importlib.util.spec_from_file_location("edit_astronaut", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "edit_astronaut", example)
    spec.loader.exec_module(example)
    model.save_pretrained(tmp_path / "model")
    example.main(str(tmp_path / "model"), str(tmp_path / "astronaut.png"))
    with Image.open(tmp_path / "astronaut.png") as picture:
        assert picture.width > 11 * 128 and picture.height > 3 * 128
