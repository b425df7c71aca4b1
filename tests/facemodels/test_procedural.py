import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from facemodels.morphable import MorphableModel
from facemodels.morphable.procedural import (
    EMOTIONS,
    Complexion,
    albedo_model,
    build_model,
    emotion_coefficients,
    hair_shell,
    hair_triangles,
    limit_expression,
    masculinity,
    mean_head,
    sample_complexion,
)
from facemodels.morphable.procedural.builder import identity_names
from facemodels.morphable.procedural.fields import bump, monotone_cubic, plateau, rise, smooth_maximum
from facemodels.morphable.procedural.head import EYEBALL, LOWER_TEETH, SKIN, UPPER_TEETH
from facemodels.morphable.procedural.sheet import EYE_POCKET
from facemodels.morphable.procedural.smooth import smooth_functions
from facemodels.rendering import project_weak_perspective, rasterize


@pytest.fixture(scope="module")
def model():
    return MorphableModel.procedural()


def coefficients(model, **amounts):
    result = torch.zeros(model.n_expression)
    for name, amount in amounts.items():
        result[model.expression_names.index(name)] = amount
    return result


def draws(model, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, model.n_identity, generator=generator).clamp(-2.6, 2.6)


def seen_parts(model, vertices, size=128):
    """Which part each pixel of a frontal view shows, and whether it is in the eye's or mouth's pocket; -1 outside."""
    count = len(vertices)
    camera = torch.eye(3).expand(count, 3, 3), torch.full((count,), 0.55), torch.tensor([[64.0, 50.0]]).expand(count, 2)
    shown = rasterize(project_weak_perspective(vertices, *camera), model.triangles, size).triangle
    vertex = model.triangles[shown.clamp_min(0), 0]
    head = mean_head()
    part, pocket = torch.from_numpy(head.part), torch.from_numpy(head.pocket)
    return torch.where(shown >= 0, part[vertex], -1), torch.where(shown >= 0, pocket[vertex], -1.0)


class TestFields:
    @given(st.lists(st.integers(-5, 5), min_size=2, max_size=7))
    def test_monotone_cubic_passes_its_knots_and_stays_between_them(self, values):
        knots = np.arange(len(values), dtype=float)
        assert_close(monotone_cubic(knots, values, knots), np.array(values, dtype=float))
        fine = np.linspace(0, len(values) - 1, 101)
        between = monotone_cubic(knots, values, fine)
        low = np.minimum(np.array(values)[:-1], np.array(values)[1:])
        high = np.maximum(np.array(values)[:-1], np.array(values)[1:])
        interval = np.minimum(fine.astype(int), len(values) - 2)
        assert (between >= low[interval] - 1e-9).all()
        assert (between <= high[interval] + 1e-9).all()

    def test_heights_and_widths(self):
        assert bump(3.0, 3.0, 2.0) == 1
        assert bump(5.0, 3.0, 2.0) == pytest.approx(np.exp(-0.5))
        assert plateau(5.0, 3.0, 2.0) == pytest.approx(np.exp(-1))
        assert_close(rise(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), 1, 3), np.array([0, 0, 0.5, 1, 1]))
        assert_close(rise(np.array([0.0, 4.0]), 3, 1), np.array([1.0, 0.0]))

    @given(st.floats(-10, 10), st.floats(-10, 10))
    def test_smooth_maximum_lies_just_above_the_maximum(self, first, second):
        assert 0 <= smooth_maximum(first, second, 0.5) - max(first, second) <= 0.25 + 1e-9


