import dataclasses
import errno
import itertools
import math
import os
import shutil
import signal
import stat
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import make_rows
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import LossWeights, TrainingConfig
from facemodels.data.dataset import write_prepared
from facemodels.errors import InputError, RunError
from facemodels.gauge import prediction, whitening
from facemodels.networks import Context
from facemodels.training import loop as loop_module
from facemodels.training import stopping, train
from facemodels.training.checkpoint import best_checkpoint, checkpoints, load_progress, newest_run, resolve
from facemodels.training.logs import read_metrics as lines
from facemodels.training.loop import _fall, _Progress, _warmth, stream
from facemodels.training.processes import start


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
    training = dataclasses.replace(training_config, weights=weights, adversarial_start=0.3, sheet_every=0)
    return {"network": network_config, "training": training, "progress": False}


def shortened(settings, **changes):
    return {**settings, "training": dataclasses.replace(settings["training"], **changes)}


def test_two_runs_are_equal(prepared, tmp_path, settings):
    train(prepared, tmp_path / "a", **settings)
    train(prepared, tmp_path / "b", **settings)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def stop_at(monkeypatch, step, number=signal.SIGINT):
    """Ask a run to stop as Ctrl-C or a scheduler does, in its step `step`."""
    original = loop_module._Trainer._advance

    def advance(self, stop):
        common = original(self, stop)
        if self.progress.step == step - 1:  # so that the step under way is the last
            signal.raise_signal(number)
        return common

    monkeypatch.setattr(loop_module._Trainer, "_advance", advance)


def test_an_echo_of_a_signal_is_no_second_request(monkeypatch):
    now = 100.0
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stopping.StopRequest() as stop:
        assert not stop.wanted
        signal.raise_signal(signal.SIGINT)
        now += 1.0
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.wanted
        now += 2.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


