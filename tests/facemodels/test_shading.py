import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize
from torch.testing import assert_close

from facemodels.rendering import from_sfsnet, irradiance_basis, light_from_direction, shade, to_sfsnet

# Ramamoorthi and Hanrahan's constants, as printed.
C1, C2, C3, C4, C5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic_form(light):
    """The symmetric 4 x 4 matrix of Shu et al. (2017): shading is [n; 1]^T M [n; 1]."""
    l1, l2, l3, l4, l5, l6, l7, l8, l9 = light
    return torch.stack([
        torch.stack([C1 * l9, C1 * l5, C1 * l8, C2 * l4]),
        torch.stack([C1 * l5, -C1 * l9, C1 * l6, C2 * l2]),
        torch.stack([C1 * l8, C1 * l6, C3 * l7, C2 * l3]),
        torch.stack([C2 * l4, C2 * l2, C2 * l3, C4 * l1 - C5 * l7]),
    ])  # fmt: skip


class TestIrradianceBasis:
    @given(st.integers(0, 10_000))
    def test_equals_the_papers_quadratic_form(self, seed):
        light, normal = random(9, seed=seed), normalize(random(3, seed=seed + 1), dim=0)
        extended = torch.cat([normal, torch.ones(1, dtype=torch.float64)])
        assert_close(irradiance_basis(normal) @ light, extended @ quadratic_form(light) @ extended)

    def test_worked_example(self):
        toward_viewer = torch.tensor([0.0, 0.0, 1.0])
        expected = torch.tensor([C4, 0.0, 2 * C2, 0.0, 0.0, 0.0, C3 - C5, 0.0, 0.0])
        assert_close(irradiance_basis(toward_viewer), expected)

    def test_functions_are_orthogonal_on_the_sphere(self):
        normals = normalize(random(400_000, 3), dim=1)
        basis = irradiance_basis(normals)
        gram = basis.T @ basis / len(normals)
        scale = gram.diagonal().sqrt()
        # 400,000 random directions leave about 1/sqrt(400,000) = 0.0016 a pair.
        assert_close(gram / scale[:, None] / scale, torch.eye(9, dtype=torch.float64), atol=0.01, rtol=0)


class TestShade:
    def test_matches_each_pixel_by_itself(self):
        normals, light = normalize(random(2, 3, 4, 5), dim=1), random(2, 9)
        shading = shade(normals, light)
        assert shading.shape == (2, 1, 4, 5)
        assert_close(shading[1, 0, 2, 3], irradiance_basis(normals[1, :, 2, 3]) @ light[1])

    def test_a_light_per_colour_is_three_lights(self):
        normals, light = normalize(random(2, 3, 4, 5), dim=1), random(2, 27)
        each = [shade(normals, light[:, 9 * colour : 9 * colour + 9]) for colour in range(3)]
        assert_close(shade(normals, light), torch.cat(each, 1))

    def test_is_linear_in_the_light(self):
        normals, first, second = normalize(random(1, 3, 4, 4), dim=1), random(1, 9), random(1, 9, seed=1)
        assert_close(shade(normals, 2 * first - second), 2 * shade(normals, first) - shade(normals, second))


class TestLightFromDirection:
    @given(st.integers(0, 10_000))
    def test_is_a_lamp_blurred_by_the_clamped_cosine(self, seed):
        direction = normalize(random(3, seed=seed), dim=0)
        one, none = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
        light = light_from_direction(direction, strength=one, ambient=none)
        normals = normalize(random(200, 3, seed=seed + 1), dim=1)
        # Nine coefficients hold max(cos, 0) up to 9 % of its largest value (Ramamoorthi and Hanrahan, sec. 3).
        assert_close(irradiance_basis(normals) @ light, (normals @ direction).clamp_min(0), atol=0.10, rtol=0)

    def test_ambient_is_the_same_everywhere(self):
        half, none = torch.tensor(0.5), torch.tensor(0.0)
        light = light_from_direction(torch.tensor([0.0, 1.0, 0.0]), strength=none, ambient=half)
        normals = normalize(random(50, 3).float(), dim=1)
        assert_close(irradiance_basis(normals) @ light, torch.full((50,), 0.5))


class TestSfsnetOrder:
    def test_same_shading(self):
        normal, light = normalize(random(3), dim=0), random(9)
        x, y, z = normal
        # SfSNet's nine functions with its constants folded in.
        theirs = torch.stack([
            0.886227 * torch.ones_like(x), 1.023327 * z, 1.023327 * x, 1.023327 * y, 0.247708 * (3 * z * z - 1),
            0.858086 * x * z, 0.858086 * y * z, 0.429043 * (x * x - y * y), 0.858086 * x * y,
        ])  # fmt: skip
        assert_close(theirs @ to_sfsnet(light), irradiance_basis(normal) @ light, atol=1e-5, rtol=1e-5)

    def test_round_trip(self):
        light = random(4, 9)
        assert_close(from_sfsnet(to_sfsnet(light)), light)
