"""What codes tell by a linear classifier: the paper's Table 1, and the same on persons that the classifier never saw.

The paper trains a linear SVM on 90 % of the encoded faces of Multi-PIE and classifies the other 10 %, ten times over.
What it leaves open is settled here: features are brought to mean 0 and deviation 1 (both taken from the faces that the
classifier learns from); folds are drawn at random, with all labels in equal shares; C is 1; of many labels, every two
are told apart and the most votes win, as in LIBSVM. One label against all the others is an option: it says less of
labels that lie in a row, such as yaws, of which no plane parts the middle one from both sides.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from facemodels.evaluation.coders import Array

FOLDS = 10
"""As in the paper: nine tenths to learn from, one tenth to classify."""

PAPER = {"identity": 0.8385, "expression": 0.8607, "pose": 0.9573}
"""Table 1 of the paper, on Multi-PIE: identity told from z_id, expression from z_exp, pose from z_p."""

Labels = Sequence[Any] | np.ndarray
Against = Literal["one", "rest"]
_Fold = tuple[np.ndarray, np.ndarray]  # rows to learn from, and to try


@dataclass(frozen=True)
class Probe:
    """How well labels are told from codes.

    Attributes:
        accuracy: Share of faces classified rightly, mean over the folds.
        deviation: Standard deviation of that share over the folds.
        chance: Share of the commonest label: what a classifier that sees nothing reaches.
        folds: Share of each fold.
        faces: Number of faces.
        classes: Number of labels.
    """

    accuracy: float
    deviation: float
    chance: float
    folds: tuple[float, ...]
    faces: int
    classes: int

    @property
    def above_chance(self) -> float:
        """0 where nothing is told, 1 where everything is: (accuracy - chance) / (1 - chance)."""
        return (self.accuracy - self.chance) / (1 - self.chance)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"folds": list(self.folds), "above_chance": self.above_chance}


def probe(
    codes: Array,
    labels: Labels,
    *,
    persons: Labels | None = None,
    folds: int = FOLDS,
    c: float = 1.0,
    against: Against = "one",
    seed: int = 0,
) -> Probe:
    """How well a linear SVM tells labels from codes, by cross-validation.

    The SVM has a squared hinge loss (LIBLINEAR's, in its primal form: 10,000 codes of 80 numbers with 54 labels take
    four seconds a fold).

    Args:
        codes: One row a face.
        labels: One of each face, of any kind that can be compared.
        persons: Who is who. If given, nobody is both in the faces learnt from and in those classified.
        folds: Parts, each of which is classified once.
        c: Weight of the errors against the margin's width.
        against: Of more than two labels, tell each from every other "one" and vote, or each from the "rest".
        seed: Fixes the folds.

    Raises:
        ValueError: Codes and labels differ in number, codes are not finite, there is one label alone, or a label (or,
            with `persons`, a person) is too rare for so many folds.

    Example:
        >>> random = np.random.default_rng(0)
        >>> labels = np.repeat(["happy", "sad"], 50)
        >>> codes = random.normal(size=(100, 3)) + 5 * (labels == "sad")[:, None]
        >>> result = probe(codes, labels)
        >>> result.accuracy, result.chance, result.classes
        (1.0, 0.5, 2)

    Reference:
        Fan et al., "LIBLINEAR: A Library for Large Linear Classification", JMLR 9, 2008.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    counts = _check("probe", codes, labels)
    if persons is None:
        _check_folds("label", counts.min(), folds)
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(codes, labels)
    else:
        persons = np.asarray(persons)
        if len(persons) != len(codes):
            raise ValueError(f"probe: there are {len(codes)} codes, but {len(persons)} persons; give one for each face")
        _check_folds("person", len(np.unique(persons)), folds)
        parts = _person_folds(labels, persons, folds, seed)
        if not parts:
            raise ValueError("probe: one person has all faces of a label; give more persons, or take fewer folds")

    def share(part: _Fold) -> float:
        learnt, tried = part
        svm = linear_svm(c, against).fit(codes[learnt], labels[learnt])
        return float((svm.predict(codes[tried]) == labels[tried]).mean())

    with ThreadPoolExecutor(min(folds, os.cpu_count() or 1)) as pool:  # LIBLINEAR leaves Python's lock to others
        shares = list(pool.map(share, parts))
    return Probe(
        accuracy=float(np.mean(shares)),
        deviation=float(np.std(shares)),
        chance=float(counts.max() / len(labels)),
        folds=tuple(shares),
        faces=len(labels),
        classes=len(counts),
    )


