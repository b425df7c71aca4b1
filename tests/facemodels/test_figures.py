import errno

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from facemodels.data.alignment import AlignedPhoto
from facemodels.editing import EDITABLE, PhotoEdit, to_tensor, transfer
from facemodels.errors import InputError
from facemodels.figures import check_picture, grid, normals_as_colours, on_paper, save_picture, to_bytes
from facemodels.files import explained
from facemodels.movies import check_movie
from facemodels.pasting import enlarged, paste
from facemodels.sheets import (
    edit_sheet,
    interpolation_sheet,
    mesh_pictures,
    parts_sheet,
    pasted_steps,
    photo_edits_sheet,
    steps_frames,
    steps_sheet,
)


def test_bytes():
    picture = torch.tensor([0.0, 0.5, 1.0, 2.0]).reshape(1, 1, 4)
    assert to_bytes(picture)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_grid_puts_pictures_in_their_places():
    red, blue = torch.zeros(2, 3, 8, 8)
    red[0], blue[2] = 1, 1
    sheet = np.asarray(grid([[red, None], [None, blue]], zoom=3))
    assert sheet.shape == (2 * 28, 2 * 28, 3)
    assert sheet[10, 10].tolist() == [255, 0, 0] and sheet[40, 40].tolist() == [0, 0, 255]
    assert sheet[10, 40].tolist() == [255, 255, 255]


def test_labels_take_room():
    plain = grid([[torch.zeros(3, 8, 8)]])
    labelled = grid([[torch.zeros(3, 8, 8)]], columns=["source"], row_labels=["expression"])
    assert labelled.width > plain.width and labelled.height > plain.height
    assert (np.asarray(labelled)[:15] < 128).any()  # ink above the picture


def test_grid_of_nothing():
    with pytest.raises(ValueError, match="there is no picture to show"):
        grid([[None]])


def test_paper_and_normals():
    mask = torch.zeros(1, 1, 2, 2)
    mask[..., 0] = 1
    assert on_paper(torch.zeros(1, 3, 2, 2), mask)[0, 0].tolist() == [[0, 1], [0, 1]]
    normals = torch.zeros(1, 3, 2, 2)
    normals[:, 2] = 1
    assert normals_as_colours(normals, mask)[0, :, 0, 0].tolist() == [0.5, 0.5, 1.0]


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("a.webp", 16384, "a.webp would be 16384x1 pixels, a WEBP has at most 16383 a side; write a .png"),
        ("a.jpg", 65501, "a.jpg would be 65501x1 pixels, a JPEG has at most 65500 a side; write a .png"),
    ],
)
def test_pictures_longer_than_their_format_takes(tmp_path, name, width, message):
    with pytest.raises(InputError, match=message):
        save_picture(Image.new("RGB", (width, 1)), tmp_path / name)
    assert not list(tmp_path.iterdir())
    save_picture(Image.new("RGB", (width - 1, 1)), tmp_path / name)
    save_picture(Image.new("RGB", (width, 1)), tmp_path / "a.png")


