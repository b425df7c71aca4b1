"""Smooth functions of one variable: what the head, its motions and its colours are written in."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def bump(value: Array | float, centre: Array | float, width: Array | float) -> Array:
    """Gaussian of height 1 around `centre`; `width` is its standard deviation."""
    return np.exp(-0.5 * ((np.asarray(value) - centre) / width) ** 2)


def plateau(value: Array | float, centre: Array | float, width: Array | float) -> Array:
    """Flat-topped bump of height 1 that has fallen to 0.37 at a distance of `width`."""
    return np.exp(-(((np.asarray(value) - centre) / width) ** 4))


def rise(value: ArrayLike, start: float, end: float) -> Array:
    """Smooth step: 0 before `start`, 1 beyond `end`. With `start` above `end` it steps down."""
    t = np.clip((np.asarray(value) - start) / (end - start), 0.0, 1.0)
    return t * t * (3 - 2 * t)


def smooth_maximum(first: ArrayLike, second: ArrayLike, width: float) -> Array:
    """Maximum whose corner is rounded over about `width`."""
    first, second = np.asarray(first), np.asarray(second)
    return 0.5 * (first + second + np.sqrt((first - second) ** 2 + width * width))


def monotone_cubic(knots: ArrayLike, values: ArrayLike, at: ArrayLike) -> Array:
    """Cubic interpolation along the first axis that never overshoots its knots.

    Args:
        knots: Increasing positions, shape `(K,)`.
        values: Shape `(K, ...)`.
        at: Positions within the knots, shape `(N,)`.

    Returns:
        Shape `(N, ...)`.

    Example:
        >>> monotone_cubic([0, 1, 2], [0, 1, 1], [0.0, 0.5, 1.0, 1.5])
        array([0.   , 0.625, 1.   , 1.   ])

    Reference:
        Fritsch and Carlson, "Monotone Piecewise Cubic Interpolation", SIAM Journal on Numerical Analysis 17(2), 1980.
    """
    knots, values, at = (np.asarray(a, dtype=float) for a in (knots, values, at))
    tail = (1,) * (values.ndim - 1)
    gap = np.diff(knots).reshape(-1, *tail)
    slope = np.diff(values, axis=0) / gap
    tangent = np.zeros_like(values)
    left, right = 2 * gap[1:] + gap[:-1], gap[1:] + 2 * gap[:-1]
    monotone = slope[:-1] * slope[1:] > 0
    safe = np.where(monotone, slope[:-1], 1.0), np.where(monotone, slope[1:], 1.0)
    tangent[1:-1] = np.where(monotone, (left + right) / (left / safe[0] + right / safe[1]), 0.0)
    tangent[0], tangent[-1] = slope[0], slope[-1]
    interval = np.clip(np.searchsorted(knots, at, side="right") - 1, 0, len(knots) - 2)
    width = gap[interval]
    t = (at - knots[interval]).reshape(-1, *tail) / width
    return (
        (1 + 2 * t) * (1 - t) ** 2 * values[interval]
        + t * (1 - t) ** 2 * width * tangent[interval]
        + t * t * (3 - 2 * t) * values[interval + 1]
        + t * t * (t - 1) * width * tangent[interval + 1]
    )
