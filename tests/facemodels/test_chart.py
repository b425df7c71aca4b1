"""Textures on heads: no seam is torn, nothing overlaps, and what lies in them is what the surface has."""

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.mesh import Mesh
from facemodels.morphable import MorphableModel
from facemodels.morphable.patches import whole_of
from facemodels.rendering.chart import chart_of, texels_of
from facemodels.rendering.picture import picture_of


@pytest.fixture(scope="module")
def model():
    return MorphableModel.procedural()


def area(uv, triangles):
    a, b, c = uv[triangles].double().unbind(1)
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


class TestChart:
    def test_vertices_of_the_model_come_first(self, model):
        chart = chart_of(whole_of(model))
        assert (chart.vertex[: model.n_vertices] == torch.arange(model.n_vertices)).all()
        assert (chart.vertex[chart.triangles] == model.triangles).all()
        assert len(chart.uv) < 1.05 * model.n_vertices

    def test_lies_in_the_texture(self, model):
        uv = chart_of(whole_of(model)).uv
        assert uv.min() > 0 and uv.max() < 1

    def test_no_triangle_is_torn_over_the_seam(self, model):
        chart = chart_of(whole_of(model))
        corners = chart.uv[chart.triangles]
        wide = (corners.amax(1) - corners.amin(1))[:, 0] > 0.1
        assert wide.float().mean() < 0.01 and corners[wide, :, 1].min() > 0.95  # at its pole

    def test_hardly_anything_overlaps(self, model):
        """The parts' areas add up to what is covered."""
        chart = chart_of(whole_of(model))
        covered = len(texels_of(whole_of(model), 512).pixel) / 512**2
        assert area(chart.uv, chart.triangles).abs().sum() < 1.06 * covered

    def test_the_face_is_upright_and_not_mirrored(self, model):
        u, v = chart_of(whole_of(model)).uv[model.landmarks].unbind(1)
        assert u[2] < u[30] < u[14] and v[8] < v[30] < v[27]  # jaw left and right of the nose; chin, nose tip, bridge
        chart = chart_of(whole_of(model))
        assert (area(chart.uv, chart.triangles)[model.face] > 0).float().mean() > 0.97

    def test_coordinates_of_the_model_are_kept(self, model):
        own = torch.rand(model.n_vertices, 2)
        chart = chart_of(whole_of(dataclasses.replace(model, uv=own)))
        assert chart.uv is own and (chart.triangles == model.triangles).all()


class TestTexels:
    def test_carry_positions(self, model):
        texels = texels_of(whole_of(model), 128)
        assert_close(texels.weights.sum(1), torch.ones(len(texels.pixel)), atol=1e-4, rtol=0)
        nearest = (texels.at(model.mean) - model.mean[texels.corners[:, 0]]).norm(dim=1)
        assert nearest.median() < 5

    def test_parts_go_on_at_their_edges(self, model):
        texels = texels_of(whole_of(model), 128)
        picture = texels.picture(torch.ones(len(texels.pixel), 3))
        assert len(texels.pixel) < (picture[0] == 1).sum() < 128**2
        assert set(picture.unique().tolist()) == {0.0, 1.0}

    def test_mirrored_coordinates_work_too(self, model):
        """A model whose coordinates run the other way shows the same on its surface."""
        chart = chart_of(whole_of(model))
        straight = Mesh(model.mean[chart.vertex], chart.triangles, model.mean[chart.vertex])
        flat = torch.stack([0.5 + model.mean[:, 0] / 400, 0.5 + model.mean[:, 1] / 500], dim=1)
        for uv in (flat, torch.stack([1 - flat[:, 0], flat[:, 1]], dim=1)):
            other = dataclasses.replace(model, uv=uv)
            texels = texels_of(whole_of(other), 256)
            height = texels.at(model.mean)[:, 1]
            assert len(texels.pixel) > 2000 and height.max() > 80
        assert straight.uv is None


class TestPicture:
    def test_a_texture_shows_what_the_vertices_have(self, model):
        chart = chart_of(whole_of(model))
        colours = (model.mean - model.mean.amin(0)) / (model.mean.amax(0) - model.mean.amin(0))
        texels = texels_of(whole_of(model), 512)
        texture = texels.picture(texels.at(colours)).clamp(0, 1)
        plain = Mesh(model.mean, model.triangles, colours)
        textured = Mesh(model.mean[chart.vertex], chart.triangles, colours[chart.vertex], chart.uv, texture)
        for yaw in (0.0, 0.7, 3.0):
            one, other = picture_of([plain], yaw=yaw, size=96), picture_of([textured], yaw=yaw, size=96)
            assert (one - other).abs().mean() < 0.004
            assert (one - other).abs().flatten(1).quantile(0.99) < 0.03

    def test_turns_to_the_right(self, model):
        tip = (model.mean - model.mean[model.landmarks[30]]).norm(dim=1) < 20
        mesh = Mesh(model.mean, model.triangles, tip[:, None] * torch.tensor([1.0, 0.0, 0.0]))  # with a red nose
        middles = []
        for yaw in (-0.8, 0.0, 0.8):
            picture = picture_of([mesh], yaw=yaw, size=64)[0]
            red = (picture[0] - picture[1]).clamp_min(0).sum(0)
            middles.append(float((torch.arange(64.0) * red).sum() / red.sum()))
        assert middles == pytest.approx([20, 31.5, 43], abs=1)

    def test_nothing_to_show(self):
        with pytest.raises(ValueError, match="picture_of: there is no mesh"):
            picture_of([])
