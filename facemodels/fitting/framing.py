"""Where in a picture a face of known shape and pose is, read from the picture's normals.

Prepared sets keep shape and rotation of a face but not the camera's scale and shift, and networks decode normals
without any. Normals of the shape, rendered with a first guess, are moved and scaled until they agree.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import avg_pool2d

from facemodels.rendering import render_surface

_BLURS = 1 / 4, 1 / 7, 0.0  # of the picture's side: the first guess is far off where a part of the face is hidden
_LEAST_BLUR = 3  # pixels: slopes of single samples are rough
_STEPS = 8  # at most, with each blur
_ENOUGH = 2e-3  # of the scale, and of the picture's side, below which a step is the last
_ENOUGH_BLURRED = 2e-2  # the same, where less blurred normals come after
_LEAST = 12  # pixels in which both normals are known; fewer settle nothing
_FAR = 0.15  # of the picture's side, and of the scale: the longest step


def frame(
    vertices: Float[Tensor, "n vertices 3"],
    triangles: Int[Tensor, "triangles 3"],
    face: Bool[Tensor, "triangles"],
    rotation: Float[Tensor, "n 3 3"],
    normals: Float[Tensor, "n 3 size size"],
    mask: Float[Tensor, "n 1 size size"],
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n 2"]]:
    """Scale and shift of the weak-perspective camera with which normals show a face.

    Args:
        vertices: In mm in the face frame, shape `(n, vertices, 3)`.
        triangles: Vertex numbers, shape `(triangles, 3)`.
        face: Which triangles belong to the face proper.
        rotation: From the face frame to the camera frame, shape `(n, 3, 3)`.
        normals: In the camera frame, shape `(n, 3, size, size)`; what they are outside the mask does not count.
        mask: Where the face is seen, in [0, 1], shape `(n, 1, size, size)`; parts of it may be hidden.

    Returns:
        Scale in pixels per mm, shape `(n,)`, and shift in pixels, shape `(n, 2)`, as `render_surface` takes them.

    Reference:
        Lucas and Kanade, "An Iterative Image Registration Technique with an Application to Stereo Vision", IJCAI 1981.
    """
    size = mask.shape[-1]
    seen = (mask > 0.5).to(normals.dtype)
    if not len(vertices):
        return vertices.new_empty(0), vertices.new_empty(0, 2)
    scale, shift = _guess(vertices, triangles, face, rotation, seen)
    for blur in _BLURS:
        width = max(_LEAST_BLUR, round(blur * size) | 1)
        enough = _ENOUGH_BLURRED if blur else _ENOUGH
        theirs = _soft(normals * seen, seen, width)
        for _ in range(_STEPS):
            shown = render_surface(vertices, triangles, face, rotation, scale, shift, size)
            step = _step(_soft(shown.normals, shown.mask, width), theirs, (shown.mask * seen)[:, 0], shift)
            scale = scale * step[:, 0].clamp(-_FAR, _FAR).exp()
            shift = shift + step[:, 1:].clamp(-_FAR * size, _FAR * size)
            if step[:, 0].abs().max() < enough and step[:, 1:].abs().max() < enough * size:
                break
    return scale, shift


def _step(ours: Tensor, theirs: Tensor, both: Tensor, shift: Tensor) -> Float[Tensor, "n 3"]:
    """Of Gauss-Newton: by what to change the logarithm of the scale, and the shift; nothing where little is known."""
    centre = torch.arange(both.shape[-1]) + 0.5
    across, down = _slopes(ours)
    x, y = centre[None, None] - shift[:, 0, None, None], centre[:, None] - shift[:, 1, None, None]
    growth = -(across * x[:, None] + down * y[:, None])  # by the logarithm of the scale
    moves = torch.stack([growth, -across, -down], dim=1)  # (n, 3 parameters, 3 channels, h, w)
    weighted = moves * both[:, None, None]
    normal = torch.einsum("nichw,njchw->nij", weighted, moves)
    right = torch.einsum("nichw,nchw->ni", weighted, theirs - ours)
    ridge = 1e-3 * normal.diagonal(dim1=1, dim2=2).clamp_min(1e-6)
    step = torch.linalg.solve(normal + ridge.diag_embed(), right[..., None])[..., 0]
    return torch.where((both.sum((1, 2)) >= _LEAST)[:, None], step, torch.zeros_like(step))


def _guess(vertices: Tensor, triangles: Tensor, face: Tensor, rotation: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift with which the face has the area and the centre of its mask."""
    n, size = len(vertices), seen.shape[-1]
    reach = vertices.abs().amax((1, 2)).clamp_min(1e-6)
    scale, middle = 0.5 * size / reach, torch.full((n, 2), size / 2)
    shown = render_surface(vertices, triangles, face, rotation, scale, middle, size).mask
    (area, centre), (own_area, own_centre) = _moments(seen), _moments(shown)
    ratio = (area.clamp_min(1) / own_area.clamp_min(1)).sqrt()
    return scale * ratio, centre + ratio[:, None] * (middle - own_centre)


def _moments(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Area of masks in pixels, and their centres."""
    area = mask.sum((1, 2, 3))
    place = torch.arange(mask.shape[-1]) + 0.5
    x, y = (mask.sum((1, 2)) * place).sum(1), (mask.sum((1, 3)) * place).sum(1)
    middle = torch.full_like(x, mask.shape[-1] / 2)
    empty = area == 0
    safe = area.clamp_min(1)
    return area, torch.stack([torch.where(empty, middle, x / safe), torch.where(empty, middle, y / safe)], 1)


def _soft(normals: Tensor, mask: Tensor, width: int) -> Tensor:
    """Normals averaged over those pixels of a square that lie on the mask."""
    total, count = (avg_pool2d(image, width, stride=1, padding=width // 2) for image in (normals * mask, mask))
    return total / count.clamp_min(0.1)


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """Differences from pixel to pixel to the right and down."""
    across, down = torch.zeros_like(images), torch.zeros_like(images)
    across[..., 1:-1] = (images[..., 2:] - images[..., :-2]) / 2
    down[..., 1:-1, :] = (images[..., 2:, :] - images[..., :-2, :]) / 2
    return across, down
