"""Where a run writes its numbers: metrics.jsonl always, TensorBoard where it is installed."""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

METRICS = "metrics.jsonl"


class Logs:
    """Writer of a run's numbers and pictures; what was written after `step` by a run that was ended is dropped.

    Args:
        run: Directory of the run.
        step: Step that the run goes on from.
    """

    def __init__(self, run: Path, step: int):
        self.path = run / METRICS
        _drop_after(self.path, step)
        self.tensorboard = _tensorboard(run / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, float], group: str = "train") -> None:
        """Add a line of numbers; those of another group than "train" are named GROUP/NAME."""
        prefix = "" if group == "train" else f"{group}/"
        line = {"step": step, **{prefix + name: float(f"{value:.6g}") for name, value in values.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self.tensorboard:
            for name, value in values.items():
                self.tensorboard.add_scalar(f"{group}/{name}", value, step)
            self.tensorboard.flush()

    def picture(self, step: int, path: Path) -> None:
        """Show a picture that lies in a file."""
        if self.tensorboard and path.is_file():
            with Image.open(path) as image:
                self.tensorboard.add_image("sheet", np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        if self.tensorboard:
            self.tensorboard.close()


def read_metrics(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The lines of a run's metrics; a last line that was cut off is left out."""
    path = Path(run) / METRICS
    lines = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines


def _drop_after(path: Path, step: int) -> None:
    lines = read_metrics(path.parent)
    if lines:
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in lines if line["step"] <= step))
        partial.replace(path)


def _tensorboard(directory: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print(f"facemodels: TensorBoard is not installed: the numbers go to {METRICS} alone", file=sys.stderr)
        return None
    return SummaryWriter(str(directory), purge_step=step + 1 if step else None)