def linear_svm(c: float = 1.0, against: Against = "one") -> Pipeline:
    """The classifier of every probe, not yet taught; see `probe`."""
    svm = LinearSVC(C=c, dual=False, tol=1e-3, max_iter=5000)  # type: ignore[arg-type]
    return make_pipeline(StandardScaler(), OneVsOneClassifier(svm) if against == "one" else svm)


@dataclass(frozen=True)
class TableOne:
    """The paper's Table 1 for one coder, and its two harder rows.

    Attributes:
        rows: By name: "identity", "expression" and "pose", a person's faces in several folds; "expression of new
            persons" and "pose of new persons", with nobody in two folds. Rows whose labels are not known are missing,
            and those of new persons where too few persons show a label.
    """

    rows: dict[str, Probe]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, with the paper's figure where it has one."""
        return {name: row.to_dict() | {"paper": PAPER.get(name)} for name, row in self.rows.items()}


NEW_PERSONS = " of new persons"
"""Ending of the names of rows in which nobody is in two folds."""


def table_one(
    codes: Array | Mapping[str, Array],
    labels: Mapping[str, Labels],
    *,
    folds: int = FOLDS,
    c: float = 1.0,
    against: Against = "one",
    seed: int = 0,
) -> TableOne:
    """Identity told from the identity code, expression from the expression code, pose from the pose code.

    Args:
        codes: By those names; or one code of everything, such as that of an autoencoder, which then stands in all rows.
        labels: By the same names; those that are missing are left out. Without "identity" there are no new persons.
            Faces whose label is None or an empty text are left out of its rows.
        folds: As in `probe`; fewer are taken for new persons where there are fewer persons, or faces of a label.
        c: As in `probe`.
        against: As in `probe`.
        seed: Fixes the folds.

    Raises:
        ValueError: As `probe` does, or no label is known.

    Reference:
        Wang et al., "An Adversarial Neuro-Tensorial Approach For Learning Disentangled Representations", arXiv
        1711.10402, section 4.3 and Table 1.
    """
    known = [name for name in PAPER if name in labels]
    if not known:
        raise ValueError(f"table_one: needs labels of {', '.join(PAPER)}, got {', '.join(labels) or 'none'}")
    settings: dict[str, Any] = {"c": c, "against": against, "seed": seed}
    rows = {}
    for name in known:
        some, its_labels, _ = _labelled(codes, labels, name)
        rows[name] = probe(some, its_labels, folds=folds, **settings)
    for name in known if "identity" in labels else ():
        if name != "identity":
            some, its_labels, persons = _labelled(codes, labels, name, "identity")
            rarest = np.unique(its_labels, return_counts=True)[1].min(initial=folds)
            fewer = int(min(rarest, len(np.unique(persons))))
            if _person_folds(its_labels, persons, fewer, seed):
                rows[name + NEW_PERSONS] = probe(some, its_labels, persons=persons, folds=fewer, **settings)
    return TableOne(rows)


def _person_folds(labels: np.ndarray, persons: np.ndarray, folds: int, seed: int) -> list[_Fold]:
    """Folds with nobody in two of them; none where one would leave nobody to try, or one label alone to learn."""
    if folds < 2:
        return []
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, persons)
    parts = [(learnt, tried) for learnt, tried in split]
    whole = all(len(tried) and len(np.unique(labels[learnt])) > 1 for learnt, tried in parts)
    return parts if whole else []


def _labelled(
    codes: Array | Mapping[str, Array], labels: Mapping[str, Labels], name: str, besides: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, labels, and other labels of the faces that have both."""
    code = np.asarray(codes[name] if isinstance(codes, Mapping) else codes)
    own, other = (np.asarray(labels[one]) for one in (name, besides or name))
    for some in (own, other):
        if len(some) != len(code):
            raise ValueError(f"table_one: there are {len(code)} codes, but {len(some)} labels; give one for each face")
    known = np.array(
        [first not in (None, "") and second not in (None, "") for first, second in zip(own, other, strict=True)], bool
    )
    return code[known], own[known], other[known]


def _check(caller: str, codes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How often each label occurs."""
    if codes.ndim != 2 or len(codes) != len(labels):
        raise ValueError(
            f"{caller}: needs codes of shape (faces, features) and a label of each face,"
            f" got {codes.shape} and {len(labels)} labels"
        )
    if not np.isfinite(codes).all():
        raise ValueError(f"{caller}: codes must be finite; is the network damaged?")
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2:
        raise ValueError(f"{caller}: needs two labels or more, got {len(counts)}; give faces that differ")
    return counts


def _check_folds(what: str, most: int, folds: int) -> None:
    if not 2 <= folds <= most:
        raise ValueError(
            f"probe: folds must be from 2 to {most} here, got {folds}: "
            + ("so often does the rarest label occur" if what == "label" else "there are no more persons")
        )
