"""Synthetic faces with exact factors: identity, expression, pose, light, colours and background.

Three designs: `portraits` (factors drawn as photos have them), `facefactors` (every person with every expression in
every pose under every light) and `wild` (everything at random, with occluders and what a camera adds). Each sample
depends only on the design, the seed and its number, not on how many are made, where, or in which order.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.config import FIVE_LANDMARKS, SIZE
from facemodels.data.alignment import TEMPLATE, check_size, similarity
from facemodels.data.dataset import PreparedSet
from facemodels.data.factorial import EXPRESSIONS, LIGHTS, PERSONS, POSES, SHAPE, Cell, cell_factors
from facemodels.data.factors import FaceFactors, sample_factors
from facemodels.data.occluders import Sight
from facemodels.data.pool import worker_pool
from facemodels.data.portrait import Heads, build_heads, draw_heads, face_geometry, light_view, view_heads
from facemodels.data.shards import write_shards
from facemodels.data.wild import occlude, photograph, wild_factors
from facemodels.errors import InputError
from facemodels.morphable import MorphableModel
from facemodels.morphable.procedural import hair_colour
from facemodels.rendering import euler_to_matrix, irradiance_basis, matrix_to_euler, project_weak_perspective

Sample = dict[str, Any]
Design = Literal["portraits", "facefactors", "wild"]

DESIGNS: tuple[Design, ...] = ("facefactors", "wild", "portraits")
FACEFACTORS = int(np.prod(SHAPE))
"""Images of FaceFactors: 54 x 6 x 8 x 4 = 10,368."""

FRONTAL_DEGREES = 15.0
"""Largest yaw and pitch of a near-frontal face."""

_BLOCK = 16  # samples made together; a block is always made whole, so that its numbers cannot depend on the request
_CELLS = len(POSES) * len(LIGHTS)  # of FaceFactors a block is one face: its poses are rasterized once for all lights
_SHARD = len(EXPRESSIONS) * _CELLS  # samples of a file, all of one person in FaceFactors
_SOURCES: dict[Design, str] = {"portraits": "synthetic", "facefactors": "facefactors", "wild": "wild"}


def synthesise_set(
    out: str | os.PathLike[str],
    *,
    design: Design = "portraits",
    count: int | None = None,
    held_out: float | None = None,
    seed: int = 0,
    images_per_person: int = 4,
    size: int = SIZE,
    workers: int = 1,
) -> PreparedSet:
    """Write synthetic faces as a prepared set, with a progress bar; a run that was killed goes on where it was.

    Nobody is in both splits: the last persons are held out.

    Args:
        out: Directory to make. A finished set of the same settings is opened and left as it is.
        design: What to show: "portraits", "facefactors" or "wild".
        count: Number of faces; by default all 10,368 of FaceFactors, else 4000. A smaller FaceFactors has its first.
        held_out: Share of the persons in the split `test`; by default 0.2 of FaceFactors (11 persons), else 0.1.
        seed: Fixes every face.
        images_per_person: Faces of the same person, in other expressions, poses and lights; FaceFactors has 192.
        size: Side of the images in pixels: 64 or 128. The faces are the same.
        workers: Processes to use.

    Returns:
        The set, opened. Besides the columns of every prepared set it has `person` and `emotion`; FaceFactors also
        `expression_index`, `pose_index` and `light_index`, whose meaning `info["factors"]` gives; the wild has
        `occluder` and `visible`, the share of the face that is not hidden.

    Raises:
        InputError: `out` exists or was begun with other settings, or the disk is full.
        ValueError: There is no such design, or a number is out of range.
    """
    if design not in DESIGNS:
        raise ValueError(f"synthesise_set: there is no design {design!r}; choose one of {', '.join(DESIGNS)}")
    factorial = design == "facefactors"
    count = (FACEFACTORS if factorial else 4000) if count is None else count
    held_out = (0.2 if factorial else 0.1) if held_out is None else held_out
    if not 0 <= held_out < 1:
        raise ValueError(f"synthesise_set: held_out must be at least 0 and below 1, got {held_out}")
    if count < 1:
        raise ValueError(f"synthesise_set: count must be at least 1, got {count}")
    if factorial:
        images_per_person = _SHARD
    _check(design, count, seed, 0, images_per_person, workers, size)
    persons = -(-count // images_per_person)
    info = {
        "source": _SOURCES[design],
        "count": count,
        "held_out": held_out,
        "seed": seed,
        "images_per_person": images_per_person,
        "size": size,
    }
    if factorial:
        info["factors"] = {"persons": PERSONS, "expressions": list(EXPRESSIONS)} | {
            "poses": [list(pose) for pose in POSES],
            "lights": {name: list(where) for name, where in LIGHTS.items()},
        }
    make = partial(_shard, design, count, seed, images_per_person, size, persons - round(held_out * persons))
    model = MorphableModel.procedural()
    return write_shards(out, make, -(-count // _SHARD), model, info, total=count, workers=workers)


def synthesise(
    count: int | None,
    seed: int = 0,
    *,
    design: Design = "portraits",
    start: int = 0,
    images_per_person: int = 4,
    size: int = SIZE,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Sample]:
    """Make synthetic faces of `MorphableModel.procedural()`, one after the other in the order of their numbers.

    Args:
        count: Size of the set; None makes new faces for ever, a stream to train from.
        seed: Seed of the set.
        design: What to show: "portraits", "facefactors" (at most 10,368) or "wild".
        start: First sample to make; those before it are left out, which resumes an interrupted run.
        images_per_person: Neighbouring samples that show the same person, in other expressions, poses and lights.
        size: Side of the images in pixels.
        workers: Processes to use. With more than one, the calling script needs `if __name__ == "__main__":`.
        progress: Called after each sample with the number of samples that are ready, counted from the set's start.

    Yields:
        One dictionary for each sample: `name` (str), `person` (int), `emotion` (str), `frontal` (bool: yaw and pitch
        within 15 degrees), `image (size, size, 3)` uint8, `normals (size, size, 3)` int8 (127 is length 1; in the
        camera frame, zero outside the mask), `mask (size, size)` uint8 (255 on the face proper), `rotation (9,)`,
        `identity (157,)`, `expression (28,)` and `light (9,)` float32, and of a second view of the same face under the
        same light
        `turned_rotation`, `turned_normals`, `turned_mask`, `turned_image`, `turned_weight` (255 on its mask: all is
        known) and `turned_partner` (of FaceFactors the name of the sample that is this view, else empty); and of the
        same face with the expression of a near sample, in the own pose, `swapped_image`, `swapped_weight` and that
        sample's name, `swapped_partner` (FaceFactors has none: its samples are each other's). FaceFactors
        adds `expression_index`, `pose_index` and `light_index`; the wild adds `occluder` (names joined by "+", or
        empty) and `visible` (share of the face that is not hidden); its mask and normals leave out what is, its second
        view is taken by the same camera with nothing before the face.

    Raises:
        ValueError: There is no such design, or a number is out of range.

    Example:
        >>> sample = next(synthesise(1))
        >>> sample["name"], sample["image"].shape, sample["identity"].shape
        ('synthetic-0-000000', (64, 64, 3), (157,))
        >>> import itertools
        >>> [sample["name"] for sample in itertools.islice(synthesise(None, design="wild"), 2)]
        ['wild-0-000000', 'wild-0-000001']
    """
    if design == "facefactors" and count is None:
        count = FACEFACTORS
    _check(design, count, seed, start, images_per_person, workers, size)
    return _synthesise(design, count, seed, start, images_per_person, size, workers, progress)


def _check(
    design: str, count: int | None, seed: int, start: int, images_per_person: int, workers: int, size: int
) -> None:
    check_size("synthesise", size)
    if design not in DESIGNS:
        raise ValueError(f"synthesise: there is no design {design!r}; choose one of {', '.join(DESIGNS)}")
    if (count or 0) < 0 or seed < 0 or start < 0:
        raise ValueError(f"synthesise: count, seed and start must not be negative, got {count}, {seed} and {start}")
    if images_per_person < 1 or workers < 1:
        raise ValueError(
            f"synthesise: images_per_person and workers must be at least 1, got {images_per_person} and {workers}"
        )
    if design == "facefactors" and (count or 0) > FACEFACTORS:
        raise ValueError(f"synthesise: FaceFactors has {FACEFACTORS} images, got count {count}")


def aligned_camera(
    vertices: Float[Tensor, "n vertices 3"], angles: Float[Tensor, "n 3"], framing: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n"], Float[Tensor, "n 2"]]:
    """Weak-perspective camera that frames a head as photos are framed: by five points, with a small error.

    Args:
        vertices: Of the procedural model (more may follow), in mm, shape `(n, vertices, 3)`.
        angles: Yaw, pitch, and the roll by which the alignment errs, in radians, shape `(n, 3)`.
        framing: By how much else it errs: pixels right, pixels down, and the log of the scale, shape `(n, 3)`.

    Returns:
        Rotation, scale in pixels per mm and shift in pixels, as `project_weak_perspective` takes them; all pixels are
        those of a crop of 64.
    """
    turned = euler_to_matrix(angles[:, 0], angles[:, 1], torch.zeros(len(angles)))
    landmarks = MorphableModel.procedural().landmarks
    five = torch.stack([vertices[:, landmarks[a:b]].mean(dim=1) for a, b in FIVE_LANDMARKS], dim=1)
    five = ((five @ turned.transpose(-1, -2))[..., :2] * torch.tensor([1.0, -1.0])).double().numpy()  # y down, in mm
    crop = torch.from_numpy(np.stack([similarity(points, TEMPLATE) for points in five])).float()
    roll = torch.atan2(-crop[:, 1, 0], crop[:, 0, 0])  # anticlockwise, where y runs down
    scale = torch.hypot(crop[:, 0, 0], crop[:, 1, 0])
    level = torch.zeros_like(roll)
    rotation = euler_to_matrix(level, level, roll) @ turned
    # Then what a detector's inaccuracy adds: roll and scale about the middle of the five points, and a shift.
    middle = torch.from_numpy(TEMPLATE.mean(axis=0)).float()
    tilt, grow = angles[:, 2], framing[:, 2].exp()
    arm = crop[:, :, 2] - middle
    cosine, sine = tilt.cos(), tilt.sin()
    arm = torch.stack([cosine * arm[:, 0] + sine * arm[:, 1], cosine * arm[:, 1] - sine * arm[:, 0]], dim=1)
    shift = middle + grow[:, None] * arm + framing[:, :2]
    return euler_to_matrix(level, level, tilt) @ rotation, grow * scale, shift


def _synthesise(
    design: Design,
    count: int | None,
    seed: int,
    start: int,
    images_per_person: int,
    size: int,
    workers: int,
    progress: Callable[[int], None] | None,
) -> Iterator[Sample]:
    length = _block_length(design)
    if count is not None and start >= count:
        return
    first = start // length
    blocks = itertools.count(first) if count is None else range(first, -(-count // length))
    make = partial(_make_block, design, seed, images_per_person, size)
    samples = itertools.chain.from_iterable(_ahead(make, blocks, workers))
    for index, sample in enumerate(itertools.islice(samples, start - first * length, None), start=start):
        if index == count:
            return
        if progress:
            progress(index + 1)
        yield sample


def _block_length(design: Design) -> int:
    return _CELLS if design == "facefactors" else _BLOCK


def _ahead(make: Callable[[int], list[Sample]], blocks: Iterable[int], workers: int) -> Iterator[list[Sample]]:
    """Blocks in their order; few are made ahead of the reader, so that a slow reader does not fill the memory."""
    if workers == 1:
        yield from map(make, blocks)
        return
    pool = worker_pool(workers)
    try:
        waiting = []
        for block in blocks:
            waiting.append(pool.submit(make, block))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _shard(
    design: Design, count: int, seed: int, images_per_person: int, size: int, held_out: int, number: int
) -> list[Sample]:
    """Rows of one file of a set; persons from `held_out` on are its test split."""
    length = _block_length(design)
    blocks = range(number * _SHARD // length, -(-min((number + 1) * _SHARD, count) // length))
    samples = [sample for block in blocks for sample in _make_block(design, seed, images_per_person, size, block)]
    samples = samples[: count - number * _SHARD]
    for sample in samples:
        sample["split"] = "test" if sample["person"] >= held_out else "train"
    there = {sample["name"]: sample["split"] for sample in samples}
    for sample in samples:
        for partner in {"turned_partner", "swapped_partner"} & sample.keys():
            if there.get(sample[partner]) != sample["split"]:  # a smaller set ends before it
                sample[partner] = ""
    return samples


def factors_of(prepared: PreparedSet, split: str) -> list[FaceFactors]:
    """The factors that the faces of a synthetic set's split were made of, in its order.

    Raises:
        InputError: The set is not synthetic.
    """
    design = check_synthetic(prepared)
    numbers = (int(name.rsplit("-", 1)[1]) for name in prepared.split(split)["name"])
    settings = prepared.info["images_per_person"], prepared.size
    return [_factors(design, prepared.info["seed"], number, *settings) for number in numbers]


def check_synthetic(prepared: PreparedSet) -> Design:
    """The design of a synthetic set.

    Raises:
        InputError: The set holds photos.
    """
    for design, source in _SOURCES.items():
        if source == prepared.info.get("source"):
            return design
    raise InputError(f"{prepared.path} holds photos; only of synthetic faces all factors are known")


def _factors(design: Design, seed: int, number: int, images_per_person: int, size: int) -> FaceFactors:
    if design == "facefactors":
        return cell_factors(seed, number, size=size)
    sample = wild_factors if design == "wild" else sample_factors
    return sample(seed, number, images_per_person=images_per_person, size=size)


@torch.no_grad()
def draw(factors: Sequence[FaceFactors]) -> tuple[Float[Tensor, "n 3 size size"], Float[Tensor, "n 1 size size"]]:
    """Images in [0, 1] and masks of faces made of these factors, as large as their backgrounds."""
    images, masks = [], []
    for start in range(0, len(factors), _BLOCK):
        some = factors[start : start + _BLOCK]
        heads = build_heads(_stack(some, "identity"), _stack(some, "expression"), _complexions(some))
        image, _, mask = draw_heads(heads, *_camera(heads, some), _stack(some, "light"), _backgrounds(some))
        images.append(image)
        masks.append(mask)
    return torch.cat(images), torch.cat(masks)


def _camera(heads: Heads, factors: Sequence[FaceFactors], prefix: str = "") -> tuple[Tensor, Tensor, Tensor]:
    """Rotation, scale and shift with which the factors' images (or, "turned_", their second views) show the heads."""
    rotation, scale, shift = aligned_camera(
        heads.vertices, _stack(factors, f"{prefix}angles"), _stack(factors, "framing")
    )
    zoom = len(factors[0].background) / SIZE
    return rotation, zoom * scale, zoom * shift


