"""All measures of a network on a prepared set, as figures and as lines to read, beside what we set out to reach."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.errors import InputError
from facemodels.evaluation.appearance import turn_of_appearance
from facemodels.evaluation.gates import gates
from facemodels.evaluation.measures import Codings, batches, encode_all, reconstruction
from facemodels.evaluation.persons import identity_kept, person_in_codes
from facemodels.evaluation.pose_swaps import cycle, in_other_pose, pose_shares
from facemodels.evaluation.swaps import PixelJudge, SwapRates, swap_rates
from facemodels.networks.verification import Verifier

_SWAPPED = 300  # faces whose codes are exchanged one by one
_TAUGHT = 4000  # faces that the judge of swaps learns from


@dataclass(frozen=True)
class Line:
    """A measure as the report names it.

    Attributes:
        title: What it is.
        unit: Its unit, or empty.
        target: What a network trained for two hours on a CPU should reach on photos, such as ">= 23.5", or empty.
    """

    title: str
    unit: str = ""
    target: str = ""


LINES = {
    "psnr": Line("PSNR of the picture", "dB", ">= 23.5"),
    "psnr_face": Line("PSNR of the face stream in the face", "dB"),
    "pose_degrees": Line("pose error", "degrees", "<= 4.5"),
    "normals_degrees": Line("normals error", "degrees", "<= 8"),
    "mask_iou": Line("mask, intersection over union", target=">= 0.95"),
    "person_auc": Line("persons told apart by the identity code, AUC", target=">= 0.78"),
    "person_auc_of_expression": Line("... by the expression code"),
    "expression_follows": Line("expression swap shows the donor's label", target=">= 0.8"),
    "identity_follows": Line("identity swap shows the donor's label", target="<= 0.15"),
    "own_label_decoded": Line("reconstruction shows the own label"),
    "own_label_in_photo": Line("photo shows the own label"),
    "share_of_pose": Line("pose swap: share of the pose code", target=">= 0.88"),
    "share_of_identity": Line("... of the identity code"),
    "share_of_expression": Line("... of the expression code"),
    "turned_normals_degrees": Line("normals error in another pose", "degrees", "<= 9"),
    "turned_mask_iou": Line("face mask in another pose, overlap", target=">= 0.94"),
    "turned_psnr_face": Line("PSNR of the face in another pose", "dB"),
    "turn_of_appearance": Line("turn of the appearance, of the turn asked", target=">= 0.75"),
    "cycle_pose_degrees": Line("pose of a pose swap, read again", "degrees", "<= 11"),
    "unedited_pose_degrees": Line("... without the swap", "degrees"),
    "leak": Line("leak of the surroundings into the face", target="<= 0.04"),
    "background_knows_face": Line("background knows the face"),
    "moved_by_expression": Line("moved by the expression code"),
    "moved_by_pose": Line("moved by the pose code"),
    "moved_by_light": Line("moved by the light code"),
    "moved_by_identity": Line("moved by the identity code"),
    "kept_by_expression": Line("person kept by an expression swap"),
    "kept_by_pose": Line("person kept by a pose swap"),
    "kept_by_light": Line("person kept by a light swap"),
    "taken_by_identity": Line("person taken over by an identity swap"),
}
"""Every measure that a report may hold, in its order."""


@dataclass(frozen=True)
class Report:
    """Measures of a network.

    Attributes:
        faces: Number of held-out faces.
        measures: By the names of `LINES`; those that could not be taken are left out.
        label: The label swaps were judged by, or None.
        pairs: Pairs whose labels differ.
        by_code: Share of the other poses that were read from a photo in that pose; the others are rotations.
        verifier: The network that judged whether edits keep the person, or None.
    """

    faces: int
    measures: dict[str, float]
    label: str | None = None
    pairs: int = 0
    by_code: float = 0.0
    verifier: str | None = None

    def lines(self) -> list[str]:
        """The report as lines of text, with what a network trained on photos should reach."""
        lines = [_line("held-out faces", str(self.faces))]
        if self.label is not None:
            lines.append(_line("pairs", f"{self.pairs} of different {self.label}"))
        lines.append(_line("other poses read from photos", f"{self.by_code:.0%}, the others are the fit's rotations"))
        if self.verifier is not None:
            lines.append(_line("persons judged by", self.verifier))
        for name, line in LINES.items():
            if name in self.measures:
                value = self.measures[name]
                verdict = f"{line.target:>8}  {'reached' if reaches(value, line.target) else 'missed'}"
                text = f"{value:>8.3g} {line.unit:<8}" + (verdict if line.target else "")
                lines.append(_line(line.title, text.rstrip()))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Report":
        """A report from `to_dict`'s result."""
        return cls(**values)


