"""Synthetic faces with exact factors: identity, expression, pose, light, colours and background.

Each sample depends only on the seed and its number, not on how many are made, where, or in which order.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.data.alignment import TEMPLATE, similarity
from facemodels.data.dataset import PreparedSet, check_new, write_prepared
from facemodels.data.factors import FaceFactors, sample_factors
from facemodels.data.portrait import build_heads, draw_heads
from facemodels.errors import InputError
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar
from facemodels.rendering import euler_to_matrix, matrix_to_euler

Sample = dict[str, Any]

FRONTAL_DEGREES = 15.0
"""Largest yaw and pitch of a near-frontal face."""

_SOURCE = "synthetic"
_BLOCK = 16  # samples made together; a block is always made whole, so that its numbers cannot depend on the request
_LANDMARKS = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))  # iBUG numbers, from - to, of the five points


def synthesise_set(
    out: str | os.PathLike[str],
    *,
    count: int = 4000,
    held_out: float = 0.1,
    seed: int = 0,
    images_per_person: int = 4,
    workers: int = 1,
) -> PreparedSet:
    """Write synthetic faces as a prepared set, with a progress bar.

    Nobody is in both splits: the last persons are held out.

    Args:
        out: Directory to make; must not exist.
        count: Number of faces.
        held_out: Share of the persons in the split `test`.
        seed: Fixes every face.
        images_per_person: Faces of the same person, in other expressions, poses and lights.
        workers: Processes to use.

    Returns:
        The set, opened.

    Raises:
        InputError: `out` exists.
        ValueError: A number is negative, or `held_out` is not between 0 and 1.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"synthesise_set: held_out must be at least 0 and below 1, got {held_out}")
    check_new(out)
    samples = synthesise(count, seed, images_per_person=images_per_person, workers=workers)
    persons = -(-count // images_per_person)
    first_held_out = persons - round(held_out * persons)
    rows = (
        {**sample, "split": "test" if sample["person"] >= first_held_out else "train"}
        for sample in progress_bar(samples, "rendering faces", total=count, unit="face")
    )
    info = {
        "source": _SOURCE,
        "count": count,
        "held_out": held_out,
        "seed": seed,
        "images_per_person": images_per_person,
    }
    return write_prepared(out, rows, MorphableModel.procedural(), info)


def synthesise(
    count: int,
    seed: int = 0,
    *,
    start: int = 0,
    images_per_person: int = 4,
    workers: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Sample]:
    """Make synthetic faces of `MorphableModel.procedural()`, one after the other in the order of their numbers.

    Args:
        count: Size of the set.
        seed: Seed of the set.
        start: First sample to make; those before it are left out, which resumes an interrupted run.
        images_per_person: Neighbouring samples that show the same person, in other expressions, poses and lights.
        workers: Processes to use. With more than one, the calling script needs `if __name__ == "__main__":`.
        progress: Called after each sample with the number of samples that are ready, counted from the set's start.

    Yields:
        One dictionary for each sample: `name` (str), `person` (int), `emotion` (str), `frontal` (bool: yaw and pitch
        within 15 degrees), `image (64, 64, 3)` uint8, `normals (64, 64, 3)` int8 (127 is length 1; in the camera frame,
        zero outside the mask), `mask (64, 64)` uint8 (255 on the face proper), `rotation (9,)`, `identity (157,)`,
        `expression (28,)` and `light (9,)` float32, and of a second view of the same face under the same light
        `turned_rotation`, `turned_normals`, `turned_mask` and `turned_image`.

    Raises:
        ValueError: A number is negative, or `images_per_person` or `workers` is below 1.

    Example:
        >>> sample = next(synthesise(1))
        >>> sample["name"], sample["image"].shape, sample["identity"].shape
        ('synthetic-0-000000', (64, 64, 3), (157,))
    """
    if count < 0 or seed < 0 or start < 0:
        raise ValueError(f"synthesise: count, seed and start must not be negative, got {count}, {seed} and {start}")
    if images_per_person < 1 or workers < 1:
        raise ValueError(
            f"synthesise: images_per_person and workers must be at least 1, got {images_per_person} and {workers}"
        )
    return _synthesise(count, seed, start, images_per_person, workers, progress)


def aligned_camera(
    vertices: Float[Tensor, "n vertices 3"], angles: Float[Tensor, "n 3"], framing: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n"], Float[Tensor, "n 2"]]:
    """Weak-perspective camera that frames a head as photos are framed: by five points, with a small error.

    Args:
        vertices: Of the procedural model (more may follow), in mm, shape `(n, vertices, 3)`.
        angles: Yaw, pitch, and the roll by which the alignment errs, in radians, shape `(n, 3)`.
        framing: By how much else it errs: pixels right, pixels down, and the log of the scale, shape `(n, 3)`.

    Returns:
        Rotation, scale in pixels per mm and shift in pixels, as `project_weak_perspective` takes them.
    """
    turned = euler_to_matrix(angles[:, 0], angles[:, 1], torch.zeros(len(angles)))
    landmarks = MorphableModel.procedural().landmarks
    five = torch.stack([vertices[:, landmarks[a:b]].mean(dim=1) for a, b in _LANDMARKS], dim=1)
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
    count: int,
    seed: int,
    start: int,
    images_per_person: int,
    workers: int,
    progress: Callable[[int], None] | None,
) -> Iterator[Sample]:
    blocks = range(start // _BLOCK, -(-count // _BLOCK)) if start < count else range(0)
    for block, samples in zip(blocks, _blocks(blocks, seed, images_per_person, workers), strict=True):
        for index, sample in enumerate(samples, start=block * _BLOCK):
            if start <= index < count:
                if progress:
                    progress(index + 1)
                yield sample


def _blocks(blocks: range, seed: int, images_per_person: int, workers: int) -> Iterator[list[Sample]]:
    if workers == 1 or len(blocks) < 2:
        for block in blocks:
            yield _make_block(block, seed, images_per_person)
        return
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        # Few blocks ahead of the reader, so that a slow reader does not fill the memory.
        waiting = []
        for block in blocks:
            waiting.append(executor.submit(_make_block, block, seed, images_per_person))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which then stops its workers
    torch.set_num_threads(1)


def factors_of(prepared: PreparedSet, split: str) -> list[FaceFactors]:
    """The factors that the faces of a synthetic set's split were made of, in its order.

    Raises:
        InputError: The set is not synthetic.
    """
    if prepared.info.get("source") != _SOURCE:
        raise InputError(f"{prepared.path} holds photos; only of synthetic faces all factors are known")
    seed, images_per_person = prepared.info["seed"], prepared.info["images_per_person"]
    numbers = (int(name.rsplit("-", 1)[1]) for name in prepared.split(split)["name"])
    return [sample_factors(seed, number, images_per_person=images_per_person) for number in numbers]


@torch.no_grad()
def draw(factors: Sequence[FaceFactors]) -> tuple[Float[Tensor, "n 3 64 64"], Float[Tensor, "n 1 64 64"]]:
    """Images in [0, 1] and masks of faces made of these factors."""
    images, masks = [], []
    for start in range(0, len(factors), _BLOCK):
        some = factors[start : start + _BLOCK]
        heads = build_heads(_stack(some, "identity"), _stack(some, "expression"), [one.complexion for one in some])
        camera = aligned_camera(heads.vertices, _stack(some, "angles"), _stack(some, "framing"))
        background = _stack(some, "background").permute(0, 3, 1, 2)
        image, _, mask = draw_heads(heads, *camera, _stack(some, "light"), background)
        images.append(image)
        masks.append(mask)
    return torch.cat(images), torch.cat(masks)


def _stack(factors: Sequence[FaceFactors], name: str) -> Tensor:
    return torch.from_numpy(np.stack([getattr(one, name) for one in factors])).float()


@torch.no_grad()
def _make_block(block: int, seed: int, images_per_person: int) -> list[Sample]:
    numbers = range(block * _BLOCK, (block + 1) * _BLOCK)
    factors = [sample_factors(seed, index, images_per_person=images_per_person) for index in numbers]
    identity, expression, light, framing = (
        _stack(factors, name) for name in ("identity", "expression", "light", "framing")
    )
    background = _stack(factors, "background").permute(0, 3, 1, 2)
    heads = build_heads(identity, expression, [one.complexion for one in factors])
    arrays = {"identity": identity, "expression": expression, "light": light}
    for prefix, angles in (("", _stack(factors, "angles")), ("turned_", _stack(factors, "turned_angles"))):
        rotation, scale, shift = aligned_camera(heads.vertices, angles, framing)
        image, normals, mask = draw_heads(heads, rotation, scale, shift, light, background)
        arrays[f"{prefix}rotation"] = rotation.flatten(1)
        arrays[f"{prefix}image"] = (255 * image).round().byte().permute(0, 2, 3, 1)
        arrays[f"{prefix}normals"] = (127 * normals).round().to(torch.int8).permute(0, 2, 3, 1)
        arrays[f"{prefix}mask"] = (255 * mask[:, 0]).byte()
    yaw, pitch, _ = matrix_to_euler(arrays["rotation"].unflatten(1, (3, 3)))
    frontal = torch.maximum(yaw.abs(), pitch.abs()) <= np.deg2rad(FRONTAL_DEGREES)
    return [
        {
            "name": f"synthetic-{seed}-{index:06d}",
            "person": one.person,
            "emotion": one.emotion,
            "frontal": bool(frontal[k]),
            **{name: values[k].contiguous().numpy().copy() for name, values in arrays.items()},
        }
        for k, (index, one) in enumerate(zip(numbers, factors, strict=True))
    ]
