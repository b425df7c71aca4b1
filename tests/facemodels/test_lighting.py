import dataclasses

import pytest
import torch
from torch.testing import assert_close

from facemodels.fitting.lighting import (
    MEAN_SHADING,
    Observations,
    light_error,
    mean_albedo,
    observe,
    solve_light,
    surface_samples,
)
from facemodels.fitting.shape import Fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import (
    euler_to_matrix,
    interpolate,
    irradiance_basis,
    light_from_direction,
    project_weak_perspective,
    rasterize,
    render_geometry,
    shade,
)


@pytest.fixture(scope="module")
def morphable():
    return MorphableModel.procedural()


def lights(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.5, 1.5])
    strength = 0.2 + 0.3 * torch.rand(count, generator=generator)
    return light_from_direction(
        direction, strength=strength, ambient=0.35 + 0.1 * torch.rand(count, generator=generator)
    )


@pytest.fixture(scope="module")
def photos(morphable):
    """Faces with a known albedo at each vertex and known lights, rendered."""
    count = 48
    generator = torch.Generator().manual_seed(1)
    angles = 0.3 * torch.randn(3, count, generator=generator)
    rotation = euler_to_matrix(*angles)
    scale, shift = torch.full((count,), 0.3), torch.full((count, 2), 32.0)
    expression = torch.zeros(count, morphable.n_expression)
    identity = 0.5 * torch.randn(count, morphable.n_identity, generator=generator)
    fit = Fit(rotation, scale, shift, identity, expression, torch.zeros(count))
    vertices = morphable.vertices(identity, expression)
    normals, mask = render_geometry(vertices, morphable.triangles, morphable.face, rotation, scale, shift)
    albedo = 0.55 + 0.15 * torch.sin(morphable.mean[:, 1] / 25)
    fragments = rasterize(project_weak_perspective(vertices, rotation, scale, shift), morphable.triangles, 64)
    painted = interpolate(albedo[None, :, None].expand(count, -1, 1), morphable.triangles, fragments)
    light = lights(count)
    images = (painted * shade(normals, light) * mask).clamp(0, 1).expand(-1, 3, -1, -1)
    images = (255 * images).round().to(torch.uint8).movedim(1, -1)
    return images, normals, vertices, fit, light, albedo


@pytest.fixture(scope="module")
def samples(morphable):
    return surface_samples(morphable, 800)


class TestSurfaceSamples:
    def test_lie_on_the_face(self, morphable, samples):
        on_face = set(morphable.triangles[morphable.face].unique().tolist())
        assert set(samples.tolist()) <= on_face
        assert len(samples.unique()) == 800

    def test_same_every_time(self, morphable, samples):
        assert_close(surface_samples(morphable, 800), samples)


class TestSolveLight:
    @pytest.mark.parametrize("light", lights(4).unbind(), ids=str)
    def test_recovers_the_light_of_a_sphere(self, light):
        normals = torch.nn.functional.normalize(
            torch.randn(1, 900, 3, generator=torch.Generator().manual_seed(0)), dim=2
        )
        luminance = 0.7 * irradiance_basis(normals) @ light
        found = solve_light(Observations(luminance, normals, torch.ones(1, 900)), torch.full((900,), 0.7))
        shading = irradiance_basis(normals) @ light
        assert (
            irradiance_basis(normals) @ found[0] - shading
        ).abs().mean() < 0.1 * shading.abs().mean()  # the ridge smooths a little

    def test_hidden_face_has_no_light(self):
        nothing = Observations(torch.rand(1, 9), torch.zeros(1, 9, 3), torch.zeros(1, 9))
        assert_close(solve_light(nothing, torch.ones(9)), torch.zeros(1, 9))


class TestLightError:
    def test_is_the_root_mean_square_over_what_is_seen(self):
        light = light_from_direction(torch.tensor([[0.0, 0.0, 1.0]]), strength=torch.ones(1), ambient=torch.ones(1))
        normals = torch.tensor([0.0, 0.0, 1.0]).expand(1, 4, 3)
        albedo, weight = torch.tensor([0.2, 0.4, 0.6, 0.8]), torch.tensor([[1.0, 3.0, 0.0, 0.0]])
        off = torch.tensor([[0.1, -0.2, 5.0, 5.0]])  # the last two are hidden
        shading = irradiance_basis(normals) @ light[0]
        seen = Observations(albedo * shading + off, normals, weight)
        assert_close(light_error(seen, albedo, light), torch.tensor([((0.1**2 + 3 * 0.2**2) / 4) ** 0.5]))


