"""The command that times the page runs; no figure of time decides anything here."""

import json
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.photos
def test_every_event_is_timed(monkeypatch, capsys, tmp_path):
    for package in ("gradio", "mediapipe"):
        pytest.importorskip(package, reason="needs the extra `app`")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import app

    assert app.main(["--runs", "1", "--out", str(tmp_path / "app.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (record,) = json.loads((tmp_path / "app.json").read_text()).values()
    assert list(record["measures"]) == [line[:44].strip() for line in lines]
    assert len(lines) == 4 and all(line.endswith("ms processor") for line in lines)
