"""Pictures of what surrounds a face, with the face filled in from around it."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

_MARGIN = 1 / 32  # of the picture's side: around a mask the face still shows


def fill_face(images: Float[Tensor, "n c h w"], mask: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n c h w"]:
    """Pictures without their face: `fill_in` for a mask of the face and a margin around it.

    Args:
        images: Of any range.
        mask: One on the face.
    """
    return fill_in(images, widen(mask))


def widen(mask: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """A mask with the margin in which the face still shows around it."""
    reach = round(_MARGIN * mask.shape[-1])
    return max_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)


def fill_in(images: Float[Tensor, "n c h w"], hole: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n c h w"]:
    """Pictures whose pixels in `hole` are filled in smoothly from around it.

    Known pixels are averaged over ever larger squares, and each hole takes the mean of the smallest square that knows
    something. A picture that is all hole becomes black.

    Reference:
        The push-pull algorithm of Gortler, Grzeszczuk, Szeliski, Cohen, "The Lumigraph", SIGGRAPH 1996.
    """
    known = 1 - hole
    levels = [(images * known, known)]
    while max(levels[-1][1].shape[2:]) > 1:
        colours, weight = (avg_pool2d(part, 2, ceil_mode=True) for part in levels[-1])
        scale = weight.clamp(max=0.5) * 2 / weight.clamp(min=1e-6)  # half a square of known pixels is enough
        levels.append((colours * scale, weight * scale))
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-6)
    for colours, weight in reversed(levels[:-1]):
        coarse = interpolate(filled, weight.shape[2:], mode="bilinear", align_corners=False)
        filled = colours + (1 - weight) * coarse
    return filled
