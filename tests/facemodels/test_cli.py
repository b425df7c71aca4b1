"""The command line as a user meets it: exit status, one clear line, nothing half-written."""

import importlib
import json
import os
import re
import subprocess
import sys

import pytest
import torch
import typer
from drawn_faces import BrightFaces, write_clip, write_photo
from PIL import Image

from facemodels import cli
from facemodels.training.checkpoint import checkpoints, load_progress


def run(monkeypatch, capsys, *arguments):
    """Status, output and errors of a call."""
    monkeypatch.setattr(sys, "argv", ["facemodels", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


@pytest.fixture
def tiny_preset(monkeypatch, network_config, training_config):
    from facemodels import config

    monkeypatch.setitem(config.PRESETS, "tiny", (network_config, training_config))


def assert_one_line(result, text):
    status, _, errors = result
    assert status == 2
    assert errors.startswith("facemodels: ") and errors.count("\n") == 1 and "Traceback" not in errors
    assert text in errors


def test_help_names_every_command(call):
    status, out, _ = call("--help")
    assert status == 0
    commands = ("demo", "synthesise", "prepare", "train", "edit", "interpolate", "animate", "evaluate", "export", "app")
    assert all(name in out for name in commands)


def test_starts_quickly_without_heavy_imports():
    code = "import sys, facemodels.cli; print([m for m in ('torch', 'datasets', 'mediapipe') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_its_packages_the_command_says_so(monkeypatch, capsys):
    from facemodels import __main__

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 2 and "pip install 'multilinear-faces[faces]'" in capsys.readouterr().err


def test_train_evaluate(call, prepared, tiny_preset, tmp_path):
    status, out, _ = call("train", prepared.path, "--preset", "tiny", "--steps", 3)
    assert status == 0 and "trained: runs/prepared" in out
    assert len(checkpoints(tmp_path / "runs" / "prepared")) == 1
    status, out, _ = call("evaluate", prepared.path, "--out", "report.json")
    assert status == 0 and re.search(r"held-out faces +8\n", out)
    assert json.loads((tmp_path / "report.json").read_text())["faces"] == 8


def test_train_takes_settings_and_goes_on(call, prepared, tiny_preset, tmp_path):
    command = ["train", prepared.path, "--preset", "tiny", "--batch", 2, "--sheet-every", 0, "--out", "run"]
    command += ["--accumulation", 3, "--no-adversarial", "--learning-rate", 0.01]
    command += ["--weight", "decorrelation=0.5", "--weight", "cycle=0"]
    command += ["--setting", "light_channels=3", "--setting", "gamma=0.7"]
    assert call(*command, "--steps", 1)[0] == call(*command, "--steps", 2)[0] == 0
    progress = load_progress(checkpoints("run")[-1])
    settings = progress["training"]
    assert (progress["step"], progress["faces"], settings["learning_rate"]) == (2, 12, 0.01)
    assert settings["gamma"] == 0.7
    assert json.loads((checkpoints("run")[-1] / "config.json").read_text())["light_channels"] == 3
    weights = settings["weights"]
    assert (weights["decorrelation"], weights["cycle"], weights["carried_codes"]) == (0.5, 0, 0.1)
    assert weights["adversarial"] == 0 and not (checkpoints("run")[-1] / "adversary.safetensors").exists()
    command.remove("--no-adversarial")
    assert_one_line(call(*command, "--steps", 3), "trained with other settings (weights.adversarial 0.0, now 0.1)")
    one_light = [text for text in command if text not in ("--setting", "light_channels=3", "gamma=0.7")]
    assert_one_line(call(*one_light, "--steps", 3), "light_channels")
    assert_one_line(call(*command, "--steps", 3, "--verifier", "nothing.safetensors"), "nothing.safetensors")


@pytest.mark.parametrize("module", ["torch.distributed.run", "accelerate.commands.launch"])
def test_launchers_leave_the_options_of_train_alone(module):
    launcher = importlib.import_module(module)
    parser = getattr(launcher, "get_args_parser", None) or launcher.launch_command_parser
    train = typer.main.get_command(cli.app).commands["train"]
    options = [name for parameter in train.params for name in (*parameter.opts, *parameter.secondary_opts)]
    assert "--minutes" in options and "--start-from" in options
    for option in options:  # an option may not begin like one of theirs
        command = ["train", "SET", option, "1"]
        assert parser().parse_args(["-m", "facemodels", *command]).training_script_args == command


def test_export(call, model, prepared, tmp_path):
    model.save_pretrained(tmp_path / "model")
    status, out, _ = call("export", "model", "small")
    assert status == 0 and out.startswith("model.safetensors") and "like the network's own" in out
    assert sorted(os.listdir(tmp_path / "small")) == ["README.md", "config.json", "model.safetensors"]
    assert call("evaluate", prepared.path, "--model", "small")[0] == 0
    assert_one_line(call("export", "small", "again", "--cores"), "was exported without its cores")
    assert_one_line(call("reconstruct", "a.jpg", "--model", "small"), "export it again with --morphable")
    assert_one_line(call("export", "small", "again", "--morphable"), "carries no morphable model to keep")
    assert_one_line(call("export", "nowhere", "out"), "there is no checkpoint at nowhere")
    assert call("export", "model", "meshes", "--morphable")[0] == 0
    assert "morphable.safetensors" in os.listdir(tmp_path / "meshes")
    assert sorted(os.listdir(tmp_path)) == ["meshes", "model", "small"]


def test_wrong_input_ends_in_one_line(call, prepared, tmp_path):
    assert_one_line(call("train", tmp_path), "is not a prepared set")
    assert_one_line(call("train", prepared.path, "--preset", "huge"), "there is no preset 'huge'")
    assert_one_line(call("train", prepared.path, "--preset", "large"), "64 pixels, the network takes 128")
    assert_one_line(call("prepare", tmp_path, "--size", 100), "size must be 32 to 512 pixels")
    assert_one_line(call("synthesise", tmp_path / "x", "--size", 100), "size must be 32 to 512 pixels")
    assert_one_line(call("train", prepared.path, "--precision", "fp8"), "there is no precision 'fp8'")
    for weight, wrong in (("speed=1", "no term 'speed'"), ("pose", "TERM=NUMBER"), ("pose=-1", "of pose must be 0 or")):
        assert_one_line(call("train", prepared.path, "--weight", weight), wrong)
    for setting, wrong in (
        ("speed=1", "no setting 'speed'; choose one of size, channels, "),
        ("vertices=5", "no setting 'vertices'"),
        ("gamma", "NAME=VALUE"),
        ("batch=2", "batch is no --setting but has an option of its own"),
        ("skips=some", "skips must be one of add, none, got 'some'"),
        ("expression=7", "must be a multiple of 3, so that a rotation can turn the product of the codes, got 7 * 80"),
        ("surround_share=2", "surround_share must be from 0 to 1, got 2.0"),
    ):
        assert_one_line(call("train", prepared.path, "--setting", setting), wrong)
    assert_one_line(call("export", "facefactors", "x", "--report", "none.json"), "none.json is no report of")
    assert_one_line(call("evaluate", prepared.path, "--model", "nowhere"), "there is no checkpoint at nowhere")
    assert_one_line(call("edit", "a.jpg", "b.jpg", "--out", "edit.txt"), "is no name for a picture")
    assert_one_line(call("edit", "a.jpg", "b.jpg", "--out", "no/where/edit.png"), "does not exist; make it first")
    assert_one_line(call("synthesise", prepared.path), "exists already")
    assert_one_line(call("join", prepared.path, "--out", tmp_path / "j"), "joining takes two sets or more")
    twice = call("join", prepared.path, prepared.path, "--out", tmp_path / "j")
    assert_one_line(twice, "names that are there already")
    assert_one_line(call("synthesise", "set", "--design", "cubist"), "there is no design 'cubist'")
    assert_one_line(call("synthesise", "set", "--count", 10369), "FaceFactors has 10368 faces, not 10369")
    assert_one_line(call("train-verifier", prepared.path), "holds photos; only of synthetic faces")
    assert_one_line(call("train-verifier", prepared.path, "--out", "no/where.safetensors"), "make it first")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("edit", "a.jpg", "b.jpg"), "folder.png"),
        (("interpolate", "a.jpg", "b.jpg"), "folder.png"),
        (("interpolate", "a.jpg", "b.jpg"), "folder.gif"),
        (("animate", "a.gif", "b.jpg"), "folder.gif"),
        (("evaluate", "set"), "folder.json"),
        (("probe", "set"), "folder.json"),
        (("train-verifier", "set"), "folder.safetensors"),
    ],
)
def test_a_folder_is_no_file_to_write(call, tmp_path, command, out):
    (tmp_path / out).mkdir()
    assert_one_line(call(*command, "--out", out), f"{out} is a folder; name a file in it")
    assert os.listdir(tmp_path) == [out]