def test_setting_up_is_interrupted_at_once(prepared, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(loop_module, "_usable", lambda *_: signal.raise_signal(signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            train(prepared, tmp_path / "run", **settings)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number, optimizer", [(signal.SIGINT, "adamw"), (signal.SIGTERM, "rmsprop")])
def test_interrupted_and_resumed_equals_straight(prepared, tmp_path, settings, monkeypatch, number, optimizer):
    settings = shortened(settings, optimizer=optimizer)
    train(prepared, tmp_path / "straight", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 3, number)
        train(prepared, tmp_path / "resumed", **settings)
    assert load_progress(checkpoints(tmp_path / "resumed")[-1])["step"] == 3
    train(prepared, tmp_path / "resumed", **settings)
    assert_same_state(tmp_path / "straight", tmp_path / "resumed")
    state = load_file(checkpoints(tmp_path / "resumed")[-1] / "optimizer.safetensors")
    assert ("square_avg" if optimizer == "rmsprop" else "exp_avg") in {name.rpartition("/")[2] for name in state}


def test_accumulated_batches_are_one_large_batch(prepared, tmp_path, settings):
    """With terms that are means over faces, all of them equally weighted."""
    nothing = dict.fromkeys(vars(LossWeights()), 0.0)
    weights = LossWeights(**{**nothing, "pose": 1.0, "light": 1.0, "image_l1": 1.0})
    settings = shortened(settings, weights=weights, surround_share=1.0, steps=3, log_every=1)
    train(prepared, tmp_path / "large", **shortened(settings, batch=8))
    train(prepared, tmp_path / "small", **shortened(settings, batch=2, accumulation=4))
    large, small = (load_progress(checkpoints(tmp_path / run)[-1]) for run in ("large", "small"))
    assert large["faces"] == small["faces"] == 24 and large["global_batch"] == small["global_batch"] == 8
    mine, theirs = ([line["gradient"] for line in lines(tmp_path / run)] for run in ("large", "small"))
    assert mine == pytest.approx(theirs, rel=1e-4)


def test_the_balance_sees_all_batches_of_a_step(prepared, tmp_path, settings):
    """With a discriminator that does not learn, and pictures that hardly do."""
    change = {"surround_share": 1.0, "steps": 1, "adversarial_start": 0.0, "discriminator_rate": 0.0, "log_every": 1}
    train(prepared, tmp_path / "large", **shortened(settings, **change, batch=8))
    train(prepared, tmp_path / "small", **shortened(settings, **change, batch=2, accumulation=4))
    large, small = (lines(tmp_path / run)[-1] for run in ("large", "small"))
    for name in ("k_t", "convergence", "real_error", "fake_error"):
        assert large[name] == pytest.approx(small[name], rel=1e-4), name
    assert large["k_t"] > 0
    mine, theirs = (
        load_file(checkpoints(tmp_path / run)[-1] / "adversary_optimizer.safetensors") for run in ("large", "small")
    )
    gradients = [name for name in mine if name.endswith("/exp_avg")]
    assert gradients and any(mine[name].any() for name in gradients)
    for name in gradients:
        assert_close(mine[name], theirs[name], rtol=1e-3, atol=1e-7)


def test_every_batch_has_draws_of_its_own(prepared, tmp_path, settings, monkeypatch):
    seeds = []
    forward = loop_module.TrainingStep.forward
    monkeypatch.setattr(
        loop_module.TrainingStep, "forward", lambda self, *args: seeds.append(args[1]) or forward(self, *args)
    )
    train(prepared, tmp_path, **shortened(settings, steps=2, accumulation=3))
    assert len(set(seeds)) == len(seeds) == 6


def test_expressions_are_lent_by_others_where_no_renders_lend_them(prepared, tmp_path, settings, monkeypatch, capsys):
    weights = dataclasses.replace(settings["training"].weights, swapped_face=2.0, swapped_codes=0.1)
    seen = []
    forward = loop_module.TrainingStep.forward

    def watched(self, faces, seed, done, first, lenders):
        seen.append(lenders)
        return forward(self, faces, seed, done, first, lenders)

    monkeypatch.setattr(loop_module.TrainingStep, "forward", watched)
    bare = write_prepared(
        tmp_path / "bare",
        [{name: value for name, value in row.items() if not name.startswith("swapped")} for row in make_rows(8)],
        prepared.morphable,
        {},
    )
    train(bare, tmp_path / "run", **shortened(settings, weights=weights, steps=2, log_every=1))
    assert seen == [None, None]
    assert "has no renders with another's expression: the term swapped_face is left out" in capsys.readouterr().err
    assert "swapped_face" not in lines(tmp_path / "run")[-1] and "swapped_codes" in lines(tmp_path / "run")[-1]


def test_a_run_goes_on_with_other_batches_and_says_so(prepared, tmp_path, settings, capsys):
    train(prepared, tmp_path, **shortened(settings, steps=2))
    train(prepared, tmp_path, **shortened(settings, steps=4, batch=2))
    assert "was trained on 16 faces, 4 a step; it goes on with 16 faces, 2 a step" in capsys.readouterr().err
    assert load_progress(checkpoints(tmp_path)[-1])["faces"] == 2 * 4 + 2 * 2


def test_faces_are_learnt(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=60, log_every=20, warmup=5))
    first, second, last = lines(tmp_path)
    assert [first["step"], second["step"], last["step"]] == [20, 40, 60]
    assert last["face_l1"] < 0.8 * first["face_l1"] and last["image_l2"] < first["image_l2"]


def test_bf16_on_a_cpu_trains(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, precision="bf16"))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


@pytest.mark.skipif(torch.accelerator.is_available(), reason="asks what a CPU does")
@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "no")])
def test_auto_is_bf16_only_where_it_is_fast(monkeypatch, fast, precision):
    monkeypatch.setattr("facemodels.training.processes.fast_bfloat16", lambda device: fast)
    assert start("auto", all_used=True).mixed_precision == precision
    assert start("bf16", all_used=True).mixed_precision == "bf16"


def test_a_finished_run_is_left_alone(prepared, tmp_path, settings):
    train(prepared, tmp_path, **settings)
    before = checkpoints(tmp_path)
    train(prepared, tmp_path, **settings)
    assert checkpoints(tmp_path) == before


def test_only_the_newest_checkpoints_stay(prepared, tmp_path, settings):
    run = tmp_path / "run"
    train(prepared, run, **shortened(settings, checkpoint_minutes=0.0))
    assert [path.name for path in checkpoints(run)] == ["checkpoint-00000005", "checkpoint-00000006"]
    assert resolve(run) == run / "model" and resolve(checkpoints(run)[-1]) == checkpoints(run)[-1]
    assert newest_run(tmp_path) == run and newest_run(tmp_path / "nowhere") is None


