"""The benchmark of what the encoder alone can tell."""

from pathlib import Path

import pytest
import torch
from tiny import make_rows

from facemodels.data.dataset import write_prepared
from facemodels.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ceiling(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import ceiling

    return ceiling


def test_measures_of_known_numbers(ceiling):
    true, weights = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 8.0]]), torch.tensor([1.0, 0.0])
    assert ceiling.explained(true, true, weights) == 1
    assert ceiling.explained(torch.full((3, 2), 2.0), true, weights) == 0
    assert ceiling.explained(true + torch.tensor([1.0, 9.0]), true, weights) == pytest.approx(1 - 3 / 8)
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    assert ceiling.pose_degrees(quarter.reshape(1, 9), torch.eye(3).reshape(1, 9)) == pytest.approx(90, abs=1e-3)


def test_learns_what_a_picture_tells(ceiling, network_config):
    def faces(count):
        brightness = torch.rand(count, 1, 1, 1)
        image = (255 * brightness).expand(-1, 3, 64, 64).round().byte()
        unknown = torch.randn(count, 1)
        return ceiling.Known(image, torch.zeros(count, 9), torch.cat([2 * brightness.flatten(1), unknown], 1))

    target = ceiling.targets(torch.tensor([3.0, 0.0]))["expression"]
    new = faces(50)
    readers = [
        ceiling.teach(network_config, faces(100), "expression", target, steps=steps, seed=seed)
        for steps, seed in ((1, 0), (40, 0), (40, 0), (40, 1))
    ]
    told = [ceiling.read(reader, new.image) for reader in readers]
    short, long = (target.measure(some, new.expression) for some in told[:2])
    assert short < 0.5 and long > 0.9
    assert torch.equal(told[1], told[2]) and not torch.equal(told[1], told[3])


def test_writes_a_table(ceiling, prepared, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "run" / "model")
    command = [str(prepared.path), "--model", str(tmp_path / "run"), "--faces", "5", "99", "--steps", "2"]
    assert ceiling.main([*command, "--out", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    titles = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines()]
    rows = ["encoder alone, 5 faces", "encoder alone, 16 faces", "whole network"]
    assert titles == [
        *("pose error, degrees", "|---|---|---|", *rows, ""),
        *("share of the expression explained", "|---|---|---|", *rows),
    ]
    assert text in capsys.readouterr().out


def test_a_set_without_held_out_faces(ceiling, model, morphable, tmp_path):
    model.save_pretrained(tmp_path / "model")
    write_prepared(tmp_path / "set", make_rows(3), morphable, {"source": "made for tests"})
    with pytest.raises(InputError, match="holds no faces of the split 'test'"):
        ceiling.main([str(tmp_path / "set"), "--model", str(tmp_path / "model"), "--steps", "1"])
