"""What the page shows, without a browser: photos read, sliders applied, parts, photo and mesh."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facemodels.app import markup
from facemodels.app.examples import draw_examples, examples
from facemodels.app.studio import Settings, Studio, turn
from facemodels.autoencoder import NeuroTensorialAutoencoder, orthogonal
from facemodels.config import NetworkConfig
from facemodels.data.alignment import TEMPLATE, load_photo, read_image
from facemodels.editing import EDITABLE, refine, to_tensor, transfer
from facemodels.errors import InputError
from facemodels.expressions import NamedExpressions
from facemodels.fitting.landmarks import Landmarks
from facemodels.morphable import MorphableModel
from facemodels.reconstruction import shapes
from facemodels.rendering import matrix_to_euler

STILL = Settings()


class MiddleFace:
    """Finds a face in the middle half of every photo that is not of one colour."""

    def detect(self, image):
        if image.min() == image.max():
            return None
        height, width = image.shape[:2]
        points = np.full((478, 3), 0.5, np.float32) * (width, height, 0)
        five = (TEMPLATE / 64 + 0.5) * (width / 2, height / 2)
        return Landmarks(points.astype(np.float32), five.astype(np.float32), faces=2)


@pytest.fixture
def studio(model):
    directions = torch.stack([torch.ones(model.config.expression), torch.arange(float(model.config.expression))])
    return Studio(model, MiddleFace(), NamedExpressions(("smile", "jaw open"), directions))


@pytest.fixture
def pair(studio, tmp_path):
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 255, (96, 96, 3)).astype(np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    return [studio.read(str(tmp_path / f"{number}.png"), f"{number}.png") for number in range(2)]


def test_untouched_sliders_change_nothing(studio, pair):
    subject, other = pair
    edit = studio.edit(subject, other, STILL)
    for name in EDITABLE:
        assert_close(getattr(edit.codes, name), getattr(subject.codes, name))
    assert_close(edit.image, subject.own.image)
    assert np.array_equal(studio.in_photo(subject, edit), subject.photo.photo)


def test_refined_photos_keep_what_they_lend(studio, tmp_path):
    plain, fitted = studio, Studio(studio.model, MiddleFace(), studio.expressions, refined=3)
    subjects = []
    for one in (plain, fitted):
        read = []
        for number in range(2):
            pixels = np.random.default_rng(number).integers(256, size=(90, 90, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}.png")
            read.append(one.read(str(tmp_path / f"{number}.png"), str(number)))
        subjects.append(read)
    before, after = subjects
    assert_close(after[0].codes.identity, before[0].codes.identity)
    own = refine(studio.model, to_tensor(before[0].photo.crop), 3)
    assert_close(after[0].own.codes.identity, own.identity)
    edit = fitted.edit(*after, Settings({"light": 1.0}))
    assert_close(edit.codes.identity, own.identity)
    assert_close(edit.codes.light, before[1].codes.light)


@pytest.mark.parametrize("factor", EDITABLE)
def test_a_slider_at_its_end_is_the_transfer(studio, pair, factor):
    crops = [to_tensor(one.photo.crop) for one in pair]
    edit = studio.edit(*pair, Settings({factor: 1.0}))
    assert_close(edit.image, transfer(studio.model, *crops, factor).image)
    assert not torch.equal(edit.image, pair[0].own.image)


def test_a_slider_half_way(studio, pair):
    edit = studio.edit(*pair, Settings({"expression": 0.5, "light": 0.25}))
    mine, theirs = (one.codes for one in pair)
    assert_close(edit.codes.expression, (mine.expression + theirs.expression) / 2)
    assert_close(edit.codes.light, 0.75 * mine.light + 0.25 * theirs.light)


def test_without_another_face_amounts_change_nothing(studio, pair):
    assert_close(studio.edit(pair[0], None, Settings({"expression": 1.0})).image, pair[0].own.image)


def test_named_expressions_move_the_expression_code(studio, pair):
    edit = studio.edit(pair[0], None, Settings(expressions={"smile": 0.5, "jaw open": 0.0}))
    assert_close(edit.codes.expression, pair[0].codes.expression + 0.5)


def test_turning_is_by_the_angles_asked_for():
    pose = torch.eye(3).flatten()[None]
    assert turn(pose, 0, 0) is pose
    yaw, pitch, roll = matrix_to_euler(turn(1.3 * pose, 20, 10).unflatten(1, (3, 3)))
    assert_close(torch.rad2deg(torch.cat([yaw, pitch, roll])), torch.tensor([20.0, -10.0, 0.0]), atol=1e-3, rtol=0)
    rotation = turn(pose + 0.1 * torch.randn(4, 9), -30, 5).unflatten(1, (3, 3))  # codes are no exact rotations
    assert_close(rotation @ rotation.mT, torch.eye(3).expand(4, 3, 3), atol=1e-3, rtol=0)
    nose = turn(pose, 30, 0).unflatten(1, (3, 3)) @ torch.tensor([0.0, 0.0, 1.0])
    assert nose[0, 0] > 0  # to the viewer's right
    assert (turn(pose, 0, 30).unflatten(1, (3, 3)) @ torch.tensor([0.0, 0.0, 1.0]))[0, 1] > 0  # up
    assert_close(orthogonal(rotation), rotation, atol=1e-3, rtol=0)


def test_turned_faces_have_their_own_outline(studio, pair):
    settings = Settings(yaw=20)
    edit = studio.edit(pair[0], None, settings)
    assert settings.turned and Settings({"pose": 0.1}).turned and not Settings({"light": 1.0}).turned
    assert_close(studio.parts(edit, settings)["mask"], edit.rendering.face_mask[0])
    assert_close(studio.parts(edit, STILL)["mask"], edit.rendering.mask[0])


def test_parts_are_those_of_the_edit(studio, pair):
    edit = studio.edit(*pair, Settings({"identity": 0.5}))
    names = ["face", "albedo", "normals", "shading", "mask", "background", "frontal", "frontal normals"]
    assert list(studio.parts(edit, STILL)) == names


def test_the_mesh_is_that_of_the_edit(tmp_path):
    """Of a network without cores it is made of the coefficients, and pictures of stream 3 are left out."""
    config = NetworkConfig(channels=(4, 4, 4), cores=False, face_mask=True)
    network = NeuroTensorialAutoencoder(config, MorphableModel.procedural()).eval()
    studio = Studio(network, MiddleFace(), NamedExpressions((), torch.zeros(0, config.expression)))
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    subject = studio.read(str(tmp_path / "noise.png"), "noise.png")
    assert "frontal" not in studio.parts(subject.own, STILL)
    mesh = studio.mesh(subject.own)
    assert_close(mesh.vertices[:9375], shapes(network, subject.codes)[0].detach())
    network.morphable = None
    with pytest.raises(InputError, match="carries no morphable model"):
        studio.mesh(subject.own)


def test_large_photos_are_reduced_where_the_face_stays(studio, tmp_path):
    row = np.linspace(0, 255, 3000).astype(np.uint8)
    Image.fromarray(np.stack([np.broadcast_to(row, (2000, 3000))] * 3, -1)).save(tmp_path / "large.png")
    subject = studio.read(str(tmp_path / "large.png"), "large.png")
    assert subject.photo.photo.shape == (683, 1024, 3)
    whole = load_photo(tmp_path / "large.png", MiddleFace())
    assert np.array_equal(subject.photo.crop, whole.crop)
    for point in ((0.0, 0.0), (1500.0, 1000.0), (3000.0, 0.0)):
        reduced = np.multiply(point, (1024 / 3000, 683 / 2000))
        np.testing.assert_allclose(subject.photo.transform @ [*reduced, 1], whole.transform @ [*point, 1], atol=1e-6)


def test_places_for_photos_keep_the_pixels(studio, pair, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    pytest.importorskip("gradio", reason="needs the extra `app`")
    from facemodels.app.page import _photo, _Show

    show = _Show(studio, tmp_path, examples())
    place, *_ = _photo("A", "a", examples()[0], examples())

    def shown(value):
        return read_image(place.postprocess(value).path)

    for value, one in zip(show.swap(*pair), reversed(pair), strict=True):
        np.testing.assert_array_equal(shown(value), one.photo.photo)
    np.testing.assert_array_equal(shown(show.example(1)), read_image(examples()[1]))


def test_photos_that_do_not_work(studio, tmp_path):
    Image.new("RGB", (90, 90), "grey").save(tmp_path / "wall.png")
    with pytest.raises(InputError, match=r"no face found in wall.png"):
        studio.read(str(tmp_path / "wall.png"), "wall.png")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InputError, match=r"holiday.jpg is no image or is damaged"):
        studio.read(str(tmp_path / "text.jpg"), "holiday.jpg")


def test_examples_are_what_the_command_draws():
    files = examples()
    assert len(files) == 6 and files[-1].name == "astronaut.png"
    with Image.open(files[0]) as stored:
        drawn = draw_examples({"happy": 12})["happy"]
        difference = np.asarray(stored, float) - np.asarray(drawn, float)
        assert stored.size == (256, 256) and np.abs(difference).mean() < 4  # JPEG's own error is below 3


def test_pictures_are_inside_the_page():
    red = torch.zeros(3, 8, 8)
    red[0] = 1
    text = markup.faces(torch.zeros(3, 8, 8), red) + markup.tiles({"<mask>": red[:1]})
    urls = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))) for url in urls]
    assert len(pictures) == 3 and (pictures[0] == 0).all() and (pictures[1] == [255, 0, 0]).all()
    assert "<mask>" not in text and "&lt;mask&gt;" in text
    assert '<div class="note bad"' in markup.note("a < b", bad=True) and "a &lt; b" in markup.note("a < b")


class TestNewest:
    @pytest.fixture
    def newest(self):
        pytest.importorskip("gradio", reason="needs the extra `app`")
        from facemodels.app.page import newest

        return newest

    def test_an_answer_that_is_no_longer_asked_for_is_not_shown(self, newest):
        import gradio

        asked, inner = {}, []

        def face(text):
            if text == "slow":  # meanwhile another slider is moved
                inner.append(answered(asked, "quick"))
            return text

        answered = newest(face)
        assert answered(asked, "slow") == gradio.skip()
        assert inner == ["quick"]
        assert answered(asked, "later") == "later"

    def test_other_tabs_and_other_answers_do_not_matter(self, newest):
        asked, other = {}, {}

        def face(text):
            return text + newest(mesh)(asked, "") + newest(mesh)(other, "")

        def mesh(text):
            return text + "mesh"

        assert newest(face)(asked, "face ") == "face meshmesh"
