"""`facemodels reconstruct` as a user meets it."""

import gc
import io
import os
import sys
import weakref

import numpy as np
import pytest
from PIL import Image

from facemodels import cli
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig
from facemodels.data.synthetic import synthesise
from facemodels.fitting.landmarks import Landmarks
from facemodels.morphable import MorphableModel


class Known:
    """Finds the same face in everything that is not black."""

    def __init__(self, *_):
        points = np.zeros((478, 3), np.float32)
        points[:] = np.random.default_rng(0).normal(size=(478, 3)) * 3 + [32, 32, 0]
        for point, place in {33: (18, 27), 133: (26, 27), 362: (38, 27), 263: (46, 27), 1: (32, 38)}.items():
            points[point, :2] = place
        points[61, :2], points[291, :2] = (24, 46), (40, 46)
        self.points = points

    def detect(self, image):
        return None if image.max() < 10 else Landmarks.from_points(self.points)

    def detect_all(self, image):
        found = self.detect(image)
        return [] if found is None else [found]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facemodels.fitting.landmarks.MediaPipeDetector", Known)
    config = {"channels": (4, 4, 4), "intermediate": 8, "background": 4, "mask": 4, "identity": 6, "expression": 3}
    network = NetworkConfig(**config, shape_space="coordinates", frontal_rank=2)
    NeuroTensorialAutoencoder(network, MorphableModel.procedural()).save_pretrained(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    picture = Image.fromarray(next(synthesise(1))["image"])
    picture.save(tmp_path / "photos" / "a.png")
    picture.save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "black.png")

    def call(*arguments):
        command = ["facemodels", "reconstruct", *arguments, "--model", "model", "--detail", "64"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return call


@pytest.mark.slow
def test_writes_every_shape_in_every_format(call, tmp_path):
    formats = ("--format", "glb", "--format", "obj", "--format", "ply")
    status, out, _ = call("a.png", *formats, "--out", "new/meshes", "--turntable", "png")
    assert status == 0 and "wrote new/meshes/reconstruction.png" in out
    files = {file.name for file in (tmp_path / "new" / "meshes").iterdir()}
    shapes = ("stream", "coefficients", "fit")
    expected = {f"a-{shape}.{ending}" for shape in shapes for ending in ("glb", "obj", "ply", "mtl", "png")}
    turntables = {f"a-{shape}-turntable.png" for shape in shapes}
    assert files == expected | turntables | {"reconstruction.png"}


def test_a_batch_goes_on(call, tmp_path):
    status, _, errors = call("photos", "a.png", "nowhere.png", "--shape", "coefficients", "--format", "ply")
    assert status == 1
    assert "no face found in photos/black.png" in errors and "there is no photo nowhere.png" in errors
    assert "2 of 4 photos were left out" in errors
    files = {file.name for file in (tmp_path / "meshes").iterdir()}
    assert files == {"a-coefficients.ply", "a-2-coefficients.ply", "reconstruction.png"}


def test_long_names_of_photos_are_cut(call, tmp_path):
    names = [f"{119 * 'й'}{ending}.png" for ending in "яю"]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    assert call(*names, "--shape", "coefficients", "--format", "ply")[0] == 0
    files = sorted(file.name.lstrip("й") for file in (tmp_path / "meshes").iterdir())
    assert files == ["-2-coefficients.ply", "-coefficients.ply", "reconstruction.png"]


def test_a_folder_that_cannot_be_written_to(call, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("meshes"))  # root may write everywhere
    status, _, errors = call("a.png")
    assert (status, errors) == (2, "facemodels: meshes cannot be written to; choose another --out\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.png", "--format", "stl"], "there is no format 'stl'; choose one of ply, obj, glb"),
        (["a.png", "--shape", "cube"], "there is no shape 'cube'; choose one of stream, coefficients, fit"),
        (["a.png", "--turntable", "avi"], "there is no turntable 'avi'; choose one of gif, mp4, png"),
        (["a.png", "--out", "a.png"], "a.png cannot be written to"),
        (["nowhere.png"], "none of the 1 photos can be used; each was named above"),
    ],
)
def test_bad_input_ends_with_one_sentence(call, arguments, message):
    status, _, errors = call(*arguments)
    assert status == 2 and message in errors and "Traceback" not in errors


def test_only_the_meshes_of_the_sheet_stay_in_memory(call, tmp_path, monkeypatch):
    from facemodels import reconstruction

    make, made, alive = reconstruction.reconstruct, [], []

    def counted(*arguments, **options):
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        one = make(*arguments, **options)
        made.append(weakref.ref(one))
        return one

    monkeypatch.setattr(reconstruction, "reconstruct", counted)
    monkeypatch.setattr("facemodels.cli.reconstruct._SHOWN", 1)
    status, _, errors = call(*4 * ["a.png"], "black.png", "--shape", "coefficients", "--format", "ply")
    assert status == 1 and "1 of 5 photos were left out" in errors
    assert alive == [0, 1, 2, 2]  # that of the sheet, and the one before
    assert len(list((tmp_path / "meshes").glob("*.ply"))) == 4


def test_names_that_are_no_text(call, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / name).write_bytes((tmp_path / "a.png").read_bytes())
    status, out, _ = call(name, "--shape", "coefficients", "--format", "obj")
    assert status == 0 and "wrote meshes/caf?-coefficients.obj" in out
    assert (tmp_path / "meshes" / "caf?-coefficients.obj").is_file()


def test_names_that_the_terminal_cannot_show(call, tmp_path, monkeypatch):
    (tmp_path / "顔.png").write_bytes((tmp_path / "a.png").read_bytes())
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    assert call("顔.png", "--shape", "coefficients", "--format", "ply")[0] == 0
    terminal.flush()
    assert b"wrote meshes/\\u9854-coefficients.ply" in terminal.buffer.getvalue()


def test_names_that_differ_in_capitals_alone(call, tmp_path):
    (tmp_path / "photos" / "A.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert call("a.png", "photos/A.png", "--shape", "coefficients", "--format", "ply")[0] == 0
    files = {file.name for file in (tmp_path / "meshes").iterdir()}
    assert files == {"a-coefficients.ply", "A-2-coefficients.ply", "reconstruction.png"}
