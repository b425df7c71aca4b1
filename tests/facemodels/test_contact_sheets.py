import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "examples" / "contact_sheets.py"


@pytest.mark.slow
def test_draws_a_sheet(tmp_path, monkeypatch):
    specification = importlib.util.spec_from_file_location("contact_sheets", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    monkeypatch.setattr(script, "TILE", 64)
    monkeypatch.setattr(script, "PIXELS_PER_MM", 0.3)
    monkeypatch.setattr(sys, "argv", ["contact_sheets.py", str(tmp_path / "sheets"), "--only", "poses"])
    script.main()
    page = np.asarray(Image.open(tmp_path / "sheets" / "poses.png").convert("RGB"))
    assert page.shape == (128, 512, 3)
    tiles = page.reshape(2, 64, 8, 64, 3).swapaxes(1, 2).reshape(16, 64, 64, 3).astype(float)
    assert all(tile.std() > 20 for tile in tiles)  # each shows something, and no two show the same
    assert len({tile.tobytes() for tile in tiles}) == 16
