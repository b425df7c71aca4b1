"""Networks in directories and on the hub, which is a folder here."""

import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, hf_api
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from facemodels import pretrained
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.errors import InputError
from facemodels.files import read_tensors

FILES = ["README.md", "config.json", "model.safetensors", "morphable.safetensors"]


@pytest.fixture
def images():
    return torch.rand(3, 3, 64, 64)


@pytest.fixture
def saved(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def load(path, **options):
    return NeuroTensorialAutoencoder.from_pretrained(path, **options)


def assert_same_pictures(first, second, images):
    with torch.no_grad():
        one, two = (vars(model.decode(model.encode(images))) for model in (first, second))
    for name, value in one.items():
        assert_close(two[name], value, rtol=0, atol=0)


def test_round_trip(model, saved, images):
    assert sorted(path.name for path in saved.iterdir()) == FILES
    assert_same_pictures(load(saved), model, images)


def test_the_same_network_is_the_same_files(model, saved, tmp_path):
    load(saved).save_pretrained(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes(), name


def test_every_file_may_be_read_like_any_new_file(saved):
    (saved / "plain").touch()
    assert {path.stat().st_mode for path in saved.iterdir()} == {(saved / "plain").stat().st_mode}


def test_without_the_morphable_model_it_still_encodes_and_decodes(model, saved, images, morphable):
    (saved / "morphable.safetensors").unlink()
    alone = load(saved)
    with torch.no_grad():
        assert_close(alone.decode(alone.encode(images)).image, model.decode(model.encode(images)).image)
        assert alone.decode(alone.encode(images)).shape is None
    assert_same_pictures(load(saved, morphable=morphable), model, images)


def test_a_network_without_one_removes_that_of_the_network_before(network_config, saved):
    NeuroTensorialAutoencoder(network_config).save_pretrained(saved)
    assert not (saved / "morphable.safetensors").exists()
    assert load(saved).morphable is None


def test_weights_gathered_elsewhere(model, images, tmp_path):
    half = {name: value.half() for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=half)
    assert load_file(tmp_path / "model.safetensors")["encoder.head.weight"].dtype == torch.float16
    again = load(tmp_path)
    assert again.encoder.head.weight.dtype == torch.float32
    assert_close(again.encoder.head.weight, model.encoder.head.weight.half().float())


def test_old_checkpoints_behave_as_they_did(model, saved, images):
    """Before these were settings the bottleneck was tanh, and pictures had 64 pixels."""
    model = NeuroTensorialAutoencoder(dataclasses.replace(model.config, cut_background=False), model.morphable).eval()
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, saved / "model.safetensors")
    config = model.config.to_dict()
    for name in ("size", "bottleneck", "skips", "cut_background", "rotation", "cores"):
        del config[name]
    (saved / "config.json").write_text(json.dumps(config))
    assert_same_pictures(load(saved), model, images)


def test_classes_made_of_the_network_at_run_time(model, tmp_path):
    """As FSDP makes them."""
    sharded = type("FSDPNetwork", (NeuroTensorialAutoencoder,), {})
    model.__class__ = sharded
    model.save_pretrained(tmp_path)
    assert type(load(tmp_path)) is NeuroTensorialAutoencoder


class TestWholeOrNotAtAll:
    @pytest.mark.parametrize("moment", range(6))
    def test_a_full_disk_leaves_the_old_network(self, model, saved, network_config, images, monkeypatch, moment):
        calls, sync = [], os.fsync

        def full(handle):
            calls.append(handle)
            if len(calls) > moment:
                raise OSError(errno.ENOSPC, "No space left on device")
            sync(handle)

        new = NeuroTensorialAutoencoder(network_config, dataclasses.replace(model.morphable, name="other"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(InputError, match=r"the disk of .*model is full"):
                new.save_pretrained(saved)
        assert sorted(path.name for path in saved.iterdir()) == FILES
        assert_same_pictures(load(saved), model, images)

    def test_files_are_synced_that_may_be_written(self, model, tmp_path, monkeypatch):
        """Windows refuses others."""
        fcntl, modes = pytest.importorskip("fcntl"), []
        monkeypatch.setattr(os, "fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE))
        model.save_pretrained(tmp_path)
        assert set(modes) == {os.O_RDWR}

    def test_a_place_that_is_a_file(self, model, tmp_path):
        (tmp_path / "model").write_text("mine")
        with pytest.raises(InputError, match=r"model cannot be written to"):
            model.save_pretrained(tmp_path / "model")
        assert (tmp_path / "model").read_text() == "mine"

    @pytest.mark.parametrize("kept", FILES[1:])
    def test_a_run_killed_between_two_files_is_noticed(self, model, saved, network_config, tmp_path, kept):
        other = dataclasses.replace(network_config, bottleneck="sigmoid")  # of the same sizes
        morphable = dataclasses.replace(model.morphable, mean=model.morphable.mean + 1)
        NeuroTensorialAutoencoder(other, morphable).save_pretrained(tmp_path / "new")
        shutil.copy(saved / kept, tmp_path / "new" / kept)
        with pytest.raises(InputError, match="its files come from different runs"):
            load(tmp_path / "new")


class TestWrongInput:
    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no checkpoint at .*; train one with `facemodels train`"):
            load(tmp_path)
        with pytest.raises(InputError, match="there is no checkpoint at nowhere"):
            load("nowhere")

    def test_missing_weights(self, saved):
        (saved / "model.safetensors").unlink()
        with pytest.raises(InputError, match="there is no checkpoint at"):
            load(saved)

    @pytest.mark.parametrize("left", [0, 7, -100])
    def test_truncated(self, saved, left):
        weights = saved / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:left])
        with pytest.raises(InputError, match="cannot be read"):
            load(saved)

    def test_truncated_morphable_model(self, saved):
        file = saved / "morphable.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(InputError, match="damaged"):
            load(saved)

    @pytest.mark.parametrize("content", [b"", b'{"size": 64', b"\xff\xfe"])
    def test_damaged_config(self, saved, content):
        (saved / "config.json").write_bytes(content)
        with pytest.raises(InputError, match=r"its config\.json is damaged"):
            load(saved)

    @pytest.mark.parametrize("content", ['{"architectures": ["BertModel"], "vocab_size": 30522}', "[]", '"text"'])
    def test_another_programs_directory(self, saved, content):
        (saved / "config.json").write_text(content)
        with pytest.raises(InputError, match="is a model of another program, or of another version of this"):
            load(saved)

    def test_unknown_choice(self, saved):
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps({**config, "bottleneck": "relu"}))
        with pytest.raises(InputError, match="bottleneck must be one of sigmoid, tanh, got 'relu'"):
            load(saved)

    def test_files_of_different_runs(self, saved):
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps({**config, "background": 8}))
        with pytest.raises(InputError, match=r"does not fit its config\.json: the weights have background 7"):
            load(saved)

    def test_files_of_different_runs_without_a_record(self, saved):
        save_file(load_file(saved / "model.safetensors"), saved / "model.safetensors")
        config = json.loads((saved / "config.json").read_text())
        (saved / "config.json").write_text(json.dumps({**config, "background": 8}))
        with pytest.raises(InputError, match=r"does not fit its config\.json: size mismatch.*different runs"):
            load(saved)

    def test_missing_weight(self, saved):
        weights, record = read_tensors(saved / "model.safetensors")
        weights = {name: value.clone() for name, value in weights.items() if name != "shape_core.weight"}
        save_file(weights, saved / "model.safetensors", metadata=record)
        with pytest.raises(InputError, match="shape_core"):
            load(saved)

    def test_another_morphable_model(self, saved, morphable):
        other = dataclasses.replace(morphable, mean=morphable.mean + 1)
        with pytest.raises(InputError, match=r"trained with another morphable model than 'tiny'"):
            load(saved, morphable=other)
        other.save(saved / "morphable.safetensors")
        with pytest.raises(InputError, match="its files come from different runs"):
            load(saved)

    def test_one_clear_line(self, saved):
        (saved / "config.json").write_text("{}")
        with pytest.raises(InputError, match=r"does not fit its config\.json: .* come from different runs") as caught:
            load(saved)
        assert "\n" not in str(caught.value)