def reaches(value: float, target: str) -> bool:
    """Whether a value reaches a target; without one, every value does.

    Example:
        >>> reaches(1.4, "<= 2"), reaches(0.7, ">= 0.73"), reaches(3.0, ""), reaches(float("nan"), "<= 2")
        (True, False, True, False)
    """
    if not target:
        return True
    sign, limit = target.split()
    return value <= float(limit) if sign == "<=" else value >= float(limit)


def evaluate(
    model: NeuroTensorialAutoencoder,
    prepared: PreparedSet,
    labels: Path | None = None,
    label: str = "Smiling",
    *,
    verifier: Verifier | None = None,
    limit: int | None = None,
) -> Report:
    """Measure a network on the held-out split of a prepared set.

    Persons and labels come from a table, or, of synthetic sets, from their columns `person` and `emotion` (of which
    "happy" counts).

    Args:
        model: A trained network.
        prepared: The set; its split "test" is measured, its split "train" teaches the judge of swaps.
        labels: CSV with a column `file` (the names of the set), a column of 0 and 1 named `label`, and, if persons are
            known, a column `identity` that tells who it is.
        label: A label of expression.
        verifier: Judges whether edits keep the person; not one that the network was trained with.
        limit: Measure at most so many faces, evenly spread over the split.

    Raises:
        InputError: The split is empty, or the labels do not fit the set.
    """
    rows = prepared.split("test")
    if len(rows) == 0:
        raise InputError(f"{prepared.path} holds no faces of the split 'test'; prepare it from more photos")
    chosen = _spread(len(rows), limit)
    faces, names = faces_from_rows(rows.select(chosen)), rows["name"][:]
    place = {name: number for number, name in enumerate(names)}
    partners = [place.get(name, -1) for name in rows.select(chosen)["turned_partner"][:]]
    codings = encode_all(model, faces)
    measures = {
        **measure(model, faces, codings, _partner_poses(model, rows, partners, faces)),
        **pose_shares(model, faces, codings),
        **turn_of_appearance(model, faces, codings, prepared.morphable),
        **cycle(model, codings),
    }
    table = Labels.of(prepared, labels, label)
    persons, shown = (column[chosen] if column is not None else None for column in (table.persons, table.test))
    if persons is not None:
        measures |= person_in_codes(codings, persons)
    if verifier is not None:
        measures |= identity_kept(model, faces, codings, verifier, [] if persons is None else persons.tolist())
    pairs = 0
    if shown is not None and table.train is not None and all(_both(some) for some in (shown, table.train)):
        swaps = _swaps(model, prepared, faces, codings, shown, table.train)
        pairs = swaps.pairs
        measures |= {
            "expression_follows": swaps.expression,
            "identity_follows": swaps.identity,
            "own_label_decoded": swaps.reconstruction,
            "own_label_in_photo": swaps.photos,
        }
    return Report(
        len(faces),
        {name: measures[name] for name in LINES if name in measures},
        label=table.label if pairs else None,
        pairs=pairs,
        by_code=float(np.mean([number >= 0 for number in partners])),
        verifier=None if verifier is None else verifier.facts.name,
    )


