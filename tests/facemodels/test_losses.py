"""Every term against a value worked out by other means, and what each must not depend on."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facemodels import losses
from facemodels.config import LossWeights
from facemodels.data.dataset import Faces
from facemodels.losses import Decoded, Objective, Truth, truth_from_faces
from facemodels.training.step import TrainingStep

PIXELWISE = {
    "face_l2": (losses.FaceL2, "image", lambda a, b: (a - b) ** 2),
    "face_l1": (losses.FaceL1, "image", lambda a, b: abs(a - b)),
    "normals": (losses.Normals, "normals", lambda a, b: (a - b) ** 2),
}


@pytest.fixture
def faces(prepared) -> Faces:
    return prepared.faces("train")[:6]


@pytest.fixture
def truth(model, faces) -> Truth:
    return truth_from_faces(faces, model.shape_target, torch.tensor([5, 4, 3, 2, 1, 0]), 3)


@pytest.fixture
def decoded(model, faces, training_config, morphable) -> Decoded:
    step = TrainingStep(model, training_config, morphable)
    with torch.no_grad():
        return step._decode(faces, torch.tensor([5, 4, 3, 2, 1, 0]), 3)


def term(name, decoded, truth, morphable) -> float:
    weights = LossWeights(**{field.name: float(field.name == name) for field in dataclasses.fields(LossWeights)})
    with torch.no_grad():
        total, values = Objective(weights, morphable)(decoded, truth)
    assert list(values) == [name]
    assert_close(total, values[name])
    return float(total)


@pytest.mark.parametrize("name", PIXELWISE)
def test_face_terms_are_means_over_the_mask(name, decoded, truth):
    kind, field, error = PIXELWISE[name]
    first, second = getattr(decoded.face, field).numpy(), getattr(truth, field).numpy()
    inside = np.broadcast_to(truth.mask.numpy() > 0, first.shape)
    assert float(kind()(decoded, truth)) == pytest.approx(error(first, second)[inside].mean(), rel=1e-4)


@pytest.mark.parametrize("name", [*PIXELWISE, "albedo_smoothness", "white_shading", "frontal", "frontal_normals"])
def test_face_terms_ignore_what_is_outside_the_mask(name, decoded, truth, morphable):
    outside = 1 - truth.mask
    noise = {part: value + outside * torch.randn_like(value) for part, value in vars(decoded.face).items()}
    noisy = dataclasses.replace(
        decoded,
        face=dataclasses.replace(decoded.face, **noise),
        frontal=decoded.frontal + outside[decoded.frontal_rows] * 9,
        frontal_normals=decoded.frontal_normals + outside[decoded.frontal_rows] * 9,
    )
    assert term(name, noisy, truth, morphable) == pytest.approx(term(name, decoded, truth, morphable), rel=1e-5)


def test_shape_is_the_mean_squared_error_of_the_projection(decoded, truth, model, morphable):
    with torch.no_grad():
        expected = (model.shape(decoded.codes.expression, decoded.codes.identity) - truth.shape).square().mean()
    assert term("shape", decoded, truth, morphable) == pytest.approx(float(expected), rel=1e-4)


def test_swapped_shape_is_the_morphable_models_own_swap(decoded, truth, faces, model, morphable):
    partner = decoded.partner
    assert_close(truth.swapped_shape, model.shape_target(faces.identity, faces.expression[partner]))
    with torch.no_grad():
        predicted = model.shape(decoded.codes.expression[partner], decoded.codes.identity)
    expected = (predicted - truth.swapped_shape).square().mean()
    assert term("swapped_shape", decoded, truth, morphable) == pytest.approx(float(expected), rel=1e-4)


def test_coefficients_count_by_the_millimetres_they_move(decoded, truth, morphable):
    lengths = np.linalg.norm(morphable.expression.numpy().reshape(3, -1), axis=1)
    error = (decoded.expression_coefficients - truth.expression).numpy() ** 2
    expected = (error * lengths / lengths.mean()).mean()
    assert term("expression", decoded, truth, morphable) == pytest.approx(expected, rel=1e-5)


def test_frontal_terms_see_near_frontal_faces_only(decoded, truth, morphable):
    rows = decoded.frontal_rows
    assert rows.tolist() == truth.frontal.nonzero().flatten().tolist()
    error = (decoded.frontal - truth.image[rows]).square().numpy()
    inside = np.broadcast_to(truth.mask[rows].numpy() > 0, error.shape)
    assert term("frontal", decoded, truth, morphable) == pytest.approx(error[inside].mean(), rel=1e-4)


def test_batch_without_a_frontal_face(model, faces, training_config, morphable):
    sideways = dataclasses.replace(faces, frontal=torch.zeros(6, dtype=torch.bool))
    total, values = TrainingStep(model, training_config, morphable)(sideways, 0)
    assert float(values["frontal"].detach()) == 0 and torch.isfinite(total)


def test_mask_terms_match_the_definition(decoded, truth, morphable):
    def entropy(logits, mask):
        p = torch.sigmoid(logits.double()).numpy()
        return float(-(mask.numpy() * np.log(p) + (1 - mask.numpy()) * np.log(1 - p)).mean())

    some = len(decoded.mask_logits)
    assert term("mask", decoded, truth, morphable) == pytest.approx(
        entropy(decoded.mask_logits, truth.mask[:some]), rel=1e-4
    )
    both = entropy(decoded.face.mask_logits, truth.mask) + entropy(decoded.turned.mask_logits, truth.turned_mask)
    assert term("face_mask", decoded, truth, morphable) == pytest.approx(both, rel=1e-4)


def test_squared_correlation_matches_numpy():
    first, second = torch.randn(40, 3).double(), torch.randn(40, 2).double()
    expected = np.corrcoef(first.numpy(), second.numpy(), rowvar=False)[:3, 3:] ** 2
    expected *= (39 / 40) ** 2  # deviations of n - 1 meet the mean over n
    assert float(losses.squared_correlation(first, second)) == pytest.approx(expected.mean(), rel=1e-4)


def test_shrinking_a_code_does_not_decorrelate_it():
    code, target = torch.randn(32, 6), torch.randn(32, 3)
    small = losses.squared_correlation(1e-3 * code, target)
    assert float(small) == pytest.approx(float(losses.squared_correlation(code, target)), rel=0.01)


def test_decorrelation_ramps_up(model, faces, training_config, morphable):
    step = TrainingStep(model, training_config, morphable)
    with torch.no_grad():
        (start, terms), (half, _), (end, _) = (step(faces, 0, done) for done in (0.0, 0.2, 1.0))
    assert float(end - start) == pytest.approx(8 * float(terms["decorrelation"]), rel=1e-4)
    assert float(half - start) == pytest.approx(float(end - start) / 2, rel=1e-4)


def test_weights_of_zero_drop_a_term(decoded, truth, morphable):
    weights = LossWeights(frontal=0.0)
    _, values = Objective(weights, morphable)(decoded, truth)
    assert "frontal" not in values and "swapped_shape" not in values and "face_l2" in values


def test_the_truth_costs_nothing(decoded, truth, morphable):
    perfect = dataclasses.replace(
        decoded,
        codes=dataclasses.replace(decoded.codes, pose=truth.rotation, light=truth.light),
        face=dataclasses.replace(decoded.face, image=truth.image, normals=truth.normals),
        composite=truth.image[: len(decoded.composite)],
        expression_coefficients=truth.expression,
        identity_coefficients=truth.identity,
        frontal=truth.image[decoded.frontal_rows],
        frontal_normals=truth.normals[decoded.frontal_rows],
    )
    names = "face_l2 face_l1 image_l2 image_l1 pose expression identity normals light frontal frontal_normals".split()
    assert {name: term(name, perfect, truth, morphable) for name in names} == dict.fromkeys(names, 0.0)


def test_every_parameter_learns(model, faces, training_config, morphable):
    model.train()
    total, _ = TrainingStep(model, training_config, morphable)(faces, 0)
    total.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not silent


def test_coefficients_are_cut_at_three_deviations(model, faces):
    wild = dataclasses.replace(faces, identity=faces.identity * 100)
    truth = truth_from_faces(wild, model.shape_target, torch.arange(6), 0)
    assert truth.identity.abs().max() == losses.COEFFICIENT_LIMIT
