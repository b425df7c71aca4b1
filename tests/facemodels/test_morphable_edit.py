"""Edits by the morphable model alone, against true renders and against their definition."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.baselines.morphable_edit import (
    MORPHABLE_EDITABLE,
    FittedFaces,
    changed,
    fit_faces,
    fits_of,
    morphable_edit,
)
from facemodels.data.alignment import AlignedPhoto
from facemodels.data.dataset import Faces
from facemodels.data.factors import exchange, sample_factors
from facemodels.data.synthetic import aligned_camera, draw, synthesise
from facemodels.evaluation.measures import psnr
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.landmarks import Landmarks
from facemodels.morphable import MorphableModel
from facemodels.rendering import matrix_to_euler, project_weak_perspective

COUNT = 8


@pytest.fixture(scope="module")
def model():
    return MorphableModel.procedural()


@pytest.fixture(scope="module")
def factors():
    return [sample_factors(0, number, images_per_person=1) for number in range(COUNT)]


@pytest.fixture(scope="module")
def fitted(model, factors):
    """Rows of a synthetic set as faces, with the cameras read from their normals."""
    rows = list(synthesise(COUNT, images_per_person=1))

    def stack(name):
        return torch.stack([torch.as_tensor(row[name]) for row in rows])

    faces = {field.name: stack(field.name) for field in dataclasses.fields(Faces) if field.name != "swapped_row"}
    for name in ("image", "normals", "turned_image", "turned_normals", "swapped_image"):
        faces[name] = faces[name].permute(0, 3, 1, 2)
    for name in ("mask", "turned_mask", "turned_weight", "swapped_weight"):
        faces[name] = faces[name][:, None]
    return fits_of(Faces(**faces, swapped_row=torch.arange(COUNT)), model)


def test_cameras_are_those_that_drew_the_faces(model, factors, fitted):
    vertices = model.vertices(fitted.fit.identity, fitted.fit.expression)
    angles, framing = (
        torch.stack([torch.from_numpy(getattr(one, name)) for one in factors]).float() for name in ("angles", "framing")
    )
    rotation, scale, shift = aligned_camera(vertices, angles, framing)
    assert_close(fitted.fit.rotation, rotation, atol=1e-5, rtol=0)
    assert_close(fitted.fit.scale, scale, rtol=0.02, atol=0)
    assert_close(fitted.fit.shift, shift, atol=0.4, rtol=0)


@pytest.mark.parametrize("factor", MORPHABLE_EDITABLE)
def test_is_nearer_to_the_true_edit_than_no_edit(model, factors, fitted, factor):
    donors = torch.arange(COUNT).roll(1)
    truth, mask = draw([exchange(one, factors[donor], factor) for one, donor in zip(factors, donors, strict=True)])
    edited = morphable_edit(fitted, fitted[donors], factor, model)
    assert edited.shape == fitted.picture.shape and 0 <= edited.min() <= edited.max() <= 1
    gain = psnr(edited, truth, mask) - psnr(fitted.picture, truth, mask)
    assert gain.mean() > {"expression": 0.3, "pose": 1.0, "light": 5.0}[factor]


@pytest.mark.parametrize("factor", MORPHABLE_EDITABLE)
def test_from_itself_hardly_changes_anything(model, fitted, factor):
    edited = morphable_edit(fitted, fitted, factor, model)
    assert psnr(edited, fitted.picture).min() > 28
    assert (edited - fitted.picture).abs().flatten(1).quantile(0.5, dim=1).max() < 1e-3


def test_takes_one_factor_and_keeps_the_alignment(model, fitted):
    donor = fitted.fit[torch.arange(COUNT).roll(1)]
    smiling = changed(fitted.fit, donor, "expression", model)
    assert_close(smiling.expression, donor.expression)
    assert smiling.rotation is fitted.fit.rotation and smiling.identity is fitted.fit.identity
    turned = changed(fitted.fit, donor, "pose", model)
    assert_close(turned.rotation, donor.rotation)
    assert turned.expression is fitted.fit.expression
    own, other = (
        project_weak_perspective(model.vertices(fit.identity, fit.expression), fit.rotation, fit.scale, fit.shift)
        for fit in (fitted.fit, turned)
    )
    eyes = model.landmarks[36:48]
    assert_close(own[:, eyes, :2].mean(1), other[:, eyes, :2].mean(1), atol=3, rtol=0)


def test_the_surroundings_stay(model, fitted):
    donors = torch.arange(COUNT).roll(1)
    edited = morphable_edit(fitted, fitted[donors], "pose", model)
    corner = (slice(None), slice(None), slice(0, 6), slice(0, 6))
    assert_close(edited[corner], fitted.picture[corner])


def photo_of(model, fitted, row):
    """An aligned photo of a face whose landmarks are known exactly."""
    match, fit = mediapipe_correspondence(model), fitted.fit[row : row + 1]
    shape = model.vertices(fit.identity, fit.expression)[:, match.vertices]
    points = torch.zeros(478, 3)
    points[match.points] = project_weak_perspective(shape, fit.rotation, fit.scale, fit.shift)[0]
    points[match.points, 2] *= fit.scale[0]
    crop = (255 * fitted.picture[row]).round().byte().permute(1, 2, 0).numpy()
    return AlignedPhoto(str(row), crop, crop, torch.eye(3)[:2].numpy(), Landmarks.from_points(points.numpy()))


def test_photos_are_fitted(model, fitted):
    photos = [photo_of(model, fitted, row) for row in range(3)]
    again = fit_faces(photos, model)
    for ours, true in zip(matrix_to_euler(again.fit.rotation), matrix_to_euler(fitted.fit.rotation[:3]), strict=True):
        assert_close(ours, true, atol=0.12, rtol=0)
    assert_close(again.picture, fitted.picture[:3], atol=1e-3, rtol=0)
    # light is known up to its strength
    cosine = torch.nn.functional.cosine_similarity(again.light, fitted.light[:3])
    assert cosine.min() > 0.8
    edited = morphable_edit(again, again[torch.tensor([1, 2, 0])], "expression", model)
    assert edited.shape == (3, 3, 64, 64)


def test_refusals(model, fitted):
    with pytest.raises(ValueError, match="cannot exchange 'identity'; choose one of expression, pose, light"):
        morphable_edit(fitted, fitted, "identity", model)
    with pytest.raises(ValueError, match=r"as many donors as faces, of one size, got \(8, 3, 64, 64\)"):
        morphable_edit(fitted, fitted[:2], "pose", model)
    with pytest.raises(ValueError, match="needs photos with crops of one size"):
        fit_faces([], model)
    assert isinstance(fitted[:2], FittedFaces) and len(fitted[:2].fit) == 2
