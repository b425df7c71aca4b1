"""The gauge changes the code and nothing that is decoded from it."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.gauge import join_identity, prediction, separate_identity, whiten_identity, whitening
from multilinear.nn import CPCore, Multilinear

CHANGES = [
    {},
    *(
        pytest.param(changes, marks=pytest.mark.slow)
        for changes in ({"frontal_rank": None}, {"shape_space": "vertices"}, {"cores": False})
    ),
]


@pytest.fixture
def images():
    return torch.rand(60, 3, 64, 64)


def decoded(model, codes):
    with torch.no_grad():
        parts = {name: value for name, value in vars(model.decode(codes)).items() if value is not None}
        return parts | ({"shape": model.shape(codes.expression, codes.identity)} if model.config.cores else {})


@pytest.mark.parametrize("changes", CHANGES)
def test_nothing_decoded_changes(network_config, images, changes):
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, **changes)).double().eval()
    images = images.double()
    before = model.encode(images)
    swapped = before.replace(identity=before.identity.flip(0))
    coefficients = model.identity_coefficients(before.identity)
    pictures, swaps = decoded(model, before), decoded(model, swapped)
    whiten_identity(model, before.identity)
    after = model.encode(images)
    assert_close(after.identity, before.identity @ whitening(before.identity).T)
    assert_close(after.expression, before.expression)
    assert_close(model.identity_coefficients(after.identity), coefficients)
    for codes, known in ((after, pictures), (after.replace(identity=after.identity.flip(0)), swaps)):
        for name, value in decoded(model, codes).items():
            assert_close(value, known[name], rtol=1e-7, atol=1e-7, msg=name)


@pytest.mark.parametrize("changes", CHANGES)
def test_a_separated_identity_decodes_to_the_same(network_config, images, changes):
    """Also twice, also white, and also taken back."""
    model = NeuroTensorialAutoencoder(dataclasses.replace(network_config, **changes)).double().eval()
    images = images.double()
    before = model.encode(images)
    pictures, coefficients = decoded(model, before), model.coefficients(before)
    identity = separate_identity(model, before)
    assert_close(model.encode(images).identity, identity)
    assert_close(identity, before.identity - before.expression @ prediction(before.expression, before.identity).T)
    again = separate_identity(model, before.replace(identity=identity), ridge=0.01)
    whiten_identity(model, again)
    for joined in (False, True):
        if joined:
            join_identity(model)
            assert not model.config.residual_identity and not hasattr(model, "identity_of_expression")
        after = model.encode(images)
        assert_close(after.expression, before.expression)
        assert_close(model.coefficients(after), coefficients)
        for name, value in decoded(model, after).items():
            assert_close(value, pictures[name], rtol=1e-7, atol=1e-7, msg=name)


def test_a_swap_takes_along_what_follows(network_config, images):
    """An exchanged expression is decoded with the identity it predicts, an exchanged identity without."""
    model = NeuroTensorialAutoencoder(network_config).double().eval()
    before = model.encode(images.double())
    separate_identity(model, before)
    after = model.encode(images.double())
    matrix = prediction(before.expression, before.identity)
    moved = (before.expression.flip(0) - before.expression) @ matrix.T
    expected = before.identity + moved, before.identity.flip(0) - moved
    swaps = after.replace(expression=after.expression.flip(0)), after.replace(identity=after.identity.flip(0))
    for swap, identity in zip(swaps, expected, strict=True):
        assert_close(model.whole_identity(swap.expression, swap.identity), identity)


def test_nothing_is_predicted_any_more():
    """Residuals are uncorrelated with what predicts them, and the guard leaves weak directions alone."""
    source = torch.randn(400, 3).double() * torch.tensor([1.0, 1.0, 1e-3]).double() + 5
    target = source @ torch.randn(3, 4).double() + 0.1 * torch.randn(400, 4).double() + torch.arange(4)
    rest = target - source @ prediction(source, target, ridge=0.0).T
    together = torch.cat([source, rest], 1).T.corrcoef()[:3, 3:]
    assert together.abs().max() < 1e-8
    assert prediction(source, 100 * source[:, 2:])[:, 2:].abs().max() < 0.01
    assert torch.isfinite(prediction(torch.ones(10, 3), torch.randn(10, 2))).all()


def test_the_guard_is_a_share_of_the_mean_variance():
    """As by least squares with so many more rows, one for each direction, in which nothing is to be told."""
    source = torch.randn(50, 3).double() * torch.tensor([3.0, 1.0, 0.2]).double() + 4
    target = source @ torch.randn(3, 2).double() + torch.randn(50, 2).double()
    for ridge in (0.0, 0.5, 2.0):
        guard = (ridge * 50 * source.var(0, correction=0).mean()).sqrt() * torch.eye(3).double()
        rows = torch.cat([source - source.mean(0), guard]), torch.cat([target - target.mean(0), torch.zeros(3, 2)])
        assert_close(prediction(source, target, ridge), torch.linalg.lstsq(*rows).solution.T)


def test_a_core_in_cp_form(network_config, morphable, images):
    model = NeuroTensorialAutoencoder(network_config, morphable).double()
    model.shape_core = Multilinear((6, 9), model.shape_core.out_features, core=CPCore(4)).double()
    codes = model.encode(images.double())
    before = model.shape(codes.expression, codes.identity)
    whiten_identity(model, codes.identity)
    assert_close(model.shape(codes.expression, model.encode(images.double()).identity), before)


def test_codes_become_white():
    """One loud direction no longer drowns the others."""
    codes = (
        torch.randn(4000, 5).double()
        @ torch.diag(torch.tensor([9.0, 1, 1, 1, 1])).double()
        @ torch.randn(5, 5).double()
    )
    before = torch.linalg.eigvalsh(codes.T.cov(correction=0))
    after = torch.linalg.eigvalsh((codes @ whitening(codes).T).T.cov(correction=0))
    assert_close(after, before / (before + before.mean()))


def test_codes_that_never_vary_are_left_finite():
    assert torch.isfinite(whitening(torch.ones(10, 4))).all()
