"""Edits of faces by exchanging codes (the paper's section 4.1 and appendix D)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder, Rendering, check_images
from facemodels.codes import Codes, check_factor
from facemodels.data.alignment import AlignedPhoto
from facemodels.networks import fill_face, widen

EDITABLE = ("expression", "pose", "light", "identity")
"""The factors that make sense to take over from another face."""

_REFINED = 20  # faces at once; hundreds would take several times as long a face, waiting for memory
_REFINE_RATE = 0.03  # of Adam, in units of a code's own root mean square
_REFINE_GUARD = 1e-3  # how much a code's mean square change weighs against the mean square error of the colours


@dataclass(frozen=True)
class Edit:
    """Faces after an edit.

    Attributes:
        image: The edited faces in their surroundings, (n, 3, 64, 64) in [0, 1].
        codes: The codes that were decoded.
        rendering: Everything decoded from them.
        region: Where the pictures show something of a face, the old one or the new, (n, 1, h, w) in [0, 1].
    """

    image: Float[Tensor, "n 3 h w"]
    codes: Codes
    rendering: Rendering
    region: Float[Tensor, "n 1 h w"]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, row: int) -> "Edit":
        """One of the faces, as a batch of one."""
        rows = slice(row, row + 1) if row != -1 else slice(-1, None)
        parts = {name: None if value is None else value[rows] for name, value in vars(self.rendering).items()}
        return Edit(self.image[rows], self.codes[rows], Rendering(**parts), self.region[rows])  # type: ignore[arg-type]


@dataclass(frozen=True)
class PhotoEdit:
    """A photo edited with the factors of another.

    Attributes:
        name: What the other photo is called.
        target: Its aligned crop, (3, h, w) in [0, 1].
        edits: By label, each of one face.
    """

    name: str
    target: Float[Tensor, "3 h w"]
    edits: Mapping[str, Edit]


@torch.no_grad()
def transfer(
    model: NeuroTensorialAutoencoder,
    source: Float[Tensor, "n 3 h w"],
    target: Float[Tensor, "n 3 h w"],
    factors: str | Sequence[str],
) -> Edit:
    """Give the faces of `source` some factors of the faces of `target` (eq. 17 and 18).

    Everything else, background and mask included, stays with `source`. When the pose changes, the face's outline
    changes with it: the mask then comes from the face stream, and what the old face hid is filled in from around it.

    Args:
        model: A trained network.
        source: Aligned crops in [0, 1].
        target: As many others.
        factors: One or several of "expression", "pose", "light", "identity".

    Raises:
        ValueError: A factor is unknown, or the batches differ.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
        >>> transfer(model, torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64), "expression").image.shape
        torch.Size([2, 3, 64, 64])
    """
    names = [factors] if isinstance(factors, str) else list(factors)
    for name in names:
        check_factor("transfer", name)
    check_images("transfer", source, model.config.size)
    check_images("transfer", target, model.config.size)
    return decode_edit(model, exchanged(model.encode(source), model.encode(target), names), "pose" in names)


def refine(model: NeuroTensorialAutoencoder, images: Float[Tensor, "n 3 h w"], steps: int = 60) -> Codes:
    """Codes whose faces come nearer to the photos than those of the codes that the encoder reads.

    Adam moves the identity and light codes towards the photo inside the mask the network sees there, each face by
    itself; expression and pose, which are lent from face to face, stay as the encoder reads them. The network stays as
    it is. Sixty steps take some seconds for a face on one CPU core.

    Args:
        model: A trained network.
        images: Aligned crops in [0, 1].
        steps: Number of steps; 0 leaves the codes as they are read.

    Raises:
        ValueError: The images have another size than the network's, or the number of steps is negative.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
        >>> codes = refine(model, torch.rand(1, 3, 64, 64), steps=2)
        >>> edit = decode_edit(model, codes)
    """
    check_images("refine", images, model.config.size)
    if steps < 0:
        raise ValueError(f"refine: takes 0 steps or more, got {steps}")
    if steps == 0:
        with torch.no_grad():
            return model.encode(images)
    return Codes.cat([_refined(model, some, steps) for some in images.split(_REFINED)])


def _refined(model: NeuroTensorialAutoencoder, images: Float[Tensor, "n 3 h w"], steps: int) -> Codes:
    with torch.no_grad():
        read = model.encode(images)
        mask = model.surround(read)[0].sigmoid()
    start = torch.cat([read.identity, read.light], 1)
    sizes = (read.identity.shape[1], read.light.shape[1])
    scale = torch.cat([code.square().mean(1, keepdim=True).sqrt().expand_as(code) for code in start.split(sizes, 1)], 1)
    change = torch.zeros_like(start, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=_REFINE_RATE)
    for _ in range(steps):
        with torch.enable_grad():
            identity, light = (start + scale * change).split(sizes, 1)
            face = model.paint(read.pose, read.expression, identity, light).image
            error = (mask * (face - images).square()).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp_min(1)
            total = (error + _REFINE_GUARD * change.square().mean(1)).sum()
        (change.grad,) = torch.autograd.grad(total, [change])
        optimizer.step()
    identity, light = (start + scale * change.detach()).split(sizes, 1)
    return read.replace(identity=identity, light=light)


def exchanged(codes: Codes, other: Codes, factors: Sequence[str]) -> Codes:
    """Codes with some factors of other faces."""
    return codes.replace(**{name: getattr(other, name) for name in factors})


@torch.no_grad()
def decode_edit(model: NeuroTensorialAutoencoder, codes: Codes, turned: bool = False) -> Edit:
    """Decode edited codes into the surroundings they come from; `turned` says that the pose is another's."""
    rendering = model.decode(codes)
    if not turned:
        return Edit(rendering.image, codes, rendering, rendering.mask)
    image = turn_in_place(rendering.face, rendering.face_mask, rendering.background, rendering.mask)
    return Edit(image, codes, rendering, torch.maximum(rendering.face_mask, widen(rendering.mask)))


