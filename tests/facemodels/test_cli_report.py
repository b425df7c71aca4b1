"""The commands `report` and `train-baseline` as a user meets them."""

import os
import sys

import pytest

from facemodels import cli
from facemodels.evaluation import page, sections


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Status, output and errors of a command given in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["facemodels", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    return run


def assert_one_line(result, text):
    status, _, errors = result
    assert status == 2 and errors.startswith("facemodels: ") and errors.count("\n") == 1 and text in errors


def test_report_with_a_trained_baseline(call, model, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", [one for one in sections.SECTIONS if one[0] in ("decomposition", "table-1")])
    model.save_pretrained(tmp_path / "model")
    status, out, _ = call("train-baseline", prepared.path, "--out", "z0.safetensors", "--steps", 2, "--batch", 4)
    assert (status, out) == (0, "wrote z0.safetensors\n")
    status, out, _ = call("report", "model", "--prepared", prepared.path, "--baseline", "z0.safetensors")
    assert (status, out) == (0, "look at report/index.html\n")
    text = (tmp_path / "report" / "index.html").read_text()
    assert (
        f"{tmp_path.name}: a network of" in text
        and "faces of “made for tests”, in 2 steps of 4." in text
        and "no labels are known" in text
    )
    again = ("train-baseline", prepared.path, "--out", "z0.safetensors", "--steps", 3, "--batch", 4)
    assert_one_line(call(*again), "was trained on another set or with other settings")


def test_wrong_input_ends_in_one_line(call, model, prepared, tmp_path):
    model.save_pretrained(tmp_path / "model")
    report = ("report", "model", "--prepared", prepared.path)
    assert_one_line(call(*report, "--split", "best"), "there is no split 'best'")
    assert_one_line(call("report", "nowhere"), "there is no checkpoint at nowhere")
    assert_one_line(call("report", "model", "--prepared", tmp_path), "is not a prepared set")
    assert_one_line(call(*report, "--labels", "none.csv"), "none.csv cannot be read as CSV")
    assert_one_line(call(*report, "--baseline", "none.safetensors"), "there is no file none.safetensors")
    assert_one_line(call(*report, "--taught-by", "nothing"), "is not a prepared set")
    assert_one_line(call("train-baseline", tmp_path), "is not a prepared set")
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("command", "table", "text"),
    [
        (["evaluate", "{set}", "--model", "model"], "file,Smiling\n000016.jpg\n", "has no label for 8 faces"),
        (["report", "model", "--prepared", "{set}"], "Smiling,file\n0\n", "names none of the faces of the set"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_short_rows_end_in_one_line(call, model, prepared, tmp_path, command, table, text):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "labels.csv").write_text(table)
    command = [part.format(set=prepared.path) for part in command]
    assert_one_line(call(*command, "--labels", "labels.csv"), text)


def test_interrupted_it_says_what_is_kept(call, model, prepared, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("facemodels.evaluation.page.report", interrupt)
    status, _, errors = call("report", "model", "--prepared", prepared.path)
    assert status == 130 and "report keeps what the baselines have learnt" in errors
    monkeypatch.setattr("facemodels.baselines.train_adversarial", interrupt)
    status, _, errors = call("train-baseline", prepared.path)
    assert status == 130 and "the same command goes on from there" in errors
