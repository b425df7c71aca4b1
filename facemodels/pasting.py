"""Edited crops put back into the photos they were cut from.

A crop has few pixels and a network blurs; the photo around it does not. So an edit is pasted in two ways at once. Where
it changed the face's features, the network's own pixels are taken; elsewhere the photo keeps its own, and only the
difference between the edit and the unedited reconstruction is added to them. A face that was turned, or is another
person's, is the network's alone.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, max_pool2d

from facemodels.config import SIZE
from facemodels.data.alignment import AlignedPhoto, apply_transform, cut_out, invert
from facemodels.editing import Edit, PhotoEdit, to_tensor
from facemodels.figures import save_picture
from facemodels.files import shortened
from facemodels.networks import fill_in

# Pixels of a crop of 64.
_FEATHER = 1.2  # standard deviation of the blur of the mask's edge
_SEAM = 4  # width of the ring inside the mask's edge on which colours are compared
_FEATURE = 3.0  # what is larger than this is light and colour, not a feature
_TONE = 8.0  # blur of the reconstruction's error, of which the features are no part
_SPREAD = 1.5  # blur of where features changed
_CHANGED = 0.03  # change of the features, of 1, at which half of the network's pixels are taken
_LARGEST_CORRECTION = 0.25  # of 1: a larger difference at the seam is hair or a hat, not colour


def paste(photo: AlignedPhoto, edit: Edit, own: Edit, *, detail: float = 1.0) -> UInt8[np.ndarray, "height width 3"]:
    """A photo with its edited face.

    The edit is enlarged and turned back by the inverse of the photo's alignment and laid over it inside the face's
    mask, whose edge is feathered. Colours at the seam are made those of the photo. Where the light was edited, or
    the seam is not where it was, only the error is taken off that the reconstruction has there.

    Args:
        photo: The photo, aligned.
        edit: Edit of its face, one face.
        own: The same without any change, `transfer(model, crop, crop, [])`.
        detail: How much of the photo's own detail is kept where the edit leaves the features: 1 all, 0 none, so that
            every pixel of the face is the network's.

    Returns:
        The photo in its full size; pixels outside the face and its feathered edge are untouched. With `edit` equal to
        `own` and `detail` 1 it is the photo itself.

    Raises:
        ValueError: There is more than one face, or `detail` is not between 0 and 1.
    """
    if len(edit.image) != 1 or len(own.image) != 1:
        raise ValueError(f"paste: takes one face, got {len(edit.image)} edited and {len(own.image)} unedited")
    if not 0 <= detail <= 1:
        raise ValueError(f"paste: detail must be between 0 and 1, got {detail}")
    layers = _layers(to_tensor(photo.crop).to(edit.image), edit, own, detail)
    top, left, height, width = _place(photo)
    result = photo.photo.copy()
    if height < 1 or width < 1:
        return result
    part = result[top : top + height, left : left + width]
    pixels = torch.tensor(part).permute(2, 0, 1)[None].float() / 255
    whole, change, mask, kept = _to_photo(layers, photo.transform, (top, left, height, width)).split([3, 3, 1, 1], 1)
    kept = kept.clamp(0, 1)
    pixels = pixels + mask.clamp(0, 1) * (kept * change + (1 - kept) * (whole - pixels))
    part[:] = pixels[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    return result


def enlarged(photo: AlignedPhoto, side: int) -> AlignedPhoto:
    """The crop of a photo with as many pixels as are wanted, as a photo of its own to paste into.

    Args:
        photo: The photo, aligned.
        side: Side of the new photo in pixels.
    """
    return AlignedPhoto(
        name=photo.name,
        photo=cut_out(photo.photo, photo.transform, side),
        crop=photo.crop,
        transform=np.eye(2, 3) * SIZE / side,
        landmarks=photo.landmarks,
    )


def write_pasted(
    photo: AlignedPhoto, edited: PhotoEdit, label: str, own: Edit, beside: Path, *, number: int = 1, detail: float = 1.0
) -> Path:
    """Paste an edit and write the photo beside another picture, as `OUT-NUMBER-TARGET-LABEL.png`.

    A target's name that is too long for this is cut.

    Args:
        photo: The photo, aligned.
        edited: One of what `edit_photo` made of it.
        label: Which of its edits.
        own: The photo's reconstruction.
        beside: Picture that gives folder, start and ending of the name.
        number: Of the target.
        detail: See `paste`.

    Returns:
        The file.

    Raises:
        InputError: The disk is full or cannot be written to.
    """
    pasted = paste(photo, edited.edits[label], own, detail=detail)
    before, after = f"{beside.stem}-{number}-", f"-{label}{beside.suffix}"
    path = beside.with_name(before + shortened(Path(edited.name).stem, before + after) + after)
    save_picture(Image.fromarray(pasted), path)
    return path


def _layers(crop: Tensor, edit: Edit, own: Edit, detail: float) -> Float[Tensor, "1 8 h w"]:
    """The edit, its difference from the reconstruction, the mask, and the share of the photo's own detail."""
    relit, turned = (_differ(edit, own, factor) for factor in ("light", "pose"))
    error = _spread(crop - own.image, (own.region >= 0.5).to(crop.dtype), _TONE)
    difference = torch.zeros_like(crop) if relit or turned else own.image - edit.image
    seam = _spread(difference, _ring(own.region), _FEATURE)
    change = edit.image - own.image
    features = _blur((change - _blur(change, _FEATURE)).abs().mean(1, keepdim=True), _SPREAD)
    another = turned or _differ(edit, own, "identity")
    kept = torch.zeros_like(features) if another else detail / (1 + (features / _CHANGED) ** 4)
    mask = _feathered(torch.maximum(edit.region, own.region))
    return torch.cat([edit.image + error + seam, change + seam, mask, kept], 1)