@pytest.mark.parametrize("check", [check_picture, check_movie])
def test_names_of_files_that_cannot_be_written(tmp_path, monkeypatch, check):
    suffix = ".png" if check is check_picture else ".gif"
    (tmp_path / f"folder{suffix}").mkdir()
    for name, message in {
        f"folder{suffix}": f"folder{suffix} is a folder; name a file in it",
        f"nowhere/a{suffix}": "does not exist; make it first",
        f"{300 * 'a'}/a{suffix}": "does not exist; make it first",
        250 * "a" + suffix: "is too long; choose a shorter one",
    }.items():
        with pytest.raises(InputError, match=message):
            check(tmp_path / name)
    check(tmp_path / f"a{suffix}")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(InputError, match=f"^{tmp_path} cannot be written to; choose another --out"):
        check(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("wrong", [FileNotFoundError, IsADirectoryError, OSError(errno.ENAMETOOLONG, "too long")])
def test_places_that_turn_out_to_be_none(tmp_path, wrong):
    with pytest.raises(InputError, match=r"cannot be written to .*; choose another --out"), explained(tmp_path):
        raise wrong


def test_sheets(model):
    source, target = torch.rand(2, 2, 3, 64, 64)
    wide = edit_sheet(model, source, target, ["expression", "identity"], together=True, zoom=1)
    narrow = edit_sheet(model, source, target, ["expression"], zoom=1)
    assert wide.width - narrow.width == 2 * 68
    assert parts_sheet(model, source, zoom=1).width == 11 * 68
    assert interpolation_sheet(model, source[:1], target[:1], ["light"], steps=3, zoom=1).height > 64


def test_steps_in_a_strip_and_in_a_film():
    source, target = torch.zeros(3, 8, 8), torch.ones(3, 8, 8)
    moving = {"light": torch.linspace(0, 1, 5)[:, None, None, None].expand(5, 3, 8, 8)}
    strip = np.asarray(steps_sheet(source, moving, target, zoom=1))
    left = strip.shape[1] - 7 * 12
    assert strip[-8, left + 4 :: 12, 0].tolist() == [0, 0, 64, 128, 191, 255, 255]
    film = steps_frames(source, moving, target, zoom=1)
    assert [frame[-8, 16, 0] for frame in film] == [0, 64, 128, 191, 255, 191, 128, 64]  # loops without a stop


def test_baselines_stand_beside_the_edits(model):
    source, target = torch.rand(2, 1, 3, 64, 64)
    edits = {name: transfer(model, source, target, name) for name in ("expression", "identity")}
    one = PhotoEdit("a.jpg", target[0], edits)
    marked = torch.zeros(3, 64, 64)
    with_baseline = np.asarray(photo_edits_sheet(source[0], source[0], [one], [{"expression": marked}], zoom=1))
    without = np.asarray(photo_edits_sheet(source[0], source[0], [one], zoom=1))
    assert with_baseline.shape[1] == 6 * 68 and without.shape[1] == 5 * 68
    assert (with_baseline[-68:-4, 4 * 68 : 4 * 68 + 64] == 0).all()
    np.testing.assert_array_equal(with_baseline[-68:, 5 * 68 :], without[-68:, 4 * 68 :])


@pytest.fixture
def noise():
    """Two photos."""
    crops = np.random.default_rng(0).integers(256, size=(2, 64, 64, 3)).astype(np.uint8)
    return [enlarged(AlignedPhoto("x", crop, crop, np.eye(2, 3), None), 96) for crop in crops]


@pytest.mark.parametrize("factor", EDITABLE)
def test_pasted_steps_begin_with_the_photo_itself(model, noise, factor):
    assert torch.equal(pasted_steps(model, *noise, factor, 2)[0], to_tensor(noise[0].photo)[0])


def test_pasted_steps_run_from_the_photo_to_the_edit(model, noise):
    photo, other = noise
    pictures = pasted_steps(model, photo, other, "expression", 3)
    own, edit = (transfer(model, to_tensor(photo.crop), to_tensor(other.crop), some) for some in ([], "expression"))
    assert_close(pictures[0], to_tensor(photo.photo)[0])
    assert_close(pictures[2], to_tensor(paste(photo, edit, own))[0])
    codes = model.encode(to_tensor(photo.crop))
    first, _, last = pasted_steps(
        model, photo, other, "expression", 3, codes.replace(expression=torch.full_like(codes.expression, 9.0))
    )
    assert_close(first, to_tensor(photo.photo)[0])
    assert not torch.equal(last, pictures[2])


def test_mesh_pictures_show_the_mesh(morphable):
    pictures = mesh_pictures(morphable.vertices(torch.randn(2, 5), torch.randn(2, 3)), morphable)
    assert pictures.shape == (2, 3, 64, 64)
    assert (pictures < 0.99).any()
