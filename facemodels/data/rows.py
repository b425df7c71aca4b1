"""From fits to the rows of a prepared set: what many faces teach, and what is rendered of each.

Statistics (the dependence on the pose, the mean albedo, the principal axes) come from training faces alone, at most
20,000 of them, evenly chosen, so that memory does not depend on the number of photos.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from facemodels.config import SIZE
from facemodels.data.workspace import Workspace
from facemodels.fitting.carry import carry, mirrored_vertices
from facemodels.fitting.lighting import (
    Observations,
    light_error,
    mean_albedo,
    observe,
    solve_light,
    surface_samples,
)
from facemodels.fitting.mirror import mirror_points
from facemodels.fitting.quality import coefficient_norm, mask_agreement
from facemodels.fitting.shape import Fit
from facemodels.fitting.targets import Cleaning, PoseTransfer
from facemodels.fitting.temporal import smooth
from facemodels.morphable import MorphableModel
from facemodels.rendering import Surface, matrix_to_euler, render_surface

FRONTAL_ANGLE = math.radians(15)
"""Yaw, and pitch about the usual one, within which a face counts as near-frontal; the paper gives no angle."""

MAX_COEFFICIENT = 3.0
"""Targets are clamped to so many standard deviations: a rare misfit must not pull a network."""

CLOSE = 7
"""Holes of the mask up to so many pixels of a crop of 64 are closed: models have no eyes and no inside of the mouth."""

_BATCH = 64
_LEARNT_FACES = 20_000
_ALBEDO_FACES = 1000
_RARITY = 0.7  # exponent of 1 / density with which rare poses are drawn as partners


@dataclass(frozen=True)
class Batch:
    """Faces of which rows are to be made: crops of any size, points and fits in pixels of crops of 64."""

    names: Sequence[str]
    splits: Sequence[str]
    images: UInt8[np.ndarray, "n size size 3"]
    points: Float[np.ndarray, "n 478 3"]
    fit: Fit
    others: dict[str, np.ndarray]  # further columns

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice) -> "Batch":
        others = {name: values[rows] for name, values in self.others.items()}
        pictures = (self.images[rows], self.points[rows], self.fit[rows])
        return Batch(self.names[rows], self.splits[rows], *pictures, others)


@dataclass(frozen=True)
class Poses:
    """Poses in which other faces can be shown, and the names of the faces that have them."""

    rotation: Float[Tensor, "poses 3 3"]
    names: Sequence[str]


@dataclass(frozen=True)
class Learned:
    """What the training faces teach about all; `rows` makes rows from it.

    Attributes:
        morphable: The model that was fitted.
        cleaning: Makes targets from raw fits, and holds the set's own model.
        transfer: Shows faces in other poses.
        samples: Vertices at which the light is read.
        albedo: Mean albedo there.
        usual_pitch: Median pitch in radians.
        poses: For each split, what other poses are drawn from.
        mirrored: For each vertex, the one on the other side of the face.
    """

    morphable: MorphableModel
    cleaning: Cleaning
    transfer: PoseTransfer
    samples: Int[Tensor, " samples"]
    albedo: Float[Tensor, " samples"]
    usual_pitch: float
    poses: dict[str, Poses]
    mirrored: Int[Tensor, " vertices"]

    def rows(self, faces: Batch, generator: torch.Generator) -> Iterator[dict[str, Any]]:
        """The rows of the prepared set.

        Args:
            faces: In their order.
            generator: Draws the other poses.
        """
        for start in range(0, len(faces), _BATCH):
            batch = faces[start : start + _BATCH]
            columns = {**self._columns(batch, self._partners(batch.splits, generator)), **batch.others}
            for place, (name, split) in enumerate(zip(batch.names, batch.splits, strict=True)):
                yield {"name": name, "split": split, **{key: values[place] for key, values in columns.items()}}

    def _partners(self, splits: Sequence[str], generator: torch.Generator) -> Poses:
        rotation = torch.empty(len(splits), 3, 3)
        names = [""] * len(splits)
        for split, poses in self.poses.items():
            rows = [row for row, value in enumerate(splits) if value == split]
            if rows:
                drawn = draw_partners(matrix_to_euler(poses.rotation)[0], len(rows), generator)
                rotation[rows] = poses.rotation[drawn]
                for row, number in zip(rows, drawn, strict=True):
                    names[row] = poses.names[int(number)]
        return Poses(rotation, names)

    def _columns(self, batch: Batch, partners: Poses) -> dict[str, Any]:
        images = torch.from_numpy(batch.images)
        size = images.shape[1]
        fit = batch.fit.enlarged(size / SIZE)
        turned_fit = self.transfer.turn(batch.fit, partners.rotation).enlarged(size / SIZE)
        vertices, own = surface(fit, self.morphable, size)
        _, turned = surface(turned_fit, self.morphable, size)
        seen = observe(images, own.normals, vertices, fit, self.morphable, self.samples)
        light = solve_light(seen, self.albedo)
        carried, weight = carry(
            images.movedim(3, 1) / 255,
            own,
            turned,
            fit.rotation,
            turned_fit.rotation,
            light,
            self.morphable.triangles,
            self.mirrored,
            reach=closing(size) // 2,
        )
        identity, expression = (values.clamp(-MAX_COEFFICIENT, MAX_COEFFICIENT) for values in self.cleaning(batch.fit))
        yaw, pitch, _ = matrix_to_euler(fit.rotation)
        columns = {
            "image": images,
            "normals": _as_bytes(own.normals),
            "mask": _as_grey(own.mask),
            "rotation": fit.rotation.flatten(1),
            "identity": identity,
            "expression": expression,
            "light": light,
            "frontal": (yaw.abs() <= FRONTAL_ANGLE) & ((pitch - self.usual_pitch).abs() <= FRONTAL_ANGLE),
            "turned_rotation": turned_fit.rotation.flatten(1),
            "turned_normals": _as_bytes(turned.normals),
            "turned_mask": _as_grey(turned.mask),
            "turned_image": (255 * carried).round().to(torch.uint8).movedim(1, -1),
            "turned_weight": _as_grey(weight),
            "quality": batch.fit.error,
            "coefficient_norm": coefficient_norm(fit),
            "mask_agreement": mask_agreement(own.mask, batch.points * (size / SIZE)),
            "light_error": light_error(seen, self.albedo, light),
        }
        return {**{name: values.numpy() for name, values in columns.items()}, "turned_partner": partners.names}


def learn(work: Workspace, counts: Sequence[int], training: int, morphable: MorphableModel, strength: float) -> Learned:
    """Learn from the training faces what the rows of all faces need.

    Args:
        work: With a finished first stage.
        counts: Faces that are used, by shard.
        training: How many of them, the first ones, are for training.
        morphable: The model that was fitted.
        strength: Of smoothing over time, 0 for none.

    Raises:
        InputError: There are too few faces.
    """
    total = sum(counts)
    learnt, names = _gather(work, counts, _spread(0, training, _LEARNT_FACES), strength)
    poses = {"train": Poses(learnt.rotation, names)}
    if total > training:
        others, names = _gather(work, counts, _spread(training, total, _LEARNT_FACES), strength)
        poses["test"] = Poses(others.rotation, names)
    transfer, cleaning = PoseTransfer.fit(learnt), Cleaning.fit(learnt, morphable)
    samples = surface_samples(morphable)
    views = _observed(work, counts, _spread(0, training, _ALBEDO_FACES), morphable, samples, strength)
    pitch = float(matrix_to_euler(learnt.rotation)[1].median())
    mirrored = mirrored_vertices(morphable)
    return Learned(morphable, cleaning, transfer, samples, mean_albedo(views), pitch, poses, mirrored)


def batch_of_shard(work: Workspace, number: int, first: int, training: int, strength: float, mirror: bool) -> Batch:
    """The usable faces of a shard; with `mirror`, those for training a second time, mirrored.

    Args:
        work: With a finished first stage.
        number: Of the shard.
        first: How many usable faces come before.
        training: How many usable faces of the whole set, the first ones, are for training.
        strength: Of smoothing over time, 0 for none.
        mirror: Whether to add mirrored faces.
    """
    shard = work.load(number)
    kept = shard.kept
    fit, mirrored = smoothed_fits(work, number, strength)
    others = {
        "disagreement": shard.disagreement[kept].astype(np.float32),
        "faces_in_photo": shard.faces[kept],
        "photo_turned": shard.turn[kept],
        "mirrored": np.zeros(len(kept), bool),
    }
    splits = ["train" if first + place < training else "test" for place in range(len(kept))]
    names = [shard.names[row] for row in kept]
    batch = Batch(names, splits, shard.crops[kept], shard.points[kept], fit, others)
    twice = splits.count("train")
    if not mirror or twice == 0 or mirrored is None:
        return batch
    train = batch[:twice]
    again = {**train.others, "mirrored": np.ones(twice, bool)}
    return Batch(
        [*names, *train.names],
        [*splits, *train.splits],
        np.concatenate([batch.images, train.images[:, :, ::-1]]),
        np.concatenate([batch.points, mirror_points(train.points, SIZE)]),
        Fit.concatenate([fit, mirrored[:twice]]),
        {name: np.concatenate([values, again[name]]) for name, values in others.items()},
    )


def smoothed_fits(work: Workspace, number: int, strength: float) -> tuple[Fit, Fit | None]:
    """Fits of the usable faces of a shard, smoothed over time together with its neighbours, and the mirrored ones."""
    kept, fit, mirrored = work.load_fits(number)
    if strength == 0:
        rows = torch.from_numpy(kept)
        return fit[rows], None if mirrored is None else mirrored[rows]
    near = [work.load(k) for k in range(max(0, number - 1), min(work.shards, number + 2))]
    before = len(near[0].kept) if number > 0 else 0
    own = slice(before, before + len(kept))
    frames = np.concatenate([shard.position[shard.kept] for shard in near]).tolist()
    clips = [_clip(shard.names[row]) for shard in near for row in shard.kept]
    transforms = np.concatenate([shard.transforms[shard.kept] for shard in near])

    def smoothed(fits: list[Fit], mirror: bool) -> Fit:
        together = Fit.concatenate([part[torch.from_numpy(shard.kept)] for part, shard in zip(fits, near, strict=True)])
        moves = torch.from_numpy(_mirrored_transforms(transforms) if mirror else transforms)
        return smooth(together, frames, clips, moves, strength)[own]

    plain = smoothed([shard.fit for shard in near], mirror=False)
    if mirrored is None:
        return plain, None
    return plain, smoothed([shard.mirrored for shard in near if shard.mirrored is not None], mirror=True)


def _mirrored_transforms(transforms: np.ndarray) -> np.ndarray:
    """From the mirrored photo (mirrored at x = 0) to the mirrored crop."""
    mirrored = transforms * np.array([[1, -1, -1], [-1, 1, 1]])
    mirrored[:, 0, 2] += SIZE
    return mirrored


def draw_partners(yaw: Float[Tensor, " poses"], count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Draw poses in which faces will be shown, rare ones more often than they occur.

    Args:
        yaw: Of the poses to draw from, in radians.
        count: How many to draw.
        generator: Source of the draw.
    """
    bins = ((yaw + math.pi / 3) / math.radians(4)).long().clamp(0, 29)
    density = torch.bincount(bins, minlength=30).clamp_min(max(1, len(yaw) // 200))
    return torch.multinomial(density[bins].float() ** -_RARITY, count, replacement=True, generator=generator)


def surface(fit: Fit, morphable: MorphableModel, size: int) -> tuple[Float[Tensor, "n vertices 3"], Surface]:
    """Vertices of fitted faces, and what their cameras see of them in crops of a size."""
    vertices = morphable.vertices(fit.identity, fit.expression)
    camera = fit.rotation, fit.scale, fit.shift
    seen = render_surface(vertices, morphable.triangles, morphable.face, *camera, size, close=closing(size))
    # One sample a pixel picks single triangles of the rims of eyes and lips; the mean of 3x3 pixels shows the surface.
    normals = normalize(avg_pool2d(seen.normals, 3, stride=1, padding=1), dim=1) * seen.mask
    return vertices, replace(seen, normals=normals)


def closing(size: int) -> int:
    """`CLOSE` in pixels of a crop of another size, odd."""
    return CLOSE * size // SIZE | 1


def _spread(start: int, stop: int, most: int) -> np.ndarray:
    """At most so many whole numbers from `start` to `stop`, evenly spread."""
    return np.linspace(start, stop - 1, min(stop - start, most)).astype(int)


def _by_shard(counts: Sequence[int], wanted: np.ndarray) -> Iterator[tuple[int, Tensor]]:
    """Shards, and which of their usable faces are wanted, from numbers counted over all shards."""
    first = 0
    for number, count in enumerate(counts):
        rows = wanted[(wanted >= first) & (wanted < first + count)] - first
        if len(rows):
            yield number, torch.from_numpy(rows)
        first += count


def _gather(work: Workspace, counts: Sequence[int], wanted: np.ndarray, strength: float) -> tuple[Fit, list[str]]:
    """Fits and names of some of the usable faces."""
    fits: list[Fit] = []
    names: list[str] = []
    for number, rows in _by_shard(counts, wanted):
        fits.append(smoothed_fits(work, number, strength)[0][rows])
        known = work.kept_names(number)
        names += [known[row] for row in rows.tolist()]
    return Fit.concatenate(fits), names


def _observed(
    work: Workspace,
    counts: Sequence[int],
    wanted: np.ndarray,
    morphable: MorphableModel,
    samples: Tensor,
    strength: float,
) -> Observations:
    parts: list[Observations] = []
    for number, rows in _by_shard(counts, wanted):
        shard = work.load(number)
        images = torch.from_numpy(shard.crops[shard.kept])
        size = images.shape[1]
        fit = smoothed_fits(work, number, strength)[0].enlarged(size / SIZE)
        for some in rows.split(_BATCH):
            vertices, seen = surface(fit[some], morphable, size)
            parts.append(observe(images[some], seen.normals, vertices, fit[some], morphable, samples))
    return Observations(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _clip(name: str) -> str:
    """Of a frame, its video; of other photos, their folder."""
    return name.rpartition("#" if "#" in name else "/")[0]


def _as_bytes(normals: Float[Tensor, "n 3 height width"]) -> Tensor:
    """round(127 n), channels last, as int8."""
    return (127 * normals).round().to(torch.int8).movedim(1, -1)


def _as_grey(values: Float[Tensor, "n 1 height width"]) -> Tensor:
    """round(255 v), without the channel."""
    return (255 * values[:, 0]).round().to(torch.uint8)
