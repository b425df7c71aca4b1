"""From a folder or zip of photos to a prepared set: detect, align, fit, clean, render, solve the light, write.

Statistics (the dependence on the pose, the mean albedo, the principal axes) come from the training faces alone.
"""

import csv
import math
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from facemodels.data.alignment import load_photo
from facemodels.data.dataset import PreparedSet, check_new, write_prepared
from facemodels.data.sources import PhotoSource, open_source
from facemodels.errors import InputError
from facemodels.fitting.landmarks import LandmarkDetector, MediaPipeDetector, canonical_face, find_model
from facemodels.fitting.lighting import Observations, mean_albedo, observe, solve_light, surface_samples
from facemodels.fitting.shape import Fit, correspond, fit
from facemodels.fitting.targets import Cleaning, PoseTransfer
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar
from facemodels.rendering import matrix_to_euler, render_geometry

MAX_ERROR = 2.5
"""Landmark error of a fit, in pixels of the crop, above which a photo is turned away."""

FRONTAL_ANGLE = math.radians(15)
"""Yaw, and pitch about the usual one, within which a face counts as near-frontal."""

MAX_COEFFICIENT = 3.0
"""Targets are clamped to so many standard deviations: a rare misfit must not pull a network."""

CLOSE = 7
"""Holes of the mask up to so many pixels are closed: models have no eyeballs and no inside of the mouth."""

_BATCH = 64
_ALBEDO_FACES = 1000  # from which the mean albedo is estimated
_RARITY = 0.7  # exponent of 1 / density with which rare poses are drawn as partners
_REJECTS = "rejects.csv"


@dataclass(frozen=True)
class _Detected:
    """The photos in which a face was found, in their order."""

    names: list[str]
    crops: UInt8[Tensor, "n 64 64 3"]
    points: Float[Tensor, "n 478 3"]

    def keep(self, rows: Bool[Tensor, " n"]) -> "_Detected":
        names = [name for name, kept in zip(self.names, rows.tolist(), strict=True) if kept]
        return _Detected(names, self.crops[rows], self.points[rows])