def test_synthesise_and_train_verifier(call, tmp_path):
    wild = ("synthesise", "wild", "--design", "wild", "--count", 16, "--images-per-person", 4, "--workers", 1)
    assert call(*wild)[:2] == (0, "16 faces in wild\n")
    assert call(*wild)[:2] == (0, "16 faces in wild, finished before\n")
    assert call("train-verifier", "wild", "--epochs", 1)[:2] == (0, "wrote verifier.safetensors\n")
    assert sorted(os.listdir(tmp_path)) == ["verifier.safetensors", "wild"]


def test_prepare_refuses_what_it_cannot_use(call, tmp_path, morphable):
    from facemodels.morphable import storage

    (tmp_path / "photos").mkdir()
    assert_one_line(call("prepare", "nowhere"), "there is no folder or file nowhere; check the path")
    assert_one_line(call("prepare", "photos"), "no photos in photos")
    wrong = {"mean": morphable.mean, "identity": morphable.identity[:, :-1], "expression": morphable.expression}
    wrong |= {name: getattr(morphable, name) for name in ("triangles", "face", "landmarks")}
    texts = {"name": "x", "licence": "x", "source": "x", "expression_names": '["open", "smile", "frown"]'}
    storage.write(tmp_path / "wrong.safetensors", wrong, texts)
    assert_one_line(call("prepare", "photos", "--morphable-model", "wrong.safetensors"), "identity must have shape")
    assert sorted(os.listdir(tmp_path)) == ["photos", "wrong.safetensors"]


