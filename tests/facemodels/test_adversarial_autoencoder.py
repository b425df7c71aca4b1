import json

import pytest
import torch
from safetensors import safe_open
from torch.testing import assert_close

from facemodels.baselines import AdversarialAutoencoder, AdversarialConfig, adversarial_autoencoder, train_adversarial
from facemodels.errors import InputError
from facemodels.files import write_tensors

CONFIG = AdversarialConfig(channels=(6, 5, 4), intermediate=8, features=7, hidden=9, steps=4, batch=4)


@pytest.fixture
def images(prepared):
    return prepared.faces("test").pictures()


def longer(steps, **changes):
    return AdversarialConfig(**{**vars(CONFIG), "steps": steps, **changes})


def test_sizes(images):
    model = AdversarialAutoencoder(CONFIG)
    codes = model.encode(images)
    assert codes.shape == (8, 7) and not codes.requires_grad
    assert model.decode(codes).shape == images.shape
    assert_close(model.encode(images), torch.cat([model.encode(image[None]) for image in images]))


def test_training_lowers_the_error(prepared, images, tmp_path):
    before = AdversarialAutoencoder(longer(60))
    after = train_adversarial(prepared, tmp_path / "z0.safetensors", longer(60), progress=False)

    def error(model):
        return float((model(images) - images).square().mean())

    assert error(after) < 0.7 * error(before)
    assert not after.training


def test_the_prior_draws_the_codes(prepared, images, tmp_path):
    """The heavier the adversarial term, the nearer the codes are to a standard normal distribution."""

    def spread(prior):
        path = tmp_path / f"{prior}.safetensors"
        codes = train_adversarial(prepared, path, longer(200, prior=prior, hidden=50), progress=False).encode(images)
        return abs(float(codes.std()) - 1) + abs(float(codes.mean()))

    assert spread(3000.0) < 0.8 * spread(0.0)


def test_resumed_is_as_if_never_stopped(prepared, tmp_path, monkeypatch):
    path, whole = tmp_path / "z0.safetensors", tmp_path / "whole.safetensors"
    own = adversarial_autoencoder._Trainer.step

    def stop_at_two(self, number):
        if number == 2:
            raise KeyboardInterrupt
        own(self, number)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(adversarial_autoencoder._Trainer, "step", stop_at_two)
        train_adversarial(prepared, path, CONFIG, progress=False)
    with safe_open(path, framework="pt") as content:
        assert content.metadata()["step"] == "2"
    with pytest.raises(InputError, match="interrupted at step 2 of 4; finish it with the same"):
        AdversarialAutoencoder.load(path)
    resumed = train_adversarial(prepared, path, CONFIG, progress=False)
    expected = train_adversarial(prepared, whole, CONFIG, progress=False)
    for name, value in expected.state_dict().items():
        assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_finished_is_read_not_trained(prepared, images, tmp_path, monkeypatch):
    path = tmp_path / "z0.safetensors"
    trained = train_adversarial(prepared, path, CONFIG, progress=False)
    monkeypatch.setattr(adversarial_autoencoder, "_Trainer", None)
    again = train_adversarial(prepared, path, CONFIG, progress=False)
    assert_close(again.encode(images), trained.encode(images), rtol=0, atol=0)
    assert_close(AdversarialAutoencoder.load(path).encode(images), trained.encode(images), rtol=0, atol=0)


def test_wrong_files(prepared, tmp_path):
    path = tmp_path / "z0.safetensors"
    train_adversarial(prepared, path, CONFIG, progress=False)
    with pytest.raises(InputError, match="was trained on another set or with other settings"):
        train_adversarial(prepared, path, longer(5), progress=False)
    with pytest.raises(InputError, match="does not exist; make it first"):
        train_adversarial(prepared, tmp_path / "no" / "where.safetensors", CONFIG)
    with pytest.raises(InputError, match="holds pictures of 64 pixels, the network takes 128"):
        train_adversarial(prepared, tmp_path / "other.safetensors", longer(4, size=128))
    write_tensors(path, {"x": torch.ones(1)}, {"format": "something"})
    with pytest.raises(InputError, match="holds no adversarial autoencoder"):
        AdversarialAutoencoder.load(path)
    with pytest.raises(InputError, match="there is no file"):
        AdversarialAutoencoder.load(tmp_path / "nothing.safetensors")


def test_labels_are_not_read(prepared, tmp_path):
    """The file knows the set by where it came from, and nothing of who is shown."""
    path = tmp_path / "z0.safetensors"
    train_adversarial(prepared, path, CONFIG, progress=False)
    with safe_open(path, framework="pt") as content:
        assert json.loads(content.metadata()["set"])["source"] == "made for tests"
