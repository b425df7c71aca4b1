import pytest
import torch
from torch.testing import assert_close

from facemodels.baselines import LabelledFactors, PrincipalComponents, UnlabelledFactors


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


def grid_of_faces():
    """Pictures in which six persons, three poses and two lights multiply, and the labels that say so."""
    person, pose, light = torch.cartesian_prod(torch.arange(6), torch.arange(3), torch.arange(2)).T
    parts = [torch.rand(count, 3 * 64 * 64) + 0.2 for count in (6, 3, 2)]
    images = (parts[0][person] * parts[1][pose] * parts[2][light]).reshape(-1, 3, 64, 64) / 2
    return images, {"identity": person.numpy(), "pose": pose.numpy(), "light": light.numpy()}


def test_labelled_factors_tell_the_causes_apart():
    images, labels = grid_of_faces()
    codes = LabelledFactors(images, labels).encode(images)
    assert {name: code.shape for name, code in codes.items()} == {
        "identity": (36, 6),
        "pose": (36, 3),
        "light": (36, 2),
    }
    for name, code in codes.items():
        code = torch.nn.functional.normalize(torch.from_numpy(code), dim=1)
        same = torch.from_numpy(labels[name][:, None] == labels[name])
        likeness = code @ code.T
        assert likeness[same].min() > likeness[~same].max(), name


def test_labelled_factors_need_every_combination():
    images, labels = grid_of_faces()
    with pytest.raises(ValueError, match="combination"):
        LabelledFactors(images[:-1], {name: values[:-1] for name, values in labels.items()})


def test_unlabelled_factors_need_no_labels():
    images, _ = grid_of_faces()
    codes = UnlabelledFactors(images, (4, 3)).encode(images[:5])
    assert [code.shape for code in codes] == [(5, 4), (5, 3)]
