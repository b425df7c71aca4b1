"""Faces with labels: a prepared set whose columns hold them, or any photos through a CSV.

Who owns Multi-PIE, KDEF or RaFD writes one table and can run the paper's own protocol; labels are never trained on.

    path,identity,expression,pose
    faces/001_neutral.png,001,neutral,0
    faces/001_smile.png,001,smile,0

`path` is the photo, relative to the table or absolute. Every other column is a factor; "identity", "expression",
"pose" and "light" are those that the protocol knows. An empty cell says that the label is not known. Table 1 is then

    faces = read_labelled("labels.csv")
    table_one(encode_pictures(named_codes(model), faces.pictures), faces.labels)
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from facemodels.config import SIZE
from facemodels.data.alignment import check_size, read_image
from facemodels.data.dataset import PreparedSet
from facemodels.data.detection import find_face
from facemodels.data.pool import ordered_map
from facemodels.errors import InputError
from facemodels.evaluation.coders import pictures_of
from facemodels.evaluation.tables import read_table
from facemodels.fitting.landmarks import LandmarkDetector, MediaPipeDetector
from facemodels.progress import progress_bar

_COLUMNS = {
    "identity": ("person",),
    "expression": ("emotion", "expression_index"),
    "pose": ("pose_index",),
    "light": ("light_index",),
}
"""Where synthetic sets hold the labels of factors; the first column that there is counts."""

_PATHS = ("path", "file")


@dataclass(frozen=True)
class LabelledFaces:
    """Aligned faces and what is known of them.

    Attributes:
        names: What the faces are called.
        pictures: Aligned crops as bytes.
        labels: By factor, one text a face; empty where it is not known.
        skipped: Rows of the table that are left out, by the reason.
    """

    names: tuple[str, ...]
    pictures: UInt8[Tensor, "n 3 h w"]
    labels: dict[str, np.ndarray]
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Sequence[int] | np.ndarray | Tensor) -> "LabelledFaces":
        """Some of the faces."""
        chosen = np.arange(len(self))[np.asarray(rows)]
        return LabelledFaces(
            tuple(self.names[row] for row in chosen),
            self.pictures[torch.from_numpy(chosen)],
            {name: values[chosen] for name, values in self.labels.items()},
            self.skipped,
        )

    def known(self, *factors: str) -> Bool[np.ndarray, " n"]:
        """Which faces have a label of each of these factors.

        Raises:
            ValueError: There is no such factor.
        """
        missing = [name for name in factors if name not in self.labels]
        if missing:
            raise ValueError(
                f"LabelledFaces.known: there are no labels of {', '.join(missing)}, only of {', '.join(self.labels)}"
            )
        return np.all([np.ones(len(self), bool), *(self.labels[name] != "" for name in factors)], axis=0)


def labels_of(prepared: PreparedSet, split: str = "all") -> LabelledFaces:
    """The faces of a prepared set whose columns hold labels, such as FaceFactors.

    Args:
        prepared: The set.
        split: "train", "test" or "all".

    Raises:
        InputError: The set holds no labels, or no faces of the split.
    """
    rows = prepared.split(split)
    if len(rows) == 0:
        raise InputError(f"{prepared.path} holds no faces of the split {split!r}; prepare it from more photos")
    found = {
        factor: next((name for name in names if name in rows.column_names), None) for factor, names in _COLUMNS.items()
    }
    labels = {factor: np.array([str(value) for value in rows[name][:]]) for factor, name in found.items() if name}
    if not labels:
        raise InputError(f"{prepared.path} holds photos without labels; give a table of them, with --labels")
    return LabelledFaces(tuple(rows["name"][:]), pictures_of(rows), labels, {})


def read_labelled(
    table: str | Path,
    detector: LandmarkDetector | None = None,
    *,
    size: int = SIZE,
    aligned: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> LabelledFaces:
    """Read, find and align the faces of a table of photos.

    Photos that are missing, damaged, without a face, or without any label are left out and counted in `skipped`.

    Args:
        table: CSV, see the module.
        detector: Finds landmarks; by default MediaPipe.
        size: Side of the crops in pixels, as the network takes them.
        aligned: The photos are crops of that size already, framed as this package frames them; nothing is looked for.
        workers: Processes that look for faces; a detector that is given looks in this process.
        progress: Show a progress bar.

    Raises:
        InputError: The table cannot be read, has no column of paths or of labels, or not one of its photos can be used.
    """
    check_size("read_labelled", size)
    table = Path(table)
    paths, labels = _read_table(table)
    labelled = np.any([values != "" for values in labels.values()], axis=0)
    skipped = Counter({"no label": int((~labelled).sum())} if not labelled.all() else {})
    rows = np.flatnonzero(labelled)
    files = [str(table.parent / paths[row]) for row in rows]
    crops, kept = [], []
    bar = progress_bar(total=len(files), description="look for faces", disable=not progress)
    with bar:
        for row, crop in zip(rows, _crops(files, detector, size, aligned, workers), strict=True):
            bar.update()
            if isinstance(crop, str):
                skipped[crop] += 1
            else:
                kept.append(row)
                crops.append(torch.tensor(crop).permute(2, 0, 1))
    if not crops:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        raise InputError(f"{table} gives no face to look at ({reasons}); paths count from the folder of the table")
    return LabelledFaces(
        tuple(paths[row] for row in kept),
        torch.stack(crops),
        {name: values[kept] for name, values in labels.items()},
        dict(skipped),
    )


def _read_table(table: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Paths, and labels by column."""
    wanted = "the columns path, identity, expression, pose"
    rows = read_table(table, wanted)
    if not rows:
        raise InputError(f"{table} has no rows; give a table with {wanted}")
    columns = [name for name in rows[0] if name]
    where = next((name for name in _PATHS if name in columns), None)
    factors = [name for name in columns if name not in _PATHS]
    if where is None or not factors:
        raise InputError(
            f"{table} has the columns {', '.join(columns)}; it needs one called path and one or more with labels,"
            " such as identity, expression and pose"
        )
    labels = {name: np.array([row[name].strip() for row in rows]) for name in factors}
    return [row[where].strip() for row in rows], {
        name: values for name, values in labels.items() if (values != "").any()
    }


def _crops(
    files: Sequence[str], detector: LandmarkDetector | None, size: int, aligned: bool, workers: int
) -> Iterator[np.ndarray | str]:
    """A crop of each file, or why there is none."""
    if aligned:
        return map(partial(_aligned, size=size), files)
    if detector is not None:
        return map(partial(_find, detector=detector, size=size), files)
    return ordered_map(_finder, (size,), files, workers)


def _finder(size: int) -> partial[np.ndarray | str]:
    return partial(_find, detector=MediaPipeDetector(), size=size)


def _find(file: str, detector: LandmarkDetector, size: int) -> np.ndarray | str:
    image = _read(file)
    if isinstance(image, str):
        return image
    found = find_face(image, detector, size)
    return "no face found" if found is None else found.crop


def _aligned(file: str, size: int) -> np.ndarray | str:
    image = _read(file)
    if isinstance(image, str) or image.shape[:2] == (size, size):
        return image
    return f"not a crop of {size}x{size} pixels"


def _read(file: str) -> np.ndarray | str:
    if not Path(file).is_file():
        return "no such file"
    try:
        return np.ascontiguousarray(read_image(file))
    except InputError:
        return "no image, or damaged"