class TestRenderedPhotos:
    def test_observe_reads_the_picture(self, photos, morphable, samples):
        images, normals, vertices, fit, light, albedo = photos
        seen = observe(images, normals, vertices, fit, morphable, samples)
        shading = torch.einsum("nsk,nk->ns", irradiance_basis(seen.normals), light)
        visible = seen.weight > 0.5
        off = (seen.luminance - albedo[samples] * shading)[visible].abs()
        assert visible.float().mean() > 0.3
        assert off.median() < 0.02

    def test_colours_count_as_the_eye_sees_them(self, photos, morphable, samples):
        images, normals, vertices, fit, *_ = (values[:3] for values in photos)
        colours = torch.zeros_like(images)
        colours[torch.arange(3), :, :, torch.arange(3)] = 255  # all red, all green, all blue
        seen = observe(colours, normals, vertices, fit, morphable, samples)
        assert_close(seen.luminance, torch.tensor([[0.299], [0.587], [0.114]]).expand(3, len(samples)))

    def test_what_lies_beyond_the_picture_does_not_count(self, photos, morphable, samples):
        vertices, fit = photos[2][:6], dataclasses.replace(photos[3][:6], shift=torch.tensor([[54.0, 32.0]] * 6))
        camera = fit.rotation, fit.scale, fit.shift
        normals, _ = render_geometry(vertices, morphable.triangles, morphable.face, *camera)
        seen = observe(torch.zeros(6, 64, 64, 3, dtype=torch.uint8), normals, vertices, fit, morphable, samples)
        beyond = project_weak_perspective(vertices[:, samples], *camera)[..., 0] > 64
        assert 0.1 < beyond.float().mean() < 0.9 and (seen.weight[~beyond] > 0.5).any()
        assert (seen.weight[beyond] == 0).all()

    def test_light_and_albedo_from_photos(self, photos, morphable, samples):
        images, normals, vertices, fit, light, albedo = photos
        seen = observe(images, normals, vertices, fit, morphable, samples)
        found = mean_albedo(seen)
        solved = solve_light(seen, found)
        # Brightness alone leaves one factor open: compare up to it.
        factor = (found * albedo[samples]).sum() / albedo[samples].square().sum()
        known = seen.weight.sum(0) > 1
        assert (found / factor - albedo[samples])[known].abs().mean() < 0.04
        basis = irradiance_basis(seen.normals)
        true, ours = (torch.einsum("nsk,nk->ns", basis, each)[seen.weight > 0.3] for each in (light, factor * solved))
        assert torch.corrcoef(torch.stack([true, ours]))[0, 1] > 0.95
        assert (true - ours).abs().mean() < 0.06

    def test_mean_shading(self, photos, morphable, samples):
        images, normals, vertices, fit, *_ = photos
        seen = observe(images, normals, vertices, fit, morphable, samples)
        shading = torch.einsum("nsk,nk->ns", irradiance_basis(seen.normals), solve_light(seen, mean_albedo(seen)))
        assert_close((seen.weight * shading).sum() / seen.weight.sum(), torch.tensor(MEAN_SHADING), atol=1e-3, rtol=0)

    def test_hidden_samples_do_not_count(self, photos, morphable, samples):
        """Where the picture shows a surface that faces elsewhere, the sample lies behind it."""
        images, normals, vertices, fit, *_ = photos
        left = torch.arange(64) < 32
        elsewhere = torch.where(left, -normals, normals)
        seen = observe(images, elsewhere, vertices, fit, morphable, samples)
        column = project_weak_perspective(vertices[:, samples], fit.rotation, fit.scale, fit.shift)[..., 0]
        assert (seen.weight[column < 31] > 0).float().mean() < 0.02  # grazing interpolation at the outline aside
        assert (seen.weight[column > 33] > 0).float().mean() > 0.5
