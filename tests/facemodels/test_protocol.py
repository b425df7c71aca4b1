"""From a table of crops to Table 1, in Python and on the command line."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from facemodels.errors import InputError
from facemodels.evaluation.labelled import labels_of, read_labelled
from facemodels.evaluation.protocol import run_protocol


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Four persons of six crops; red faces are happy, one is the only angry one, and of one nothing is known."""
    folder = tmp_path_factory.mktemp("crops")
    rows = []
    for number in range(26):
        picture = np.random.default_rng(number).integers(0, 60, (64, 64, 3)).astype(np.uint8)
        picture[..., 0] += np.uint8(180 * (number % 2))
        Image.fromarray(picture).save(folder / f"{number}.png")
        rows.append([f"{number}.png", f"p{number // 6}", "happy" if number % 2 else "sad", ""])
    rows[0][2] = "angry"
    rows[25][1:] = ["", "", ""]
    rows.append(["gone.png", "p1", "sad", ""])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "identity", "expression", "pose"], *rows])
    return folder / "labels.csv"


def test_table_and_leakage(model, table):
    faces = read_labelled(table, aligned=True, progress=False)
    result = run_protocol(model, faces, folds=4)
    assert result.faces == 25 and result.skipped == {"no label": 1, "no such file": 1}
    assert result.rare == {"identity": 1, "expression": 1}
    assert set(result.table.rows) == {"identity", "expression", "expression of new persons"}
    for name in ("expression", "expression of new persons"):
        row = result.table.rows[name]
        assert row.accuracy > 0.9 and row.faces in (23, 24) and row.classes == 2
    assert result.leakage.codes == ("identity", "expression", "pose", "light")
    assert result.leakage.factors == ("identity", "expression") and result.leakage.leakage[1, 1] > 0.8
    text = "\n".join(result.lines())
    assert (
        "left out, no such file" in text and "the paper, on Multi-PIE: 86.07%" in text and "told by each code" in text
    )
    assert json.loads(json.dumps(result.to_dict()))["rare"]["expression"] == 1


def test_too_little_to_probe(model, table):
    faces = read_labelled(table, aligned=True, progress=False)
    with pytest.raises(InputError, match="nothing to probe: of identity, expression, pose none has two labels that 20"):
        run_protocol(model, faces, folds=20)


def test_without_a_second_factor(model, table):
    faces = read_labelled(table, aligned=True, progress=False)
    del faces.labels["identity"]
    result = run_protocol(model, faces, folds=3)
    assert result.leakage is None and list(result.table.rows) == ["expression"]
    assert not any("told by each" in line for line in result.lines())


class TestCommand:
    @pytest.fixture
    def call(self, monkeypatch, capsys, model, tmp_path):
        from test_cli import run

        model.save_pretrained(tmp_path / "model")
        return lambda *arguments: run(monkeypatch, capsys, "probe", *arguments, "--model", tmp_path / "model")

    def test_of_a_table(self, call, table, tmp_path):
        status, out, _ = call(table, "--aligned", "--folds", 3, "--out", tmp_path / "probe.json")
        assert status == 0 and "expression of new persons" in out
        assert json.loads((tmp_path / "probe.json").read_text())["faces"] == 25

    def test_of_two_persons_of_whom_one_is_ever_happy(self, call, table):
        lines = [f"{k}.png,{'ann' if k < 12 else 'bob'},{'happy' if k < 6 else 'sad'}" for k in range(24)]
        (table.parent / "two.csv").write_text("\n".join(["path,identity,expression", *lines]))
        status, out, _ = call(table.parent / "two.csv", "--aligned", "--folds", 5)
        assert status == 0 and "\nexpression " in out and "of new persons" not in out

    def test_of_labels_that_no_face_shares(self, call, table):
        lines = [f"{k}.png,{'ab'[k % 2]}," if k < 12 else f"{k}.png,,{'cd'[k % 2]}" for k in range(24)]
        (table.parent / "apart.csv").write_text("\n".join(["path,identity,expression", *lines]))
        status, out, _ = call(table.parent / "apart.csv", "--aligned", "--folds", 3)
        assert status == 0 and "\nidentity " in out and "of new persons" not in out

    def test_of_a_set_without_labels(self, call, prepared):
        status, _, errors = call(prepared.path)
        assert status == 2 and "holds photos without labels" in errors and errors.count("\n") == 1
        assert call(prepared.path, "--split", "none")[0] == 2
        assert "does not exist; make it first" in call(prepared.path, "--out", "nowhere/probe.json")[2]

    def test_of_no_table(self, call, tmp_path):
        status, _, errors = call(tmp_path / "nothing.csv")
        assert status == 2 and "cannot be read as CSV" in errors


def test_labels_of_a_set_are_refused_with_a_reason(prepared):
    with pytest.raises(InputError, match="give a table of them"):
        labels_of(prepared)