def _stack(factors: Sequence[FaceFactors], name: str) -> Tensor:
    return torch.from_numpy(np.stack([getattr(one, name) for one in factors])).float()


@torch.no_grad()
def _make_block(design: Design, seed: int, images_per_person: int, size: int, block: int) -> list[Sample]:
    length = _block_length(design)
    numbers = range(block * length, (block + 1) * length)
    factors = [_factors(design, seed, index, images_per_person, size) for index in numbers]
    make = {"portraits": _portraits, "facefactors": _cells, "wild": _wild}[design]
    arrays = make(seed, numbers, factors, images_per_person)
    yaw, pitch, _ = matrix_to_euler(arrays["rotation"].unflatten(1, (3, 3)))
    frontal = torch.maximum(yaw.abs(), pitch.abs()) <= np.deg2rad(FRONTAL_DEGREES)
    columns = {
        name: values.contiguous().numpy() if isinstance(values, Tensor) else np.array(values)
        for name, values in arrays.items()
    }
    return [
        {
            "name": _name(design, seed, index),
            "person": one.person,
            "emotion": one.emotion,
            "frontal": bool(frontal[k]),
            **{name: values[k].copy() if values[k].ndim else values[k].item() for name, values in columns.items()},
        }
        for k, (index, one) in enumerate(zip(numbers, factors, strict=True))
    ]


