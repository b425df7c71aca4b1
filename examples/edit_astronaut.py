"""Edit a public-domain photo with a trained network: expression, pose and light of rendered faces.

Below each edit it is shown pasted into the photo, which keeps its own detail where the edit leaves it.

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
from facemodels.pasting import enlarged, paste
from facemodels.training.checkpoint import resolve

PERSON = 3
ZOOM = 2
TARGETS = {
    "expression": [("neutral", (0, 0), "front"), ("happy", (0, 0), "front"), ("surprised", (0, 0), "front")],
    "pose": [("neutral", (-30, 0), "front"), ("neutral", (30, 0), "front"), ("neutral", (0, 20), "front")],
    "light": [("neutral", (0, 0), "left"), ("neutral", (0, 0), "right"), ("neutral", (0, 0), "above")],
}


def rendered(size: int, expression: str, pose: tuple[int, int], light: str) -> torch.Tensor:
    cell = (PERSON, EXPRESSIONS.index(expression), POSES.index(pose), list(LIGHTS).index(light))
    images, _ = draw([cell_factors(0, int(np.ravel_multi_index(cell, SHAPE)), size=size)])
    return images


def main(path: str, out: str) -> None:
    model = NeuroTensorialAutoencoder.from_pretrained(resolve(path))
    file = Path(skimage.data.__file__).parent / "astronaut.png"  # Eileen Collins, NASA
    size = model.config.size
    photo = load_photo(file, MediaPipeDetector(), "the astronaut's photo", size=size)
    crop, large = to_tensor(photo.crop), enlarged(photo, ZOOM * size)
    own = transfer(model, crop, crop, [])
    labels = ["photo", "reconstruction"]
    top, middle, bottom = [None, None], [crop[0], own.image[0]], [to_tensor(large.photo)[0], None]
    for factor, targets in TARGETS.items():
        for target in (rendered(size, *cell) for cell in targets):
            edit = transfer(model, crop, target, factor)
            top.append(target[0])
            middle.append(edit.image[0])
            bottom.append(to_tensor(paste(large, edit, own))[0])
            labels.append(factor)
    rows = {"target": top, "edited": middle, "pasted": bottom}
    grid(list(rows.values()), columns=labels, row_labels=list(rows), zoom=ZOOM).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