@torch.no_grad()
def edit_photo(
    model: NeuroTensorialAutoencoder, own: Edit, target: AlignedPhoto, edits: Mapping[str, Sequence[str]]
) -> PhotoEdit:
    """Edit one face with the factors of a photo's, in several ways.

    Args:
        model: A trained network.
        own: The face to edit, as it is: `transfer(model, crop, crop, [])` or `decode_edit(model, refine(model, crop))`.
        target: Photo whose factors it takes, its crop of the network's size.
        edits: Factors to take at once, by label: `{"smile": ["expression"], "both": ["expression", "light"]}`.

    Raises:
        ValueError: A factor is unknown, there is more than one face to edit, or the target's crop has another size.
    """
    for name in {name for factors in edits.values() for name in factors}:
        check_factor("edit_photo", name)
    crop = to_tensor(target.crop)
    check_images("edit_photo", crop, model.config.size)
    if len(own) != 1:
        raise ValueError(f"edit_photo: takes one face to edit, got {len(own)}")
    donor = model.encode(crop)
    decoded = {
        label: decode_edit(model, exchanged(own.codes, donor, factors), "pose" in factors)
        for label, factors in edits.items()
    }
    return PhotoEdit(target.name, crop[0], decoded)


def turn_in_place(
    face: Float[Tensor, "n 3 h w"],
    face_mask: Float[Tensor, "n 1 h w"],
    background: Float[Tensor, "n 3 h w"],
    mask: Float[Tensor, "n 1 h w"],
) -> Float[Tensor, "n 3 h w"]:
    """Put faces that were turned where they were before; what the old face hid is filled in from around it.

    Args:
        face: The turned faces.
        face_mask: Where they are.
        background: What surrounds the old faces.
        mask: Where the old faces were.
    """
    surroundings = fill_face(background, (mask > 0.5).to(background.dtype))
    return (face_mask * face + (1 - face_mask) * surroundings).clamp(0, 1)


def interpolate(
    model: NeuroTensorialAutoencoder,
    source: Float[Tensor, "1 3 h w"],
    target: Float[Tensor, "1 3 h w"],
    factor: str,
    steps: int = 11,
    own: Codes | None = None,
) -> Float[Tensor, "steps 3 h w"]:
    """One factor moved on a straight line from a face to another's (appendix D: 11 pictures, 0.1 apart).

    Args:
        model: A trained network.
        source: One aligned crop, kept but for `factor`.
        target: Another.
        factor: One of "expression", "pose", "light", "identity".
        steps: Number of pictures; the first has the source's factor, the last the target's.
        own: Codes of the source, such as `refine(model, source)`; by default those that the encoder reads.

    Raises:
        ValueError: The factor is unknown, there is more than one face on a side, or fewer than two steps.
    """
    return interpolated(model, source, target, factor, steps, own).image


@torch.no_grad()
def interpolated(
    model: NeuroTensorialAutoencoder,
    source: Float[Tensor, "1 3 h w"],
    target: Float[Tensor, "1 3 h w"],
    factor: str,
    steps: int = 11,
    own: Codes | None = None,
) -> Edit:
    """The same as `interpolate`, with codes and everything else that was decoded.

    Raises:
        ValueError: As `interpolate` does.
    """
    check_factor("interpolate", factor)
    if steps < 2:
        raise ValueError(f"interpolate: takes at least 2 steps, got {steps}; the first and the last are the two faces")
    if len(source) != 1 or len(target) != 1:
        raise ValueError(f"interpolate: takes one face on each side, got {len(source)} and {len(target)}")
    start, end = model.encode(source) if own is None else own, model.encode(target)
    amounts = torch.linspace(0, 1, steps).tolist()
    codes = Codes.cat([start.interpolate(end, factor, amount) for amount in amounts])
    return decode_edit(model, codes, factor == "pose")


def to_tensor(crop: np.ndarray) -> Float[Tensor, "1 3 h w"]:
    """A crop of bytes, (size, size, 3), as a batch of one image in [0, 1]."""
    if crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3:
        raise ValueError(f"to_tensor: the crop must have shape (size, size, 3), got {crop.shape}; align it first")
    return torch.tensor(crop).permute(2, 0, 1)[None].float() / 255
