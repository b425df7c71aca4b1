"""Persons in codes and in edited pictures, of networks and judges whose behaviour is known."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from facemodels.autoencoder import Face
from facemodels.config import NetworkConfig
from facemodels.evaluation import Codings, encode_all
from facemodels.evaluation.exchange import donors
from facemodels.evaluation.persons import identity_kept, person_in_codes, verify_swaps
from facemodels.gauge import whitening


@pytest.fixture
def faces(prepared):
    return prepared.faces("test")


@pytest.fixture
def codings(model, faces):
    return encode_all(model, faces)


class TestAuc:
    def test_of_codes_that_are_the_person(self, codings):
        persons = np.array([0, 0, 1, 1, 2, 2, 3, 3])
        code = torch.randn(4, 9)[persons] + 100  # the mean of all does not count
        measures = person_in_codes(codings.codes.replace(identity=code), persons)
        assert measures["person_auc"] == 1 and 0 <= measures["person_auc_of_expression"] <= 1

    def test_one_direction_hides_the_person_until_codes_are_white(self, codings):
        persons = np.arange(200) // 2
        code = torch.randn(100, 9)[persons] * 0.4 + torch.randn(200, 1) * torch.ones(9)
        codes = codings.codes[torch.arange(200) % 8]
        loud = person_in_codes(codes.replace(identity=code), persons)["person_auc"]
        white = person_in_codes(codes.replace(identity=code @ whitening(code).float()), persons)["person_auc"]
        assert loud < 0.7 and white > loud + 0.15

    def test_of_codes_that_are_not(self, codings):
        many = codings.codes[torch.arange(200) % 8].replace(identity=torch.randn(200, 9))
        assert person_in_codes(many, np.arange(200) % 40)["person_auc"] == pytest.approx(0.5, abs=0.08)

    def test_needs_pairs_of_one_and_of_two_persons(self, codings):
        assert person_in_codes(codings.codes, np.arange(8)) == {}
        assert person_in_codes(codings.codes, np.zeros(8, int)) == {}


class _Judge:
    """Knows a person by the mean colour of the face."""

    def embed(self, images):
        return normalize(images[:, :, 20:44, 22:42].mean((2, 3)) - 0.4, dim=1)


class _Painter:
    """A network whose colour is one of its codes."""

    config = NetworkConfig()

    def __init__(self, factor):
        self.factor = factor

    def paint(self, pose, expression, identity, light):
        code = {"pose": pose, "expression": expression, "identity": identity, "light": light}[self.factor]
        image = code[:, :3, None, None].expand(-1, -1, 64, 64)
        return Face(image, image, image, image[:, :1], torch.full((len(image), 1, 64, 64), 9.0))


@pytest.mark.parametrize("factor", ["identity", "expression", "pose"])
def test_who_is_shown_follows_the_code_that_paints(faces, codings, factor):
    colours = torch.rand(8, 3)
    photos = colours[:, :, None, None].expand(-1, -1, 64, 64)
    faces = dataclasses.replace(faces, image=(255 * photos).round().to(torch.uint8))
    code = torch.zeros_like(getattr(codings.codes, factor))
    code[:, :3] = colours
    codes = codings.codes.replace(**{factor: code})
    everywhere = torch.ones(8, 1, 64, 64)
    known = Codings(codes, photos, photos, photos, everywhere, photos)
    measures = identity_kept(_Painter(factor), faces, known, _Judge())
    expected = {"kept_by_expression": 1.0, "kept_by_pose": 1.0, "kept_by_light": 1.0, "taken_by_identity": 0.0}
    name = "taken_by_identity" if factor == "identity" else f"kept_by_{factor}"
    assert measures == expected | {name: 1.0 - expected[name]}
    verified = verify_swaps(_Painter(factor), faces, known, _Judge())
    assert verified.reconstruction == pytest.approx(1, abs=1e-3) and verified.pairs == 8
    for name, cosine in verified.cosine.items():  # a swap of what paints shows the donor, any other the face itself
        expected = verified.strangers if name == factor else 1.0
        assert cosine == pytest.approx(expected, abs=1e-4)
        assert (verified.above_strangers[name] < 0.6) == (name == factor)
    assert json.loads(json.dumps(verified.to_dict())) == verified.to_dict()


def test_photos_decide_who_is_shown_and_all_strangers_are_compared(faces, codings):
    """Of a network whose reconstructions are not their photos."""
    photos, plain, painted = torch.rand(3, 8, 3)
    shown_as = {name: value[:, :, None, None].expand(-1, -1, 64, 64) for name, value in (("p", photos), ("r", plain))}
    faces = dataclasses.replace(faces, image=(255 * shown_as["p"]).round().to(torch.uint8))
    code = torch.zeros_like(codings.codes.expression)
    code[:, :3] = painted
    image = shown_as["r"]
    known = Codings(codings.codes.replace(expression=code), image, image, image, torch.ones(8, 1, 64, 64), image)
    verified = verify_swaps(_Painter("expression"), faces, known, _Judge())
    other = donors(8)
    photo, own, shown = (normalize(colours - 0.4, dim=1) for colours in (photos, plain, painted))
    strangers = (own * own[other]).sum(1)
    for factor, swap in {"expression": shown[other], "light": shown, "identity": shown}.items():
        source, donor, kept = ((swap * whom).sum(1) for whom in (photo, photo[other], own))
        won = donor > source if factor == "identity" else source > donor
        assert verified.won[factor] == won.float().mean()
        assert verified.above_strangers[factor] == pytest.approx(float((kept[:, None] > strangers).float().mean()))
    assert verified.reconstruction == pytest.approx(float((photo * own).sum(1).mean()), abs=1e-2)
    assert verified.strangers == pytest.approx(float(strangers.mean()), abs=1e-4)


def test_pairs_of_one_person_are_left_out(model, faces, codings):
    assert identity_kept(model, faces, codings, _Judge(), persons=[7] * 8) == {}
