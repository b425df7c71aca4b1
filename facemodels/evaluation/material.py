"""What the sections of the report are made of: faces, labels, pairs to edit, and the codes of us and the baselines."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines import AdversarialAutoencoder, LabelledFactors, PrincipalComponents, UnlabelledFactors
from facemodels.baselines.linear import COMPONENTS
from facemodels.baselines.morphable_edit import MORPHABLE_EDITABLE, fits_of, morphable_edit
from facemodels.data.dataset import Faces, PreparedSet, faces_from_rows
from facemodels.data.factors import FaceFactors, exchange
from facemodels.data.synthetic import check_synthetic, draw, factors_of
from facemodels.errors import InputError
from facemodels.evaluation.coders import Array, NamedCode, encode_pictures, pictures_of
from facemodels.evaluation.exchange import donors, spread
from facemodels.evaluation.measures import Codings, batches, encode_all
from facemodels.evaluation.persons import person_numbers
from facemodels.evaluation.readers import PersonReader, Readers, teach_reader
from facemodels.evaluation.tables import read_table
from facemodels.morphable import MorphableModel
from facemodels.networks.verification import Verifier
from facemodels.rendering import matrix_to_euler

FACTORS = ("identity", "expression", "pose", "light")
"""The factors whose labels the report knows, each with the code of ours that should hold it."""

OURS, Z0, PCA, TENSORFACES, UNNAMED, FITS = (
    "this network",
    "Z0, adversarial autoencoder",
    "principal components",
    "TensorFaces",
    "Wang et al. 2017",
    "3DMM",
)

SHOWN = 6
"""Faces in a picture."""

_FILES = ("file", "path")
_PERSON_COLUMNS = {"identity": "person", "expression": "emotion"}
_GRID_COLUMNS = {"expression": "expression_index", "pose": "pose_index", "light": "light_index"}
_CANDIDATES = 200  # among which the pairs of the pictures are found
_DECODED = 300  # faces whose every decoded picture is measured
_LEARNT = 4000  # faces that linear baselines learn from
_TAUGHT = 1500  # faces that the judge of edits learns from
_FACTORED = 1000  # faces that the factorization without labels learns from
_AHEAD = math.radians(20)


@dataclass(frozen=True)
class Pair:
    """Faces to edit, and the faces whose factors they take.

    Attributes:
        sources, donors: Rows among the faces.
    """

    sources: list[int]
    donors: list[int]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.sources, self.donors, strict=True)


@dataclass
class Material:
    """All that the sections need; what several of them use is made once, when the first of them asks.

    Attributes:
        model: The network.
        prepared: The set.
        split: Which faces were taken: "test", "train" or "all".
        chosen: Their rows in the set's table.
        labels: What is known of the faces, by factor, "" where it is not; factors without labels are missing.
        teacher: The set whose split "train" the baselines learn from, or None.
        z0: The trained adversarial autoencoder, or None.
        verifier: A network that tells persons apart and that ours was not trained with, or None.
        seed: Fixes pairs and folds.
        frontal: Whether only near-frontal faces were taken; baselines then learn from such, too.
        table, label: What `gather` took the labels from, if not from the set.
    """

    model: NeuroTensorialAutoencoder
    prepared: PreparedSet
    split: str
    chosen: list[int]
    labels: Mapping[str, np.ndarray]
    teacher: PreparedSet | None = None
    z0: AdversarialAutoencoder | None = None
    verifier: Verifier | None = None
    seed: int = 0
    frontal: bool = False
    table: Path | None = None
    label: str = "Smiling"

    @cached_property
    def rows(self) -> datasets.Dataset:
        """The rows of the set's table."""
        return self.prepared.table.select(self.chosen)

    @cached_property
    def faces(self) -> Faces:
        """The faces as tensors."""
        return faces_from_rows(self.rows)

    @cached_property
    def images(self) -> Float[Tensor, "n 3 h w"]:
        """Their pictures in [0, 1]."""
        return self.faces.pictures()

    @cached_property
    def sample(self) -> list[int]:
        """Rows of faces, evenly spread, for what decodes each of them: at most 300."""
        return spread(len(self.chosen), _DECODED).tolist()

    @cached_property
    def codings(self) -> Codings:
        """The faces of the sample encoded and decoded by our network."""
        return encode_all(self.model, self.faces[torch.tensor(self.sample)])

    @cached_property
    def synthetic(self) -> bool:
        """Whether the exact factors of the faces are known, so that every edit can be rendered."""
        try:
            check_synthetic(self.prepared)
        except InputError:
            return False
        return True

    @cached_property
    def persons(self) -> np.ndarray:
        """Who is who, by number; faces whose person is not known are persons of their own."""
        return person_numbers(self.labels.get("identity", np.full(len(self.chosen), "")))

    @property
    def exact_split(self) -> str:
        """The split whose faces are compared with their exact factors: that of the report, of "all" the split test."""
        held_out = "test" in self.prepared.table["split"][:]
        return ("test" if held_out else "train") if self.split == "all" else self.split

    @cached_property
    def ours(self) -> dict[str, Array]:
        """The codes of our network by factor, of all faces."""
        return encode_pictures({name: NamedCode(self.model, name) for name in FACTORS}, self.faces.image)

    @cached_property
    def coders(self) -> dict[str, AdversarialAutoencoder | PrincipalComponents]:
        """The baselines that hold everything in one code."""
        coders: dict[str, AdversarialAutoencoder | PrincipalComponents] = {}
        if self.z0 is not None:
            coders[Z0] = self.z0
        if self.teacher is not None:
            lesson = self._lesson(_LEARNT)
            coders[PCA] = PrincipalComponents(lesson, min(COMPONENTS, len(lesson)))
        return coders

    @cached_property
    def singles(self) -> dict[str, Array]:
        """Their codes of all faces."""
        return encode_pictures(self.coders, self.faces.image)

    def decoded(self, rows: Sequence[int]) -> dict[str, Float[Tensor, "n 3 h w"]]:
        """What they decode from their codes of some faces."""
        return {name: _decode(coder, torch.from_numpy(self.singles[name][rows])) for name, coder in self.coders.items()}

    @cached_property
    def labelled_factors(self) -> dict[str, Array]:
        """The codes of TensorFaces by factor; empty if the teacher has no faces in all combinations of labels.

        Of photos it learns from the persons who are seen in all combinations of the other factors that the table of
        labels has, near-frontal ones if the table says nothing of poses.
        """
        if self.teacher is None:
            return {}
        rows = self.lesson
        if set(_GRID_COLUMNS.values()) <= set(rows.column_names):
            labels = {name: np.asarray(rows[column][:]) for name, column in grid_columns().items()}
        elif self.table is not None:
            try:
                known = _from_table(rows, self.table, self.label)
            except InputError:  # of faces of another set than the teacher
                return {}
            if "pose" not in known:
                ahead = np.asarray(rows["frontal"][:])
                known = {name: np.where(ahead, values, "") for name, values in known.items()}
            chosen, labels = whole_grid(known)
            if not chosen:
                return {}
            rows = rows.select(chosen)
        else:
            return {}
        return LabelledFactors(pictures_of(rows).float() / 255, labels).encode(self.images)

    @cached_property
    def unlabelled_factors(self) -> list[Array]:
        """The codes of the factorization of Wang et al., which name nothing; empty without a teacher."""
        return [] if self.teacher is None else UnlabelledFactors(self._lesson(_FACTORED)).encode(self.images)

    @cached_property
    def lesson(self) -> datasets.Dataset:
        """The rows that baselines learn from: the teacher's split "train".

        Raises:
            InputError: There is no teacher, or none of its faces is near-frontal where only such are asked for.
        """
        if self.teacher is None:
            raise InputError("no faces are known that baselines could learn from; name a set with --taught-by")
        rows = self.teacher.split("train")
        return rows.select(_ahead(rows)) if self.frontal else rows

    def _lesson(self, most: int) -> Float[Tensor, "n 3 h w"]:
        rows = self.lesson
        return pictures_of(rows.select(spread(len(rows), most).tolist())).float() / 255

    @cached_property
    def reader(self) -> Readers:
        """A judge of edited pictures, taught by faces of the teacher; a verifier, if there is one, tells persons.

        Raises:
            InputError: There is no teacher.
        """
        if self.teacher is None:
            raise InputError("no faces are known that could teach a judge of edits; name a set with --taught-by")
        rows = self.teacher.split("train")
        taught = teach_reader(faces_from_rows(rows.select(spread(len(rows), _TAUGHT).tolist())))
        return Readers(taught, *([] if self.verifier is None else [PersonReader(self.verifier)]))

    def morphable_edits(self, pair: Pair, factor: str) -> Float[Tensor, "n 3 h w"] | None:
        """The same edits by the morphable model's fits alone; None of a factor that it cannot exchange."""
        if factor not in MORPHABLE_EDITABLE:
            return None
        faces, donors = (self.faces[torch.tensor(rows)] for rows in (pair.sources, pair.donors))
        return edit_by_fits(faces, donors, factor, self.prepared.morphable)

    @cached_property
    def angles(self) -> tuple[Tensor, Tensor, Tensor]:
        """Yaw, pitch and roll of the faces, in radians."""
        return matrix_to_euler(self.faces.rotation.unflatten(1, (3, 3)))

    def often(self, rarest: int) -> dict[str, np.ndarray]:
        """Labels that so many faces or more show, the others emptied; factors left with one label are missing."""
        kept = {}
        for name, values in self.labels.items():
            values = values.astype(str)
            found, counts = np.unique(values[values != ""], return_counts=True)
            if (counts >= rarest).sum() > 1:
                kept[name] = np.where(np.isin(values, found[counts >= rarest]), values, "")
        return kept

    def pairs(self, factor: str, count: int = SHOWN) -> Pair:
        """Faces that look ahead, evenly spread, each with that of many from which it differs most in a factor.

        By the fitted coefficients, angles or lights, not by how well the edit comes out. Donors look ahead, too, unless
        their pose is taken; they are not the same person where persons are known, and not taken twice, while there are
        such.

        Args:
            factor: "expression", "pose", "light" or "identity".
            count: Number of pairs, at most.
        """
        yaw, pitch, _ = self.angles
        features = torch.stack([yaw, pitch], 1) if factor == "pose" else getattr(self.faces, factor)
        ahead = ((yaw.abs() < _AHEAD) & (pitch.abs() < _AHEAD)).nonzero().flatten()
        ahead = ahead if len(ahead) else torch.arange(len(yaw))
        sources = ahead[spread(len(ahead), count)].tolist()
        among = torch.arange(len(yaw)) if factor == "pose" else ahead
        candidates = among[spread(len(among), _CANDIDATES)].tolist()
        chosen: list[int] = []
        for source in sources:
            free = [one for one in candidates if one not in (*chosen, source)] or candidates
            free = [one for one in free if self.persons[one] != self.persons[source]] or free
            distance = (features[free] - features[source]).norm(dim=1)
            chosen.append(free[int(distance.argmax())])
        return Pair(sources, chosen)

    def random_pairs(self, most: int) -> Pair:
        """Evenly spread faces, and each one's neighbour in a random ring."""
        rows = spread(len(self.chosen), most)
        return Pair(rows.tolist(), rows[donors(len(rows), self.seed)].tolist())

    def truth(self, pair: Pair, factor: str) -> Float[Tensor, "n 3 h w"] | None:
        """What edits of synthetic faces should show, rendered from the exact factors; None of photos."""
        if not self.synthetic:
            return None
        return draw([exchange(self.factors[a], self.factors[b], factor) for a, b in pair])[0]

    @cached_property
    def factors(self) -> list[FaceFactors]:
        """The exact factors of synthetic faces."""
        names = self.prepared.split(self.split)["name"][:]
        by_name = dict(zip(names, factors_of(self.prepared, self.split), strict=True))
        return [by_name[name] for name in self.rows["name"][:]]


