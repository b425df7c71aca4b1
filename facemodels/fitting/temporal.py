"""Fits of the frames of a video, smoothed over time.

A detector's landmarks tremble from frame to frame, and so do camera and coefficients. Here each of them is replaced by
the sequence `x` that minimises

    sum_t w_t (x_t - y_t)^2 + strength * sum_t (x_{t-1} - 2 x_t + x_{t+1})^2

where `y` is what was fitted and `w_t` is 1, or 0 for frames without a face. A steady motion costs nothing; of a sine of
period T frames the share 1 / (1 + strength * (2 pi / T)^4) is kept, so that the default of 10 halves what repeats every
11 frames and leaves 99 % of what repeats every 35. The identity of a person does not change: it is smoothed 10,000
times as strongly.

Reference:
    Eilers, "A Perfect Smoother", Analytical Chemistry 75(14), 2003.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import solveh_banded
from torch import Tensor

from facemodels.errors import InputError
from facemodels.fitting.shape import Fit

DEFAULT_STRENGTH = 10.0
"""See the sum above."""

_IDENTITY_FACTOR = 1e4
_LONGEST_GAP = 5  # frames without a face over which a shot goes on
_JUMP = 0.35  # of the face's size: a face that moves further from one frame to the next is another one
_FACE_MM = 150.0


def smooth(
    fit: Fit,
    frames: Sequence[int],
    clips: Sequence[str],
    transforms: Float[Tensor, "n 2 3"],
    strength: float = DEFAULT_STRENGTH,
) -> Fit:
    """Smooth camera and coefficients within each shot.

    A shot ends with its clip, where more than 5 frames lack a face, and where the face jumps. Cameras are smoothed in
    the coordinates of the video: each crop has its own alignment, which trembles, too.

    Args:
        fit: Raw fits of the frames, in crops.
        frames: Numbers of the frames, ascending within a clip.
        clips: Which video each belongs to.
        transforms: Take points of each frame to points of its crop, shape `(n, 2, 3)`.
        strength: Weight of the second differences; 0 changes nothing.

    Returns:
        The fits in the same crops, in the dtype of `fit`; `error` is that of the raw fits.

    Raises:
        InputError: `strength` is negative, or far too large.
    """
    check_strength(strength)
    if strength == 0 or len(fit) < 3:
        return fit
    dtype = fit.scale.dtype
    seen = move_camera(
        Fit(**{name: value.double() for name, value in vars(fit).items()}), _inverted(transforms.double())
    )
    smoothed = Fit.concatenate(
        [_smooth_shot(seen[shot], np.asarray(frames)[shot], strength) for shot in _shots(seen, frames, clips)]
    )
    back = move_camera(smoothed, transforms.double())
    return Fit(**{name: value.to(dtype) for name, value in vars(back).items()})


def move_camera(fit: Fit, transforms: Float[Tensor, "n 2 3"]) -> Fit:
    """The same faces after a similarity of each image.

    Args:
        fit: Cameras and shapes.
        transforms: `[scale * rotation | shift]` of the plane with y down, as `align` returns it, shape `(n, 2, 3)`.
    """
    plane, shift = transforms[:, :, :2], transforms[:, :, 2]
    factor = torch.linalg.det(plane).sqrt()
    turn = torch.eye(3, dtype=plane.dtype).repeat(len(plane), 1, 1)
    turn[:, :2, :2] = plane.mT / factor[:, None, None]  # y up: the angle changes its sign
    return replace(
        fit,
        rotation=turn @ fit.rotation,
        scale=factor * fit.scale,
        shift=(plane @ fit.shift[..., None])[..., 0] + shift,
    )


STRONGEST = 1e9
"""Of a smoothing: takes most off what repeats every 1000 frames; of far more the sums cannot be solved."""


def check_strength(strength: float) -> None:
    """Refuse a smoothing that cannot be.

    Raises:
        InputError: `strength` is not from 0 to `STRONGEST`.
    """
    if not 0 <= strength <= STRONGEST:
        raise InputError(f"smoothing takes a strength from 0 to {STRONGEST:.0e}, got {strength}; 10 is a good choice")


def whittaker(values: Float[np.ndarray, "n k"], frames: np.ndarray, strength: float) -> Float[np.ndarray, "n k"]:
    """The minimiser of the sum above for values at ascending frame numbers; frames in between have weight 0."""
    place = frames - frames[0]
    length = int(place[-1]) + 1
    if len(values) < 3:
        return values
    weights = np.zeros(length)
    weights[place] = 1
    right = np.zeros((length, values.shape[1]))
    right[place] = values
    second = np.array([1.0, -2.0, 1.0])
    bands = np.zeros((3, length))  # upper diagonals of W + strength * D'D, as LAPACK takes them
    for first in range(length - 2):
        for a in range(3):
            for b in range(a, 3):
                bands[2 - (b - a), first + b] += strength * second[a] * second[b]
    bands[2] += weights
    return solveh_banded(bands, right)[place]


def _shots(fit: Fit, frames: Sequence[int], clips: Sequence[str]) -> list[slice]:
    """Neighbouring rows that show the same face in motion."""
    jump = (fit.shift[1:] - fit.shift[:-1]).norm(dim=1) / (_FACE_MM * fit.scale[1:]) > _JUMP
    starts = [0]
    for row in range(1, len(fit)):
        gap = frames[row] - frames[row - 1] - 1
        if clips[row] != clips[row - 1] or gap > _LONGEST_GAP or jump[row - 1]:
            starts.append(row)
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(fit)], strict=True)]


def _smooth_shot(fit: Fit, frames: np.ndarray, strength: float) -> Fit:
    def over_time(values: Tensor, weight: float) -> Tensor:
        return torch.from_numpy(whittaker(values.flatten(1).numpy(), frames, weight)).view_as(values)

    # The mean of rotation matrices is none; the nearest rotation to it is (orthogonal Procrustes).
    u, _, vh = torch.linalg.svd(over_time(fit.rotation, strength))
    sign = torch.ones(len(u), 3, dtype=u.dtype)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    return replace(
        fit,
        rotation=(u * sign[:, None]) @ vh,
        scale=over_time(fit.scale.log()[:, None], strength)[:, 0].exp(),
        shift=over_time(fit.shift, strength),
        identity=over_time(fit.identity, _IDENTITY_FACTOR * strength),
        expression=over_time(fit.expression, strength),
    )


def _inverted(transforms: Tensor) -> Tensor:
    inverse = torch.linalg.inv(transforms[:, :, :2])
    return torch.cat([inverse, -inverse @ transforms[:, :, 2:]], dim=2)
