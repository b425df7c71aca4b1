"""The command that times the page runs; no figure of time decides anything here."""

from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.photos
def test_every_event_is_timed(monkeypatch, capsys):
    for package in ("gradio", "mediapipe"):
        pytest.importorskip(package, reason="needs the extra `app`")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks import app

    assert app.main(["--runs", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and all(line.endswith("ms processor") for line in lines)
