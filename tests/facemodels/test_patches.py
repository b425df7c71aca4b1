"""Holes of models, filled: on a plate with two holes, whose answer is known, and on models."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.morphable import MorphableModel
from facemodels.morphable.patches import holes, pieces, whole_of
from facemodels.rendering.chart import chart_of, texels_of

SIDE = 8


@pytest.fixture(scope="module")
def plate():
    """A square plate of 7 x 7 cells, seen from the front, without the cell (2, 2) and without (4, 4) and (4, 5)."""
    y, x = torch.meshgrid(torch.arange(SIDE) * 10.0, torch.arange(SIDE) * 10.0, indexing="ij")
    mean = torch.stack([x, y, torch.zeros_like(x)], dim=2).view(-1, 3)
    triangles = []
    for row in range(SIDE - 1):
        for column in range(SIDE - 1):
            if (row, column) not in [(2, 2), (4, 4), (4, 5)]:
                a = row * SIDE + column
                triangles += [[a, a + 1, a + SIDE + 1], [a, a + SIDE + 1, a + SIDE]]
    count = len(mean)
    return MorphableModel(
        mean=mean,
        identity=torch.randn(3, count, 3, generator=torch.Generator().manual_seed(0)),
        expression=torch.randn(2, count, 3, generator=torch.Generator().manual_seed(1)),
        triangles=torch.tensor(triangles),
        face=torch.ones(len(triangles), dtype=torch.bool),
        landmarks=torch.arange(68) % count,
        expression_names=("a", "b"),
        name="plate",
        licence="none",
        source="made for tests",
        uv=0.1 + 0.8 * mean[:, :2] / 70,
    )


def area(vertices, triangles):
    a, b, c = vertices[triangles].unbind(1)
    return torch.linalg.cross(b - a, c - a)[:, 2] / 2


def test_finds_the_holes_and_not_the_border(plate):
    assert sorted(len(rim) for rim in holes(plate)) == [4, 6]
    first = next(rim for rim in holes(plate) if len(rim) == 4)
    assert set(first.tolist()) == {2 * SIDE + 2, 2 * SIDE + 3, 3 * SIDE + 2, 3 * SIDE + 3}


def test_fills_them_once_and_from_the_front(plate):
    whole = whole_of(plate)
    areas = area(whole.morphable.mean, whole.morphable.triangles)
    assert (areas > 0).all()  # none is turned away
    assert_close(areas.sum(), torch.tensor(4900.0))
    assert not holes(whole.morphable)
    assert whole.patch.unique().tolist() == [0, 1, 2] and whole.morphable.face.all()
    assert_close(areas[whole.patch > 0].sum(), torch.tensor(300.0))


def test_stays_linear_and_keeps_the_old_vertices(plate):
    whole = whole_of(plate)
    identity, expression = torch.randn(3), torch.randn(2)
    shape = plate.vertices(identity, expression)
    assert_close(whole.complete(shape), whole.morphable.vertices(identity, expression), atol=1e-4, rtol=0)
    assert_close(whole.complete(shape)[: plate.n_vertices], shape)


def test_a_texture_has_room_for_them(plate):
    whole = whole_of(plate)
    chart = chart_of(whole)
    texels = texels_of(whole, 200)
    covered = area(torch.nn.functional.pad(chart.uv, (0, 1)), chart.triangles)
    assert (covered > 0).all() and abs(covered.sum() - len(texels.pixel) / 200**2) < 0.01
    inside = whole.morphable.mean[texels.corners].mean(1)  # in mm
    for row, column in [(2, 2), (4, 4), (4, 5)]:
        middle = 10 * torch.tensor([column + 0.5, row + 0.5])
        assert ((inside[:, :2] - middle).abs() < 4).all(1).sum() > 20


def test_without_a_hole_or_with_eyes_nothing_changes(plate):
    solid = dataclasses.replace(plate, triangles=plate.triangles[:14], face=plate.face[:14])  # the first row
    assert whole_of(solid).morphable is solid
    assert_close(whole_of(solid).complete(solid.mean), solid.mean)
    procedural = MorphableModel.procedural()
    assert pieces(procedural).max() == 6 and whole_of(procedural).morphable is procedural


def test_a_mesh_without_a_border_has_no_hole():
    generator = torch.Generator().manual_seed(2)
    corners = torch.randn(4, 3, generator=generator)
    solid = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    model = MorphableModel(
        mean=corners,
        identity=torch.zeros(1, 4, 3),
        expression=torch.zeros(0, 4, 3),
        triangles=solid,
        face=torch.ones(4, dtype=torch.bool),
        landmarks=torch.zeros(68, dtype=torch.long),
        expression_names=(),
        name="tetrahedron",
        licence="none",
        source="made for tests",
    )
    assert holes(model) == [] and whole_of(model).morphable is model