def _differ(edit: Edit, own: Edit, factor: str) -> bool:
    return not torch.equal(getattr(edit.codes, factor), getattr(own.codes, factor))


def _ring(region: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """The inner edge of the mask."""
    reach = max(1, round(_SEAM * region.shape[-1] / SIZE))
    outside = (region < 0.5).to(region.dtype)
    # the crop's own border is no edge of the face
    return (1 - outside) * max_pool2d(outside, 2 * reach + 1, stride=1, padding=reach)


def _spread(
    difference: Float[Tensor, "1 3 h w"], known: Float[Tensor, "1 1 h w"], deviation: float
) -> Float[Tensor, "1 3 h w"]:
    """A difference of colours where it is known, carried on smoothly over the whole crop."""
    if not known.any():
        return torch.zeros_like(difference)
    return _blur(fill_in(difference.clamp(-_LARGEST_CORRECTION, _LARGEST_CORRECTION), 1 - known), deviation)


def _feathered(region: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    """The mask with a soft edge that ends within the crop."""
    side = region.shape[-1]
    soft = _blur(region, _FEATHER)
    to_border = torch.minimum(torch.arange(side) + 0.5, side - 0.5 - torch.arange(side)).to(region)
    ramp = (to_border / (3 * _FEATHER * side / SIZE)).clamp(max=1)
    return soft * ramp[:, None] * ramp


def _blur(picture: Float[Tensor, "1 c h w"], deviation: float) -> Float[Tensor, "1 c h w"]:
    """Gaussian blur; the deviation is in pixels of a crop of 64."""
    deviation *= picture.shape[-1] / SIZE
    blurred = gaussian_filter(picture.cpu().numpy(), (0, 0, deviation, deviation), mode="nearest")
    return torch.from_numpy(blurred).to(picture)


def _place(photo: AlignedPhoto) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part of the photo in which the crop lies."""
    corners = apply_transform(invert(photo.transform), np.array([[0, 0], [SIZE, 0], [0, SIZE], [SIZE, SIZE]], float))
    height, width = photo.photo.shape[:2]
    left, top = np.clip(np.floor(corners.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, (width, height)).astype(int)
    return int(top), int(left), int(bottom - top), int(right - left)


def _to_photo(
    layers: Float[Tensor, "1 c h w"], transform: Float[np.ndarray, "2 3"], place: tuple[int, int, int, int]
) -> Float[Tensor, "1 c height width"]:
    """Layers of a crop as they lie in a part of its photo; nothing outside the crop."""
    top, left, height, width = place
    side = layers.shape[-1]
    shrink = np.sqrt(abs(np.linalg.det(transform[:, :2]))) * side / SIZE  # pixels of the crop to one of the photo
    if shrink > 1:  # the photo has fewer pixels: none of the crop's may be passed over
        reduced = max(1, round(side / shrink))
        layers = interpolate(layers, (reduced, reduced), mode="bilinear", antialias=True)
    y, x = torch.meshgrid(torch.arange(height) + top + 0.5, torch.arange(width) + left + 0.5, indexing="ij")
    matrix = torch.tensor(transform, dtype=torch.float32)
    points = torch.stack([x, y], -1) @ matrix[:, :2].T + matrix[:, 2]
    return grid_sample(
        layers.float().cpu(), points[None] * (2 / SIZE) - 1, mode="bicubic", padding_mode="border", align_corners=False
    ) * ((points > 0) & (points < SIZE)).all(-1)