def test_wrong_usage_has_status_two(call):
    assert call("train")[0] == 2
    assert call("paint")[0] == 2


class TestEdit:
    @pytest.fixture
    def checkpoint(self, model, tmp_path):
        model.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    @pytest.fixture
    def photo(self, tmp_path):
        from skimage import data

        Image.fromarray(data.astronaut()).save(tmp_path / "astronaut.jpg")
        return tmp_path / "astronaut.jpg"

    @pytest.mark.photos
    def test_writes_a_labelled_picture(self, call, checkpoint, photo, tmp_path):
        pytest.importorskip("mediapipe")
        status, out, _ = call("edit", photo, photo, "--expression", "--light", "--model", checkpoint)
        assert status == 0 and "wrote edit.png" in out
        with Image.open(tmp_path / "edit.png") as picture:
            assert picture.width == 6 * 132
        more = ("--refine", 2, "--out", "refined.png")
        assert call("edit", photo, photo, "--expression", "--light", "--model", checkpoint, *more)[0] == 0
        assert (tmp_path / "refined.png").read_bytes() != (tmp_path / "edit.png").read_bytes()

    @pytest.mark.photos
    def test_photos_that_do_not_work(self, call, checkpoint, photo, tmp_path):
        pytest.importorskip("mediapipe")
        Image.new("RGB", (200, 200), "grey").save(tmp_path / "wall.png")
        (tmp_path / "text.jpg").write_text("not a picture")
        before = sorted(os.listdir(tmp_path))
        assert_one_line(call("edit", photo, "wall.png", "--model", checkpoint), "no face found in wall.png")
        assert_one_line(call("edit", "text.jpg", photo, "--model", checkpoint), "text.jpg")
        assert_one_line(call("edit", "missing.jpg", photo, "--model", checkpoint), "missing.jpg")
        assert sorted(os.listdir(tmp_path)) == before

    @pytest.fixture
    def bright(self, monkeypatch):
        """A detector that needs no MediaPipe."""
        monkeypatch.setattr("facemodels.fitting.landmarks.MediaPipeDetector", BrightFaces)

    def test_a_folder_of_targets_with_some_that_fail(self, call, checkpoint, bright, tmp_path):
        (tmp_path / "targets").mkdir()
        source = write_photo(tmp_path / "a.jpg", 0, side=80)
        for number in range(2):
            write_photo(tmp_path / "targets" / f"{number}.png", number, side=100 + number, blue=90 + 160 * number)
        (tmp_path / "targets" / "x.png").write_text("no picture")
        status, out, errors = call(
            "edit", source, "targets", "gone.jpg", "--pose", "--light", "--paste", "--model", checkpoint
        )
        assert status == 1
        assert out.splitlines() == [f"wrote edit-{k}-{k - 1}-together.png" for k in (1, 2)] + ["wrote edit.png"]
        assert "targets/1.png shows 2 faces; the largest is taken, --target-face takes another" in errors
        assert "x.png is no image" in errors and "there is no photo gone.jpg" in errors
        assert "2 of 4 targets were left out" in errors
        with Image.open(tmp_path / "edit.png") as sheet, Image.open(tmp_path / "edit-1-0-together.png") as pasted:
            assert sheet.width > 6 * 132 and 2 * 132 < sheet.height < 3 * 132 and pasted.size == (80, 80)
        assert_one_line(call("edit", source, "targets/x.png", "--model", checkpoint), "x.png is no image")
        assert_one_line(
            call("edit", source, "targets/0.png", "--face", 2, "--model", checkpoint), "a.jpg has no face 2"
        )
        status, _, errors = call("edit", source, "gone.jpg", "targets/x.png", "--model", checkpoint, "--out", "b.png")
        assert status == 2 and "none of the 2 targets can be used" in errors and not (tmp_path / "b.png").exists()

    def test_each_factor_is_pasted_without_a_flag(self, call, checkpoint, bright, tmp_path):
        source, target = (write_photo(tmp_path / name, 0) for name in ("a.png", "b.png"))
        assert call("edit", source, target, "--paste", "--model", checkpoint, "--out", "e.jpg")[0] == 0
        assert len(list(tmp_path.glob("e-1-b-*.jpg"))) == 4

    def test_the_morphable_model_beside_the_network(
        self, call, network_config, checkpoint, bright, monkeypatch, tmp_path
    ):
        from facemodels.autoencoder import NeuroTensorialAutoencoder

        paths = [write_photo(tmp_path / name, 0) for name in ("a.png", "b.png")]
        NeuroTensorialAutoencoder(network_config).save_pretrained(tmp_path / "bare")
        assert_one_line(call("edit", *paths, "--baseline", "--model", "bare"), "carries no morphable model")
        room = "facemodels.baselines.morphable_edit"
        monkeypatch.setattr(f"{room}.fit_faces", lambda photos, _: photos)
        monkeypatch.setattr(f"{room}.morphable_edit", lambda *_: torch.zeros(1, 3, 64, 64))
        assert call("edit", *paths, "--baseline", "--model", checkpoint)[0] == 0
        with Image.open(tmp_path / "edit.png") as sheet:
            assert sheet.width == (3 + 4 + 3) * 132  # of another identity it knows nothing
        none = call("edit", *paths, "--baseline", "--identity", "--model", checkpoint)
        assert_one_line(none, "a morphable model cannot lend an identity")

    def test_a_network_exported_without_cores(self, call, checkpoint, bright, tmp_path):
        call("export", checkpoint, "small")
        source, target = write_photo(tmp_path / "a.png", 0, side=90), write_photo(tmp_path / "b.png", 1, side=200)
        for command in (("edit", source, target, "--paste"), ("interpolate", source, target, "--steps", 2)):
            assert call(*command, "--model", "small")[0] == 0

    def test_interpolate(self, call, checkpoint, bright, tmp_path):
        photos = write_photo(tmp_path / "a.png", 0), write_photo(tmp_path / "b.png", 1)
        command = ("interpolate", *photos, "--expression", "--identity", "--model", checkpoint)
        assert call(*command)[:2] == (0, "wrote interpolation.png\n")
        with Image.open(tmp_path / "interpolation.png") as strip:
            assert 13 * 132 < strip.width < 14 * 132 and 2 * 132 < strip.height < 3 * 132
        assert call(*command, "--out", "pasted.jpg", "--steps", 2, "--paste")[0] == 0
        with Image.open(tmp_path / "pasted.jpg") as strip:
            assert 4 * 196 < strip.width < 5 * 196
        refined = ("--out", "refined.png", "--refine", 2)
        assert call(*command, *refined)[0] == 0
        assert (tmp_path / "refined.png").read_bytes() != (tmp_path / "interpolation.png").read_bytes()
        assert call(*command, "--out", "film.gif", "--steps", 4)[0] == 0
        with Image.open(tmp_path / "film.gif") as film:
            assert (film.n_frames, film.width) == (6, 4 * 132)  # there and back
        assert_one_line(call(*command, "--out", "film.txt"), "film.txt is no name for a picture; end it in .png or")
        assert call(*command, "--steps", 1)[0] == 2

    def test_animate(self, call, checkpoint, bright, monkeypatch, tmp_path):
        template = write_photo(tmp_path / "a.png", 0)
        clip = write_clip(tmp_path / "clip.mp4", [1, None, 2])
        status, out, _ = call("animate", clip, template, "--smooth", 10, "--model", checkpoint)
        assert status == 0 and out.startswith("wrote animation.mp4: 3 frames, without sound\n")
        assert "frames without a face: 1" in out
        first = (tmp_path / "animation.mp4").read_bytes()
        with monkeypatch.context() as changed:
            changed.setattr("facemodels.editing.refine", lambda *asked: _of_another(*asked, steps=7))
            assert call("animate", clip, template, "--smooth", 10, "--refine", 7, "--model", checkpoint)[0] == 0
        assert (tmp_path / "animation.mp4").read_bytes() != first
        (tmp_path / "animation.mp4").unlink()
        (tmp_path / "text.mp4").write_text("no video")
        before = sorted(os.listdir(tmp_path))
        assert_one_line(call("animate", "text.mp4", template, "--model", checkpoint), "cannot be read as a video")
        assert_one_line(call("animate", "none.mp4", template, "--model", checkpoint), "there is no video none.mp4")
        for strength in ("1e30", "inf"):
            smooth = call("animate", clip, template, "--smooth", strength, "--model", checkpoint)
            assert_one_line(smooth, "smoothing takes a strength from 0 to 1e+09, got")
        assert_one_line(call("animate", clip, template, "--out", "a.txt"), "is no name for a moving picture")
        monkeypatch.setattr("facemodels.video.read_motion", _interrupted)
        status, _, errors = call("animate", clip, template, "--model", checkpoint)
        assert status == 130 and "interrupted; nothing was written" in errors
        assert sorted(os.listdir(tmp_path)) == before


def _of_another(model, images, asked, steps):
    assert asked == steps
    codes = model.encode(images)
    return codes.replace(expression=torch.full_like(codes.expression, 9.0))


def _interrupted(*_, **__):
    raise KeyboardInterrupt
