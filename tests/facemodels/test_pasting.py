import dataclasses
import re

import numpy as np
import pytest
import torch
from drawn_faces import BrightFaces, picture
from PIL import Image

from facemodels.config import SIZE
from facemodels.data.alignment import AlignedPhoto, align, apply_transform, invert
from facemodels.editing import PhotoEdit, to_tensor, transfer
from facemodels.fitting.landmarks import Landmarks
from facemodels.pasting import paste, write_pasted


def aligned(side=200, angle=0.3, scale=1.6, shift=(40, 30), shape=(200, 260)):
    """A photo whose face is turned, scaled and shifted."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    to_photo = np.concatenate([turn, np.array(shift, float)[:, None]], axis=1)
    photo = np.asarray(Image.fromarray(picture(1, side=max(shape))).crop((0, 0, *shape[::-1])))
    points = BrightFaces().detect(picture(0, 64)).moved(to_photo).points
    landmarks = Landmarks.from_points(points)
    crop, transform = align(photo, landmarks.five)
    return AlignedPhoto("photo", photo, crop, transform, landmarks.moved(transform))


@pytest.fixture
def own(model):
    """An unedited face, its mask a square in the middle."""
    crop = torch.rand(1, 3, SIZE, SIZE)
    edit = transfer(model, crop, crop, [])
    region = torch.zeros_like(edit.region)
    region[..., 16:48, 16:48] = 1
    return dataclasses.replace(edit, region=region)


def coloured(own, colour):
    return dataclasses.replace(own, image=torch.tensor(colour)[:, None, None].expand(1, 3, SIZE, SIZE).clone())


def far_from_face(photo):
    """Pixels of the photo well outside the square of the mask."""
    height, width = photo.photo.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    inside = apply_transform(photo.transform, np.stack([x.ravel(), y.ravel()], -1)).reshape(height, width, 2)
    return (np.abs(inside - 32).max(-1) > 22), (np.abs(inside - 32).max(-1) < 8)


def test_no_edit_is_the_photo_itself(own):
    photo = aligned()
    np.testing.assert_array_equal(paste(photo, own, own), photo.photo)


@pytest.mark.parametrize("detail", [0.0, 1.0])
def test_only_the_face_changes(own, detail):
    photo = aligned()
    outside, inside = far_from_face(photo)
    edit = dataclasses.replace(own, image=(own.image + 0.3 * torch.rand_like(own.image)).clamp(0, 1))
    pasted = paste(photo, edit, own, detail=detail)
    assert pasted.shape == photo.photo.shape and pasted.dtype == np.uint8
    np.testing.assert_array_equal(pasted[outside], photo.photo[outside])
    assert (pasted[inside] != photo.photo[inside]).mean() > 0.5


def test_nothing_beside_a_turned_crop_changes(own):
    """Even where the face fills the crop to its border."""
    photo = aligned(angle=0.7, scale=1.5, shift=(100, 20))
    own = dataclasses.replace(own, region=torch.ones_like(own.region))
    height, width = photo.photo.shape[:2]
    y, x = np.mgrid[:height, :width] + 0.5
    inside = apply_transform(photo.transform, np.stack([x.ravel(), y.ravel()], -1)).reshape(height, width, 2)
    beside = ((inside < 0) | (inside > SIZE)).any(-1)
    pasted = paste(photo, coloured(own, (1.0, 0.0, 0.0)), own, detail=0)
    np.testing.assert_array_equal(pasted[beside], photo.photo[beside])
    assert (pasted[~beside] != photo.photo[~beside]).mean() > 0.5


def test_an_edit_lies_where_its_face_is(own):
    """A dot in the crop is found where the inverse alignment puts it."""
    photo = aligned()
    dot = coloured(own, (0.5, 0.5, 0.5))
    plain = coloured(own, (0.5, 0.5, 0.5))
    dot.image[:, 0, 29:32, 37:40] = 1.0  # around (38.5, 30.5)
    change = paste(photo, dot, plain, detail=0).astype(float) - paste(photo, plain, plain, detail=0)
    y, x = np.mgrid[: change.shape[0], : change.shape[1]] + 0.5
    weight = np.abs(change[..., 0])
    centre = [(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()]
    wanted = apply_transform(invert(photo.transform), np.array([[38.5, 30.5]]))[0]
    assert np.abs(np.array(centre) - wanted).max() < 1.5


def test_colours_at_the_seam_are_the_photos(own):
    """An edit of another colour all over takes the photo's, unless it is another light or the seam is elsewhere."""
    photo = aligned()
    inside = far_from_face(photo)[1]
    before = dataclasses.replace(own, image=to_tensor(photo.crop))
    pale = dataclasses.replace(before, image=before.image + 0.1)
    matched = paste(photo, pale, before, detail=0)[inside].astype(float)
    assert np.abs(matched - photo.photo[inside]).mean() < 4
    for factor, detail in (("light", 0), ("light", 1), ("pose", 0)):
        codes = pale.codes.replace(**{factor: getattr(pale.codes, factor) + 1})
        other = paste(photo, dataclasses.replace(pale, codes=codes), before, detail=detail)
        assert abs((other[inside].astype(float) - photo.photo[inside]).mean() - 25) < 4


