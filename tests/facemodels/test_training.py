import dataclasses
import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from facemodels.config import TrainingConfig
from facemodels.errors import InputError
from facemodels.training import loop as loop_module
from facemodels.training import train
from facemodels.training.checkpoint import checkpoints, load_progress, newest_run, resolve
from facemodels.training.loop import _batches, _learning_rate, _Progress


def weights(run):
    return load_file(checkpoints(run)[-1] / "model.safetensors")


@pytest.fixture
def settings(network_config, training_config):
    return {"network": network_config, "training": training_config, "progress": False}


def shortened(settings, **changes):
    return {**settings, "training": dataclasses.replace(settings["training"], **changes)}


def test_two_runs_are_equal(prepared, tmp_path, settings):
    train(prepared, tmp_path / "a", **settings)
    train(prepared, tmp_path / "b", **settings)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_interrupted_and_resumed_equals_straight(prepared, tmp_path, settings, monkeypatch):
    train(prepared, tmp_path / "straight", **settings)
    original, calls = loop_module._learning_rate, []

    def interrupt(state, training):
        calls.append(state.step)
        if state.step == 3:
            raise KeyboardInterrupt
        return original(state, training)

    monkeypatch.setattr(loop_module, "_learning_rate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(prepared, tmp_path / "resumed", **settings)
    assert load_progress(checkpoints(tmp_path / "resumed")[-1])["step"] == 3
    monkeypatch.setattr(loop_module, "_learning_rate", original)
    train(prepared, tmp_path / "resumed", **settings)
    straight, resumed = weights(tmp_path / "straight"), weights(tmp_path / "resumed")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


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


def test_nan_ends_the_run_and_keeps_the_checkpoint(prepared, tmp_path, settings, monkeypatch):
    train(prepared, tmp_path, **shortened(settings, steps=2))
    before = weights(tmp_path)

    class Broken(loop_module.TrainingStep):
        def forward(self, *args):
            result = super().forward(*args)
            return dataclasses.replace(result, total=result.total * float("nan"))

    monkeypatch.setattr(loop_module, "TrainingStep", Broken)
    with pytest.raises(FloatingPointError, match=r"became nan at step 2; the last checkpoint .* is intact"):
        train(prepared, tmp_path, **settings)
    after = weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_refusals(prepared, tmp_path, settings):
    with pytest.raises(InputError, match="either a number of steps or a number of minutes"):
        train(prepared, tmp_path, **shortened(settings, minutes=1.0))
    with pytest.raises(InputError, match="holds 16 faces to train on, fewer than one batch of 17"):
        train(prepared, tmp_path, **shortened(settings, batch=17))
    train(prepared, tmp_path, **settings)
    with pytest.raises(InputError, match="was trained with other settings"):
        train(prepared, tmp_path, **shortened(settings, learning_rate=0.5, steps=9))
    (checkpoints(tmp_path)[-1] / "optimizer.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be resumed from"):
        train(prepared, tmp_path, **shortened(settings, steps=9))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_face_once_an_epoch(processes):
    training = TrainingConfig(batch=2)
    steps = 12 // (2 * processes)
    seen = [
        next(iterator).tolist()
        for process in range(processes)
        for iterator in [_batches(12, training, 0, process, processes)]
        for _ in range(steps)
    ]
    assert sorted(itertools.chain.from_iterable(seen)) == list(range(12))


def test_batches_start_anywhere():
    training = TrainingConfig(batch=3)
    straight = _batches(10, training, 0, 0, 1)
    late = [next(straight) for _ in range(8)][5:]
    resumed = _batches(10, training, 5, 0, 1)
    for expected in late:
        assert_close(next(resumed), expected)


def test_learning_rate_warms_up_and_falls():
    training = TrainingConfig(steps=100, warmup=10, learning_rate=1.0, final_rate=0.01)
    rates = [_learning_rate(_Progress(step=step), training) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-6) and max(rates) > 0.95
    assert rates[100] == pytest.approx(0.01) and all(a >= b for a, b in itertools.pairwise(rates[10:]))
