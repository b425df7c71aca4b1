import dataclasses
import errno
import itertools
import json
import math
import os
import signal
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_rows
from torch.testing import assert_close

from facemodels.config import TrainingConfig
from facemodels.data.dataset import write_prepared
from facemodels.errors import InputError, RunError
from facemodels.training import loop as loop_module
from facemodels.training import train
from facemodels.training.checkpoint import checkpoints, load_progress, newest_run, resolve
from facemodels.training.logs import read_metrics
from facemodels.training.loop import _fall, _Progress, _warmth, stream


def weights(run):
    return load_file(checkpoints(run)[-1] / "model.safetensors")


def assert_same_state(first, second):
    """The newest checkpoints of two runs hold the same bits and the same progress, but for the clock."""
    first, second = checkpoints(first)[-1], checkpoints(second)[-1]
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in second.iterdir())
    for name in (name for name in names if name.endswith(".safetensors")):
        mine, theirs = load_file(first / name), load_file(second / name)
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine), name
    mine, theirs = load_progress(first), load_progress(second)
    assert {**mine, "seconds": 0, "logged_seconds": 0} == {**theirs, "seconds": 0, "logged_seconds": 0}


@pytest.fixture
def settings(network_config, training_config):
    weights = dataclasses.replace(training_config.weights, adversarial=0.1)
    training = dataclasses.replace(training_config, weights=weights, adversarial_start=0.3)
    return {"network": network_config, "training": training, "progress": False}


def shortened(settings, **changes):
    return {**settings, "training": dataclasses.replace(settings["training"], **changes)}


def test_two_runs_are_equal(prepared, tmp_path, settings):
    train(prepared, tmp_path / "a", **settings)
    train(prepared, tmp_path / "b", **settings)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def stop_at(monkeypatch, step):
    """Ask a run to stop as Ctrl-C does, in its step `step`."""
    original = loop_module._Trainer._advance

    def advance(self, stop):
        if self.progress.step == step - 1:
            signal.raise_signal(signal.SIGINT)
            stop = 1.0
        return original(self, stop)

    monkeypatch.setattr(loop_module._Trainer, "_advance", advance)


def test_interrupted_and_resumed_equals_straight(prepared, tmp_path, settings, monkeypatch):
    train(prepared, tmp_path / "straight", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 3)
        train(prepared, tmp_path / "resumed", **settings)
    assert load_progress(checkpoints(tmp_path / "resumed")[-1])["step"] == 3
    train(prepared, tmp_path / "resumed", **settings)
    assert_same_state(tmp_path / "straight", tmp_path / "resumed")


def test_faces_are_learnt(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=60, log_every=20, warmup=5))  # of smoothed metrics
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert lines[-1]["face_l1"] < 0.8 * lines[0]["face_l1"] and lines[-1]["image_l2"] < lines[0]["image_l2"]


def test_bf16_on_a_cpu_trains(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, precision="bf16"))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_a_finished_run_is_left_alone(prepared, tmp_path, settings):
    train(prepared, tmp_path, **settings)
    before = checkpoints(tmp_path)
    train(prepared, tmp_path, **settings)
    assert checkpoints(tmp_path) == before


def test_only_the_newest_checkpoints_stay(prepared, tmp_path, settings):
    run = tmp_path / "run"
    train(prepared, run, **shortened(settings, checkpoint_minutes=0.0))
    assert [path.name for path in checkpoints(run)] == ["checkpoint-00000005", "checkpoint-00000006"]
    assert resolve(run) == checkpoints(run)[-1] == resolve(checkpoints(run)[-1])
    assert newest_run(tmp_path) == run and newest_run(tmp_path / "nowhere") is None


def test_time_limits_a_run(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=None, minutes=0.02))
    progress = load_progress(checkpoints(tmp_path)[-1])
    assert progress["step"] > 0 and progress["seconds"] >= 1.2


