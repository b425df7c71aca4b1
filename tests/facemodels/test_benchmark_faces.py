"""The command of measures runs and says what it is to say; no figure of time decides anything here."""

import json
import math
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def faces(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import faces

    return faces


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [(2.0, "<= 2", True), (2.1, "<= 2", False), (0.7, ">= 0.73", False), (5.0, "", True), (math.nan, ">= 0", False)],
)
def test_passes(faces, value, target, expected):
    assert faces.passes(value, target) is expected


def test_measures_facefactors(faces, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(faces, "_detector", lambda: None)
    out = tmp_path / "faces.json"
    assert (
        faces.main(
            ["--only", "facefactors", "--faces", "32", "--work", str(tmp_path), "--workers", "1", "--out", str(out)]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "rotation error, median" in printed and "jaw_open" in printed and "targets missed" in printed
    record = json.loads(out.read_text())
    assert set(record) == {"commit", "date", "machine", "torch", "measures"}
    truth = next(part for title, part in record["measures"].items() if "true landmarks" in title)
    assert truth["rotation error, median"]["value"] < 6
    assert truth["yaw correlation"]["value"] > 0.99


def test_is_a_command_of_the_benchmarks(capsys):
    main = pytest.importorskip("benchmarks.__main__").main
    with pytest.raises(SystemExit, match="0"):
        main(["faces", "--help"])
    assert "python -m benchmarks faces" in capsys.readouterr().out