def test_a_finished_run_holds_the_network_with_white_codes(prepared, tmp_path, settings, monkeypatch):
    run = tmp_path / "run"
    returned = train(prepared, run, **settings)
    finished, last = (NeuroTensorialAutoencoder.from_pretrained(path) for path in (run / "model", checkpoints(run)[-1]))
    images = prepared.faces("train").pictures()
    with torch.no_grad():
        (white, codes), again = (model.perceive(images).identity for model in (finished, last)), returned.encode(images)
        assert_close(finished.decode(finished.encode(images)).image, last.decode(last.encode(images)).image)
    assert_close(white, codes @ whitening(codes).T.float(), rtol=1e-3, atol=1e-3)
    assert_close(again.identity, white)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, 8)
        train(prepared, run, **shortened(settings, steps=9))
    assert resolve(run) == checkpoints(run)[-1] and checkpoints(run)[-1].name == "checkpoint-00000008"
    train(prepared, run, **shortened(settings, steps=9))  # a longer run ends with its own
    assert resolve(run) == run / "model"


def test_the_end_of_a_run_keeps_no_context_of_all_faces(prepared, tmp_path, settings, monkeypatch):
    held, join = [], Context.cat
    monkeypatch.setattr(Context, "cat", staticmethod(lambda parts: join([held.append(part) or part for part in parts])))
    train(prepared, tmp_path, **shortened(settings, steps=1))
    assert held and not any(part.skips or part.indices for part in held)


def test_a_finished_run_frees_identity_codes_of_expressions(prepared, tmp_path, settings):
    run = tmp_path / "run"
    train(prepared, run, **shortened(settings, separate_identity=True))
    finished, last = (NeuroTensorialAutoencoder.from_pretrained(path) for path in (run / "model", checkpoints(run)[-1]))
    images = prepared.faces("train").pictures()
    with torch.no_grad():
        codes, before = finished.encode(images), last.encode(images)
        assert_close(finished.decode(codes).image, last.decode(before).image)
    identity = before.identity - before.expression @ prediction(before.expression, before.identity).T.float()
    assert_close(codes.identity, identity @ whitening(identity).T.float(), rtol=1e-3, atol=1e-3)
    assert finished.config.residual_identity and not last.config.residual_identity
    again = shortened(settings, start=str(run), steps=1, learning_rate=0.0)  # as it was in training, but white
    train(prepared, tmp_path / "again", **again)
    started = NeuroTensorialAutoencoder.from_pretrained(checkpoints(tmp_path / "again")[-1])
    with torch.no_grad():
        assert_close(started.decode(started.encode(images)).image, last.decode(before).image)
    assert not started.config.residual_identity


def test_a_run_starts_from_another(prepared, tmp_path, settings, network_config):
    train(prepared, tmp_path / "first", **settings)
    longer = shortened(settings, start=str(tmp_path / "first"), steps=1, learning_rate=0.0)
    train(prepared, tmp_path / "second", **longer)
    first, white = weights(tmp_path / "first"), load_file(tmp_path / "first" / "model" / "model.safetensors")

    def holds_white(run):
        found = weights(tmp_path / run)
        return all(torch.equal(found[name], white[name]) for name in white)

    assert holds_white("second")
    second = weights(tmp_path / "second")
    assert not torch.equal(first["heads.identity.weight"], second["heads.identity.weight"])
    (tmp_path / "first" / "model" / "morphable.safetensors").unlink()  # as exported without it
    train(prepared, tmp_path / "third", **longer)
    assert holds_white("third")
    shutil.rmtree(tmp_path / "third")
    rotation = {**longer, "network": dataclasses.replace(network_config, rotation="rotation")}
    train(prepared, tmp_path / "rotation", **rotation)
    assert holds_white("rotation")
    started = NeuroTensorialAutoencoder.from_pretrained(checkpoints(tmp_path / "rotation")[-1])
    assert started.config.rotation == "rotation"
    other = {**longer, "network": dataclasses.replace(network_config, background=8)}
    with pytest.raises(InputError, match=r"is no network to start from \(background 7, here 8\)"):
        train(prepared, tmp_path / "third", **other)
    assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("stages", [(), (7, 8)])
