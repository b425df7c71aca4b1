"""The example of TensorFaces: edits of an unseen person come closer to the true pictures than no edit does."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "tensorfaces.py"


@pytest.mark.slow
def test_edits_come_closer_than_no_edit():
    page, ratios = runpy.run_path(str(SCRIPT))["main"](persons=8)
    assert set(ratios) == {"expression", "pose", "light"}
    assert ratios["pose"] < 0.9 and ratios["light"] < 0.9
    assert page.width > 9 * 64 and page.height > 6 * 64
