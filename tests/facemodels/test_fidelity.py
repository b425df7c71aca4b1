import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig
from facemodels.data.factors import exchange, sample_factors
from facemodels.data.synthetic import draw, factors_of, synthesise_set
from facemodels.errors import InputError
from facemodels.evaluation.fidelity import edit_fidelity, true_edits


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    return synthesise_set(tmp_path_factory.mktemp("sets") / "synthetic", count=16, held_out=0.5, seed=3)


def test_factors_come_back_from_a_set(synthetic):
    faces = synthetic.faces("test")
    factors = factors_of(synthetic, "test")
    assert len(factors) == len(faces) == 8
    image, mask = draw(factors)
    assert_close(image, faces.pictures(), atol=0.5 / 255 + 1e-5, rtol=0)
    assert_close(mask, faces.masks())
    assert np.allclose(factors[3].expression, faces.expression[3], atol=1e-6)


@pytest.mark.parametrize("factor", ["expression", "pose", "light", "identity"])
def test_exchange_takes_one_factor(factor):
    source, target = sample_factors(0, 0), sample_factors(0, 9)
    mixed = exchange(source, target, factor)
    taken = {"expression": "expression", "pose": "angles", "light": "light", "identity": "identity"}
    for name, field in taken.items():
        expected = getattr(target if name == factor else source, field)
        assert (getattr(mixed, field) == expected).all()
    assert mixed.complexion == (target if factor == "identity" else source).complexion


def test_unknown_factor():
    with pytest.raises(ValueError, match="there is no factor 'hair'; choose one of expression, pose, light, identity"):
        exchange(sample_factors(0, 0), sample_factors(0, 1), "hair")


def test_true_edit_from_itself_is_the_face(synthetic):
    image, _ = true_edits(synthetic, "test", [2], [2], "expression")
    assert_close(image, synthetic.faces("test").pictures()[2:3], atol=0.5 / 255 + 1e-5, rtol=0)


def test_photos_have_no_true_edits(prepared):
    with pytest.raises(InputError, match="holds photos"):
        factors_of(prepared, "test")


def test_fidelity_tells_a_perfect_editor(synthetic, monkeypatch):
    """An editor that knows the truth beats no edit in every pair but those of equal factors."""
    config = NetworkConfig(channels=(4, 4, 4), frontal_rank=2)
    model = NeuroTensorialAutoencoder(config)
    images = synthetic.faces("test").pictures()
    sources, targets = np.random.default_rng(0).integers(8, size=(2, 6)).tolist()
    truth, _ = true_edits(synthetic, "test", sources, targets, "light")

    def perfect(model, source, target, factors):
        image = truth if factors else images[sources]
        return dataclasses.make_dataclass("Edit", ["image"])(image)

    monkeypatch.setattr("facemodels.evaluation.fidelity.transfer", perfect)
    fidelity = edit_fidelity(model, synthetic, "light", pairs=6)
    different = np.mean([a != b for a, b in zip(sources, targets, strict=True)])
    assert fidelity.edited > 90 and fidelity.edited > fidelity.unedited
    assert fidelity.better == pytest.approx(different)
    assert torch.isfinite(torch.tensor(fidelity.unedited))