def test_a_run_starts_from_a_narrower_network(prepared, tmp_path, settings, network_config, stages):
    settings = {**settings, "network": dataclasses.replace(network_config, residual=stages)}
    train(prepared, tmp_path / "first", **settings)
    narrow = NeuroTensorialAutoencoder.from_pretrained(tmp_path / "first" / "model").eval()
    widths = {
        "channels": tuple(count + 3 for count in network_config.channels),
        "residual": (7, 8),
        "intermediate": 40,
    }
    wide = {
        **shortened(settings, start=str(tmp_path / "first"), steps=1, learning_rate=0.0),
        "network": dataclasses.replace(network_config, **widths),
    }
    train(prepared, tmp_path / "wide", **wide)
    started = NeuroTensorialAutoencoder.from_pretrained(checkpoints(tmp_path / "wide")[-1]).eval()
    assert {name: getattr(started.config, name) for name in widths} == widths
    images = prepared.faces("test").pictures()
    with torch.no_grad():
        old, new = (network.decode(network.encode(images)) for network in (narrow, started))
    for name in ("image", "face", "mask", "normals", "background"):
        assert_close(getattr(new, name), getattr(old, name), rtol=1e-4, atol=1e-5)
    found = weights(tmp_path / "wide")
    new_filters = found["encoder.convolutions.1.weight"][network_config.channels[1] :]
    assert new_filters.abs().amin(dim=(1, 2, 3)).min() > 0  # or they would never learn
    assert bool(found["encoder.residual.3.weight"].any()) == bool(stages)  # the last layer of new stages starts at 0
    train(prepared, tmp_path / "moved", **(wide | shortened(wide, learning_rate=1e-2, warmup=0, steps=3)))
    moved = weights(tmp_path / "moved")["heads.pose.weight"]
    assert moved[:, network_config.intermediate :].abs().min() > 0
    for name in ("residual.1.second.weight", "residual.3.weight"):
        assert not torch.equal(weights(tmp_path / "moved")[f"encoder.{name}"], found[f"encoder.{name}"])
    narrower = {**settings, "network": dataclasses.replace(network_config, intermediate=50)}
    with pytest.raises(InputError, match=r"is no network to start from \(channels .*; intermediate 40, here 50\)"):
        train(prepared, tmp_path / "back", **shortened(narrower, start=str(tmp_path / "wide")))


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
    assert [line["skipped"] for line in lines(tmp_path)] == [0, 2, 2]
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


def test_files_of_checkpoints_are_synced_that_may_be_written(prepared, tmp_path, settings, monkeypatch):
    """Windows refuses others."""
    fcntl, modes = pytest.importorskip("fcntl"), set()

    def sync(file):
        if not stat.S_ISDIR(os.fstat(file).st_mode):
            modes.add(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE)

    monkeypatch.setattr(os, "fsync", sync)
    train(prepared, tmp_path, **shortened(settings, steps=2))
    assert modes == {os.O_RDWR}


def test_a_checkpoint_says_what_it_was_trained_on(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=1))
    assert "16 faces of the prepared set `prepared`" in (checkpoints(tmp_path)[-1] / "README.md").read_text()


def spoilt(rows, *, black=(), broken=()):
    for number, row in enumerate(rows):
        if number in black:
            row["image"] = np.zeros_like(row["image"])
        if number in broken:
            row["light"] = np.full_like(row["light"], np.nan)
        yield row


def test_black_and_broken_faces_are_left_out_with_a_count(morphable, tmp_path, settings, capsys):
    rows = spoilt(make_rows(12), black=(0, 5), broken=(7,))
    spoilt_set = write_prepared(tmp_path / "set", rows, morphable, {})
    train(spoilt_set, tmp_path / "run", **settings)
    assert (
        "3 of 12 faces are left out: their picture is black or their numbers are not finite" in capsys.readouterr().err
    )
    progress = load_progress(checkpoints(tmp_path / "run")[-1])
    assert progress["set"] == 9 and progress["skipped"] == 0
    all_black = write_prepared(tmp_path / "black", spoilt(make_rows(8), black=range(8)), morphable, {})
    with pytest.raises(InputError, match="holds 0 faces to train on, fewer than one batch of 4"):
        train(all_black, tmp_path / "other", **settings)


def test_an_empty_split_is_refused(morphable, tmp_path, settings):
    empty = write_prepared(tmp_path / "set", make_rows(4, held_out=4), morphable, {})
    with pytest.raises(InputError, match="holds no faces of the split 'train'"):
        train(empty, tmp_path / "run", **settings)


def test_a_set_of_another_morphable_model_is_refused(prepared, morphable, tmp_path, settings):
    train(prepared, tmp_path / "run", **shortened(settings, steps=1))
    other = dataclasses.replace(morphable, mean=morphable.mean + 1)
    with pytest.raises(InputError, match="was trained on a set prepared with another morphable model"):
        train(write_prepared(tmp_path / "set", make_rows(8), other, {}), tmp_path / "run", **settings)


