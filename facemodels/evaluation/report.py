"""All measures of a network on a prepared set, as figures and as lines to read."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import PreparedSet
from facemodels.errors import InputError
from facemodels.evaluation.measures import measure
from facemodels.evaluation.swaps import PixelJudge, SwapRates, swap_rates

_MEASURES = {
    "psnr": ("PSNR of the picture", "dB"),
    "psnr_face": ("PSNR of the face stream in the face", "dB"),
    "pose_degrees": ("pose error", "degrees"),
    "normals_degrees": ("normals error", "degrees"),
    "turned_normals_degrees": ("normals error in another pose", "degrees"),
    "mask_iou": ("mask, intersection over union", ""),
    "leak": ("leak of the surroundings into the face", ""),
}


@dataclass(frozen=True)
class Report:
    """Measures of a network.

    Attributes:
        faces: Number of held-out faces.
        measures: See `facemodels.evaluation.measures.measure`.
        label: The label swaps were judged by, or None.
        swaps: How swaps follow the donor's label, or None.
    """

    faces: int
    measures: dict[str, float]
    label: str | None
    swaps: SwapRates | None

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = [f"held-out faces                          {self.faces}"]
        for name, (title, unit) in _MEASURES.items():
            lines.append(f"{title:<40}{self.measures[name]:.3g} {unit}".rstrip())
        if self.swaps is not None:
            lines += [
                f"pairs with different {self.label:<19}{self.swaps.pairs}",
                f"expression swap shows the donor's label {self.swaps.expression:.3f}",
                f"identity swap shows the donor's label   {self.swaps.identity:.3f}",
                f"reconstruction shows the own label      {self.swaps.reconstruction:.3f}",
                f"photo shows the own label               {self.swaps.photos:.3f}",
            ]
        return lines


def evaluate(
    model: NeuroTensorialAutoencoder,
    prepared: PreparedSet,
    labels: Path | None = None,
    label: str = "Smiling",
) -> Report:
    """Measure a network on the held-out split of a prepared set.

    Args:
        model: A trained network.
        prepared: The set; its split "test" is measured, its split "train" teaches the judge of swaps.
        labels: CSV with a column `file` (the names of the set) and a column of 0 and 1 named `label`.
        label: A label of expression.

    Raises:
        InputError: The split is empty, or the labels do not fit the set.
    """
    faces = prepared.faces("test")
    measures = measure(model, faces)
    swaps = None
    if labels is not None:
        table = read_labels(labels, label)
        judge = PixelJudge(prepared.faces("train").pictures(), labels_of(prepared, "train", table, labels))
        swaps = swap_rates(model, faces.pictures(), labels_of(prepared, "test", table, labels), judge)
    return Report(len(faces), measures, label if labels is not None else None, swaps)


def read_labels(path: Path, label: str) -> dict[str, bool]:
    """One label of every file named in a CSV.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    try:
        with Path(path).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} cannot be read as CSV ({error}); give a table with the columns file and {label}"
        ) from error
    missing = [name for name in ("file", label) if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{path} has no column {' or '.join(missing)}; give a table with the columns file and {label}")
    return {row["file"]: row[label].strip() in ("1", "true", "True") for row in rows}


def labels_of(prepared: PreparedSet, split: str, table: dict[str, bool], path: Path) -> np.ndarray:
    """The labels of a split's faces, in its order.

    Raises:
        InputError: A face has no label.
    """
    names = prepared.split(split)["name"]
    missing = [name for name in names if name not in table]
    if missing:
        raise InputError(f"{path} has no label for {len(missing)} faces of {prepared.path}, the first is {missing[0]}")
    return np.array([table[name] for name in names])