def _name(design: Design, seed: int, number: int) -> str:
    return f"{_SOURCES[design]}-{seed}-{number:06d}"


def _portraits(seed: int, numbers: range, factors: list[FaceFactors], images_per_person: int) -> Sample:
    """Columns of a block of portraits."""
    heads = build_heads(_stack(factors, "identity"), _stack(factors, "expression"), _complexions(factors))
    light, background = _stack(factors, "light"), _backgrounds(factors)
    columns = _coefficients(factors)
    for prefix in ("", "turned_"):
        camera = _camera(heads, factors, prefix)
        image, normals, mask = draw_heads(heads, *camera, light, background)
        columns |= _geometry(prefix, camera[0], normals, mask)
        columns[f"{prefix}image"] = _bytes(image)
    lenders = _lenders(len(factors), images_per_person)
    image, mask = draw(_expressed(factors, lenders))
    return columns | {
        "turned_weight": columns["turned_mask"],
        "turned_partner": [""] * len(factors),
        "swapped_image": _bytes(image),
        "swapped_weight": (255 * mask[:, 0]).byte(),
        "swapped_partner": [_name("portraits", seed, numbers[lender]) for lender in lenders],
    }


def _lenders(count: int, images_per_person: int) -> list[int]:
    """For each sample of a block, one of another person if there is one, who lends its expression."""
    step = images_per_person % count or 1
    return [(place + step) % count for place in range(count)]


