"""Pose swaps of networks whose behaviour is known."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facemodels.autoencoder import Face
from facemodels.codes import FACTORS, Codes
from facemodels.config import NetworkConfig
from facemodels.evaluation import Codings, encode_all
from facemodels.evaluation.exchange import donors
from facemodels.evaluation.measures import angle_between, without_context
from facemodels.evaluation.pose_swaps import cycle, in_other_pose, pose_shares
from facemodels.networks import Context
from facemodels.rendering import euler_to_matrix

SIDE = 64


def turned_faces(prepared, yaws):
    """As many held-out faces as there are yaws, in degrees."""
    faces = prepared.faces("train")[: len(yaws)]
    still = torch.zeros(len(yaws))
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor(yaws)), still, still)
    return dataclasses.replace(faces, rotation=rotation.flatten(1))


class _Painter:
    """A network whose normals are a weighted sum of what its codes say, at every pixel the same."""

    def __init__(self, pose=0.0, identity=0.0, expression=0.0):
        self.weights = pose, identity, expression

    def paint(self, pose, expression, identity, light):
        pose_weight, identity_weight, expression_weight = self.weights
        normal = pose_weight * pose[:, :3] + identity_weight * identity[:, :3] + expression_weight * expression[:, :3]
        image = normal[:, :, None, None].expand(-1, -1, SIDE, SIDE)
        return Face(image, image, image, image[:, :1], torch.ones(len(image), 1, SIDE, SIDE))

    def codings(self, codes):
        face = self.paint(codes.pose, codes.expression, codes.identity, codes.light)
        return Codings(codes, face.image, face.image, face.normals, torch.ones(len(codes), 1, SIDE, SIDE), face.image)


def random_codes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {"pose": 9, "identity": 5, "expression": 4, "light": 9, "mask": 2, "background": 2}
    nothing = Context((), ())
    codes = {name: torch.randn(count, sizes[name], generator=generator) for name in FACTORS}
    return Codes(**codes, context=nothing, background_context=nothing)


class TestShares:
    @pytest.mark.parametrize("factor", ["pose", "identity", "expression"])
    def test_of_the_only_code_that_counts_is_one(self, prepared, factor):
        painter = _Painter(**{factor: 1.0})
        faces = turned_faces(prepared, [-40.0, 0.0, 40.0, 10.0, -30.0])
        shares = pose_shares(painter, faces, painter.codings(random_codes(5)))
        expected = {"share_of_pose": 0.0, "share_of_identity": 0.0, "share_of_expression": 0.0}
        assert shares == pytest.approx(expected | {f"share_of_{factor}": 1.0}, abs=1e-6)

    @settings(max_examples=20)
    @given(st.tuples(*[st.floats(0.1, 2)] * 3), st.integers(0, 99))
    def test_shares_of_an_additive_network_sum_to_one(self, weights, seed):
        painter = _Painter(*weights)
        codes = random_codes(4, seed)
        mask = torch.full((4, 1, SIDE, SIDE), 255, dtype=torch.uint8)
        still = torch.zeros(4)
        rotation = euler_to_matrix(torch.tensor([-1.0, 1.0, 0.0, 0.5]), still, still).flatten(1)
        faces = dataclasses.make_dataclass("Faces", ["rotation", "mask"])(rotation, mask)
        faces.__class__.masks = lambda self: (self.mask > 127).float()
        faces.__class__.__len__ = lambda self: 4
        assert sum(pose_shares(painter, faces, painter.codings(codes)).values()) == pytest.approx(1, abs=1e-4)

    def test_only_pairs_of_clearly_different_yaw_count(self, prepared):
        """Four faces look ahead and one to the side: only the pairs with that one are measured."""
        painter = _Painter(pose=1.0, identity=1.0)
        codes = random_codes(5)
        aside = 2
        other = donors(5)
        before, behind = int(other.argsort()[aside]), int(other[aside])
        codes.identity[torch.tensor([aside, before, behind])] = 0  # those pairs differ in pose alone
        faces = turned_faces(prepared, [40.0 if number == aside else 0.0 for number in range(5)])
        assert pose_shares(painter, faces, painter.codings(codes))["share_of_pose"] == pytest.approx(1, abs=1e-6)

    def test_without_such_pairs(self, prepared):
        painter = _Painter(pose=1.0)
        faces = turned_faces(prepared, [0.0, 3.0, -3.0])
        assert pose_shares(painter, faces, painter.codings(random_codes(3))) == {}


class TestOtherPose:
    def test_of_a_perfect_network(self, prepared):
        faces = prepared.faces("test")
        normals, mask = faces.turned_normals.float() / 127, faces.turned_mask.float() / 255
        carried = faces.turned_image.float() / 255

        class Perfect:
            def paint(self, pose, expression, identity, light):
                assert torch.equal(pose, faces.turned_rotation)
                return Face(carried, carried, normals, mask, 20 * mask - 10)

        measures = in_other_pose(Perfect(), faces, _Painter().codings(random_codes(len(faces))))
        assert measures["turned_normals_degrees"] < 0.1 and measures["turned_mask_iou"] == 1
        assert measures["turned_psnr_face"] > 90

    def test_pixels_seen_from_the_other_side_alone_are_left_out(self, prepared):
        faces = prepared.faces("test")
        weight = faces.turned_weight.clone()
        weight[..., :32] = 51
        weight[0] = 51  # of one face nothing is known
        faces = dataclasses.replace(faces, turned_weight=weight)
        carried = faces.turned_image.float() / 255
        wrong = carried.clone()
        wrong[..., :32] = 1

        class Half:
            def paint(self, pose, expression, identity, light):
                return Face(wrong, wrong, wrong, wrong[:, :1], None)

        measures = in_other_pose(Half(), faces, _Painter().codings(random_codes(len(faces))))
        assert measures["turned_psnr_face"] > 90 and "turned_mask_iou" not in measures

    def test_takes_the_pose_it_is_given(self, model, prepared):
        faces = prepared.faces("test")
        codings = encode_all(model, faces)
        pose = 3 * torch.randn(len(faces), 9)
        seen = []
        real = model.paint
        model.paint = lambda pose, *codes: (seen.append(pose), real(pose, *codes))[1]
        in_other_pose(model, faces, codings, pose)
        assert torch.equal(torch.cat(seen), pose)


class _Reader:
    """A network that writes its pose code into the picture, where `obeys`, and reads it there again."""

    def __init__(self, obeys):
        self.obeys, self.config = obeys, NetworkConfig(cut_background=obeys)

    def paint(self, pose, expression, identity, light):
        told = pose if self.obeys else expression[:, :9]
        image = torch.full((len(pose), 3, SIDE, SIDE), 0.5)
        image[:, 0, 30, 20:29] = told / 4 + 0.5
        return Face(image, image, image, image[:, :1], torch.full((len(pose), 1, SIDE, SIDE), 50.0))

    def encode(self, images):
        return dataclasses.replace(random_codes(len(images)), pose=4 * (images[:, 0, 30, 20:29] - 0.5))


@pytest.mark.parametrize("obeys", [True, False])
def test_cycle_of_networks_that_obey_and_that_do_not(obeys):
    network = _Reader(obeys)
    yaw = torch.linspace(-0.6, 0.6, 7)
    pose = euler_to_matrix(yaw, torch.zeros(7), torch.zeros(7)).flatten(1)
    codes = dataclasses.replace(random_codes(7), pose=pose, expression=pose)
    picture = torch.full((7, 3, SIDE, SIDE), 0.5)
    mask = torch.zeros(7, 1, SIDE, SIDE)
    mask[..., 20:40, 20:40] = 1
    measures = cycle(network, Codings(without_context(codes), picture, picture, picture, mask, picture))
    matrices = pose.unflatten(1, (3, 3))
    unedited = float(angle_between(matrices, matrices[donors(7)]).mean())
    assert measures["unedited_pose_degrees"] == pytest.approx(unedited, abs=1e-3)
    assert measures["cycle_pose_degrees"] == pytest.approx(0 if obeys else unedited, abs=0.1)
    assert unedited > math.degrees(0.2)
