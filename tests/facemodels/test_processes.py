"""Training in real processes, one and many, and what is left when one of them is killed."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest
import worker
from safetensors.torch import load_file
from test_training import assert_same_state
from torch.testing import assert_close

from facemodels.config import LossWeights
from facemodels.networks.verification import save_small
from facemodels.networks.verification.small import FACTS, _Body
from facemodels.networks.verification.verifier import Verifier
from facemodels.training.checkpoint import checkpoints, load_progress
from facemodels.training.logs import read_metrics

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def settings(prepared, folder, network_config, training_config):
    """Settings of a run with every term, which leaves a checkpoint behind each step."""
    save_small(Verifier(_Body(), FACTS), folder / "verifier.safetensors")
    training = dataclasses.replace(
        training_config,
        weights=dataclasses.replace(training_config.weights, adversarial=0.1, verification=0.2),
        verifier=str(folder / "verifier.safetensors"),
        adversarial_start=0.0,
        batch=8,
        steps=4,
        log_every=1,
        sheet_every=0,
        checkpoint_minutes=0.0,
    )

    def settings(run, shard=False, **changes):
        train = {"network": network_config, "shard": shard, "progress": False}
        train["training"] = dataclasses.replace(training, **changes)
        return {"prepared": str(prepared.path), "run": str(run), "train": train}

    return settings


def run(folder, settings, processes=1, **options):
    return worker.finish(folder, worker.start(folder, settings, processes, **options))


def succeed(*arguments, **options):
    for status, text in run(*arguments, **options):
        assert status == 0, text


def names(run):
    return [path.name for path in checkpoints(run)]


@pytest.fixture(scope="module")
def alone(folder, settings):
    """Four steps of one process with eight faces, in float64."""
    succeed(folder / "alone", settings(folder / "alone" / "run"), double=True)
    return folder / "alone" / "run"


def assert_close_runs(first, second):
    first, second = checkpoints(first)[-1], checkpoints(second)[-1]
    assert load_progress(first)["step"] == load_progress(second)["step"] == 4
    files = sorted(path.name for path in first.glob("*.safetensors"))
    assert files == sorted(path.name for path in second.glob("*.safetensors"))
    assert {"model.safetensors", "optimizer.safetensors"} <= set(files)
    for name in files:
        mine, theirs = load_file(first / name), load_file(second / name)
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert_close(mine[key], theirs[key], rtol=1e-5, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


def test_four_processes_equal_one(alone, settings, tmp_path):
    succeed(tmp_path, settings(tmp_path / "run", batch=2), 4, double=True)
    assert_close_runs(alone, tmp_path / "run")
    mine, theirs = read_metrics(alone), read_metrics(tmp_path / "run")
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - {"seconds", "faces_per_second"}:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


def test_two_processes_equal_one_where_most_terms_are_off(settings, tmp_path):
    """No gradient reaches the decoders, nor the other codes."""
    off = dict.fromkeys((entry.name for entry in dataclasses.fields(LossWeights)), 0.0)
    few = {"weights": LossWeights(**{**off, "pose": 1.0}), "verifier": None}
    succeed(tmp_path / "one", settings(tmp_path / "alone", **few), double=True)
    succeed(tmp_path / "two", settings(tmp_path / "run", batch=4, **few), 2, double=True)
    assert_close_runs(tmp_path / "alone", tmp_path / "run")


def test_two_processes_equal_one_that_learns_codes_first(settings, tmp_path):
    """In half of the steps nothing is decoded, so that the decoders get no gradient."""
    succeed(tmp_path / "one", settings(tmp_path / "alone", codes_first=0.5), double=True)
    succeed(tmp_path / "two", settings(tmp_path / "run", batch=4, codes_first=0.5), 2, double=True)
    assert_close_runs(tmp_path / "alone", tmp_path / "run")


@pytest.mark.parametrize("shard, afterwards", [(False, 2), (True, 1)], ids=["ddp", "fsdp then one process"])
def test_a_killed_process_ends_the_run_which_then_goes_on(alone, settings, tmp_path, shard, afterwards):
    half = settings(tmp_path / "run", shard, batch=4)
    (status, text), (killed, _) = run(tmp_path, half, 2, double=True, killed=1, killed_in_step=3)
    assert killed == -signal.SIGKILL and status == 2, text
    assert "another process of this run ended" in text and "checkpoint-00000002, is intact" in text
    assert names(tmp_path / "run") == ["checkpoint-00000001", "checkpoint-00000002"]
    succeed(tmp_path, settings(tmp_path / "run", batch=8 // afterwards), afterwards, double=True)
    assert_close_runs(alone, tmp_path / "run")


def test_killed_while_saving_and_resumed_equals_straight(settings, tmp_path):
    options = {"steps": 20, "accumulation": 2, "batch": 4, "adversarial_start": 0.3}
    succeed(tmp_path, settings(tmp_path / "straight", **options))
    resumed = settings(tmp_path / "resumed", **options)
    ((status, _),) = run(tmp_path, resumed, killed_writing="checkpoint-00000011.partial")
    assert status == -signal.SIGKILL
    assert (tmp_path / "resumed" / "checkpoint-00000011.partial").is_dir()
    assert names(tmp_path / "resumed") == ["checkpoint-00000009", "checkpoint-00000010"]
    succeed(tmp_path, resumed)
    assert_same_state(tmp_path / "straight", tmp_path / "resumed")
    clock = ("seconds", "faces_per_second")
    mine, theirs = (
        [{name: value for name, value in line.items() if name not in clock} for line in read_metrics(tmp_path / run)]
        for run in ("straight", "resumed")
    )
    assert mine == theirs and [line["step"] for line in mine] == list(range(1, 21))
    assert not list((tmp_path / "resumed").glob("*.partial"))


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": ["accelerate.commands.launch", "--use_fsdp", "--num_processes", "2", "--main_process_port", "PORT"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers(prepared, tmp_path, launcher):
    launch = [word.replace("PORT", str(worker.free_port())) for word in LAUNCHERS[launcher]]
    lengths = ["--steps", 2, "--batch", 2, "--sheet-every", 0]
    arguments = ["train", prepared.path, "--preset", "rendered", *lengths, "--out"]
    command = [sys.executable, "-m", *launch, "-m", "facemodels", *map(str, arguments), "run"]
    command += ["--fsdp"] if launcher == "torchrun" else []  # accelerate has a word of its own
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and done.stdout.count("trained: run") == 1, done.stderr
    assert load_progress(checkpoints(tmp_path / "run")[-1])["faces"] == 8
