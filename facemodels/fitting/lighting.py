"""The light of a photo: nine spherical-harmonic coefficients from the brightness of the fitted face.

Brightness is albedo times shading. What is common to many faces is taken for albedo, what depends on the normals of
one photo for light: a mean albedo per surface point and a light per photo are solved in turn by least squares.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from facemodels.fitting.shape import Fit
from facemodels.morphable import MorphableModel
from facemodels.rendering import irradiance_basis, project_weak_perspective, vertex_normals

MEAN_SHADING = 0.75
"""Mean shading of a set of faces; brightness alone does not tell light from albedo.

Reference:
    Shu et al., "Neural Face Editing with Intrinsic Image Disentangling", CVPR 2017
    (the "batch-wise white shading" constraint).
"""

_LUMINANCE = (0.299, 0.587, 0.114)
_RIDGE = (0.0, *(0.02,) * 3, *(0.06,) * 5)  # for a face of albedo 1: keeps the light smooth
_GRAZING = 0.15  # cosine to the view below which a point is too much foreshortened to be read
_SAME_SURFACE = 0.8  # cosine between a point's normal and the normal seen at its pixel; less means that it is hidden
_DARKEST = 0.2  # shading below which a point says little about its albedo
_SAMPLES = 2000


@dataclass(frozen=True)
class Observations:
    """What photos show at sample points of the face.

    Attributes:
        luminance: In [0, 1], shape `(n, samples)`.
        normals: Unit normals in the camera frame, shape `(n, samples, 3)`.
        weight: Share of the image that the sample stands for, 0 where it is hidden, shape `(n, samples)`.
    """

    luminance: Float[Tensor, "n samples"]
    normals: Float[Tensor, "n samples 3"]
    weight: Float[Tensor, "n samples"]


def surface_samples(morphable: MorphableModel, count: int = _SAMPLES, seed: int = 0) -> Int[Tensor, " samples"]:
    """Vertices of the face proper, drawn so that equal areas hold equally many."""
    corners = morphable.mean[morphable.triangles[morphable.face]]
    doubled = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    area = torch.zeros(morphable.n_vertices).index_add_(
        0, morphable.triangles[morphable.face].flatten(), doubled.repeat_interleave(3)
    )
    count = min(count, int((area > 0).sum()))
    return torch.multinomial(area, count, generator=torch.Generator().manual_seed(seed)).sort().values


def observe(
    images: UInt8[Tensor, "n height width 3"],
    normals: Float[Tensor, "n 3 height width"],
    vertices: Float[Tensor, "n vertices 3"],
    fit: Fit,
    morphable: MorphableModel,
    samples: Int[Tensor, " samples"],
) -> Observations:
    """Read brightness and normals at sample points.

    Args:
        images: Aligned crops.
        normals: The rendered normals of the fits, which tell what is hidden.
        vertices: The fitted shapes, in mm.
        fit: Cameras.
        morphable: For its triangles.
        samples: Vertex numbers from `surface_samples`.
    """
    turned = vertex_normals(vertices, morphable.triangles)[:, samples] @ fit.rotation.mT
    turned = normalize(turned, dim=2)
    pixels = project_weak_perspective(vertices[:, samples], fit.rotation, fit.scale, fit.shift)[..., :2]
    size = torch.tensor([images.shape[2], images.shape[1]], dtype=pixels.dtype)
    where = (2 * pixels / size - 1)[:, None]  # (n, 1, samples, 2) in [-1, 1]
    luminance = (images.to(pixels.dtype) @ torch.tensor(_LUMINANCE) / 255)[:, None]
    seen = grid_sample(torch.cat([luminance, normals], dim=1), where, align_corners=False, padding_mode="border")
    seen = seen[:, :, 0].movedim(1, 2)  # (n, samples, 4)
    inside = (where[:, 0].abs() < 1).all(2)
    same = (normalize(seen[..., 1:], dim=2) * turned).sum(2) > _SAME_SURFACE
    facing = turned[..., 2]
    return Observations(seen[..., 0], turned, facing * (inside & same & (facing > _GRAZING)))


def solve_light(observations: Observations, albedo: Float[Tensor, " samples"]) -> Float[Tensor, "n 9"]:
    """Light of each photo, given the albedo: ridge least squares.

    Args:
        observations: From `observe`.
        albedo: At the same samples.

    Reference:
        Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps", SIGGRAPH 2001.
    """
    weight = observations.weight / observations.weight.sum(1, keepdim=True).clamp_min(1e-6)
    design = irradiance_basis(observations.normals) * albedo[:, None]  # (n, samples, 9)
    weighted = (design * weight[..., None]).mT
    ridge = albedo.square().mean() * torch.tensor(_RIDGE, dtype=albedo.dtype)
    # A touch of ridge on the constant too: a face that is all hidden gets no light instead of an error.
    ridge[0] = 1e-6
    right = weighted @ observations.luminance[..., None]
    return torch.linalg.solve(weighted @ design + ridge.diag(), right)[..., 0]


def light_error(
    observations: Observations, albedo: Float[Tensor, " samples"], light: Float[Tensor, "n 9"]
) -> Float[Tensor, " n"]:
    """Root mean square of the brightness that albedo and light leave unexplained: large where something hides the face.

    Args:
        observations: From `observe`.
        albedo: At the same samples.
        light: From `solve_light`.
    """
    left = observations.luminance - albedo * _shading(observations, light)
    weight = observations.weight
    return ((weight * left.square()).sum(1) / weight.sum(1).clamp_min(1e-6)).sqrt()


def mean_albedo(observations: Observations, rounds: int = 3) -> Float[Tensor, " samples"]:
    """Mean albedo at the samples over many photos, such that their mean shading is `MEAN_SHADING`.

    Args:
        observations: From `observe`, of a few hundred photos or more.
        rounds: Times that lights and albedo are solved in turn.
    """
    weight = observations.weight
    albedo = torch.full_like(weight[0], 0.6)
    for _ in range(rounds):
        shading = _shading(observations, solve_light(observations, albedo))
        lit = shading.clamp_min(_DARKEST)
        evidence = (weight * lit.square()).sum(0)
        estimate = (weight * lit * observations.luminance).sum(0) / evidence.clamp_min(1e-6)
        # Samples that hardly any photo shows get the mean of the others.
        known = evidence > 0.01 * evidence.mean()
        albedo = torch.where(known, estimate, estimate[known].mean())
        shading = _shading(observations, solve_light(observations, albedo))
        albedo = albedo * ((weight * shading).sum() / weight.sum() / MEAN_SHADING)
    return albedo


def _shading(observations: Observations, light: Tensor) -> Tensor:
    return torch.einsum("nsk,nk->ns", irradiance_basis(observations.normals), light)
