"""The command of measures runs and says what it is to say; no figure of time decides anything here."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def faces(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import faces

    return faces


@pytest.mark.parametrize(
    ("only", "reason"), [("FaceFactors", "invalid choice"), ("celeba", "--only celeba needs the photos, with --celeba")]
)
def test_parts_that_cannot_be_measured(faces, tmp_path, capsys, only, reason):
    out = tmp_path / "faces.json"
    with pytest.raises(SystemExit, match="2"):
        faces.main(["--only", only, "--out", str(out)])
    assert reason in capsys.readouterr().err and not out.exists()


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
