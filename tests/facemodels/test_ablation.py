"""The ladder of objectives: its rungs, and that a run of it goes on where it stopped."""

import dataclasses
from pathlib import Path

import pytest

from facemodels import config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import ablation

    return ablation


def of(ablation, rung):
    return ablation.settings(rung, steps=400, seed=0, verifier=None)


def test_the_first_rung_has_the_terms_of_the_paper_alone(ablation):
    network, training = of(ablation, "paper")
    paper = dataclasses.replace(config.preset("paper")[1].weights, adversarial=0.0, verification=0.0)
    assert training.weights == paper and not training.known_mask
    assert not network.face_mask and not network.cut_background and network.channels == (24, 24, 24)


def test_every_rung_changes_what_it_names_and_nothing_else(ablation):
    before = of(ablation, "paper")
    for rung in ablation.LADDER[1:]:
        network, training = of(ablation, rung.name)
        changed = {
            name
            for old, new in ((before[0], network), (before[1], training), (before[1].weights, training.weights))
            for name in vars(new)
            if name != "weights" and getattr(old, name) != getattr(new, name)
        }
        assert changed == {*rung.weights, *rung.training, *rung.network} and changed
        before = network, training


def test_the_last_rung_has_every_term(ablation):
    weights = of(ablation, "adversarial")[1].weights
    assert {name for name, value in vars(weights).items() if value == 0} == {"swapped_face"}  # for rendered sets alone


def test_no_such_rung(ablation):
    with pytest.raises(ValueError, match="there is no rung 'magic'; choose of paper, known_mask"):
        of(ablation, "magic")


def test_runs_are_kept_and_not_done_again(ablation, prepared, model, tmp_path, monkeypatch, capsys):
    trained = []

    def train(prepared, run, *, network, training, progress):
        run.mkdir(parents=True)
        trained.append((training.seed, network.face_mask))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return model

    monkeypatch.setattr(ablation, "train", train)
    command = ["--prepared", str(prepared.path), "--rows", "paper", "turned_normals", "--seeds", "2", "--steps", "7"]
    command += ["--results", str(tmp_path / "ablation.csv"), "--work", str(tmp_path / "work"), "--faces", "6"]
    with pytest.raises(KeyboardInterrupt):
        ablation.main(command)
    assert trained == [(0, False), (0, True), (1, False)]
    assert [(row["rung"], row["seed"]) for row in ablation.read(tmp_path / "ablation.csv")] == [
        ("paper", "0"),
        ("turned_normals", "0"),
    ]
    monkeypatch.setattr(ablation, "train", lambda *_, training, **__: (trained.append(training.seed), model)[1])
    monkeypatch.setattr(ablation.shutil, "rmtree", lambda path: None)
    assert ablation.main(command) == 0
    assert trained[3:] == [1, 1]
    rows = ablation.read(tmp_path / "ablation.csv")
    assert len(rows) == 4 and {row["faces"] for row in rows} == {"6"} and all(float(row["psnr"]) > 0 for row in rows)
    assert "turned_normals, seed 0: is there" in capsys.readouterr().out
    lines = (tmp_path / "ablation.md").read_text().splitlines()
    assert any(line.startswith("| paper | 2 | ") and "± 0.0" in line for line in lines)


def test_table_of_known_numbers(ablation):
    def row(rung, seed, **values):
        return {"set": "photos", "steps": "5", "rung": rung, "seed": str(seed), "faces": "9"} | {
            name: str(values.get(name, "")) for name in ablation.SHOWN
        }

    rows = [row("decorrelation", 0, psnr=20, leak=0.1), row("paper", 0, psnr=10), row("decorrelation", 1, psnr=22)]
    lines = list(ablation.table(rows))
    start = lines.index("## photos, 5 steps, 9 held-out faces")
    assert lines[start + 2 : start + 7] == [
        "| rung | seeds | PSNR | leak |",
        "|---|---|---|---|",
        "| *target of a full run* | | >= 23.5 | <= 0.04 |",
        "| paper | 1 | 10.0 |  |",
        "| decorrelation | 2 | 21.0 ± 1.4 | 0.100 |",
    ]


def test_is_a_command_of_the_benchmarks(capsys):
    main = pytest.importorskip("benchmarks.__main__").main
    with pytest.raises(SystemExit, match="0"):
        main(["ablation", "--help"])
    assert "python -m benchmarks ablation" in capsys.readouterr().out
