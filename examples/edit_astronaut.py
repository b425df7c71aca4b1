"""Edit a public-domain photo with a trained network: expression, pose and light of rendered faces.

python examples/edit_astronaut.py runs/celeba astronaut.png
"""

import sys
from pathlib import Path

import numpy as np
import skimage.data
import torch

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.alignment import load_photo
from facemodels.data.factorial import EXPRESSIONS, LIGHTS, POSES, SHAPE, cell_factors
from facemodels.data.synthetic import draw
from facemodels.editing import to_tensor, transfer
from facemodels.figures import grid
from facemodels.fitting.landmarks import MediaPipeDetector
from facemodels.training.checkpoint import resolve

PERSON = 3
TARGETS = {
    "expression": [("neutral", (0, 0), "front"), ("happy", (0, 0), "front"), ("surprised", (0, 0), "front")],
    "pose": [("neutral", (-30, 0), "front"), ("neutral", (30, 0), "front"), ("neutral", (0, 20), "front")],
    "light": [("neutral", (0, 0), "left"), ("neutral", (0, 0), "right"), ("neutral", (0, 0), "above")],
}


def rendered(expression: str, pose: tuple[int, int], light: str) -> torch.Tensor:
    cell = (PERSON, EXPRESSIONS.index(expression), POSES.index(pose), list(LIGHTS).index(light))
    images, _ = draw([cell_factors(0, int(np.ravel_multi_index(cell, SHAPE)))])
    return images


def main(path: str, out: str) -> None:
    model = NeuroTensorialAutoencoder.from_pretrained(resolve(path))
    file = Path(skimage.data.__file__).parent / "astronaut.png"  # Eileen Collins, NASA
    photo = to_tensor(load_photo(file, MediaPipeDetector(), "the astronaut's photo").crop)
    top, bottom, labels = [None], [photo[0]], ["photo"]
    top.append(None)
    bottom.append(transfer(model, photo, photo, []).image[0])
    labels.append("reconstruction")
    for factor, targets in TARGETS.items():
        for target in map(rendered, *zip(*targets, strict=True)):
            top.append(target[0])
            bottom.append(transfer(model, photo, target, factor).image[0])
            labels.append(factor)
    grid([top, bottom], columns=labels, row_labels=["target", "edited"]).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