def test_detail_stays_where_nothing_moves(own):
    """A pattern finer than the crop can show is kept, where another person's face would not have it."""
    photo = aligned(scale=4.0, shift=(0, 0), angle=0, shape=(260, 260))
    fine = photo.photo.copy()
    fine[::2] //= 2
    photo = dataclasses.replace(photo, photo=fine)
    inside = far_from_face(photo)[1]
    lit = dataclasses.replace(own, image=own.image + 0.05, codes=own.codes.replace(light=own.codes.light + 1))
    other = dataclasses.replace(lit, codes=lit.codes.replace(identity=own.codes.identity + 1))

    def pattern(edit, detail):
        rows = paste(photo, edit, own, detail=detail).astype(float)
        return np.abs(np.diff(rows, axis=0)[:, :, 1][inside[1:]]).mean()

    assert pattern(lit, 1) > 40 and pattern(lit, 0) < 5 and pattern(other, 1) < 5


@pytest.mark.parametrize(
    "place", [{"shift": (-60, -40)}, {"shift": (230, 170)}, {"scale": 0.3}, {"shift": (-5000, 0)}, {"scale": 8.0}]
)
def test_faces_at_the_border_small_and_outside(own, place):
    photo = aligned(**place)
    outside, _ = far_from_face(photo)
    pasted = paste(photo, coloured(own, (1.0, 0.0, 0.0)), own, detail=0)
    np.testing.assert_array_equal(pasted[outside], photo.photo[outside])
    assert (pasted == photo.photo).all() == (place == {"shift": (-5000, 0)})


def test_long_names_of_targets_are_cut(own, tmp_path):
    edited = PhotoEdit(f"photos/{120 * 'й'}.jpg", own.image[0], {"light": own})
    written = write_pasted(aligned(), edited, "light", own, tmp_path / "x.png", number=3)
    assert re.fullmatch(r"x-3-й{90,}-light.png", written.name) and [*tmp_path.iterdir()] == [written]
    short = dataclasses.replace(edited, name="photos/b.c.jpg")
    assert write_pasted(aligned(), short, "light", own, tmp_path / "x.png").name == "x-1-b.c-light.png"


def test_refusals(model, own):
    two = transfer(model, *torch.rand(2, 2, 3, SIZE, SIZE), "light")
    with pytest.raises(ValueError, match="takes one face, got 2 edited and 1 unedited"):
        paste(aligned(), two, own)
    with pytest.raises(ValueError, match="detail must be between 0 and 1, got 2"):
        paste(aligned(), own, own, detail=2)