class TestModel:
    def test_sizes_of_the_paper(self, model):
        assert (model.n_vertices, model.n_identity, model.n_expression) == (9375, 157, 28)
        assert len(set(model.expression_names)) == 28

    def test_is_the_same_every_time(self, model):
        again = build_model()
        for name in ("mean", "identity", "expression", "triangles", "landmarks", "albedo"):
            assert torch.equal(getattr(model, name), getattr(again, name)), name
        assert MorphableModel.procedural() is model

    def test_surface_is_oriented_and_without_cracks(self, model):
        corners = model.triangles.numpy()
        edges = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
        keys = edges[:, 0] * model.n_vertices + edges[:, 1]
        assert len(np.unique(keys)) == len(keys)  # each direction of an edge occurs once
        skin = (mean_head().part[edges] == SKIN).all(axis=1)
        border = edges[skin & ~np.isin(keys, edges[:, 1] * model.n_vertices + edges[:, 0])]
        assert (mean_head().level[border] < -150).all()  # the skin ends at the neck and nowhere else

    def test_is_symmetric(self, model):
        columns = torch.arange(105 * 75).view(105, 75)
        skin, mirrored = model.mean[columns], model.mean[columns.flip(1)] * torch.tensor([-1.0, 1.0, 1.0])
        assert_close(skin, mirrored, atol=1e-3, rtol=0)

    def test_landmarks_are_in_their_order(self, model):
        x, y, _ = model.mean[model.landmarks].T
        assert (x[:17].diff() > 0).all()  # along the jaw, from image left
        assert int(y[:17].argmin()) == 8
        assert (y[27:31].diff() < 0).all()  # down the nose
        assert x[36:42].mean() < x[42:48].mean()
        assert x[48] < 0 < x[54]
        assert y[51] > y[62] >= y[66] > y[57]  # upper lip, mouth line, lower lip
        mirror = [*range(16, -1, -1), *range(26, 16, -1)]
        assert_close(x[:27], -x[mirror], atol=1e-3, rtol=0)

    def test_proportions_of_a_head(self, model):
        x, y, z = model.mean[model.landmarks].T
        assert 58 < x[42:48].mean() - x[36:42].mean() < 68
        assert 44 < x[54] - x[48] < 56
        assert 100 < y[36:48].mean() - y[8] < 130
        assert z[30] > z[8] > z[0]

    def test_face_leaves_out_hair_ears_and_neck(self, model):
        inside = model.mean[model.triangles[model.face]].flatten(0, 1)
        assert inside[:, 1].min() > -125
        assert inside[:, 0].abs().max() < 76
        assert not model.face[torch.from_numpy((mean_head().ear[mean_head().triangles] > 0).any(axis=1))].any()

    def test_bases_have_full_rank(self, model):
        both = torch.cat([model.identity, model.expression]).flatten(1).double()
        unit = both / both.norm(dim=1, keepdim=True)
        assert torch.linalg.matrix_rank(both) == 185
        alike = (unit @ unit.T - torch.eye(185, dtype=torch.float64)).abs()
        assert alike.max() < 0.9  # no two components do the same
        between = alike[:157, 157:]
        assert between.max() < 0.7  # and no part of an identity looks like an expression

    def test_smooth_identity_fields_are_orthogonal_to_expressions(self, model):
        smooth = model.identity[len(identity_names()) :].flatten(1).double()
        expression = model.expression.flatten(1).double()
        cosine = (smooth @ expression.T) / smooth.norm(dim=1)[:, None] / expression.norm(dim=1)
        assert cosine.abs().max() < 1e-4

    def test_eyeballs_move_as_one(self, model):
        eye = torch.from_numpy((mean_head().part == EYEBALL) & (mean_head().side > 0))
        scaling = scaling_components()
        rigid = [k for k in range(model.n_identity) if k not in scaling]
        moved = model.identity[rigid][:, eye]
        assert (moved - moved.mean(dim=1, keepdim=True)).abs().max() < 0.2  # mm


def scaling_components():
    from facemodels.morphable.procedural.identity import identity_components

    _, names = identity_components(mean_head())
    return {names.index(name) for name in ("head_width", "head_depth", "eye_size")}


BYTES = """
import hashlib
from facemodels.morphable.procedural import build_model
model = build_model()
for part in (model.mean, model.identity, model.expression):
    print(hashlib.sha256(part.numpy().tobytes()).hexdigest())
"""


