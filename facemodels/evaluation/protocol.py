"""The paper's test of the codes on any labelled faces: Table 1, and what each code tells of every factor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.errors import InputError
from facemodels.evaluation.coders import Array, NamedCode, encode_pictures
from facemodels.evaluation.disentanglement import Disentanglement, disentanglement
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.labelled import LabelledFaces
from facemodels.evaluation.probes import FOLDS, PAPER, TableOne, table_one

_BLOCKS = ("identity", "expression", "pose", "light")
_PERSONS = 18  # in the leakage matrix: to tell many persons from each other takes long
_MATRIX_FOLDS = 3


@dataclass(frozen=True)
class Protocol:
    """What codes tell on labelled faces.

    Attributes:
        faces: Number of faces.
        table: Table 1.
        leakage: Every factor from every code, of at most 18 persons; None where fewer than two factors are known.
        skipped: Rows of the table of labels that are left out, by the reason.
        rare: By factor, faces whose label occurs less often than there are folds, and does not count.
    """

    faces: int
    table: TableOne
    leakage: Disentanglement | None
    skipped: dict[str, int]
    rare: dict[str, int]

    def lines(self) -> list[str]:
        """The figures as lines of text, beside the paper's."""
        lines = [f"faces{self.faces:>34}"]
        lines += [f"left out, {reason}{count:>{29 - len(reason)}}" for reason, count in self.skipped.items()]
        lines += [f"{count} faces with a rare label of {name} do not count" for name, count in self.rare.items()]
        for name, row in self.table.rows.items():
            paper = f"; the paper, on Multi-PIE: {PAPER[name]:.2%}" if name in PAPER else ""
            lines.append(
                f"{name:<30}{row.accuracy:>9.2%} ± {row.deviation:.2%}, chance {row.chance:.1%},"
                f" {row.classes} labels, {len(row.folds)} folds{paper}"
            )
        if self.leakage is not None:
            lines += [
                "told by each code, above chance:",
                " " * 16 + "".join(f"{one:>12}" for one in self.leakage.factors),
            ]
            rows = zip(self.leakage.codes, self.leakage.leakage, strict=True)
            lines += [f"{code:<16}" + "".join(f"{cell:>12.0%}" for cell in row) for code, row in rows]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "faces": self.faces,
            "table": self.table.to_dict(),
            "leakage": None if self.leakage is None else self.leakage.to_dict(),
            "skipped": self.skipped,
            "rare": self.rare,
        }


def run_protocol(
    model: NeuroTensorialAutoencoder,
    faces: LabelledFaces,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    progress: bool = False,
) -> Protocol:
    """Encode labelled faces and probe the codes.

    Args:
        model: A trained network, which has seen none of the labels.
        faces: From `facemodels.evaluation.labelled`.
        folds: Of Table 1.
        seed: Fixes all folds.
        progress: Show a progress bar while faces are encoded.

    Raises:
        InputError: No factor of Table 1 has two labels that occur as often as there are folds.
    """
    labels, rare = _without_rare(faces, folds)
    if not any(name in labels for name in PAPER):
        raise InputError(
            f"nothing to probe: of {', '.join(PAPER)} none has two labels that {folds} faces or more have;"
            " give more faces, or take fewer folds"
        )
    codes = encode_pictures({name: NamedCode(model, name) for name in _BLOCKS}, faces.pictures, progress=progress)
    return Protocol(
        faces=len(faces),
        table=table_one(codes, labels, folds=folds, seed=seed),
        leakage=_leakage(codes, {name: labels[name] for name in _BLOCKS if name in labels}, seed),
        skipped=faces.skipped,
        rare=rare,
    )


def _without_rare(faces: LabelledFaces, folds: int) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Labels that occur in every fold, the others emptied; and how many of these there are."""
    kept, rare = {}, {}
    for name, values in faces.labels.items():
        found, counts = np.unique(values[values != ""], return_counts=True)
        often = np.isin(values, found[counts >= folds])
        lost = int((~often & (values != "")).sum())
        if lost:
            rare[name] = lost
        if (counts >= folds).sum() > 1:
            kept[name] = np.where(often, values, "")
    return kept, rare


def _leakage(codes: Mapping[str, Array], labels: Mapping[str, np.ndarray], seed: int) -> Disentanglement | None:
    known = np.all([values != "" for values in labels.values()], axis=0)
    if "identity" in labels:
        persons = np.unique(labels["identity"][known])
        known &= np.isin(labels["identity"], persons[spread(len(persons), _PERSONS).numpy()])
    some = {name: values[known] for name, values in labels.items()}
    enough = {name: values for name, values in some.items() if _fewest(values) >= _MATRIX_FOLDS}
    if len(enough) < 2:
        return None
    return disentanglement({name: code[known] for name, code in codes.items()}, enough, folds=_MATRIX_FOLDS, seed=seed)


def _fewest(values: np.ndarray) -> int:
    """How often the rarest label occurs; 0 if there is but one."""
    counts = np.unique(values, return_counts=True)[1]
    return int(counts.min()) if len(counts) > 1 else 0
