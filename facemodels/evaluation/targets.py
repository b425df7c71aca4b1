"""How good the targets of training are: fits of photos by labels, fits of rendered faces by the truth.

Labels are read here to judge targets, never to make them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from facemodels.evaluation.measures import angle_between, nearest_rotation
from facemodels.fitting.shape import Fit
from facemodels.rendering import matrix_to_euler

Array = NDArray[np.float64]

_FOLDS = 5
_ROWS = 256  # whose pairs with all others are looked at together


def probe(codes: Float[np.ndarray, "n features"], labels: Bool[np.ndarray, " n"]) -> float:
    """Share of faces whose label a linear classifier tells from their codes, by 5-fold cross-validation.

    Chance is the share of the commoner label, about one half for CelebA's `Smiling`.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return float(cross_val_score(classifier, codes, labels, cv=_FOLDS).mean())


def person_auc(codes: Float[np.ndarray, "n features"], persons: Int[np.ndarray, " n"], *, centre: bool = True) -> float:
    """Chance that two faces of one person are more alike, by the cosine of their codes, than faces of two persons.

    Every pair is counted: the area under the curve of all same-person pairs against all others. The cosines of a few
    hundred faces with all others are held at a time, and those of the same-person pairs.

    Args:
        codes: One row a face.
        persons: Who it is.
        centre: Take the mean face out first; not for embeddings whose cosine is defined as it is.

    Raises:
        ValueError: No person has two faces, there is only one person, or a code is not finite.
    """
    together = np.unique(persons, return_counts=True)[1]
    if len(together) < 2 or together.max() < 2:
        raise ValueError("person_auc: needs persons with two faces, and two persons; give more faces")
    if not np.isfinite(codes).all():
        raise ValueError(f"person_auc: {(~np.isfinite(codes)).any(1).sum()} of {len(codes)} codes are not finite")
    codes = codes.astype(np.float32) - codes.mean(axis=0, dtype=np.float32) * centre
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True).clip(1e-12)
    alike = np.sort(np.concatenate([cosines[same] for cosines, same in _pairs(unit, persons)]))
    below = 0.0
    for cosines, same in _pairs(unit, persons):
        others = np.sort(cosines[~same])  # sorted, they are found several times as fast
        # a same-person pair that is exactly as alike counts half
        below += (np.searchsorted(alike, others, "left").sum() + np.searchsorted(alike, others, "right").sum()) / 2
    pairs = len(unit) * (len(unit) - 1) // 2
    return float(1 - below / len(alike) / (pairs - len(alike)))


def _pairs(
    unit: Float[np.ndarray, "n features"], persons: Int[np.ndarray, " n"]
) -> Iterator[tuple[Float[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]]:
    """Cosines of all pairs of faces, and whether they show the same person, a block of rows at a time."""
    for start in range(0, len(unit), _ROWS):
        rows = slice(start, start + _ROWS)
        later = np.triu(np.ones((len(unit[rows]), len(unit) - start), bool), 1)
        yield (unit[rows] @ unit[start:].T)[later], (persons[rows, None] == persons[start:])[later]


@dataclass(frozen=True)
class TargetReport:
    """What labels say about targets.

    Attributes:
        smile_from_identity: `probe` of the identity target; near one half when it is free of expression.
        smile_from_expression: `probe` of the expression target.
        person_auc: `person_auc` of the identity target.
        pairs: Pairs of faces of one person.
    """

    smile_from_identity: float
    smile_from_expression: float
    person_auc: float
    pairs: int


def judge_targets(
    identity: Float[np.ndarray, "n n_identity"],
    expression: Float[np.ndarray, "n n_expression"],
    smiling: Bool[np.ndarray, " n"],
    persons: Int[np.ndarray, " n"],
) -> TargetReport:
    """Judge the targets of a prepared set by labels.

    Args:
        identity: Identity targets.
        expression: Expression targets.
        smiling: Whether the face smiles.
        persons: Who it is.
    """
    counts = np.unique(persons, return_counts=True)[1]
    return TargetReport(
        probe(identity, smiling),
        probe(expression, smiling),
        person_auc(identity, persons),
        int((counts * (counts - 1) // 2).sum()),
    )


@dataclass(frozen=True)
class FitReport:
    """How near fits come to the truth of rendered faces.

    Attributes:
        rotation: Angle between fitted and true rotation, median in degrees.
        steady_rotation: The same after the constant rotation that all fits share was taken out.
        yaw, pitch, roll: Median error in degrees, with its sign.
        yaw_correlation: Correlation of fitted and true yaw.
        identity: Correlation of each component with the truth, NaN where one of them is constant.
        expression: Likewise.
    """

    rotation: float
    steady_rotation: float
    yaw: float
    pitch: float
    roll: float
    yaw_correlation: float
    identity: Float[np.ndarray, " n_identity"]
    expression: Float[np.ndarray, " n_expression"]


def judge_fit(
    fit: Fit,
    rotation: Float[Tensor, "n 3 3"],
    identity: Float[Tensor, "n n_identity"],
    expression: Float[Tensor, "n n_expression"],
) -> FitReport:
    """Compare fits of rendered faces with the factors these were made of.

    Args:
        fit: Of the same morphable model that was rendered.
        rotation: True rotations.
        identity: True coefficients.
        expression: True coefficients.
    """
    shared = nearest_rotation((rotation.mT @ fit.rotation).mean(0, keepdim=True))[0]
    yaw, pitch, roll = (
        float(torch.rad2deg(ours - true).median())
        for ours, true in zip(matrix_to_euler(fit.rotation), matrix_to_euler(rotation), strict=True)
    )
    yaws = torch.stack([matrix_to_euler(matrices)[0] for matrices in (fit.rotation, rotation)])
    return FitReport(
        rotation=float(angle_between(fit.rotation, rotation).median()),
        steady_rotation=float(angle_between(fit.rotation @ shared.mT, rotation).median()),
        yaw=yaw,
        pitch=pitch,
        roll=roll,
        yaw_correlation=float(torch.corrcoef(yaws)[0, 1]),
        identity=correlations(fit.identity, identity),
        expression=correlations(fit.expression, expression),
    )


def correlations(
    first: Float[Tensor, "n columns"], second: Float[Tensor, "n columns"]
) -> Float[np.ndarray, " columns"]:
    """Pearson's correlation of each column of one with the same column of the other; NaN where one is constant."""
    first, second = (values.double() - values.double().mean(0) for values in (first, second))
    lengths = first.norm(dim=0) * second.norm(dim=0)
    return torch.where(lengths > 1e-9, (first * second).sum(0) / lengths, torch.nan).numpy()
