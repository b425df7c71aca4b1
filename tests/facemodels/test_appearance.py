"""How far pictures turn, of pictures whose pose is known."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.autoencoder import Face
from facemodels.data.synthetic import aligned_camera, factors_of, synthesise_set
from facemodels.evaluation.appearance import (
    YAWS,
    Camera,
    carried_photos,
    correlation,
    find_camera,
    slope,
    turn_camera,
    turn_of_appearance,
)
from facemodels.evaluation.measures import angle_between, encode_all


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    return synthesise_set(tmp_path_factory.mktemp("sets") / "synthetic", count=16, seed=5, held_out=0.0)


@pytest.fixture(scope="module")
def faces(synthetic):
    return synthetic.faces("train")


@pytest.fixture(scope="module")
def turned(faces, synthetic):
    turned = carried_photos(faces, synthetic.morphable)
    assert turned is not None
    return turned


def true_camera(prepared, rows):
    factors = [factors_of(prepared, "train")[row] for row in rows]
    identity, expression, angles, framing = (
        torch.tensor([getattr(one, name).tolist() for one in factors])
        for name in ("identity", "expression", "angles", "framing")
    )
    vertices = prepared.morphable.vertices(identity, expression)
    return vertices, angles, framing, Camera(*aligned_camera(vertices, angles, framing))


class TestCamera:
    def test_is_found_to_a_fraction_of_a_pixel(self, synthetic, faces):
        """Of rendered faces scale and shift are known; a set holds neither."""
        _, _, _, true = true_camera(synthetic, range(16))
        camera, found = find_camera(faces, synthetic.morphable)
        assert found.float().mean() > 0.8
        centre = torch.tensor([32.0, 32.0])
        errors = (camera.shift - true.shift)[found].norm(dim=1)
        assert errors.median() < 0.5 and (camera.scale / true.scale - 1)[found].abs().median() < 0.02
        assert (true.shift - centre).norm(dim=1).median() > 1  # it is no constant

    def test_of_another_pose_is_where_the_alignment_would_put_it(self, synthetic):
        vertices, angles, framing, own = true_camera(synthetic, range(8))
        other = angles.flip(0)
        other[:, 2] = angles[:, 2]
        true = Camera(*aligned_camera(vertices, other, framing))
        moved = turn_camera(vertices, synthetic.morphable, own, true.rotation)
        assert (moved.shift - true.shift).norm(dim=1).median() < 0.5
        assert (moved.scale / true.scale - 1).abs().median() < 0.03
        assert (own.shift - true.shift).norm(dim=1).median() > 1

    def test_stays_in_the_own_pose(self, synthetic):
        vertices, _, _, own = true_camera(synthetic, range(4))
        same = turn_camera(vertices, synthetic.morphable, own, own.rotation)
        assert_close(same.shift, own.shift, atol=1e-4, rtol=0)
        assert_close(same.scale, own.scale)


class TestSlope:
    def test_of_photos_that_turn_as_told(self, turned):
        assert slope(turned.image, turned) > 0.95

    def test_of_photos_that_do_not_turn(self, turned):
        ahead = turned.image[YAWS.index(0)].expand_as(turned.image)
        assert abs(slope(ahead, turned)) < 0.05

    def test_of_photos_that_turn_half_as_far(self, turned):
        half = turned.image[[2, 2, 3, 3, 4, 5, 5, 6, 6]]  # 20 degrees for 40, 20 for 30, 10 for 20, 10 for 10
        assert 0.4 < slope(half, turned) < 0.7

    def test_of_photos_that_turn_the_wrong_way(self, turned):
        assert slope(turned.image.flip(0), turned) < -0.95

    def test_light_tone_and_noise_do_not_count(self, turned):
        ramp = torch.linspace(-0.2, 0.2, 64)
        lit = 0.6 * turned.image + 0.2 + ramp + 0.01 * torch.randn_like(turned.image)
        assert slope(lit, turned) > 0.9

    def test_moving_shading_is_no_turn(self, turned):
        ramps = torch.linspace(-0.4, 0.4, 9)[:, None, None, None, None] * torch.linspace(-1, 1, 64)
        shaded = turned.image[YAWS.index(0)].expand_as(turned.image) + ramps
        assert abs(slope(shaded, turned)) < 0.1


def test_the_photo_stays_itself_where_it_looks_already(turned, faces):
    yaw = torch.atan2(faces.rotation[turned.rows, 2], faces.rotation[turned.rows, 8])
    straight = yaw.abs().argmin()
    known = turned.known[YAWS.index(0), straight]
    difference = ((turned.image[YAWS.index(0), straight] - faces.pictures()[turned.rows[straight]]).abs() * known).sum()
    assert difference / known.sum() / 3 < 0.08


def test_asks_a_network_for_every_yaw(faces, synthetic, turned, monkeypatch):
    monkeypatch.setattr("facemodels.evaluation.appearance.carried_photos", lambda *_: turned)
    asked = []

    class Network:
        def paint(self, pose, expression, identity, light):
            asked.append(pose[0].unflatten(0, (3, 3)))
            image = turned.image[len(asked) - 1]
            return Face(image, image, image, image[:, :1], None)

    codes = torch.zeros(len(faces), 9)
    codings = dataclasses.make_dataclass("Codings", ["codes"])(_Codes(codes))
    measures = turn_of_appearance(Network(), faces, codings, synthetic.morphable)
    assert measures["turn_of_appearance"] > 0.95
    angles = torch.deg2rad(torch.tensor(YAWS, dtype=torch.float32))
    turns = torch.stack(asked) @ asked[YAWS.index(0)].T
    assert_close(torch.deg2rad(angle_between(turns, torch.eye(3).expand(9, 3, 3))), angles.abs(), atol=2e-3, rtol=0)


class _Codes:
    def __init__(self, pose):
        self.pose = self.expression = self.identity = self.light = pose

    def __len__(self):
        return len(self.pose)

    def __getitem__(self, rows):
        return _Codes(self.pose[rows])


def test_faces_that_look_aside_are_no_measure(model, prepared):
    faces = dataclasses.replace(prepared.faces("test"), frontal=torch.zeros(8, dtype=torch.bool))
    assert turn_of_appearance(model, faces, encode_all(model, faces), prepared.morphable) == {}


def test_correlation_of_known_pictures():
    picture, weight = torch.randn(3, 1, 8, 8), torch.rand(3, 1, 8, 8)
    assert_close(correlation(picture, 2 * picture + 5, weight), torch.ones(3))
    assert_close(correlation(picture, -picture, weight), -torch.ones(3))
    assert_close(correlation(picture, torch.ones_like(picture), weight), torch.zeros(3))
    far = picture.clone()
    far[..., 4:] = torch.randn(3, 1, 8, 4)
    weight[..., 4:] = 0
    assert_close(correlation(picture, far, weight), torch.ones(3))
    times = torch.tensor([1, 3, 0, 2, 2, 1])  # a pixel of weight 3 counts as three of weight 1
    first, second = torch.rand(2, 6)
    expected = torch.corrcoef(torch.stack([first.repeat_interleave(times), second.repeat_interleave(times)]))[0, 1]
    found = correlation(*(values.view(1, 1, 1, 6) for values in (first, second, times.float())))
    assert_close(found, expected[None])