def prepare(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    morphable: MorphableModel,
    limit: int | None = None,
    held_out: float = 0.1,
    workers: int = 2,
    seed: int = 0,
    detector: LandmarkDetector | None = None,
    progress: bool = True,
) -> PreparedSet:
    """Make a prepared set from photos.

    Photos that cannot be used (no image, no face, a bad fit) are listed with the reason in `rejects.csv` inside the
    set. The last photos by name become the test split.

    Args:
        source: Folder or zip file of photos.
        out: Directory to make; it appears under its name only when it is complete.
        morphable: The model to fit. The set's own model, whose coefficients the set holds, is made from it.
        limit: Use only so many photos, the first by name.
        held_out: Share of the usable photos for the test split.
        workers: Processes that look for faces. More than one needs the usual `if __name__ == "__main__":` in a script.
        seed: Fixes the draw of the other poses.
        detector: By default MediaPipe; another one runs in this process.
        progress: Show a progress bar for each stage.

    Returns:
        The set, opened.

    Raises:
        InputError: `out` exists, `source` holds no photos, too few of them can be used, or MediaPipe is missing.
    """
    check_new(out)
    if not 0 <= held_out < 1:
        raise InputError(f"held_out must be a share from 0 up to 1, got {held_out}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1 photo, got {limit}")
    photos = open_source(source)
    names = photos.names[:limit]
    clock = _Clock()

    detected, rejects = _detect(photos, names, detector, workers, progress)
    clock.lap("detect")
    canonical = None if detector else canonical_face(find_model())
    raw = fit(detected.points, morphable, correspond(morphable, canonical))
    good = raw.error <= MAX_ERROR
    rejects += [
        (name, f"the face could not be fitted: landmarks are off by {error:.1f} pixels of the 64")
        for name, error in zip(detected.names, raw.error.tolist(), strict=True)
        if not error <= MAX_ERROR
    ]
    detected, raw = detected.keep(good), raw[good]
    training = max(1, len(raw) - round(held_out * len(raw)))
    try:
        renderer = _Renderer.learn(detected, raw, training, morphable, seed)
    except InputError as error:
        raise InputError(f"{source}: {len(raw)} of {len(names)} photos show a usable face; {error}") from error
    clock.lap("fit")

    bar = progress_bar(renderer.rows(), "render", total=len(raw), unit="photo", disable=not progress)
    info = {
        "source": str(source),
        "photos": len(names),
        "rejected": len(rejects),
        "training": training,
        "held_out": held_out,
        "seed": seed,
        "morphable": morphable.name,
        "landmark_error": round(float(raw.error.median()), 3),
        "seconds": clock.laps,
    }
    prepared = write_prepared(out, clock.timed("render", iter(bar)), renderer.cleaning.morphable, info)
    with (Path(out) / _REJECTS).open("w", newline="") as file:
        csv.writer(file).writerows([("name", "reason"), *sorted(rejects)])
    return prepared


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._start, 2)
        self._start = now

    def timed(self, stage: str, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        yield from rows
        self.lap(stage)


def _detect(
    photos: PhotoSource, names: tuple[str, ...], detector: LandmarkDetector | None, workers: int, progress: bool
) -> tuple[_Detected, list[tuple[str, str]]]:
    """Find and align the faces; photos without one come back as rejects with the reason."""
    found: list[tuple[str, np.ndarray, np.ndarray]] = []
    rejects: list[tuple[str, str]] = []
    results = _detections(photos, names, detector, min(workers, len(names)))
    for name, result in zip(
        names, progress_bar(results, "detect", total=len(names), unit="photo", disable=not progress), strict=True
    ):
        if isinstance(result, str):
            rejects.append((name, result))
        else:
            found.append((name, *result))
    if not found:
        first = f"; the first: {rejects[0][1]}" if rejects else ""
        raise InputError(f"not one of the {len(names)} photos of {photos.path} shows a usable face{first}")
    names_found, crops, points = zip(*found, strict=True)
    return _Detected(list(names_found), torch.from_numpy(np.stack(crops)), torch.from_numpy(np.stack(points))), rejects


def _detections(
    photos: PhotoSource, names: tuple[str, ...], detector: LandmarkDetector | None, workers: int
) -> Iterator["tuple[np.ndarray, np.ndarray] | str"]:
    if detector is not None or workers <= 1:
        worker = _Worker(photos, detector or MediaPipeDetector())
        yield from map(worker, names)
        return
    find_model()  # complain here, once, rather than in every process
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(photos,))
    try:
        yield from pool.map(_work, names, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker:
    """Turns the name of a photo into its crop and landmarks, or into the reason why there are none."""

    def __init__(self, photos: PhotoSource, detector: LandmarkDetector):
        self.photos, self.detector = photos, detector

    def __call__(self, name: str) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            photo = load_photo(self.photos.read(name), self.detector, name)
        except InputError as error:
            return str(error)
        return photo.crop, photo.landmarks.points.astype(np.float32)


_worker: _Worker | None = None


def _start_worker(photos: PhotoSource) -> None:
    global _worker
    _worker = _Worker(photos, MediaPipeDetector())


def _work(name: str) -> "tuple[np.ndarray, np.ndarray] | str":
    assert _worker is not None
    return _worker(name)


@dataclass(frozen=True)
class _Renderer:
    """Everything that is known after the fit; `rows` makes the rows of the set from it, batch by batch."""

    detected: _Detected
    raw: Fit
    training: int
    morphable: MorphableModel
    cleaning: Cleaning
    transfer: PoseTransfer
    samples: Int[Tensor, " samples"]
    albedo: Float[Tensor, " samples"]
    partners: Int[Tensor, " n"]

    @classmethod
    def learn(cls, detected: _Detected, raw: Fit, training: int, morphable: MorphableModel, seed: int) -> "_Renderer":
        """Learn from the training faces what the rows of all faces need."""
        known = raw[:training]
        samples = surface_samples(morphable)
        some = torch.linspace(0, training - 1, min(training, _ALBEDO_FACES)).long()
        parts = [_observed(detected, raw, rows, morphable, samples) for rows in some.split(_BATCH)]
        views = Observations(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))
        yaw = matrix_to_euler(raw.rotation)[0]
        generator = torch.Generator().manual_seed(seed)
        partners = torch.cat(
            [
                draw_partners(yaw[:training], generator),
                draw_partners(yaw[training:], generator) + training,
            ]
        )
        return cls(
            detected,
            raw,
            training,
            morphable,
            Cleaning.fit(known, morphable),
            PoseTransfer.fit(known),
            samples,
            mean_albedo(views),
            partners,
        )

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the prepared set, in the order of the photos."""
        usual_pitch = matrix_to_euler(self.raw[: self.training].rotation)[1].median()
        for batch in torch.arange(len(self.raw)).split(_BATCH):
            own = self.raw[batch]
            images = self.detected.crops[batch]
            vertices, normals, mask = _geometry(own, self.morphable)
            turned = self.transfer.turn(own, self.raw.rotation[self.partners[batch]])
            _, turned_normals, turned_mask = _geometry(turned, self.morphable)
            seen = observe(images, normals, vertices, own, self.morphable, self.samples)
            identity, expression = (values.clamp(-MAX_COEFFICIENT, MAX_COEFFICIENT) for values in self.cleaning(own))
            yaw, pitch, _ = matrix_to_euler(own.rotation)
            columns = {
                "image": images,
                "normals": _as_bytes(normals),
                "mask": (255 * mask[:, 0]).to(torch.uint8),
                "rotation": own.rotation.flatten(1),
                "identity": identity,
                "expression": expression,
                "light": solve_light(seen, self.albedo),
                "frontal": (yaw.abs() <= FRONTAL_ANGLE) & ((pitch - usual_pitch).abs() <= FRONTAL_ANGLE),
                "turned_rotation": turned.rotation.flatten(1),
                "turned_normals": _as_bytes(turned_normals),
                "turned_mask": (255 * turned_mask[:, 0]).to(torch.uint8),
                "quality": own.error,
            }
            arrays = {name: values.numpy() for name, values in columns.items()}
            for place, number in enumerate(batch.tolist()):
                split = "train" if number < self.training else "test"
                row = {name: values[place] for name, values in arrays.items()}
                yield {"name": self.detected.names[number], "split": split, **row}


def draw_partners(yaw: Float[Tensor, " n"], generator: torch.Generator) -> Int[Tensor, " n"]:
    """For each face another face whose pose it will be shown in; rare poses are drawn more often than they occur.

    Args:
        yaw: In radians.
        generator: Source of the draw.
    """
    if len(yaw) == 0:
        return torch.zeros(0, dtype=torch.long)
    bins = ((yaw + math.pi / 3) / math.radians(4)).long().clamp(0, 29)
    density = torch.bincount(bins, minlength=30).clamp_min(max(1, len(yaw) // 200))
    return torch.multinomial(density[bins].float() ** -_RARITY, len(yaw), replacement=True, generator=generator)


def _observed(detected: _Detected, raw: Fit, rows: Tensor, morphable: MorphableModel, samples: Tensor) -> Observations:
    vertices, normals, _ = _geometry(raw[rows], morphable)
    return observe(detected.crops[rows], normals, vertices, raw[rows], morphable, samples)


def _geometry(fit: Fit, morphable: MorphableModel) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices, normals and mask of fitted faces."""
    vertices = morphable.vertices(fit.identity, fit.expression)
    normals, mask = render_geometry(
        vertices, morphable.triangles, morphable.face, fit.rotation, fit.scale, fit.shift, close=CLOSE
    )
    # One sample a pixel picks single triangles of the rims of eyes and lips; the mean of 3x3 pixels shows the surface.
    return vertices, normalize(avg_pool2d(normals, 3, stride=1, padding=1), dim=1) * mask, mask


def _as_bytes(normals: Float[Tensor, "n 3 height width"]) -> Tensor:
    """round(127 n), channels last, as int8."""
    return (127 * normals).round().to(torch.int8).movedim(1, -1)
