"""The network that a command works with."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facemodels.autoencoder import NeuroTensorialAutoencoder

RUNS = Path("runs")
"""Where runs are made and looked for."""

_SHIPPED = Path("facefactors")


def load_network(model: Path | None) -> "NeuroTensorialAutoencoder":
    """The network named, that of the newest run, or that of the package."""
    from facemodels.autoencoder import NeuroTensorialAutoencoder
    from facemodels.training.checkpoint import resolve

    path = _path(model)
    if model is None and path == _SHIPPED:
        print("facemodels: no run under runs/: taking the network of the package", file=sys.stderr)
    return NeuroTensorialAutoencoder.from_pretrained(resolve(path))


def network_name(model: Path | None) -> str:
    """What that network is called: its directory, or that of its run."""
    place = _path(model).resolve()
    return place.parent.name if place.name == "model" or place.name.startswith("checkpoint-") else place.name


def _path(model: Path | None) -> Path:
    from facemodels.training.checkpoint import newest_run

    return model or newest_run(RUNS) or _SHIPPED
