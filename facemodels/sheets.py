"""The pictures in which a network is looked at: edits, parts, interpolations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from facemodels.autoencoder import Face, NeuroTensorialAutoencoder, Rendering
from facemodels.codes import Codes
from facemodels.config import SIZE
from facemodels.data.alignment import AlignedPhoto
from facemodels.editing import (
    EDITABLE,
    PhotoEdit,
    decode_edit,
    interpolate,
    interpolated,
    to_tensor,
    transfer,
    turn_in_place,
)
from facemodels.evaluation.exchange import paint
from facemodels.figures import check_picture, grid, normals_as_colours, on_paper, save_picture, to_bytes
from facemodels.mesh import Mesh
from facemodels.morphable import MorphableModel
from facemodels.morphable.patches import whole_of
from facemodels.movies import MOVIE_SUFFIXES, write_movie
from facemodels.pasting import paste
from facemodels.reconstruction import Reconstruction
from facemodels.rendering import euler_to_matrix, render_geometry, shade
from facemodels.rendering.picture import picture_of

_MESH_LIGHT = torch.tensor([[0.4, 0.2, 0.4, 0.25, 0.0, 0.0, 0.0, 0.0, 0.0]])
_MESH_YAW = 0.45  # radians, so that the profile of the nose shows
_STRIP, _RATE = 7, 20.0  # views in a strip; frames a second in a film
_SIDE, _SWING = 0.6, 0.9  # radians: of a second view, and to which a turning mesh goes
_SHAPE_NAMES = {"stream": "shape stream", "coefficients": "coefficients", "fit": "landmark fit"}


def edit_sheet(
    model: NeuroTensorialAutoencoder,
    source: Float[Tensor, "n 3 h w"],
    target: Float[Tensor, "n 3 h w"],
    factors: Sequence[str],
    *,
    together: bool = False,
    truth: Mapping[str, Float[Tensor, "n 3 h w"]] | None = None,
    zoom: int = 2,
) -> Image.Image:
    """One row a face: source, target, reconstruction, then the source with each of the target's factors.

    Args:
        model: A trained network.
        source: Faces to edit, aligned crops in [0, 1].
        target: As many others.
        factors: See `facemodels.editing.EDITABLE`.
        together: Add a last column with all factors at once.
        truth: What each edit should show, for faces of which it is known; a second row for every face.
        zoom: Factor of enlargement.
    """
    edits = [transfer(model, source, target, name).image for name in factors]
    labels = ["source", "target", "reconstruction", *factors]
    if together:
        edits.append(transfer(model, source, target, factors).image)
        labels.append("together")
    rows = [list(row) for row in zip(source, target, transfer(model, source, target, []).image, *edits, strict=True)]
    if truth is None:
        return grid(rows, columns=labels, zoom=zoom)
    known = zip(*(truth[name] for name in factors), strict=True)
    pairs = [row for ours, true in zip(rows, known, strict=True) for row in (ours, [None, None, None, *true])]
    return grid(pairs, columns=labels, row_labels=["edited", "rendered"] * len(rows), zoom=zoom)


def photo_edits_sheet(
    source: Float[Tensor, "3 h w"],
    own: Float[Tensor, "3 h w"],
    edited: Sequence[PhotoEdit],
    baselines: Sequence[Mapping[str, Float[Tensor, "3 h w"]]] = (),
    zoom: int = 2,
) -> Image.Image:
    """One row a target: the source, the target, the source's reconstruction, then each edit (Figures 3, 4, 8, 9).

    Args:
        source: Crop that was edited.
        own: Its reconstruction.
        edited: What `edit_photo` made of it, with the same labels.
        baselines: For each target what the morphable model alone makes of some of the labels, shown beside them.
        zoom: Factor of enlargement.
    """
    rows, labels = [], ["source", "target", "reconstruction"]
    for one, others in zip(edited, baselines or [{}] * len(edited), strict=True):
        row, labels = [source, one.target, own], labels[:3]
        for label, edit in one.edits.items():
            row.append(edit.image[0])
            labels.append(label)
            if label in others:
                row.append(others[label])
                labels.append("3DMM")
        rows.append(row)
    names = [_shortened(Path(one.name).name) for one in edited] if len(edited) > 1 else []
    return grid(rows, columns=labels, row_labels=names, zoom=zoom)


def _shortened(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


@torch.no_grad()
def parts_sheet(model: NeuroTensorialAutoencoder, images: Float[Tensor, "n 3 h w"], zoom: int = 2) -> Image.Image:
    """One row a face: everything the three streams decode."""
    codes = model.encode(images)
    parts = model.decode(codes)
    columns = {"input": images, "reconstruction": parts.image} | part_pictures(model, codes, parts)
    if parts.shape is not None and model.morphable is not None:
        columns["3D shape"] = mesh_pictures(parts.shape, model.morphable)
    rows = list(zip(*columns.values(), strict=True))
    return grid(rows, columns=list(columns), zoom=zoom)


def part_pictures(
    model: NeuroTensorialAutoencoder, codes: Codes, parts: Rendering
) -> dict[str, Float[Tensor, "n c h w"]]:
    """Pictures of what a composite is made of, by name, those of stream 3 only if the network has its core.

    Args:
        model: The network.
        codes: What was decoded.
        parts: `model.decode(codes)`.
    """
    pictures = _face_pictures(parts.face, parts, parts.mask, parts.background)
    if parts.frontal is not None and parts.frontal_normals is not None:
        mask = _frontal_mask(model, codes)
        pictures["frontal"] = on_paper(parts.frontal, mask)
        pictures["frontal normals"] = normals_as_colours(parts.frontal_normals, mask)
    return pictures


@torch.no_grad()
def training_sheet(
    model: NeuroTensorialAutoencoder,
    images: Float[Tensor, "n 3 h w"],
    others: Float[Tensor, "n 3 h w"],
    zoom: int = 2,
) -> Image.Image:
    """One row a face: input, reconstruction, what that is made of, and the face with single factors of another.

    Args:
        model: A network, trained or not.
        images: Aligned crops in [0, 1].
        others: As many others, shown beside the edits.
        zoom: Factor of enlargement.
    """
    codes, donor = model.encode(images), model.encode(others)
    mask_logits, background = model.surround(codes)
    mask = mask_logits.sigmoid()

    def composite(face: Face) -> Tensor:
        return mask * face.image + (1 - mask) * background

    own = paint(model, codes)
    columns = {"input": images, "reconstruction": composite(own)}
    columns |= _face_pictures(own.image, own, mask, background) | {"other": others}
    for factor in EDITABLE:
        face = paint(model, codes.replace(**{factor: getattr(donor, factor)}))
        columns[factor] = composite(face)
        if factor == "pose":
            where = mask if face.mask_logits is None else face.mask_logits.sigmoid()
            columns[factor] = turn_in_place(face.image, where, background, mask)
    return grid(list(zip(*columns.values(), strict=True)), columns=list(columns), zoom=zoom)


def _face_pictures(
    face: Tensor, parts: Face | Rendering, mask: Tensor, background: Tensor
) -> dict[str, Float[Tensor, "n c h w"]]:
    """What composites are made of, by the columns' labels."""
    return {
        "face": on_paper(face, mask),
        "albedo": on_paper(parts.albedo, mask),
        "normals": normals_as_colours(parts.normals, mask),
        "shading": on_paper((parts.shading / 1.3).clamp(0, 1), mask),
        "mask": mask,
        "background": background,
    }


