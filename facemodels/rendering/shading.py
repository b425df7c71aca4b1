"""Light as nine spherical-harmonic coefficients.

The coefficients stand in the order (0,0) | (1,-1) y, (1,0) z, (1,1) x | (2,-2) xy, (2,-1) yz, (2,0), (2,1) xz, (2,2),
and light, like the normals, lives in the camera frame.

Reference:
    Ramamoorthi and Hanrahan, "An Efficient Representation for Irradiance Environment Maps", SIGGRAPH 2001, eq. 13.
    Shu et al., "Neural Face Editing with Intrinsic Image Disentangling", CVPR 2017, sec. 3.
"""

import torch
from jaxtyping import Float
from torch import Tensor

C1, C2, C3, C4, C5 = 0.429043, 0.511664, 0.743125, 0.886227, 0.247708
"""Ramamoorthi and Hanrahan's five constants (c3 = 3 c5, as the function 3 z^2 - 1 demands)."""

COEFFICIENTS = 9

_OURS_FROM_SFSNET = (0, 3, 1, 2, 8, 6, 4, 5, 7)
_SFSNET_FROM_OURS = (0, 2, 3, 1, 6, 7, 5, 8, 4)


def irradiance_basis(normals: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    """The nine functions of a unit normal whose weighted sum is the shading.

    Args:
        normals: Unit normals in the camera frame, shape `(*batch, 3)`.

    Returns:
        Shape `(*batch, 9)`; a normal of zero is not recognised and gives the values of the polynomials at zero.

    Example:
        >>> irradiance_basis(torch.tensor([0.0, 0.0, 1.0]))[:4]
        tensor([0.8862, 0.0000, 1.0233, 0.0000])
    """
    x, y, z = normals.unbind(dim=-1)
    return torch.stack(
        [
            torch.full_like(x, C4),
            2 * C2 * y,
            2 * C2 * z,
            2 * C2 * x,
            2 * C1 * x * y,
            2 * C1 * y * z,
            C3 * z * z - C5,
            2 * C1 * x * z,
            C1 * (x * x - y * y),
        ],
        dim=-1,
    )


def shade(
    normals: Float[Tensor, "n 3 height width"], light: Float[Tensor, "n k"]
) -> Float[Tensor, "n channels height width"]:
    """Shading of a normal map, before any clamping at zero.

    Args:
        normals: Unit normals in the camera frame, shape `(n, 3, height, width)`.
        light: Coefficients of shape `(n, 9)`, or `(n, 27)` for a light per colour: those of red, then of green, then of
            blue.

    Returns:
        Shape `(n, 1, height, width)`, or `(n, 3, height, width)`; multiply by the albedo to get the image.

    Example:
        >>> ambient = torch.zeros(1, 9)
        >>> ambient[0, 0] = 1.0
        >>> shade(torch.zeros(1, 3, 1, 2), ambient)
        tensor([[[[0.8862, 0.8862]]]])
    """
    basis = irradiance_basis(normals.movedim(1, -1))
    return torch.einsum("nhwk,nck->nchw", basis, light.unflatten(1, (-1, COEFFICIENTS)))


def light_from_direction(
    direction: Float[Tensor, "*batch 3"], *, strength: Float[Tensor, "*batch"], ambient: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 9"]:
    """Coefficients of one distant lamp and an even light from everywhere.

    Args:
        direction: Where the lamp is, seen from the face, in the camera frame; any length but zero. Shape `(*batch, 3)`.
        strength: Strength of the lamp: about the shading it gives to a surface that faces it. Shape `(*batch,)`.
        ambient: Shading that the even light gives to every surface. Shape `(*batch,)`.

    Returns:
        Shape `(*batch, 9)`.

    Example:
        >>> forward, one, half = torch.tensor([0.0, 0.0, 1.0]), torch.tensor(1.0), torch.tensor(0.5)
        >>> lamp = light_from_direction(forward, strength=one, ambient=half)
        >>> toward, away = irradiance_basis(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])) @ lamp
        >>> round(toward.item(), 2), round(away.item(), 2)
        (1.56, 0.56)
    """
    x, y, z = torch.nn.functional.normalize(direction, dim=-1).unbind(dim=-1)
    harmonics = torch.stack(  # the orthonormal harmonics in the lamp's direction
        [
            torch.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z * z - 1),
            1.092548 * x * z,
            0.546274 * (x * x - y * y),
        ],
        dim=-1,
    )
    light = harmonics * strength[..., None]
    return torch.cat([light[..., :1] + ambient[..., None] / C4, light[..., 1:]], dim=-1)


def to_sfsnet(light: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """The same light in SfSNet's order: 1, z, x, y, 3z^2-1, xz, yz, x^2-y^2, xy.

    The functions are the same up to rounding of their printed constants, so only the order changes.

    Args:
        light: Shape `(*batch, 9)`, in our order.

    Returns:
        Shape `(*batch, 9)`, in SfSNet's order.

    Example:
        >>> to_sfsnet(torch.arange(9.0))
        tensor([0., 2., 3., 1., 6., 7., 5., 8., 4.])

    Reference:
        Sengupta et al., "SfSNet: Learning Shape, Reflectance and Illuminance of Faces in the Wild", CVPR 2018.
    """
    return light[..., _SFSNET_FROM_OURS]


def from_sfsnet(light: Float[Tensor, "*batch 9"]) -> Float[Tensor, "*batch 9"]:
    """Light in SfSNet's order brought into ours: the inverse of `to_sfsnet`.

    Args:
        light: Shape `(*batch, 9)`, in SfSNet's order.

    Returns:
        Shape `(*batch, 9)`, in our order.

    Example:
        >>> from_sfsnet(to_sfsnet(torch.arange(9.0)))
        tensor([0., 1., 2., 3., 4., 5., 6., 7., 8.])
    """
    return light[..., _OURS_FROM_SFSNET]