def edit_by_fits(faces: Faces, donors: Faces, factor: str, morphable: MorphableModel) -> Float[Tensor, "n 3 h w"]:
    """The paper's baseline on prepared faces: the fit of a face takes a factor of another fit.

    Raises:
        ValueError: A morphable model cannot exchange the factor.
    """
    return morphable_edit(fits_of(faces, morphable), fits_of(donors, morphable), factor, morphable)  # type: ignore[arg-type]


@torch.no_grad()
def _decode(coder: AdversarialAutoencoder | PrincipalComponents, codes: Tensor) -> Tensor:
    return torch.cat([coder.decode(codes[rows]) for rows in batches(len(codes))])


def whole_grid(labels: Mapping[str, np.ndarray]) -> tuple[list[int], dict[str, np.ndarray]]:
    """Faces of the persons who are seen in every combination of the other factors' labels, and their labels as numbers.

    Args:
        labels: By factor, of every face; "" is a label that is not known, and leaves the face out.

    Returns:
        Rows of the faces, and the number of each one's label by factor; nothing if no two persons are seen in all
        combinations, or persons and another factor are not among the labels.

    Example:
        >>> whole_grid({"identity": np.array(list("aabbcc")), "expression": np.array(list("xyxyxx"))})
        ([0, 1, 2, 3], {'identity': array([0, 0, 1, 1]), 'expression': array([0, 1, 0, 1])})
    """
    if "identity" not in labels or len(labels) < 2:
        return [], {}
    known = np.flatnonzero(np.all([values != "" for values in labels.values()], axis=0))
    others = list(zip(*(values[known].tolist() for name, values in labels.items() if name != "identity"), strict=True))
    persons = labels["identity"][known].tolist()
    seen: dict[str, set[tuple[str, ...]]] = {}
    for person, combination in zip(persons, others, strict=True):
        seen.setdefault(person, set()).add(combination)
    combinations = math.prod(len(set(column)) for column in zip(*others, strict=True))
    complete = {person for person, shown in seen.items() if len(shown) == combinations}
    rows = [int(row) for row, person in zip(known, persons, strict=True) if person in complete]
    if len(complete) < 2:
        return [], {}
    return rows, {name: np.unique(values[rows], return_inverse=True)[1] for name, values in labels.items()}


