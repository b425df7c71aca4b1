import pytest
import torch
from safetensors import safe_open
from tiny import make_rows
from torch.testing import assert_close

from facemodels.baselines import AdversarialAutoencoder, AdversarialConfig, adversarial_autoencoder, train_adversarial
from facemodels.data.dataset import write_prepared
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
        with torch.no_grad():
            return float((model(images) - images).square().mean())

    assert error(after) < 0.7 * error(before)
    assert not after.training


def trainer(prepared, **changes):
    return adversarial_autoencoder._Trainer(prepared.faces("train"), longer(100, **changes), torch.device("cpu"))


def test_the_encoder_deceives_the_judge(prepared, images):
    """With a judge that finds codes the more genuine the larger their first number is, that number grows."""
    running = trainer(prepared, prior=1e4, hidden=CONFIG.features)
    layers = [part for part in running.model.judge if isinstance(part, torch.nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            layer.bias.fill_(1.0)
            layer.weight.copy_(torch.eye(*layer.weight.shape))
    before = running.model.encode(images)[:, 0].mean()
    for number in range(3):
        running.step(number)
    assert running.model.encode(images)[:, 0].mean() > before + 1e-4


def test_the_judge_learns_what_is_genuine(prepared, images):
    running = trainer(prepared, prior=1e-9, learning_rate=1e-2)
    with torch.no_grad():
        running.model.head.bias.fill_(4.0)  # codes nobody would take for a draw of the prior
    for number in range(30):
        running.step(number)
    with torch.no_grad():
        genuine, coded = (
            running.model.judge(torch.randn(200, CONFIG.features)),
            running.model.judge(running.model.encode(images)),
        )
    assert genuine.mean() > coded.mean() + 0.5


def test_saved_for_inference(prepared, images, tmp_path):
    path, small = tmp_path / "z0.safetensors", tmp_path / "small.safetensors"
    trained = train_adversarial(prepared, path, CONFIG, progress=False)
    trained.save(small)
    loaded = AdversarialAutoencoder.load(small)
    assert loaded.judge is None and loaded.config == CONFIG and not loaded.training
    assert_close(loaded(images), trained(images), rtol=0, atol=1e-3)
    with safe_open(small, framework="pt") as content:
        assert content.metadata()["set"] == loaded.learnt_from == trained.learnt_from
        assert {content.get_tensor(name).dtype for name in content.keys()} == {torch.float16}


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
    for model in (again, AdversarialAutoencoder.load(path)):
        assert_close(model.state_dict(), trained.state_dict(), rtol=0, atol=0)
        assert_close(model.encode(images), trained.encode(images))


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


def test_sets_of_one_name_are_told_apart(prepared, morphable, tmp_path):
    path = tmp_path / "z0.safetensors"
    info = {"source": "wild", "seed": 3}
    one, other = (
        write_prepared(tmp_path / str(count), make_rows(4, seed=count), morphable, info | {"images_per_person": count})
        for count in (2, 4)
    )
    trained = train_adversarial(one, path, CONFIG, progress=False)
    with pytest.raises(InputError, match="was trained on another set"):
        train_adversarial(other, path, CONFIG, progress=False)
    tensors, texts = adversarial_autoencoder._read(path)
    write_tensors(path, tensors, {name: text for name, text in texts.items() if name != "preparation"})
    older = train_adversarial(one, path, CONFIG, progress=False)
    assert_close(older.state_dict(), trained.state_dict(), rtol=0, atol=0)


def test_labels_are_not_read(prepared, tmp_path):
    """The file knows the set by where it came from, and nothing of who is shown."""
    path = tmp_path / "z0.safetensors"
    train_adversarial(prepared, path, CONFIG, progress=False)
    with safe_open(path, framework="pt") as content:
        assert content.metadata()["set"] == "16 faces of “made for tests”"
