"""The gauge changes the code and nothing that is decoded from it."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.gauge import whiten_identity, whitening
from multilinear.nn import CPCore, Multilinear


@pytest.fixture
def images():
    return torch.rand(60, 3, 64, 64)


def decoded(model, codes):
    with torch.no_grad():
        parts = {name: value for name, value in vars(model.decode(codes)).items() if value is not None}
        return parts | ({"shape": model.shape(codes.expression, codes.identity)} if model.config.cores else {})


@pytest.mark.parametrize("changes", [{}, {"frontal_rank": None}, {"shape_space": "vertices"}, {"cores": False}])
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
