"""Does an edited video tremble more than the video it was made from?"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from facemodels.evaluation.readers import Reader
from facemodels.rendering import matrix_to_euler


@dataclass(frozen=True)
class Jitter:
    """Trembling of a video: root mean square second differences over time, which steady motion has none of.

    Attributes:
        pixels: Of the pixels, in [0, 1].
        readings: By factor, of what a reader sees: "pose" in degrees of yaw, pitch and roll, others in the reader's
            units.
        frames: Frames with a face.
    """

    pixels: float
    readings: dict[str, float]
    frames: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)


def jitter(frames: Float[Tensor, "frames 3 h w"], reader: Reader | None = None) -> Jitter:
    """Trembling of a video. Compare the one that was edited with the one that drives it.

    Args:
        frames: Aligned faces in [0, 1], in their order.
        reader: Sees expression and pose; only frames with faces on both sides count.

    Raises:
        ValueError: There are fewer than three frames.

    Example:
        >>> steady = torch.linspace(0, 1, 8)[:, None, None, None].expand(-1, 3, 4, 4)
        >>> shaken = steady + 0.1 * (torch.arange(8) % 2)[:, None, None, None]
        >>> round(jitter(steady).pixels, 6), round(jitter(shaken).pixels, 3)
        (0.0, 0.2)
    """
    if len(frames) < 3:
        raise ValueError(f"jitter: needs three frames or more, got {len(frames)}")
    everywhere = torch.ones(len(frames), dtype=torch.bool)
    pixels = _trembling(frames.flatten(1), everywhere)
    if reader is None:
        return Jitter(pixels, {}, len(frames))
    reading = reader.read(frames)
    values = dict(reading.values)
    if "pose" in values:
        values["pose"] = torch.rad2deg(torch.stack(matrix_to_euler(values["pose"].unflatten(1, (3, 3))), 1))
    readings = {name: _trembling(value, reading.found) for name, value in values.items()}
    return Jitter(pixels, readings, int(reading.found.sum()))


def _trembling(values: Float[Tensor, "frames k"], found: Bool[Tensor, " frames"]) -> float:
    values = values.double()
    second = values[2:] - 2 * values[1:-1] + values[:-2]
    known = found[2:] & found[1:-1] & found[:-2]
    return float(second[known].square().mean().sqrt()) if known.any() else float("nan")