FILES = ["model.safetensors", "optimizer.safetensors", "adversary.safetensors", "training.json", "config.json"]


def test_a_truncated_checkpoint_is_refused(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=1))
    for name in FILES:
        path = checkpoints(tmp_path)[-1] / name
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(InputError, match=r"cannot be resumed from .* remove it to go on from the one before"):
            train(prepared, tmp_path, **settings)
        path.write_bytes(content)
    train(prepared, tmp_path, **shortened(settings, steps=2))


@pytest.fixture
def monitor(monkeypatch):
    """A monitor that finds the network best in step 4."""

    class Monitor:
        def __init__(self, prepared, run):
            self.sheets = run / "sheets"

        def __call__(self, network, step):
            assert network.training
            self.sheets.mkdir(exist_ok=True)
            Image.new("RGB", (8, 8), (step, 0, 0)).save(self.sheets / f"step-{step:08d}.png")
            return {"psnr": 1.0 * step, loop_module.BEST: -abs(step - 4.0)}

    monkeypatch.setattr(loop_module, "Monitor", Monitor)


def test_sheets_are_logged_and_the_best_checkpoint_stays(prepared, tmp_path, settings, monitor):
    train(prepared, tmp_path, **shortened(settings, steps=9, sheet_every=2, log_every=3, checkpoint_minutes=0.0))
    names = [path.name for path in checkpoints(tmp_path)]
    assert names == ["checkpoint-00000004", "checkpoint-00000008", "checkpoint-00000009"]
    best = best_checkpoint(tmp_path)
    assert best is not None and best.name == "checkpoint-00000004"
    held_out = [line["step"] for line in lines(tmp_path) if "held_out/psnr" in line]
    assert held_out == [2, 4, 6, 8, 9]  # the last step, too
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Images("sheet")] == held_out
    assert [event.step for event in events.Scalars("train/objective")] == [3, 6, 9]
    assert {"train/k_t", "train/convergence", "train/learning_rate", "train/faces_per_second", "train/skipped"} < set(
        events.Tags()["scalars"]
    )


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_last_step_is_measured_before_it_is_saved(prepared, tmp_path, settings, monitor, monkeypatch, interrupted):
    """Whether a checkpoint falls due in it, or somebody asks it to stop: the run is finished."""

    class Growing(loop_module.Monitor):
        def __call__(self, network, step):
            return super().__call__(network, step) | {loop_module.BEST: float(step)}

    monkeypatch.setattr(loop_module, "Monitor", Growing)
    change = {"steps": 5, "sheet_every": 2, "checkpoint_minutes": 60.0 if interrupted else 0.0}
    if interrupted:
        stop_at(monkeypatch, 5)
    train(prepared, tmp_path, **shortened(settings, **change))
    assert [line["step"] for line in lines(tmp_path) if "held_out/psnr" in line] == [2, 4, 5]
    best = best_checkpoint(tmp_path)
    assert best is not None and best == checkpoints(tmp_path)[-1] and best.name == "checkpoint-00000005"


def test_other_folders_of_a_run_are_no_checkpoints(prepared, tmp_path, settings):
    for name in ("checkpoint-best", "checkpoint-00000009.partial", "checkpoint-1-copy"):
        (tmp_path / "run" / name).mkdir(parents=True)
    train(prepared, tmp_path / "run", **shortened(settings, steps=1))
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["checkpoint-00000001"]
    assert newest_run(tmp_path) == tmp_path / "run"


