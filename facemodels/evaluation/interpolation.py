"""Do faces on the way from one code to another lie on the way, too? The paper's Figures 10 and 11 in numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import spearmanr
from torch import Tensor

from facemodels.evaluation.readers import Reader

STEPS = 11
"""As in the paper: 0.1 apart."""

One = Float[Tensor, "1 3 h w"]
Interpolator = Callable[[One, One, str, int], Float[Tensor, "steps 3 h w"]]
"""Pictures on the way from one face's factor to another's: `functools.partial(interpolate, model)`."""


@dataclass(frozen=True)
class Monotonicity:
    """How steadily a factor grows along interpolations.

    Attributes:
        factor: The factor.
        spearman: Rank correlation of the amount and of what is read, mean over the pairs; 1 if every step goes ahead.
        deviation: Standard deviation over the pairs.
        course: What is read at each step, mean over the pairs: 0 is the source's photo, 1 the donor's.
        pairs: Pairs in which the reader found all faces.
    """

    factor: str
    spearman: float
    deviation: float
    course: tuple[float, ...]
    pairs: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return vars(self) | {"course": list(self.course)}


def monotonicity(
    path: Interpolator,
    source: Float[Tensor, "n 3 h w"],
    target: Float[Tensor, "n 3 h w"],
    reader: Reader,
    factor: str,
    steps: int = STEPS,
) -> Monotonicity | None:
    """Interpolate a factor between pairs of faces and read it in every picture.

    What is read is projected on the line from the reading of the source's photo to that of the donor's, which no
    decoder has had a hand in.

    Args:
        path: Interpolates.
        source: Aligned faces in [0, 1], which should differ from the donors in the factor.
        target: As many donors.
        reader: Reads pictures.
        factor: What is interpolated and read.
        steps: Pictures of a path.

    Returns:
        None if the reader cannot tell the factor, or found no pair.

    Raises:
        ValueError: There are not as many donors as sources.
    """
    if len(source) != len(target):
        raise ValueError(f"monotonicity: needs as many donors as sources, got {len(source)} and {len(target)}")
    courses = []
    for number in range(len(source)):
        pair = source[number : number + 1], target[number : number + 1]
        reading = reader.read(torch.cat([*pair, path(*pair, factor, steps)]))
        if factor not in reading.values:
            return None
        if reading.found.all():
            first, last, *steps_ = reading.values[factor].double()
            line = last - first
            courses.append((torch.stack(steps_) - first) @ line / line.square().sum().clamp(min=1e-12))
    if not courses:
        return None
    course = torch.stack(courses).numpy()
    ranks = np.array([rank_correlation(one) for one in course])
    return Monotonicity(factor, float(ranks.mean()), float(ranks.std()), tuple(course.mean(0).tolist()), len(courses))


def rank_correlation(values: Float[np.ndarray, " steps"]) -> float:
    """Spearman's rank correlation of values with their order; 0 if they do not change.

    Example:
        >>> rank_correlation(np.array([0.0, 0.1, 5.0])), rank_correlation(np.array([2.0, 2.0, 2.0]))
        (1.0, 0.0)

    Reference:
        Spearman, "The Proof and Measurement of Association between Two Things", Am. J. Psychology 15(1), 1904.
    """
    if np.ptp(values) == 0:
        return 0.0
    return float(spearmanr(np.arange(len(values)), values)[0])  # type: ignore[arg-type]
