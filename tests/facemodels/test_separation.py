"""The benchmark of separated codes: its networks are the same but for their swaps, and its table names each."""

from pathlib import Path

import pytest
import torch
from tiny import make_rows
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import write_prepared
from facemodels.errors import InputError
from facemodels.gauge import prediction, separate_identity

ROOT = Path(__file__).parents[2]


@pytest.fixture
def separation(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import separation

    return separation


@torch.no_grad()
@pytest.mark.parametrize("separated", [False, True])
@pytest.mark.slow
def test_networks_make_the_same_of_a_photo(separation, network_config, separated):
    model = NeuroTensorialAutoencoder(network_config).double().eval()
    images = torch.rand(60, 3, 64, 64).double()
    codes = model.encode(images)
    if separated:
        codes = codes.replace(identity=separate_identity(model, codes, ridge=2.0))
    known = model.decode(codes).image
    found = dict(separation.networks(model, codes, [0.0, 0.5]))
    assert list(found) == ["as trained", "separated, guard 0", "separated, guard 0.5"]
    left = []
    for network in found.values():
        again = network.encode(images)
        assert_close(network.decode(again).image, known, rtol=1e-7, atol=1e-7)
        left.append(float(prediction(again.expression, again.identity, 1e-9).norm()))
    assert not found["as trained"].config.residual_identity
    assert left[1] < 1e-4 * left[2] < 1e-4 * left[0]  # no guard leaves nothing that follows, a guard something
    assert_close(model.encode(images).identity, codes.identity)  # the network itself stays as it was


def test_measures_and_writes(separation, prepared, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "run" / "model")
    command = [str(prepared.path), "--model", str(tmp_path / "run"), "--guards", "0.5", "--faces", "6"]
    assert separation.main([*command, "--out", str(tmp_path / "table.md")]) == 0
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[0].startswith("| | PSNR | ") and lines[2].startswith("| *target* | >= 23.5 | ")
    assert [line.split(" | ")[0] for line in lines[3:]] == ["| as trained", "| separated, guard 0.5"]
    assert lines[3].split(" | ")[1] == lines[4].split(" | ")[1]
    assert lines[-1] in capsys.readouterr().out


def test_faces_trained_on_are_judged_by_the_pupil_of_another_set(separation, prepared, model, tmp_path):
    model.save_pretrained(tmp_path / "run" / "model")
    command = [str(prepared.path), "--model", str(tmp_path / "run"), "--guards", "0.5", "--split", "train"]
    with pytest.raises(InputError, match="name a set that teaches the judge of the split 'train', with --taught-by"):
        separation.main(command)
    with pytest.raises(InputError, match="cannot teach what its own split 'train' is measured by"):
        separation.main([*command, "--taught-by", str(prepared.path)])
    other = write_prepared(tmp_path / "other", make_rows(6, seed=9), prepared.morphable, {"source": "made for tests"})
    assert separation.main([*command, "--taught-by", str(other.path), "--faces", "4"]) == 0


def test_without_a_run(separation, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no run under runs/; name one with --model"):
        separation.main([str(prepared.path)])