def test_without_tensorboard_one_line_says_so(prepared, tmp_path, settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(prepared, tmp_path, **shortened(settings, steps=2, log_every=1))
    assert (
        capsys.readouterr().err == "facemodels: TensorBoard is not installed: the numbers go to metrics.jsonl alone\n"
    )
    assert len(lines(tmp_path)) == 2 and not (tmp_path / "tensorboard").exists()


def test_fp16_needs_a_gpu(prepared, tmp_path, settings):
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        train(prepared, tmp_path, **shortened(settings, precision="fp16"))


def test_a_full_graphics_memory_says_what_to_try(prepared, tmp_path, settings, monkeypatch):
    def full(self, *args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop_module.TrainingStep, "forward", full)
    with pytest.raises(RunError, match="too little memory for 4 faces at once: halve the batch"):
        train(prepared, tmp_path, **settings)


def test_refusals(prepared, tmp_path, settings):
    with pytest.raises(InputError, match="either a number of steps or a number of minutes"):
        train(prepared, tmp_path, **shortened(settings, minutes=1.0))
    with pytest.raises(InputError, match="holds 16 faces to train on, fewer than one batch of 17"):
        train(prepared, tmp_path, **shortened(settings, batch=17))
    with pytest.raises(InputError, match="the term face_mask needs a network with a mask of its own"):
        train(prepared, tmp_path, **{**settings, "network": dataclasses.replace(settings["network"], face_mask=False)})
    with pytest.raises(InputError, match=r"decorrelation, .* compare faces of a batch: set a batch of two"):
        train(prepared, tmp_path, **shortened(settings, batch=1))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file cannot be written to"):
        train(prepared, tmp_path / "file", **settings)
    train(prepared, tmp_path, **settings)
    with pytest.raises(InputError, match="start None, now elsewhere"):
        train(prepared, tmp_path, **shortened(settings, start="elsewhere", steps=9))
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


def test_the_gradient_is_clipped_and_enters_the_moments(prepared, tmp_path, settings):
    train(prepared, tmp_path, **shortened(settings, steps=1, gradient_clip=1e-3, betas=(0.5, 0.8), log_every=1))
    assert lines(tmp_path)[-1]["gradient"] > 1e-3
    state = load_file(checkpoints(tmp_path)[-1] / "optimizer.safetensors")
    first, second = (
        torch.cat([value.flatten() for name, value in state.items() if name.endswith(f"/{moment}")]).double()
        for moment in ("exp_avg", "exp_avg_sq")
    )
    assert first.norm().item() == pytest.approx(0.5 * 1e-3, rel=1e-3)
    assert second.sum().item() == pytest.approx(0.2 * 1e-3**2, rel=2e-3)


def test_weights_decay_by_the_rate_of_the_step(prepared, tmp_path, settings):
    runs = {
        "start": {"learning_rate": 0.0},
        "plain": {"learning_rate": 0.1, "weight_decay": 0.0},
        "decayed": {"learning_rate": 0.1, "weight_decay": 0.5},
    }
    for name, change in runs.items():
        train(prepared, tmp_path / name, **shortened(settings, steps=1, warmup=0, **change))
    start, plain, decayed = (weights(tmp_path / name) for name in runs)
    learnt = [name for name in start if not torch.equal(start[name], plain[name])]
    assert len(learnt) > 20
    for name in learnt:
        assert_close(decayed[name], plain[name] - 0.1 * 0.5 * start[name], rtol=1e-4, atol=1e-5)


def test_expressions_are_lent_by_the_faces_that_the_renders_name(prepared, tmp_path, settings, monkeypatch):
    """In the sets of these tests everyone lends to their neighbour."""
    images, checked = prepared.faces("train").image, []
    forward = loop_module.TrainingStep.forward

    def watched(self, faces, seed, done, first, lenders):
        rows = [next(row for row, one in enumerate(images) if torch.equal(one, image)) for image in faces.image]
        assert torch.equal(lenders, images[[row ^ 1 for row in rows]])
        checked.extend(rows)
        return forward(self, faces, seed, done, first, lenders)

    monkeypatch.setattr(loop_module.TrainingStep, "forward", watched)
    train(prepared, tmp_path, **shortened(settings, steps=4))
    assert sorted(checked) == list(range(16))


def test_both_rates_fall_and_one_warms_up(prepared, tmp_path, settings, monkeypatch):
    rates = []
    monkeypatch.setattr(loop_module, "_set_rate", lambda optimizer, rate: rates.append(rate))
    change = {"steps": 4, "warmup": 3, "adversarial_start": 0.0, "learning_rate": 0.01, "discriminator_rate": 0.02}
    train(prepared, tmp_path, **shortened(settings, **change, final_rate=0.1))
    fall = [0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * step / 4)) for step in range(4)]
    assert rates[::2] == pytest.approx([0.01 * f * min(1, (step + 1) / 3) for step, f in enumerate(fall)])
    assert rates[1::2] == pytest.approx([0.02 * f for f in fall])


def test_learning_rate_warms_up_and_falls():
    training = TrainingConfig(steps=100, warmup=10, final_rate=0.01)
    rates = [_warmth(_Progress(step=step), training) * _fall(step / 100, training) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=1e-6) and max(rates) > 0.95
    assert rates[100] == pytest.approx(0.01) and all(a >= b for a, b in itertools.pairwise(rates[10:]))