def _ahead(rows: datasets.Dataset) -> list[int]:
    """Those of some rows that show near-frontal faces.

    Raises:
        InputError: None does.
    """
    found = np.flatnonzero(np.asarray(rows["frontal"][:], bool)).tolist()
    if not found:
        raise InputError("none of the faces is near-frontal; take them all, without --frontal")
    return found


def grid_columns() -> dict[str, str]:
    """Columns of FaceFactors by factor."""
    return {"identity": "person", **_GRID_COLUMNS}


def gather(
    model: NeuroTensorialAutoencoder,
    prepared: PreparedSet,
    *,
    split: str = "test",
    limit: int | None = None,
    labels: Path | None = None,
    label: str = "Smiling",
    seed: int = 0,
    frontal: bool = False,
) -> Material:
    """The faces of a split, at most `limit` of them, evenly spread, and what is known of them.

    Labels come from a table with a column `file` or `path` (the names of the set, or files of these names) and any of
    `identity`, `expression`, `pose` and `light`; where it has no column `expression`, that named `label` stands in for
    it. An empty cell, or a face without a row, is a label that is not known. Without a table they come from the columns
    of synthetic sets. `frontal` takes near-frontal faces only.

    Raises:
        InputError: The split is empty, the size is not the network's, or the table does not fit the set.
    """
    prepared.require_size(model.config.size)
    numbers = [k for k, value in enumerate(prepared.table["split"][:]) if split in (value, "all")]
    if not numbers:
        raise InputError(f"{prepared.path} holds no faces of the split {split!r}; name another with --split")
    if frontal:
        numbers = [numbers[k] for k in _ahead(prepared.table.select(numbers))]
    chosen = [numbers[k] for k in spread(len(numbers), limit).tolist()]
    rows = prepared.table.select(chosen)
    known = _from_columns(rows, prepared.info) if labels is None else _from_table(rows, labels, label)
    return Material(model, prepared, split, chosen, known, seed=seed, frontal=frontal, table=labels, label=label)