def _expressed(factors: Sequence[FaceFactors], lenders: Sequence[int]) -> list[FaceFactors]:
    """Faces with expressions of others."""
    return [
        dataclasses.replace(one, expression=factors[lender].expression)
        for one, lender in zip(factors, lenders, strict=True)
    ]


def _cells(seed: int, numbers: range, factors: list[FaceFactors], images_per_person: int) -> Sample:
    """Columns of a block of FaceFactors: one face, rasterized once in each pose and lit in every way."""
    cells = [Cell.of(number) for number in numbers]
    pose = torch.tensor([cell.pose for cell in cells])
    first = factors[:: len(LIGHTS)]  # one for each pose
    heads = build_heads(_stack(first[:1], "identity"), _stack(first[:1], "expression"), _complexions(first[:1]))
    heads = heads.repeat(len(first))
    rotation, scale, shift = _camera(heads, first)
    light, background = _stack(factors, "light"), _backgrounds(factors)
    view = view_heads(heads, rotation, scale, shift, background.shape[-1])
    normals, mask = face_geometry(view)
    parts = [light_view(view[pose[some]], light[some], background[some]) for some in torch.arange(_CELLS).split(_BLOCK)]
    images = _bytes(torch.cat(parts))
    turned = torch.tensor([cell.turned for cell in cells])
    partner = turned * len(LIGHTS) + torch.tensor([cell.light for cell in cells])  # within the block
    columns = {
        **_coefficients(factors),
        **_geometry("", rotation[pose], normals[pose], mask[pose]),
        **_geometry("turned_", rotation[turned], normals[turned], mask[turned]),
    }
    return columns | {
        "image": images,
        "turned_image": images[partner],
        "turned_weight": columns["turned_mask"],
        "turned_partner": [_name("facefactors", seed, numbers[number]) for number in partner.tolist()],
        "expression_index": [cell.expression for cell in cells],
        "pose_index": [cell.pose for cell in cells],
        "light_index": [cell.light for cell in cells],
    }


