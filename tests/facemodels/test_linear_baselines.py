import pytest
import torch
from torch.testing import assert_close

from facemodels.baselines import PrincipalComponents


def test_principal_components_are_those_of_the_covariance():
    images = torch.rand(40, 3, 4, 4, dtype=torch.float64)
    pca = PrincipalComponents(images, 5)
    centred = (images - images.mean(0)).flatten(1)
    values = torch.linalg.svdvals(centred)[:5].square()
    codes = pca.encode(images)
    assert_close(codes.T @ codes, torch.diag(values), rtol=1e-2, atol=1e-2 * float(values[0]))
    assert pca.decode(codes).shape == images.shape


def test_what_lies_in_few_components_comes_back():
    basis, weights = torch.rand(3, 3 * 16), torch.rand(30, 3) / 3
    images = (weights @ basis).reshape(30, 3, 4, 4)
    pca = PrincipalComponents(images, 3)
    assert_close(pca.decode(pca.encode(images[:4])), images[:4], rtol=0, atol=1e-4)


def test_too_few_pictures():
    with pytest.raises(ValueError, match="128 components need as many pictures, got 10"):
        PrincipalComponents(torch.rand(10, 3, 4, 4))