def _from_columns(rows: datasets.Dataset, info: Mapping) -> dict[str, np.ndarray]:
    columns = set(rows.column_names)
    known = {name: np.asarray(rows[column][:]) for name, column in _PERSON_COLUMNS.items() if column in columns}
    if "pose_index" in columns:
        poses = [f"{yaw}°" if not pitch else f"{yaw}°, {pitch}° down" for yaw, pitch in info["factors"]["poses"]]
        known["pose"] = np.array(poses)[np.asarray(rows["pose_index"][:])]
    if "light_index" in columns:
        known["light"] = np.array(list(info["factors"]["lights"]))[np.asarray(rows["light_index"][:])]
    return known


def _from_table(rows: datasets.Dataset, path: Path, label: str) -> dict[str, np.ndarray]:
    lines = read_table(path, "a column file and labels")
    columns = set(lines[0]) if lines else set()
    key = next((name for name in _FILES if name in columns), None)
    wanted = {name: name for name in FACTORS if name in columns}
    if "expression" not in wanted and label in columns:
        wanted["expression"] = label
    if key is None or not wanted:
        raise InputError(
            f"{path} needs a column file or path and at least one of {', '.join((*FACTORS, label))};"
            f" it has {', '.join(sorted(filter(None, columns))) or 'none'}"
        )
    table = {line[key]: line for line in lines}
    short = {Path(name).name: line for name, line in table.items()}
    found = [table.get(name) or short.get(Path(name).name) for name in rows["name"][:]]
    if not any(found):
        raise InputError(
            f"{path} names none of the faces of the set; its column {key} must hold their names,"
            f" such as {rows[0]['name']}"
        )
    return {
        factor: np.array(["" if line is None else line[column].strip() for line in found])
        for factor, column in wanted.items()
    }
