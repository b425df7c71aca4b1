"""The benchmark of refined codes: what it prints is what the functions it names say."""

from pathlib import Path

import pytest
import torch
from tiny import make_rows

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig
from facemodels.data.dataset import write_prepared
from facemodels.data.synthetic import synthesise_set
from facemodels.editing import decode_edit, exchanged, refine, transfer
from facemodels.errors import InputError
from facemodels.evaluation import encode_all
from facemodels.evaluation.fidelity import edit_trials
from facemodels.evaluation.measures import psnr, reconstruction

ROOT = Path(__file__).parents[2]


@pytest.fixture
def refinement(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import refinement

    return refinement


@pytest.fixture
def rendered(tmp_path):
    return synthesise_set(tmp_path / "rendered", count=12, held_out=0.5, seed=3)


@pytest.fixture
def network(rendered):
    config = NetworkConfig(channels=(4, 4, 4), frontal_rank=2, face_mask=True, shape_space="coordinates")
    sizes = {"morphable_identity": "n_identity", "morphable_expression": "n_expression", "vertices": "n_vertices"}
    changes = {name: getattr(rendered.morphable, size) for name, size in sizes.items()}
    return NeuroTensorialAutoencoder(NetworkConfig(**{**vars(config), **changes}), rendered.morphable).eval()


def cells(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]


def test_measures_rendered_faces_and_edits(refinement, rendered, network, tmp_path, capsys):
    network.save_pretrained(tmp_path / "model")
    command = [str(rendered.path), "--model", str(tmp_path / "model"), "--pairs", "3", "--steps", "4", "--faces", "0"]
    assert refinement.main([*command, "--out", str(tmp_path / "table.md")]) == 0
    text = (tmp_path / "table.md").read_text()
    assert text in capsys.readouterr().out
    titles, _, face, normals, expression, pose, light, identity = cells(text)
    assert titles == ["", "as read", "refined, 4 steps"]
    faces = rendered.faces("test")
    for column, steps in ((1, 0), (2, 4)):
        known = reconstruction(faces, encode_all(network, faces, steps))
        assert float(face[column]) == pytest.approx(known["psnr_face"], abs=0.006)
        assert float(normals[column]) == pytest.approx(known["normals_degrees"], abs=0.006)
    assert float(face[2]) > float(face[1])
    assert [row[0].split()[0] for row in (expression, pose, light, identity)] == [
        *("expression", "pose", "light", "identity")
    ]
    trials = edit_trials(rendered, "expression", 3)
    with torch.no_grad():
        donors = network.encode(trials.donors)
        moved = decode_edit(network, exchanged(refine(network, trials.images, 4), donors, ["expression"])).image
    for column, edited in ((1, transfer(network, trials.images, trials.donors, "expression").image), (2, moved)):
        assert float(expression[column]) == pytest.approx(
            float(psnr(edited, trials.truth, trials.mask).mean()), abs=0.006
        )


def test_judges_swaps_of_photos(refinement, prepared, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    labels = tmp_path / "labels.csv"
    names = [name for split in ("train", "test") for name in prepared.split(split)["name"][:]]
    lines = [f"{name},{number % 2}" for number, name in enumerate(names)]
    labels.write_text("\n".join(["file,Smiling", *lines]))
    command = [str(prepared.path), "--model", str(tmp_path / "model"), "--steps", "2", "--labels", str(labels)]
    assert refinement.main(command) == 0
    rows = cells(capsys.readouterr().out)[2:]
    assert [row[0].split(",")[0] for row in rows] == [
        *("face", "normals", "expression swap follows", "identity swap follows", "own label shown without a swap")
    ]
    assert all(0 <= float(cell) <= 1 for row in rows[2:] for cell in row[1:])


def test_other_splits_need_a_teacher_of_the_judge(refinement, prepared, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    labels = tmp_path / "labels.csv"
    lines = [f"{name},{number % 2}" for number, name in enumerate(prepared.table["name"][:])]
    labels.write_text("\n".join(["file,Smiling", *lines]))
    command = [str(prepared.path), "--model", str(tmp_path / "model"), "--steps", "1", "--split", "all", "--faces", "4"]
    assert refinement.main(command) == 0  # nobody judges
    command += ["--labels", str(labels)]
    with pytest.raises(InputError, match="name a set that teaches the judge of the split 'all', with --taught-by"):
        refinement.main(command)
    with pytest.raises(InputError, match="cannot teach what its own split 'all' is measured by"):
        refinement.main([*command, "--taught-by", str(prepared.path)])
    other = write_prepared(tmp_path / "other", make_rows(16, seed=9), prepared.morphable, {"source": "made for tests"})
    capsys.readouterr()
    assert refinement.main([*command, "--taught-by", str(other.path)]) == 0
    assert "expression swap follows" in capsys.readouterr().out


def test_a_set_without_held_out_faces(refinement, model, morphable, tmp_path):
    model.save_pretrained(tmp_path / "model")
    write_prepared(tmp_path / "set", make_rows(3), morphable, {"source": "made for tests"})
    with pytest.raises(InputError, match="holds no faces of the split 'test'"):
        refinement.main([str(tmp_path / "set"), "--model", str(tmp_path / "model")])