def measure(
    model: NeuroTensorialAutoencoder,
    faces: Faces,
    codings: Codings | None = None,
    pose: Float[Tensor, "n 9"] | None = None,
) -> dict[str, float]:
    """The measures that need neither labels nor more than these faces: `reconstruction`, `in_other_pose`, `gates`.

    Args:
        model: A trained network.
        faces: Held-out faces.
        codings: `encode_all(model, faces)`, if it is at hand.
        pose: Codes of the other pose, see `in_other_pose`.
    """
    codings = codings or encode_all(model, faces)
    return {
        **reconstruction(faces, codings),
        **in_other_pose(model, faces, codings, pose),
        **gates(model, faces, codings, _SWAPPED),
    }


@dataclass(frozen=True)
class Labels:
    """What is known of the faces of a set, in the order of its splits; None where it is not.

    Attributes:
        label: Name of the label.
        train: The label of the split "train".
        test: The label of the split "test".
        persons: Who is who in the split "test".
    """

    label: str
    train: np.ndarray | None
    test: np.ndarray | None
    persons: np.ndarray | None

    @classmethod
    def of(cls, prepared: PreparedSet, path: Path | None, label: str) -> "Labels":
        """Labels from a CSV, or from the columns of a synthetic set.

        Raises:
            InputError: The file cannot be read, lacks a column, or lacks a face.
        """
        columns = prepared.table.column_names
        if path is None:
            train, test, persons = None, None, None
            if "emotion" in columns:
                train, test = (np.array(prepared.split(name)["emotion"][:]) == "happy" for name in ("train", "test"))
            if "person" in columns:
                persons = np.array(prepared.split("test")["person"][:])
            return cls("emotion (happy or not)", train, test, persons)
        table = read_labels(path, label)
        shown = {name: row[label].strip() in ("1", "true", "True") for name, row in table.items()}
        train, test = (labels_of(prepared, name, shown, path) for name in ("train", "test"))
        persons = None
        if "identity" in next(iter(table.values())):
            who = [table[name]["identity"] for name in prepared.split("test")["name"][:]]
            persons = np.unique(who, return_inverse=True)[1]
        return cls(label, train, test, persons)


def read_labels(path: Path, label: str) -> dict[str, dict[str, str]]:
    """The rows of a CSV by its column `file`; it has a column `label`, too.

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
    return {row["file"]: row for row in rows}


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


def _both(labels: np.ndarray) -> bool:
    return bool(labels.any() and not labels.all())


def _spread(count: int, limit: int | None) -> list[int]:
    """At most `limit` of so many numbers, evenly spread."""
    return np.linspace(0, count - 1, min(count, limit or count)).round().astype(int).tolist()


@torch.no_grad()
def _partner_poses(
    model: NeuroTensorialAutoencoder, rows: Any, partners: list[int], faces: Faces
) -> Float[Tensor, "n 9"]:
    """Pose codes of the photos whose poses faces are also shown in; the rotation itself where there is none."""
    pose = faces.turned_rotation.clone()
    known = [number for number, partner in enumerate(partners) if partner >= 0]
    for part in batches(len(known)):
        some = rows.select([partners[number] for number in known[part]])
        photos = np.stack([np.asarray(row["image"]) for row in some.select_columns(["image"])])
        images = torch.from_numpy(photos).movedim(3, 1).contiguous().to(faces.image.device).float() / 255
        pose[known[part]] = model.encode(images).pose
    return pose


def _swaps(
    model: NeuroTensorialAutoencoder,
    prepared: PreparedSet,
    faces: Faces,
    codings: Codings,
    shown: np.ndarray,
    taught: np.ndarray,
) -> SwapRates:
    rows = prepared.split("train")
    chosen = _spread(len(rows), _TAUGHT)
    judge = PixelJudge(faces_from_rows(rows.select(chosen)).pictures(), taught[chosen])
    return swap_rates(model, faces.pictures(), codings, shown, judge)


def _line(title: str, text: str) -> str:
    return f"{title:<46}{text}".rstrip()