def _wild(seed: int, numbers: range, factors: list[FaceFactors], images_per_person: int) -> Sample:
    """Columns of a block in the wild."""
    heads = build_heads(_stack(factors, "identity"), _stack(factors, "expression"), _complexions(factors))
    camera, turned = _camera(heads, factors), _camera(heads, factors, "turned_")
    light, background = _stack(factors, "light"), _backgrounds(factors)
    image, normals, mask = draw_heads(heads, *camera, light, background)
    turned_image, turned_normals, turned_mask = draw_heads(heads, *turned, light, background)
    lenders = _lenders(len(factors), images_per_person)
    swapped_image, swapped_mask = draw(_expressed(factors, lenders))
    landmarks = project_weak_perspective(heads.vertices[:, MorphableModel.procedural().landmarks], *camera)[..., :2]
    landmarks = landmarks * (SIZE / background.shape[-1])
    images, turned_images, swapped_images, seen, occluders = [], [], [], [], []
    for k, number in enumerate(numbers):
        picture = image[k].permute(1, 2, 0).double().numpy()
        hidden, clear, occluder = occlude(seed, number, picture, _sight(factors[k], picture, mask[k, 0], landmarks[k]))
        images.append(photograph(seed, number, hidden))
        for pictures, other in ((turned_images, turned_image), (swapped_images, swapped_image)):
            pictures.append(photograph(seed, number, other[k].permute(1, 2, 0).double().numpy()))
        seen.append(torch.from_numpy(clear >= 0.5).float())
        occluders.append(occluder)
    clear = torch.stack(seen)[:, None]
    columns = {
        **_coefficients(factors),
        **_geometry("", camera[0], normals * clear, mask * clear),
        **_geometry("turned_", turned[0], turned_normals, turned_mask),
    }
    return columns | {
        "image": torch.from_numpy(np.stack(images)),
        "turned_image": torch.from_numpy(np.stack(turned_images)),
        "turned_weight": columns["turned_mask"],
        "turned_partner": [""] * len(factors),
        "swapped_image": torch.from_numpy(np.stack(swapped_images)),
        "swapped_weight": (255 * swapped_mask[:, 0]).byte(),
        "swapped_partner": [_name("wild", seed, numbers[lender]) for lender in lenders],
        "occluder": occluders,
        "visible": (mask * clear).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1),
    }


