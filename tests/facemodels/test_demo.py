"""The way of `make demo`, with few faces and hardly any training."""

import json

import pytest
from PIL import Image

from facemodels import demo
from facemodels.errors import InputError

pytestmark = [pytest.mark.slow, pytest.mark.photos]


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_the_whole_way(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mediapipe")
    monkeypatch.setattr(demo, "_PAIRS", 4)
    monkeypatch.setattr(demo, "_COMPONENTS", 32)
    out = tmp_path / "demo"
    page = demo.run(out, faces=320, minutes=0.05, workers=1)
    text = page.read_text()
    for name in ("edits.png", "parts.png", "interpolation.png", "photo.png", "photo_parts.png"):
        assert f'src="{name}"' in text
        with Image.open(out / name) as picture:
            assert picture.width > 400
    measures = json.loads((out / "measures.json").read_text())
    assert set(measures["edits"]) == {"expression", "pose", "light", "identity"}
    assert all(set(one) == {"before", "after"} for one in measures["edits"].values())
    assert "adversarial autoencoder" in text and "nan" not in text
    capsys.readouterr()
    demo.run(out, faces=320, minutes=0.05, workers=1)  # finished parts are not done again
    assert "rendering faces" not in capsys.readouterr().err
    with pytest.raises(InputError, match="holds another number of faces than 400"):
        demo.run(out, faces=400, minutes=0.05, workers=1)