FACTS = {
    "licence": "cc-by-nc-4.0",
    "training_data": "Forty photos of volunteers.",
    "data_licence": "consent to research",
    "measures": {"PSNR in dB": 24.125, "person": "none"},
    "measured_on": "ten photos held out",
    "notes": "Trained for a minute.",
}


class TestCard:
    def test_in_the_hubs_format(self, model, tmp_path):
        model.save_pretrained(tmp_path, model_card_kwargs=FACTS)
        card = ModelCard.load(tmp_path / "README.md")
        assert card.data.license == "cc-by-nc-4.0" and card.data.library_name == "multilinear-faces"
        assert card.data.pipeline_tag == "image-to-image" and "faces" in card.data.tags
        (result,) = card.data.eval_results
        assert (result.metric_type, result.metric_value, result.dataset_name) == (
            "PSNR in dB",
            24.125,
            "ten photos held out",
        )

    def test_says_what_it_is_made_of_and_what_it_is_not_for(self, model, tmp_path):
        model.save_pretrained(tmp_path, model_card_kwargs=FACTS)
        text = (tmp_path / "README.md").read_text()
        for part in (
            "Forty photos of volunteers. Terms of use: consent to research.",
            "tiny, with 5 identity and 3 expression components; licence: none; source: made for tests",
            "| PSNR in dB | 24.12 |",
            "Trained for a minute.",
            "## Intended use",
            "## Limits",
            "A face is personal data",
            "Say that a picture was edited",
            "No identification, verification or surveillance",
        ):
            assert part in text, part

    def test_what_is_unknown_is_said_to_be(self, saved):
        text = (saved / "README.md").read_text()
        assert "Not recorded. Terms of use: not recorded" in text and "None recorded." in text

    def test_goes_where_the_network_goes(self, model, tmp_path):
        model.save_pretrained(tmp_path / "first", model_card_kwargs=FACTS)
        (tmp_path / "first" / "README.md").write_text("Written by hand.")
        load(tmp_path / "first").save_pretrained(tmp_path / "second")
        assert (tmp_path / "second" / "README.md").read_text() == "Written by hand."
        load(tmp_path / "first").save_pretrained(tmp_path / "third", model_card_kwargs=FACTS)
        assert "Forty photos" in (tmp_path / "third" / "README.md").read_text()

    def test_a_missing_card_is_no_matter(self, saved):
        (saved / "README.md").unlink()
        assert load(saved).card is None

    def test_unknown_facts(self, model, tmp_path):
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            model.save_pretrained(tmp_path / "model", model_card_kwargs={"colour": "blue"})
        assert not (tmp_path / "model").exists()


