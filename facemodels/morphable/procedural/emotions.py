"""Basic emotions as blends of the named expression components."""

import numpy as np

from facemodels.morphable.procedural.expression import EXPRESSIONS
from facemodels.morphable.procedural.fields import Array


def _both(**amounts: float) -> dict[str, float]:
    """The same amount on either side."""
    return {f"{name}_{side}": amount for name, amount in amounts.items() for side in ("left", "right")}


EMOTIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": _both(smile=1.6, cheek_raise=1.2, eye_close=0.25)
    | {"upper_lip_raise": 0.7, "lower_lip_depress": 0.35, "jaw_open": 0.25},
    "sad": _both(frown=1.4, brow_lower=0.4, eye_close=0.45) | {"brow_inner_raise": 1.4, "chin_raise": 0.9},
    "angry": _both(brow_lower=1.7, frown=0.7, cheek_raise=0.4)
    | {"lip_press": 1.3, "nose_wrinkle": 0.5, "eye_wide": 0.4, "jaw_forward": 0.5},
    "surprised": _both(brow_outer_raise=1.5)
    | {"jaw_open": 1.4, "brow_inner_raise": 1.5, "eye_wide": 1.6, "lip_funnel": 0.4},
    "disgusted": _both(frown=0.7, brow_lower=1.0, cheek_raise=0.7, eye_close=0.4)
    | {"nose_wrinkle": 1.7, "upper_lip_raise": 1.3},
    "fearful": _both(brow_outer_raise=0.7, brow_lower=0.6, stretch=1.4)
    | {"brow_inner_raise": 1.6, "eye_wide": 1.7, "jaw_open": 0.55, "lower_lip_depress": 0.7},
}
"""Standard deviations of the components at full intensity."""

_LOWEST = np.array([
    0.0 if name == "jaw_open" else -1.5 if name in ("jaw_forward", "jaw_sideways", "mouth_sideways") else -0.35
    for name in EXPRESSIONS
])  # fmt: skip
_HIGHEST = np.array([1.62 if name.startswith("eye_close") else 2.0 for name in EXPRESSIONS])


def emotion_coefficients(emotion: str, intensity: float = 1.0) -> Array:
    """Expression coefficients of a basic emotion.

    Args:
        emotion: One of `EMOTIONS`.
        intensity: 1 is the full expression, 0 the neutral face.

    Returns:
        In standard deviations, shape `(28,)`.

    Raises:
        ValueError: There is no such emotion.

    Example:
        >>> emotion_coefficients("surprised")[:2]
        array([1.4, 0. ])
    """
    if emotion not in EMOTIONS:
        raise ValueError(f"emotion_coefficients: there is no emotion {emotion!r}; choose one of {', '.join(EMOTIONS)}")
    return intensity * np.array([EMOTIONS[emotion].get(name, 0.0) for name in EXPRESSIONS])


def limit_expression(coefficients: Array) -> Array:
    """Expression coefficients brought back to what a face can do: most actions only push, eyes shut but no further."""
    return np.clip(coefficients, _LOWEST, _HIGHEST)
