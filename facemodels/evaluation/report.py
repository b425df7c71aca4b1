"""All measures of a network on a prepared set, as figures and as lines to read, beside what we set out to reach."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.errors import InputError
from facemodels.evaluation.appearance import turn_of_appearance
from facemodels.evaluation.coders import as_floats, picture_batches
from facemodels.evaluation.exchange import spread
from facemodels.evaluation.gates import gates
from facemodels.evaluation.measures import Codings, encode_all, reconstruction, without_context
from facemodels.evaluation.persons import identity_kept, person_in_codes, person_numbers
from facemodels.evaluation.pose_swaps import cycle, in_other_pose, pose_shares
from facemodels.evaluation.swaps import EdgeJudge, Judge, PixelJudge, swap_rates
from facemodels.evaluation.tables import read_table
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
    "face_follows": Line("swap of the whole face shows the donor's label"),
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
        persons: Pairs of faces of one person.
        by_code: Share of the other poses that were read from a photo in that pose; the others are rotations.
        verifier: The network that judged whether edits keep the person, or None.
    """

    faces: int
    measures: dict[str, float]
    label: str | None = None
    pairs: int = 0
    persons: int = 0
    by_code: float = 0.0
    verifier: str | None = None

    def lines(self) -> list[str]:
        """The report as lines of text, with what a network trained on photos should reach."""
        lines = [_line("held-out faces", str(self.faces))]
        if self.label is not None:
            lines.append(_line("pairs", f"{self.pairs} of different {self.label}"))
        if self.persons:
            lines.append(_line("pairs of one person", str(self.persons)))
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

    @classmethod
    def load(cls, path: Path) -> "Report":
        """A report that `facemodels evaluate --out` wrote.

        Raises:
            InputError: The file is missing or holds something else.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{path} is no report of `facemodels evaluate --out`: {error}") from error

    def facts(self) -> dict[str, Any]:
        """The measures as a model card shows them: arguments of `facemodels.model_card.model_card`."""
        titles, last = {}, ""
        for name, line in LINES.items():
            last = line.title if not line.title.startswith("...") else last
            title = line.title.replace("...", f"{last},")
            titles[name] = f"{title} ({line.unit})" if line.unit else title
        return {
            "measures": {titles[name]: value for name, value in self.measures.items()},
            "measured_on": f"{self.faces} faces never seen",
        }


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
    split: str = "test",
    teacher: PreparedSet | None = None,
    judge: Judge | None = None,
    verifier: Verifier | None = None,
    limit: int | None = None,
) -> Report:
    """Measure a network on faces that it has not seen.

    Persons and labels come from a table, or, of synthetic sets, from their columns `person` and `emotion` (of which
    "happy" counts).

    Args:
        model: A trained network.
        prepared: The set.
        labels: CSV with a column `file` (the names of the sets), a column of 0 and 1 named `label`, and, if persons are
            known, a column `identity` that tells who it is.
        label: A label of expression.
        split: What is measured: "test", "train", or "all" of a set that the network was not trained on.
        teacher: The set whose split "train" teaches the judge of swaps, see `teacher_of`.
        judge: `teach_judge` of that, if it is at hand.
        verifier: Judges whether edits keep the person; not one that the network was trained with.
        limit: Measure at most so many faces, evenly spread over the split; persons are told apart among all.

    Raises:
        InputError: The split is empty, the labels or the size do not fit the set, or it would teach its own judge.
    """
    prepared.require_size(model.config.size)
    teacher = teacher_of(prepared, split, teacher)
    rows = prepared.split(split)
    if len(rows) == 0:
        raise InputError(f"{prepared.path} holds no faces of the split {split!r}; prepare it from more photos")
    known = Labels.of(prepared, split, labels, label)
    if judge is None and known.shown is not None and teacher is not None:
        judge = teach_judge(teacher, labels, label)
    chosen = spread(len(rows), limit).tolist()
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
    persons = None if known.persons is None else known.persons[chosen]
    if known.persons is not None:
        # few faces have another of the same person, so all count
        codes = codings.codes if len(chosen) == len(rows) else _codes(model, rows, faces.image.device)
        measures |= person_in_codes(codes, known.persons)
    if verifier is not None:
        measures |= identity_kept(model, faces, codings, verifier, [] if persons is None else persons.tolist())
    pairs = 0
    if judge is not None and known.shown is not None and _both(known.shown[chosen]):
        swaps = swap_rates(model, faces.pictures(), codings, known.shown[chosen], judge)
        pairs = swaps.pairs
        measures |= {
            "expression_follows": swaps.expression,
            "identity_follows": swaps.identity,
            "face_follows": swaps.face,
            "own_label_decoded": swaps.reconstruction,
            "own_label_in_photo": swaps.photos,
        }
    return Report(
        len(faces),
        {name: measures[name] for name in LINES if name in measures},
        label=known.label if pairs else None,
        pairs=pairs,
        persons=_pairs(known.persons) if "person_auc" in measures else 0,
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
    """What is known of the faces of a split, in its order; None where it is not.

    Attributes:
        label: Name of the label.
        shown: The label.
        persons: Who is who; faces whose person the table leaves empty are persons of their own.
    """

    label: str
    shown: np.ndarray | None
    persons: np.ndarray | None

    @classmethod
    def of(cls, prepared: PreparedSet, split: str, path: Path | None, label: str) -> "Labels":
        """Labels from a CSV, or from the columns of a synthetic set.

        Raises:
            InputError: The file cannot be read, lacks a column, or lacks the label of a face.
        """
        rows = prepared.split(split)
        if path is None:
            columns = rows.column_names
            shown = np.array(rows["emotion"][:]) == "happy" if "emotion" in columns else None
            return cls("emotion", shown, np.array(rows["person"][:]) if "person" in columns else None)
        table, names = read_labels(path, label), rows["name"][:]
        missing = [name for name in names if not table.get(name, {}).get(label, "").strip()]
        if missing:
            raise InputError(
                f"{path} has no label for {len(missing)} faces of {prepared.path}, the first is {missing[0]}"
            )
        persons = None
        if "identity" in next(iter(table.values())):
            persons = person_numbers([table[name]["identity"].strip() for name in names])
        return cls(label, np.array([table[name][label].strip() in ("1", "true", "True") for name in names]), persons)


def teacher_of(prepared: PreparedSet, split: str, teacher: PreparedSet | None = None) -> PreparedSet | None:
    """The set whose split "train" teaches judges and baselines: by default the measured one, but for "test" alone.

    What teaches is never among what is measured.

    Args:
        prepared: The set that is measured.
        split: What is measured of it: "test", "train" or "all".
        teacher: The set that was named, or None.

    Returns:
        The set; None where there is none.

    Raises:
        InputError: The set itself was named, though its split "train" is measured.
    """
    if split == "test":
        return teacher or prepared
    if teacher is not None and teacher.path.resolve() == prepared.path.resolve():
        raise InputError(
            f"{teacher.path} cannot teach what its own split {split!r} is measured by; name another set with"
            " --taught-by, or measure the split test"
        )
    return teacher


def teach_judge(prepared: PreparedSet, path: Path | None, label: str) -> Judge | None:
    """A judge of swaps that has seen at most 4000 faces of the split "train"; None if they do not show both labels.

    Of photos with a table of labels it looks at pixels, of rendered faces, which come in all poses, at edges.
    """
    rows = prepared.split("train")
    shown = Labels.of(prepared, "train", path, label).shown
    chosen = spread(len(rows), _TAUGHT).tolist()
    if shown is None or not _both(shown[chosen]):
        return None
    kind = PixelJudge if path else EdgeJudge
    return kind(faces_from_rows(rows.select(chosen)).pictures(), shown[chosen])


def read_labels(path: Path, label: str) -> dict[str, dict[str, str]]:
    """The rows of a CSV by its column `file`; it has a column `label`, too.

    Raises:
        InputError: The file cannot be read or lacks a column.
    """
    wanted = f"the columns file and {label}"
    rows = read_table(path, wanted)
    missing = [name for name in ("file", label) if not rows or name not in rows[0]]
    if missing:
        raise InputError(f"{path} has no column {' or '.join(missing)}; give a table with {wanted}")
    return {row["file"]: row for row in rows}


def _both(labels: np.ndarray) -> bool:
    return bool(labels.any() and not labels.all())


def _partner_poses(
    model: NeuroTensorialAutoencoder, rows: datasets.Dataset, partners: list[int], faces: Faces
) -> Float[Tensor, "n 9"]:
    """Pose codes of the photos whose poses faces are also shown in; the rotation itself where there is none."""
    pose = faces.turned_rotation.clone()
    known = [number for number, partner in enumerate(partners) if partner >= 0]
    if known:
        pose[known] = _codes(model, rows.select([partners[number] for number in known]), pose.device).pose
    return pose


@torch.no_grad()
def _codes(model: NeuroTensorialAutoencoder, rows: datasets.Dataset, device: torch.device) -> Codes:
    """Codes of the photos of a set, without their context."""
    return Codes.cat(without_context(model.encode(as_floats(part.to(device)))) for part in picture_batches(rows))


def _pairs(persons: np.ndarray | None) -> int:
    """Pairs of faces of one person."""
    counts = np.unique([] if persons is None else persons, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _line(title: str, text: str) -> str:
    return f"{title:<46}{text}".rstrip()