class Hub:
    """A hub that is the folder in which the real one's files are kept after a download."""

    def __init__(self, cache):
        self.cache = cache
        self.created = []

    def create_repo(self, repo_id, **_):
        self.created.append(repo_id)
        return hf_api.RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, repo_id, folder_path, ignore_patterns=None, **_):
        commit = f"{len(self.created):040d}"
        place = self.cache / f"models--{repo_id.replace('/', '--')}"
        ignored = shutil.ignore_patterns(*(ignore_patterns or []))
        shutil.copytree(folder_path, place / "snapshots" / commit, ignore=ignored)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(commit)
        return f"https://huggingface.co/{repo_id}/commit/{commit}"


class TestHub:
    @pytest.fixture
    def hub(self, tmp_path, monkeypatch):
        hub = Hub(tmp_path / "hub")
        for name in ("create_repo", "upload_folder"):
            method = getattr(hub, name)
            monkeypatch.setattr(HfApi, name, lambda self, *, method=method, **options: method(**options))
        monkeypatch.chdir(tmp_path)
        return hub

    @pytest.fixture
    def there(self, hub):
        return {"cache_dir": hub.cache, "local_files_only": True}

    def test_push_and_load(self, model, hub, there, images):
        address = model.push_to_hub("someone/faces", model_card_kwargs=FACTS)
        assert address.startswith("https://huggingface.co/someone/faces/commit/")
        again = load("someone/faces", **there)
        assert_same_pictures(again, model, images)
        assert "Forty photos" in again.card

    def test_save_and_push(self, model, hub, there, tmp_path):
        model.save_pretrained(tmp_path / "faces", push_to_hub=True, repo_id="someone/faces", model_card_kwargs=FACTS)
        assert "Forty photos" in load("someone/faces", **there).card == (tmp_path / "faces" / "README.md").read_text()

    def test_a_morphable_model_that_must_stay_at_home(self, model, hub, there, morphable, images):
        model.push_to_hub("someone/faces", ignore_patterns=["morphable.safetensors"])
        assert load("someone/faces", **there).morphable is None
        assert_same_pictures(load("someone/faces", morphable=morphable, **there), model, images)

    def test_a_directory_goes_before_the_hub(self, model, hub, there, tmp_path):
        model.save_pretrained(tmp_path / "someone" / "faces")
        assert load("someone/faces").morphable is not None

    def test_a_slip_in_a_path_is_not_looked_for_on_the_hub(self, hub, tmp_path, monkeypatch):
        monkeypatch.setattr(pretrained, "snapshot_download", None)
        (tmp_path / "runs").mkdir()
        with pytest.raises(InputError, match="there is no checkpoint at runs/faces"):
            load("runs/faces")

    def test_not_reachable(self, hub, there):
        message = "no checkpoint at someone/faces, neither a directory here nor a model on the Hugging Face hub"
        with pytest.raises(InputError, match=message) as caught:
            load("someone/faces", **there)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["someone/faces", "some--one/faces.", "someone/.."])
    def test_wrong_id(self, hub, monkeypatch, name):
        def answer(*_, **__):
            raise RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found.", response=Response())

        monkeypatch.setattr(pretrained, "snapshot_download", answer)
        with pytest.raises(InputError, match=f"there is no checkpoint at {name}") as caught:
            load(name)
        assert "\n" not in str(caught.value)

    def test_a_foreign_model_is_refused_before_its_weights_are_fetched(self, hub, monkeypatch, tmp_path):
        asked = []

        def answer(name, allow_patterns, **_):
            asked.append(allow_patterns)
            (tmp_path / "snapshot").mkdir()
            (tmp_path / "snapshot" / "config.json").write_text('{"architectures": ["BertModel"]}')
            return str(tmp_path / "snapshot")

        monkeypatch.setattr(pretrained, "snapshot_download", answer)
        with pytest.raises(InputError, match="someone/bert is a model of another program"):
            load("someone/bert")
        assert asked == [["config.json"]]


class Response:
    headers: dict[str, str] = {}  # noqa: RUF012
    request = None
    status_code = 404


def test_inference_imports_little():
    code = (
        "import sys, facemodels.autoencoder, facemodels.codes;"
        "heavy = 'accelerate av datasets matplotlib mediapipe onnx onnxruntime onnxscript pandas PIL pyarrow scipy"
        " skimage sklearn triton typer'.split(); print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
