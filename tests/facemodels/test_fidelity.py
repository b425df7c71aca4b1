import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig
from facemodels.data.factors import exchange, sample_factors
from facemodels.data.synthetic import draw, factors_of, synthesise_set
from facemodels.errors import InputError
from facemodels.evaluation.fidelity import differing_pairs, edit_fidelity, edit_trials, true_edits


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


@pytest.mark.parametrize("factor", ["expression", "pose", "light", "identity"])
def test_pairs_differ_in_the_factor(synthetic, factor):
    factors = factors_of(synthetic, "test")
    sources, targets = differing_pairs(factors, factor, 20, seed=1)
    assert len(sources) == len(targets) == 20
    for source, target in zip(sources, targets, strict=True):
        one, other = factors[source], factors[target]
        same = {
            "expression": one.emotion == other.emotion,
            "pose": (one.angles == other.angles).all(),
            "light": (one.light == other.light).all(),
            "identity": one.person == other.person,
        }
        assert not same[factor]


def test_without_faces_nothing_differs(tmp_path):
    with pytest.raises(InputError, match="no two of these 0 faces differ in pose"):
        differing_pairs([], "pose", 3)
    everything = synthesise_set(tmp_path / "set", count=4, held_out=0, seed=3)
    with pytest.raises(InputError, match="no two of these 0 faces differ in light"):
        edit_trials(everything, "light", 3)


def test_faces_that_are_all_alike(synthetic):
    with pytest.raises(InputError, match="no two of these 1 faces differ in pose"):
        differing_pairs(factors_of(synthetic, "test")[:1], "pose", 4)


def test_fidelity_tells_a_perfect_editor(synthetic, monkeypatch):
    """An editor that knows the truth, and whose reconstruction is grey, beats no edit in every pair."""
    model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2))
    sources, targets = differing_pairs(factors_of(synthetic, "test"), "light", 6)
    truth, _ = true_edits(synthetic, "test", sources, targets, "light")
    photos = synthetic.faces("test").pictures()

    with torch.no_grad():
        own, donors = (model.encode(photos[rows]) for rows in (sources, targets))
    assert not torch.equal(own.light, donors.light)

    def perfect(model, codes, turned=False):
        assert torch.equal(codes.identity, own.identity) and not turned
        edited = torch.equal(codes.light, donors.light)
        assert edited or torch.equal(codes.light, own.light)
        image = truth if edited else torch.full_like(truth, 0.5)
        return dataclasses.make_dataclass("Edit", ["image"])(image)

    monkeypatch.setattr("facemodels.evaluation.fidelity.decode_edit", perfect)
    fidelity = edit_fidelity(model, synthetic, "light", pairs=6)
    assert fidelity.edited > 90 > fidelity.photo and fidelity.edited_ssim > 0.999 > fidelity.unedited_ssim
    assert fidelity.better == fidelity.better_than_photo == 1 and fidelity.pairs == 6
    assert json.loads(json.dumps(fidelity.to_dict())) == fidelity.to_dict()