def _sight(factors: FaceFactors, picture: np.ndarray, mask: Tensor, landmarks: Tensor) -> Sight:
    inside = mask.numpy() > 0
    ahead = irradiance_basis(torch.tensor([0.0, 0.0, 1.0]).double()) @ torch.from_numpy(factors.light)
    skin = np.median(picture[inside], axis=0) if inside.any() else np.full(3, 0.5)
    colours = factors.complexion
    light = float(ahead.clamp(0.3, 1.1))
    return Sight(
        landmarks.double().numpy(), skin, hair_colour(colours), light, bald=colours.bald > 0.5, size=len(picture)
    )


def _coefficients(factors: Sequence[FaceFactors]) -> Sample:
    return {name: _stack(factors, name) for name in ("identity", "expression", "light")}


def _complexions(factors: Sequence[FaceFactors]) -> list[Any]:
    return [one.complexion for one in factors]


def _backgrounds(factors: Sequence[FaceFactors]) -> Float[Tensor, "n 3 size size"]:
    return _stack(factors, "background").permute(0, 3, 1, 2)


def _geometry(prefix: str, rotation: Tensor, normals: Tensor, mask: Tensor) -> Sample:
    return {
        f"{prefix}rotation": rotation.flatten(1),
        f"{prefix}normals": (127 * normals).round().to(torch.int8).permute(0, 2, 3, 1),
        f"{prefix}mask": (255 * mask[:, 0]).byte(),
    }


def _bytes(image: Tensor) -> Tensor:
    return (255 * image).round().byte().permute(0, 2, 3, 1)