def _frontal_mask(model: NeuroTensorialAutoencoder, codes: Codes) -> Float[Tensor, "n 1 h w"]:
    """Where a face looking ahead is, by the face stream; stream 3 has learnt nothing outside of it."""
    ahead = torch.eye(3).flatten().to(codes.pose).expand_as(codes.pose)
    mask_logits = model.paint(ahead, codes.expression, codes.identity, codes.light).mask_logits
    return torch.ones_like(codes.pose[:, :1, None, None]) if mask_logits is None else mask_logits.sigmoid()


def interpolation_sheet(
    model: NeuroTensorialAutoencoder,
    source: Float[Tensor, "1 3 h w"],
    target: Float[Tensor, "1 3 h w"],
    factors: Sequence[str],
    *,
    steps: int = 11,
    zoom: int = 2,
) -> Image.Image:
    """One row a factor: the source, the steps to the target's factor, the target (the paper's Figures 10 and 11)."""
    return steps_sheet(
        source[0], {name: interpolate(model, source, target, name, steps) for name in factors}, target[0], zoom
    )


def steps_sheet(
    source: Float[Tensor, "3 h w"],
    moving: Mapping[str, Float[Tensor, "steps 3 h w"]],
    target: Float[Tensor, "3 h w"],
    zoom: int = 2,
) -> Image.Image:
    """One row a factor: the source, the steps from it to the target, the target."""
    rows = [[source, *pictures, target] for pictures in moving.values()]
    last = len(rows[0]) - 3
    amounts = [f"{step / last:.2g}" for step in range(last + 1)]
    return grid(rows, columns=["source", *amounts, "target"], row_labels=list(moving), zoom=zoom)


def steps_frames(
    source: Float[Tensor, "3 h w"],
    moving: Mapping[str, Float[Tensor, "steps 3 h w"]],
    target: Float[Tensor, "3 h w"],
    zoom: int = 2,
) -> list[UInt8[np.ndarray, "height width 3"]]:
    """The same as a moving picture: one column a factor between source and target, there and back again."""
    labels = ["source", *moving, "target"]
    there = [
        np.asarray(grid([[source, *pictures, target]], columns=labels, zoom=zoom))
        for pictures in zip(*moving.values(), strict=True)
    ]
    return there + there[-2:0:-1]


