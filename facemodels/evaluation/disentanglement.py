"""Does each code tell its own factor and no other? Leakage, and DCI, MIG and SAP with whole codes as the units.

DCI, MIG and SAP were made for single numbers of one code. Here a unit is a whole named code ("block"): 80 numbers of
identity are one answer, not eighty. With codes of one number each the definitions are those of their papers, but for
the estimators, which are linear classifiers tried on faces they have not learnt from.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from facemodels.evaluation.coders import Array
from facemodels.evaluation.probes import Labels, linear_svm, probe

Matrix = Float[np.ndarray, "codes factors"]
Vector = Float[np.ndarray, " factors"]


@dataclass(frozen=True)
class Disentanglement:
    """What each code tells of each factor; rows are codes, columns factors.

    Attributes:
        codes: Names of the codes.
        factors: Names of the factors.
        accuracy: Share of faces whose factor a linear SVM tells from the code alone.
        chance: Share that is told from nothing.
        information: What the code tells of the factor, as a share of the factor's entropy: a lower bound of their
            mutual information, from the cross-entropy of a logistic regression on faces it has not learnt from.
        importance: By how much the accuracy of a linear SVM that sees all codes falls when this code is dealt out anew
            among the faces (permutation importance; Breiman, "Random Forests", 2001, section 10).
        joint: Accuracy of that SVM.
    """

    codes: tuple[str, ...]
    factors: tuple[str, ...]
    accuracy: Matrix
    chance: Vector
    information: Matrix
    importance: Matrix
    joint: Vector

    @property
    def leakage(self) -> Matrix:
        """Accuracies with chance at 0 and certainty at 1. What is not on the diagonal should be 0."""
        return (self.accuracy - self.chance) / (1 - self.chance)

    @property
    def own(self) -> float:
        """Mean of `leakage` where the code has the factor's name; NaN where none has."""
        return _mean(self.leakage[self._diagonal()])

    @property
    def foreign(self) -> float:
        """Mean of `leakage` where the code has the name of another factor; NaN where none has."""
        named = np.isin(self.codes, self.factors)
        return _mean(self.leakage[~self._diagonal() & named[:, None]])

    @property
    def dci(self) -> dict[str, float]:
        """Disentanglement, completeness and informativeness, 1 at best.

        Disentanglement: 1 less the entropy (to the base of the number of factors) of a code's importances, as shares
        of their sum; mean over the codes, weighted by those sums. A code that is important for one factor alone has 1.
        Completeness: the same for a factor's importances over the codes, mean over the factors. Informativeness: mean
        accuracy of the classifier that sees all codes.

        Reference:
            Eastwood and Williams, "A Framework for the Quantitative Evaluation of Disentangled Representations",
            ICLR 2018.
        """
        weight = self.importance.sum(1)
        total = weight.sum()
        by_code = 1 - _entropies(self.importance)
        return {
            "disentanglement": float(by_code @ weight / total) if total > 0 else 0.0,
            "completeness": float((1 - _entropies(self.importance.T)).mean()),
            "informativeness": float(self.joint.mean()),
        }

    @property
    def mig(self) -> float:
        """Mutual information gap: how much more of a factor's entropy its best code tells than the second best.

        Reference:
            Chen et al., "Isolating Sources of Disentanglement in Variational Autoencoders", NeurIPS 2018, section 4.1.
        """
        return _gap(self.information)

    @property
    def sap(self) -> float:
        """Separated attribute predictability: how much more accurate the best code's SVM is than the second best's.

        Reference:
            Kumar et al., "Variational Inference of Disentangled Latent Concepts from Unlabeled Observations", ICLR
            2018, section 3.1.
        """
        return _gap(self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        matrices = {name: value.tolist() for name, value in asdict(self).items() if isinstance(value, np.ndarray)}
        return {
            "codes": list(self.codes),
            "factors": list(self.factors),
            **matrices,
            "leakage": self.leakage.tolist(),
            "own": None if np.isnan(self.own) else self.own,
            "foreign": None if np.isnan(self.foreign) else self.foreign,
            "dci": self.dci,
            "mig": self.mig,
            "sap": self.sap,
        }

    def _diagonal(self) -> np.ndarray:
        return np.array(self.codes)[:, None] == np.array(self.factors)[None]


def disentanglement(
    codes: Mapping[str, Array],
    labels: Mapping[str, Labels],
    *,
    folds: int = 3,
    c: float = 1.0,
    seed: int = 0,
) -> Disentanglement:
    """Probe every factor from every code, and from all codes together.

    Args:
        codes: Two or more; for the blocks of our network those of identity, expression, pose and light. Every number
            of one code as a unit: `{str(k): code[:, [k]] for k in range(code.shape[1])}`.
        labels: Factors, which should vary independently of each other, as in FaceFactors.
        folds: Of the cross-validation.
        c: Of the classifiers.
        seed: Fixes folds and permutations.

    Raises:
        ValueError: There are fewer than two codes or factors, or `facemodels.evaluation.probes.probe` refuses them.

    Example:
        >>> random = np.random.default_rng(0)
        >>> pose, smile = random.integers(3, size=300), random.integers(2, size=300)
        >>> codes = {"pose": np.eye(3)[pose], "expression": np.eye(2)[smile]}
        >>> result = disentanglement(codes, {"pose": pose, "expression": smile})
        >>> result.own, abs(result.foreign) < 0.2, result.dci["disentanglement"] > 0.99
        (1.0, True, True)
    """
    if len(codes) < 2 or len(labels) < 2:
        raise ValueError(
            f"disentanglement: needs two codes and two factors or more, got {len(codes)} and {len(labels)};"
            " take the numbers of one code as codes of their own"
        )
    rows = [[probe(code, label, folds=folds, c=c, seed=seed) for label in labels.values()] for code in codes.values()]
    information = [
        [_information(code, np.asarray(label), folds, seed) for label in labels.values()] for code in codes.values()
    ]
    joint, importance = zip(
        *(_importances(codes, np.asarray(label), folds, c, seed) for label in labels.values()), strict=True
    )
    return Disentanglement(
        tuple(codes),
        tuple(labels),
        accuracy=np.array([[cell.accuracy for cell in row] for row in rows]),
        chance=np.array([cell.chance for cell in rows[0]]),
        information=np.array(information),
        importance=np.array(importance).T,
        joint=np.array(joint),
    )


def _information(code: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> float:
    """Share of the labels' entropy that a code tells."""
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    surprise = 0.0
    for learnt, tried in StratifiedKFold(folds, shuffle=True, random_state=seed).split(code, labels):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=1e-3))
        model.fit(code[learnt], labels[learnt])
        right = np.searchsorted(model.classes_, labels[tried])
        surprise -= model.predict_log_proba(code[tried])[np.arange(len(tried)), right].sum()
    entropy = -(shares * np.log(shares)).sum()
    return float(max(0.0, 1 - surprise / len(labels) / entropy))