def test_is_the_same_on_every_number_of_cores():
    seen = []
    for threads in ("1", "2"):
        settings = {name: threads for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        run = subprocess.run(
            [sys.executable, "-c", BYTES], env={**os.environ, **settings}, capture_output=True, text=True, check=True
        )
        seen.append(run.stdout.split())
    assert len(seen[0]) == 3 and seen[0] == seen[1]


def test_signs_do_not_depend_on_rounding():
    """Fields that mirror each other have two largest values: rounding must not choose between them."""
    head = mean_head()
    fields = smooth_functions(head, 20)
    size = np.abs(fields)
    for field, peak in zip(fields.T, (size > 0.999 * size.max(axis=0)).argmax(axis=0), strict=True):
        largest = np.flatnonzero(np.abs(field) > (1 - 1e-9) * np.abs(field).max())
        assert field[peak] > 0 and (peak == largest[0] or peak < largest[0])


class TestExpressions:
    def test_eyes_close(self, model):
        faces = draws(model, 12)
        shut = model.vertices(faces, coefficients(model, eye_close_left=1.62, eye_close_right=1.62))
        visible = (seen_parts(model, shut)[0] == EYEBALL).flatten(1).sum(dim=1)
        opened = (seen_parts(model, model.vertices(faces))[0] == EYEBALL).flatten(1).sum(dim=1)
        assert (opened > 60).all()
        assert (visible < 0.2 * opened).all()

    def test_mouth_opens(self, model):
        faces = draws(model, 12)

        def inside(vertices):
            part, pocket = seen_parts(model, vertices)
            return ((part == UPPER_TEETH) | (part == LOWER_TEETH) | (pocket == 1)).flatten(1).sum(dim=1)

        assert (inside(model.vertices(faces)) < 30).all()
        assert (inside(model.vertices(faces, coefficients(model, jaw_open=1.5))) > 100).all()

    @pytest.mark.parametrize(
        ("name", "landmark", "axis", "sign"),
        [
            ("smile_left", 54, 1, 1),
            ("smile_right", 48, 1, 1),
            ("smile_left", 54, 0, 1),
            ("frown_left", 54, 1, -1),
            ("jaw_open", 8, 1, -1),
            ("jaw_sideways", 8, 0, 1),
            ("lip_pucker", 54, 0, -1),
            ("brow_inner_raise", 21, 1, 1),
            ("brow_outer_raise_right", 18, 1, 1),
            ("brow_lower_left", 22, 1, -1),
            ("eye_close_right", 37, 1, -1),
            ("eye_wide", 44, 1, 1),
        ],
    )
    def test_moves_what_it_names(self, model, name, landmark, axis, sign):
        component = model.expression[model.expression_names.index(name)]
        assert sign * component[model.landmarks[landmark], axis] > 0.8  # mm

    @pytest.mark.parametrize("name", ["smile", "frown", "stretch", "eye_close", "brow_lower", "cheek_raise"])
    def test_left_mirrors_right(self, model, name):
        left, right = (model.expression[model.expression_names.index(f"{name}_{side}")] for side in ("left", "right"))
        columns = torch.arange(105 * 75).view(105, 75)
        mirrored = right[columns.flip(1)] * torch.tensor([-1.0, 1.0, 1.0])
        assert_close(left[columns], mirrored, atol=1e-3, rtol=0)

    def test_hardly_moves_the_back_of_the_head(self, model):
        behind = torch.from_numpy(mean_head().degrees > 110)
        assert model.expression[:, behind].abs().max() < 0.5


class TestEmotions:
    @pytest.mark.parametrize("emotion", EMOTIONS)
    def test_scales_with_intensity(self, emotion):
        assert_close(emotion_coefficients(emotion, 0.5), 0.5 * emotion_coefficients(emotion))
        assert_close(limit_expression(emotion_coefficients(emotion)), emotion_coefficients(emotion))

    def test_rejects_an_unknown_emotion(self):
        with pytest.raises(ValueError, match="there is no emotion 'bored'; choose one of neutral, happy"):
            emotion_coefficients("bored")


class TestRandomFaces:
    def test_are_not_broken(self, model):
        vertices = model.vertices(draws(model, 40, seed=1))
        part, pocket = seen_parts(model, vertices)
        eyes = (part == EYEBALL).flatten(1).sum(dim=1).float()
        assert (eyes > 0.35 * eyes.median()).all()
        assert (eyes < 2.2 * eyes.median()).all()
        assert ((pocket == EYE_POCKET).flatten(1).sum(dim=1) < 60).all()
        assert turned_over(model, vertices).max() < 0.01

    def test_with_expressions_are_not_broken(self, model):
        expression = torch.tensor(np.stack([emotion_coefficients(name) for name in EMOTIONS])).float()
        vertices = model.vertices(draws(model, 6, seed=2)[:, None], expression).flatten(0, 1)
        assert turned_over(model, vertices).max() < 0.02

    @pytest.mark.slow
    def test_three_hundred_are_not_broken(self, model):
        for chunk in draws(model, 300, seed=3).split(50):
            vertices = model.vertices(chunk)
            assert turned_over(model, vertices).max() < 0.01
            eyes = (seen_parts(model, vertices)[0] == EYEBALL).flatten(1).sum(dim=1).float()
            assert (eyes > 40).all()


def turned_over(model, vertices):
    """Share of the face's skin triangles that have turned by more than 90 degrees."""
    skin = torch.from_numpy(((mean_head().part == SKIN) & (mean_head().pocket == 0))[mean_head().triangles].all(axis=1))
    corners = model.triangles[model.face & skin]

    def normals(points):
        a, b, c = points[..., corners, :].unbind(dim=-2)
        return torch.linalg.cross(b - a, c - a)

    return ((normals(vertices) * normals(model.mean)).sum(dim=-1) < 0).float().mean(dim=-1)


def hair_of(head=None, **parameters):
    return hair_shell(head or mean_head(), Complexion(**parameters))


LONG = {"hair_length": 150.0, "hair_volume": 14.0, "hair_top": 9.0, "hair_front": 60.0}


class TestHair:
    @settings(max_examples=25)
    @given(st.integers(0, 10_000))
    def test_any_haircut_is_drawn_around_the_head(self, seed):
        hair = hair_shell(mean_head(), sample_complexion(np.random.default_rng(seed)))
        assert hair.position.shape == hair.albedo.shape == (len(hair.attached), 3)
        assert np.isfinite(hair.position).all()
        assert 0 <= hair.albedo.min() <= hair.albedo.max() <= 1
        assert np.abs(hair.position).max() < 260  # mm
        if hair.shown:
            top = hair.position[:, 1].max()
            assert 105 < top < 175

    def test_triangles_look_outwards_and_inwards(self):
        (outside, inside), hair = hair_triangles(), hair_of(**LONG)
        for triangles, sign in ((outside, 1), (inside, -1)):
            a, b, c = (hair.position[triangles[:, k]] for k in range(3))
            normal, centre = np.cross(b - a, c - a), (a + b + c) / 3 - [0, 0, -5]
            assert (sign * (normal * centre)[:, [0, 2]].sum(axis=1) > 0).mean() > 0.95
        turned_back = {tuple(np.roll(one[::-1], -one[::-1].argmin())) for one in inside}
        assert turned_back <= {tuple(np.roll(one, -one.argmin())) for one in outside}

    def test_hangs_as_far_as_it_is_long(self):
        for length in (60.0, 180.0):
            lowest = hair_of(**LONG | {"hair_length": length}).position[:, 1].min()
            assert lowest == pytest.approx(-length, abs=25)

    def test_leaves_the_face_free(self):
        position = hair_of(**LONG).position
        in_face = (np.abs(position[:, 0]) < 40) & (position[:, 1] < 20) & (position[:, 2] > 40)
        assert not in_face.any()

    def test_a_fringe_hangs_into_the_forehead(self):
        short, hanging = (hair_of(fringe=fringe).position for fringe in (0.0, 30.0))
        middle = (np.abs(short[:, 0]) < 25) & (short[:, 2] > 60)
        assert hanging[middle, 1].min() < short[middle, 1].min() - 15

    def test_bald_and_shorn_heads_have_no_shell(self):
        assert not hair_of(bald=1.0).shown
        assert not hair_of(hair_top=0.2, hair_volume=0.2).shown
        assert hair_of().shown

    def test_every_haircut_is_drawn(self):
        people = [sample_complexion(np.random.default_rng(k), 3.0 * (-1) ** k) for k in range(300)]
        men, women = people[::2], people[1::2]  # a masculinity of 3 is the far end
        assert np.mean([one.hair_length > 50 for one in women]) > 0.4
        assert np.mean([one.hair_length > 50 for one in men]) < 0.25
        assert np.mean([one.beard > 0 for one in men]) > 0.3
        assert not any(one.beard or one.bald for one in women[:20] if one.make_up)
        for parameter in ("bald", "hair_curl", "hair_wave", "fringe", "grey"):
            values = [getattr(one, parameter) for one in people]
            assert 0.02 < np.mean([value > 0 for value in values]) < 0.9, parameter


class TestMasculinity:
    def test_is_standard_normal_over_faces(self):
        draws = np.random.default_rng(0).standard_normal((4000, 157))
        values = np.array([masculinity(one) for one in draws])
        assert abs(values.mean()) < 0.06
        assert values.std() == pytest.approx(1, abs=0.04)

    def test_broad_jaws_are_masculine_and_full_lips_feminine(self):
        one = np.eye(157)
        assert masculinity(one[identity_names().index("jaw_width")]) > 0
        assert masculinity(one[identity_names().index("upper_lip_fullness")]) < 0


class TestAlbedo:
    @settings(max_examples=20)
    @given(st.integers(0, 10_000))
    def test_is_a_colour(self, seed):
        colours = albedo_model().colours(sample_complexion(np.random.default_rng(seed)))
        assert colours.shape == (9375, 3)
        assert colours.min() >= 0
        assert colours.max() <= 1

    @pytest.mark.parametrize(
        ("parameter", "place"),
        [
            ("melanin", lambda head: (head.part == SKIN) & (head.level > 40) & (head.hair < 0.1) & (head.degrees < 30)),
            (
                "beard",
                lambda head: (head.part == SKIN) & (head.level < -100) & (head.level > -112) & (head.across < 10),
            ),
            ("hair", lambda head: head.hair > 0.9),
            ("age", lambda head: (np.abs(head.across - 22) < 3) & (np.abs(head.level + 50) < 4)),
        ],
    )
    def test_makes_its_place_darker(self, parameter, place):
        head = mean_head()
        light, dark = (
            albedo_model().colours(dataclasses.replace(Complexion(), **{parameter: value})) for value in (0.0, 0.9)
        )
        assert dark[place(head)].mean() < (0.95 if parameter == "age" else 0.8) * light[place(head)].mean()
        unmoved = (head.part == EYEBALL) if parameter != "melanin" else head.teeth
        assert_close(dark[unmoved], light[unmoved])

    def test_lips_are_redder_than_the_cheeks(self):
        head, colours = mean_head(), albedo_model().colours(Complexion())
        redness = colours[:, 0] / colours[:, 1]
        lips = (head.row > 11.3) & (head.row < 11.8) & (head.across < 10)
        cheeks = (head.part == SKIN) & (np.hypot(head.across - 40, head.level + 50) < 8)
        assert redness[lips].mean() > 1.15 * redness[cheeks].mean()
