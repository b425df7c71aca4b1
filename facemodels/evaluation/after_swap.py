"""Does a swap bring the donor's factor, and that alone? Edited pictures read by a judge that knows no codes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.evaluation.measures import angle_between
from facemodels.evaluation.readers import READABLE, Reader, Reading

Pictures = Float[Tensor, "n 3 h w"]
Editor = Callable[[Pictures, Pictures, str], Pictures]
"""Gives faces a factor of others: `lambda source, target, factor: transfer(model, source, target, factor).image`."""


@dataclass(frozen=True)
class AfterSwap:
    """What swaps of each factor change, as a reader sees it.

    Attributes:
        swapped: Factors that were swapped.
        read: Factors that were read.
        moved: How far the read factor goes the way from the source's to the donor's when a factor is swapped, shape
            `(swapped, read)`: 1 on the diagonal says that the swap brings all of the donor's factor, 0 elsewhere that
            it brings nothing else. It is the slope of the change by the edit (against the reconstruction without one)
            on the change that was asked for, over all pairs and components.
        pose_degrees: Mean angle between the pose read after a pose swap and the one read of what it should show; NaN
            where pose is not swapped or not read.
        unedited_pose_degrees: The same of the reconstructions without an edit.
        found: Share of pairs in which the reader found all faces; only these count.
        pairs: Number of pairs.
    """

    swapped: tuple[str, ...]
    read: tuple[str, ...]
    moved: Float[np.ndarray, "swapped read"]
    pose_degrees: float
    unedited_pose_degrees: float
    found: float
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        degrees = {
            name: None if np.isnan(value) else value
            for name, value in (
                ("pose_degrees", self.pose_degrees),
                ("unedited_pose_degrees", self.unedited_pose_degrees),
            )
        }
        return {
            "swapped": list(self.swapped),
            "read": list(self.read),
            "moved": [[None if np.isnan(cell) else cell for cell in row] for row in self.moved.tolist()],
            **degrees,
            "found": self.found,
            "pairs": self.pairs,
        }


def after_swap(
    edit: Editor,
    source: Pictures,
    target: Pictures,
    reader: Reader,
    swapped: Sequence[str] = READABLE,
    truth: Mapping[str, Pictures] | None = None,
) -> AfterSwap:
    """Swap each factor between pairs of faces, and read all factors of the results.

    Args:
        edit: Edits pictures; with an empty factor it gives the reconstruction without an edit.
        source: Aligned faces in [0, 1].
        target: As many donors.
        reader: Reads edits, reconstructions and photos; see `facemodels.evaluation.readers`.
        swapped: Factors to swap.
        truth: By factor, what the swap should show, where that is known (`facemodels.evaluation.fidelity.true_edits`).
            Otherwise the donor's photo is taken, whose reading a reader that mistakes pose for expression spoils.

    Raises:
        ValueError: There are no pairs, or not as many donors as sources.
    """
    if len(source) == 0 or len(source) != len(target):
        raise ValueError(f"after_swap: needs as many donors as sources, got {len(source)} and {len(target)}")
    photo, donor, plain = (reader.read(pictures) for pictures in (source, target, edit(source, target, "")))
    wanted = {name: reader.read(truth[name]) if truth and name in truth else donor for name in READABLE}
    edited = {name: reader.read(edit(source, target, name)) for name in swapped}
    everything = [photo, plain, *wanted.values(), *edited.values()]
    found = torch.stack([reading.found for reading in everything]).all(0)
    read = tuple(name for name in READABLE if name in photo.values)

    def change(after: Reading, before: Reading, name: str) -> Tensor:
        return (after.values[name] - before.values[name])[found].double()

    asked = {name: change(wanted[name], photo, name) for name in read}
    moved = [[slope(change(edited[row], plain, name), asked[name]) for name in read] for row in swapped]

    def degrees(reading: Reading | None) -> float:
        if reading is None or "pose" not in read or not found.any():
            return float("nan")
        poses = (one.values["pose"][found].unflatten(1, (3, 3)) for one in (reading, wanted["pose"]))
        return float(angle_between(*poses).mean())

    return AfterSwap(
        swapped=tuple(swapped),
        read=read,
        moved=np.array(moved),
        pose_degrees=degrees(edited.get("pose")),
        unedited_pose_degrees=degrees(plain if "pose" in edited else None),
        found=float(found.float().mean()),
        pairs=len(source),
    )


def slope(change: Float[Tensor, "n k"], asked: Float[Tensor, "n k"]) -> float:
    """Slope of changes on those that were asked for, through the origin; NaN where nothing was asked for."""
    whole = float(asked.square().sum())
    return float((change * asked).sum()) / whole if whole > 0 else float("nan")
