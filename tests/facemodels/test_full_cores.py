"""Training with the paper's full cores, whose gradients stay in factors: the same numbers as with dense ones."""

import dataclasses

import pytest
import torch
import worker
from safetensors.torch import load_file
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.networks import channels_last
from facemodels.training import loop, train
from facemodels.training.checkpoint import checkpoints
from multilinear.optim import FactoredGradient


@pytest.fixture
def full(network_config):
    """The frontal core has 12288 x 9 x 6 x 9 = 6 million numbers."""
    return dataclasses.replace(network_config, frontal_rank=None, shape_space="vertices")


def states(run):
    path = checkpoints(run)[-1]
    return {name: load_file(path / f"{name}.safetensors") for name in ("model", "optimizer")}


def assert_same(first, second, **tolerances):
    for name, tensors in states(first).items():
        others = states(second)[name]
        assert tensors.keys() == others.keys()
        for key, value in tensors.items():
            assert_close(value, others[key], **tolerances, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_factors_change_nothing(prepared, tmp_path, full, training_config, monkeypatch, optimizer):
    training = dataclasses.replace(training_config, optimizer=optimizer, accumulation=2, steps=3, sheet_every=0)
    seen = []
    original = loop.gather_gradients

    def spy(network):
        seen.append(network.frontal_core.weight.grad)
        original(network)

    monkeypatch.setattr(loop, "gather_gradients", spy)
    train(prepared, tmp_path / "factored", network=full, training=training, progress=False)
    assert len(seen) == 3
    assert all(isinstance(gradient, FactoredGradient) and gradient.is_factored for gradient in seen)
    monkeypatch.setattr(loop, "factor_gradients", lambda step: [])
    train(prepared, tmp_path / "dense", network=full, training=training, progress=False)
    assert type(seen[-1]) is torch.Tensor
    # both divide by |g|: where that is no larger than its rounding, a step differs by some of the rate, 1e-3
    assert_same(tmp_path / "factored", tmp_path / "dense", rtol=1e-3, atol=1e-4)


def test_a_full_core_keeps_its_order_in_memory(full, morphable):
    model = NeuroTensorialAutoencoder(full, morphable)
    channels_last(model)
    assert model.frontal_core.weight.is_contiguous()
    assert model.encoder.convolutions[1].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
def test_two_processes_equal_one(prepared, tmp_path, full, training_config):
    training = dataclasses.replace(training_config, batch=8, steps=3, sheet_every=0, adversarial_start=1.0)

    def run(name, processes):
        changed = dataclasses.replace(training, batch=8 // processes)
        network = dataclasses.replace(full, shape_space="coordinates")
        settings = {"network": network, "training": changed, "progress": False}
        started = worker.start(
            tmp_path,
            {"prepared": str(prepared.path), "run": str(tmp_path / name), "train": settings},
            processes,
            double=True,
        )
        for status, text in worker.finish(tmp_path, started):
            assert status == 0, text

    run("one", 1)
    run("two", 2)
    assert_same(tmp_path / "one", tmp_path / "two", rtol=1e-5, atol=1e-9)
