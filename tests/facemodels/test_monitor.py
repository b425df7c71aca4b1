"""What is logged and drawn during training."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import make_rows

from facemodels.data.dataset import write_prepared
from facemodels.evaluation import measure
from facemodels.training.monitor import BEST, Monitor


@pytest.fixture
def monitor(prepared, tmp_path):
    return Monitor(prepared, tmp_path / "run")


def test_measures_are_those_of_the_held_out_faces(monitor, model, prepared):
    values = monitor(model, 500)
    expected = measure(model, prepared.faces("test"))
    assert BEST in values and set(values) == set(expected)
    assert values == pytest.approx(expected, rel=1e-5)
    assert json.loads(json.dumps(values)) == values


def test_sheet_shows_a_row_a_face(monitor, model, tmp_path, prepared):
    monitor(model, 500)
    sheet = Image.open(tmp_path / "run" / "sheets" / "step-00000500.png")
    assert sheet.size[0] == 13 * (2 * 64 + 4) and sheet.size[1] > 6 * (2 * 64 + 4)
    photo = np.asarray(prepared.split("test")[0]["image"]).astype(float)
    first = np.asarray(sheet)[sheet.size[1] - 6 * 132 :, :128][:128].astype(float)
    shown = first.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(shown - photo).mean() < 8


def test_is_deterministic_and_changes_nothing(monitor, model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    first, second = monitor(model, 1), monitor(model, 2)
    assert first == second
    assert model.training and torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    sheets = sorted(monitor.sheets.iterdir())
    assert [sheet.name for sheet in sheets] == ["step-00000001.png", "step-00000002.png"]
    assert sheets[0].read_bytes() == sheets[1].read_bytes()


def test_faces_are_spread_over_the_split(prepared, tmp_path):
    few = Monitor(prepared, tmp_path, count=3).faces
    held_out = prepared.faces("test")
    assert torch.equal(few.image, held_out.image[[0, 4, 7]])


def test_a_set_without_held_out_faces(tmp_path, morphable, model):
    everything = write_prepared(tmp_path / "set", make_rows(5), morphable, {"source": "made for tests"})
    values = Monitor(everything, tmp_path / "run")(model, 0)
    assert np.isfinite(list(values.values())).all()