def _importances(
    codes: Mapping[str, Array], labels: np.ndarray, folds: int, c: float, seed: int
) -> tuple[float, list[float]]:
    """Accuracy from all codes together, and what each of them adds to it."""
    together = np.concatenate(list(codes.values()), axis=1)
    ends = np.cumsum([code.shape[1] for code in codes.values()])
    random = np.random.default_rng(seed)
    right, lost = 0.0, np.zeros(len(codes))
    for learnt, tried in StratifiedKFold(folds, shuffle=True, random_state=seed).split(together, labels):
        svm = linear_svm(c).fit(together[learnt], labels[learnt])
        whole = float((svm.predict(together[tried]) == labels[tried]).mean())
        right += whole / folds
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            dealt = together[tried].copy()
            dealt[:, start:end] = dealt[random.permutation(len(dealt)), start:end]
            lost[number] += (whole - float((svm.predict(dealt) == labels[tried]).mean())) / folds
    return right, lost.clip(min=0).tolist()


def _entropies(importance: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " rows"]:
    """Entropy of each row's shares, to the base of their number; 1 for rows of zeros."""
    count = importance.shape[1]
    total = importance.sum(1, keepdims=True)
    shares = np.divide(importance, total, out=np.full_like(importance, 1 / count), where=total > 0)
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1) / np.log(count)


def _gap(matrix: Matrix) -> float:
    second, first = np.sort(matrix, axis=0)[-2:]
    return float((first - second).mean())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