class Broken(loop_module.TrainingStep):
    """A step whose objective is not finite in the batches `wrong`."""

    wrong: ClassVar[range] = range(0)
    calls: ClassVar[int] = 0

    def forward(self, *args):
        result = super().forward(*args)
        Broken.calls += 1
        return dataclasses.replace(result, total=result.total * math.nan) if Broken.calls in self.wrong else result


@pytest.fixture
def breaks(monkeypatch):
    """Make the batches of these numbers, from 1, give no finite objective."""

    def breaks(*wrong):
        monkeypatch.setattr(loop_module, "TrainingStep", Broken)
        monkeypatch.setattr(Broken, "wrong", range(*wrong))
        monkeypatch.setattr(Broken, "calls", 0)

    return breaks


def test_a_step_that_is_not_finite_is_skipped_and_counted(prepared, tmp_path, settings, breaks, capsys):
    breaks(3, 5)
    train(prepared, tmp_path, **shortened(settings, log_every=2))
    assert [line["skipped"] for line in read_metrics(tmp_path)] == [0, 2, 2]
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())
    assert "step 3 was skipped: not finite: objective" in capsys.readouterr().err


def test_many_such_steps_end_the_run_and_keep_the_checkpoint(prepared, tmp_path, settings, breaks):
    train(prepared, tmp_path, **shortened(settings, steps=2))
    before = weights(tmp_path)
    breaks(1, 99)
    with pytest.raises(RunError, match=r"10 steps in a row had no finite .* the last checkpoint, .*02, is intact"):
        train(prepared, tmp_path, **shortened(settings, steps=50))
    after = weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_full_disk_ends_the_run_and_keeps_the_checkpoint(prepared, tmp_path, settings, monkeypatch):
    train(prepared, tmp_path, **shortened(settings, steps=2))
    before = weights(tmp_path)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"step 4 could not be written .*full.*checkpoint-00000002 is intact"):
        train(prepared, tmp_path, **shortened(settings, steps=4))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-00000002"]
    after = weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_says_what_it_was_trained_on(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=1))
    assert "16 faces of the prepared set `prepared`" in (checkpoints(tmp_path)[-1] / "README.md").read_text()


def test_refusals(prepared, tmp_path, settings):
    with pytest.raises(InputError, match="either a number of steps or a number of minutes"):
        train(prepared, tmp_path, **shortened(settings, minutes=1.0))
    large = write_prepared(tmp_path / "large", make_rows(4, size=128), prepared.morphable, {})
    with pytest.raises(InputError, match="holds pictures of 128 pixels, the network takes 64; prepare it anew"):
        train(large, tmp_path / "larger", **settings)
    assert not (tmp_path / "larger").exists()
    with pytest.raises(InputError, match="holds 16 faces to train on, fewer than one batch of 17"):
        train(prepared, tmp_path, **shortened(settings, batch=17))
    train(prepared, tmp_path, **settings)
    with pytest.raises(InputError, match=r"was trained with other settings \(learning_rate 0.001, now 0.5\)"):
        train(prepared, tmp_path, **shortened(settings, learning_rate=0.5, steps=9))
    (checkpoints(tmp_path)[-1] / "optimizer.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be resumed from"):
        train(prepared, tmp_path, **shortened(settings, steps=9))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_face_once_an_epoch(processes):
    seen = [
        stream(12, 0, 2 * processes * step + 2 * process, 2).tolist()
        for process in range(processes)
        for step in range(12 // (2 * processes))
    ]
    assert sorted(itertools.chain.from_iterable(seen)) == list(range(12))


def test_the_stream_of_faces_starts_anywhere():
    whole = stream(10, 3, 0, 35)
    assert_close(stream(10, 3, 7, 6), whole[7:13])
    assert sorted(whole[10:20].tolist()) == list(range(10)) and whole[:10].tolist() != whole[10:20].tolist()


def test_learning_rate_warms_up_and_falls():
    training = TrainingConfig(steps=100, warmup=10, final_rate=0.01)
    rates = [_warmth(_Progress(step=step), training) * _fall(step / 100, training) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-6) and max(rates) > 0.95
    assert rates[100] == pytest.approx(0.01) and all(a >= b for a, b in itertools.pairwise(rates[10:]))