@torch.no_grad()
def pasted_steps(
    model: NeuroTensorialAutoencoder,
    photo: AlignedPhoto,
    target: AlignedPhoto,
    factor: str,
    steps: int = 11,
    own: Codes | None = None,
) -> Float[Tensor, "steps 3 h w"]:
    """The steps of `interpolate` pasted into a photo of any size.

    Args:
        model: A trained network.
        photo: Photo to start from, its crop of the network's size.
        target: Photo whose factor is approached.
        factor: One of `facemodels.editing.EDITABLE`.
        steps: Number of pictures; the first is the photo itself.
        own: Codes of the photo, such as `facemodels.editing.refine` finds; by default those that the encoder reads.
    """
    crop = to_tensor(photo.crop)
    own = model.encode(crop) if own is None else own
    edit, unedited = interpolated(model, crop, to_tensor(target.crop), factor, steps, own), decode_edit(model, own)
    # A turned face stands before a filled background, even where it is turned by nothing: the first is the photo.
    pictures = [photo.photo, *(paste(photo, edit[step], unedited) for step in range(1, steps))]
    return torch.cat([to_tensor(picture) for picture in pictures])


def mesh_pictures(
    vertices: Float[Tensor, "n vertices 3"], morphable: MorphableModel, size: int = SIZE, supersample: int = 2
) -> Float[Tensor, "n 3 size size"]:
    """Meshes in grey, turned a little to the side, on white."""
    vertices = vertices.cpu()
    side = size * supersample
    used = morphable.triangles[morphable.face].unique()
    centred = vertices - vertices[:, used].mean(1, keepdim=True)
    extent = centred[:, used].abs().amax((1, 2))
    count = len(vertices)
    yaw = torch.full((count,), _MESH_YAW)
    rotation = euler_to_matrix(yaw, torch.zeros(count), torch.zeros(count))
    shift = torch.full((count, 2), side / 2)
    normals, mask = render_geometry(
        centred, morphable.triangles, morphable.face, rotation, 0.46 * side / extent, shift, size=side
    )
    picture = on_paper((0.85 * shade(normals, _MESH_LIGHT.expand(count, -1))).clamp(0, 1), mask)
    return torch.nn.functional.avg_pool2d(picture, supersample).expand(-1, 3, -1, -1)


def reconstruction_sheet(
    reconstructions: Sequence[Reconstruction], morphable: MorphableModel, size: int = 160
) -> Image.Image:
    """One row a photo: its face in 3D by the network and by a fit to landmarks, grey and in colours (Figure 5).

    Args:
        reconstructions: From `facemodels.reconstruction.reconstruct`, all of one network.
        morphable: The network's, for what belongs to the face.
        size: Side of each picture in pixels.
    """
    belongs = whole_of(morphable).morphable.face
    rows = []
    for one in reconstructions:
        row = [torch.nn.functional.interpolate(one.picture[None], size, mode="bicubic")[0].clamp(0, 1)]
        for mesh in one.meshes.values():
            face = [replace(mesh, triangles=mesh.triangles[belongs])]
            views = (
                picture_of(face, size=size, clay=True),
                picture_of(face, yaw=_SIDE, size=size, clay=True),
                picture_of(face, yaw=_SIDE, size=size),
            )
            row += [view[0] for view in views]
        rows.append(row)
    names = [_SHAPE_NAMES[name] for name in reconstructions[0].meshes] if reconstructions else []
    return grid(rows, columns=["photo", *(title for name in names for title in ("", name, ""))], zoom=1)


def turntable(mesh: Mesh, frames: int = 48, size: int = 256) -> list[UInt8[np.ndarray, "size size 3"]]:
    """A mesh that looks to both sides: pictures of one round, which can be repeated for ever.

    Args:
        mesh: The mesh.
        frames: Number of pictures.
        size: Side of each in pixels.
    """
    turns = [_SWING * math.sin(2 * math.pi * frame / frames) for frame in range(frames)]
    return [to_bytes(picture_of([mesh], yaw=yaw, size=size)[0]) for yaw in turns]


def write_turntable(mesh: Mesh, path: Path) -> Path:
    """Write `turntable` as a film (.gif, .mp4 and so on), or a strip of seven views from side to side as a picture.

    Returns:
        The path.

    Raises:
        InputError: The name ends otherwise, or the disk is full.
    """
    if path.suffix.lower() in MOVIE_SUFFIXES:
        write_movie(path, turntable(mesh), _RATE)
        return path
    check_picture(path)
    yaws = torch.linspace(-_SWING, _SWING, _STRIP).tolist()
    save_picture(grid([[picture_of([mesh], yaw=yaw)[0] for yaw in yaws]], zoom=1), path)
    return path
