"""TensorFaces on FaceFactors: `python examples/tensorfaces.py docs/tensorfaces.png` (extra `faces`; a minute).

A multilinear model is made of rendered persons in every expression, pose and light. It then takes a person it has not
seen, from one picture, and exchanges the code of one cause; below each edit stands the picture that it should be.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

from facemodels.data.factorial import EXPRESSIONS, LIGHTS, POSES, SHAPE
from facemodels.data.synthetic import synthesise
from facemodels.figures import grid
from multilinear.decomposition import TensorFaces, tensorfaces

CAUSES = ("person", "expression", "pose", "light")
RANKS = {"expression": 6, "pose": 8, "light": 4}
PER_PERSON = len(EXPRESSIONS) * len(POSES) * len(LIGHTS)


def faces(persons: int, first: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Faces before a black background, (n, 3, 64, 64), and what they show."""
    numbers = range(first * PER_PERSON, (first + persons) * PER_PERSON)
    samples = list(synthesise(numbers.stop, design="facefactors", start=numbers.start))
    images = torch.stack([torch.as_tensor(s["image"]).permute(2, 0, 1) / 255 for s in samples])
    masks = torch.stack([torch.as_tensor(s["mask"])[None] / 255 for s in samples])
    places = torch.unravel_index(torch.tensor(numbers), SHAPE)
    return images * masks, dict(zip(CAUSES, places, strict=True))


def model_of(persons: int, *, components: int = 200) -> TensorFaces:
    images, labels = faces(persons)
    return tensorfaces(images, labels, ranks={"person": persons * 2 // 3, **RANKS}, components=components)


def edits(model: TensorFaces, images: torch.Tensor, cause: str) -> torch.Tensor:
    """The first picture of a person with every level of a cause."""
    codes = model.transform(images[:1])
    levels = model.factors[cause]
    known = {name: code.expand(len(levels), -1) for name, code in codes.items()}
    return model.inverse_transform({**known, cause: levels})


def main(persons: int = 24) -> tuple[Image.Image, dict[str, float]]:
    """The page, and how far the edits are from the true pictures beside leaving the picture as it is: below 1."""
    model = model_of(persons)
    images, _ = faces(1, first=persons)
    steps = {"expression": 32, "pose": 4, "light": 1}
    rows, labels, ratios = [], [], {}
    for cause, step in steps.items():
        found = edits(model, images, cause)
        truth = images[: len(found) * step : step]
        rows += [[images[0], *found], [None, *truth]]
        labels += [f"{cause} exchanged", "true picture"]
        ratios[cause] = ((found - truth)[1:].norm() / (images[:1] - truth)[1:].norm()).item()
    print({cause: round(ratio, 2) for cause, ratio in ratios.items()})
    return grid(rows, row_labels=labels, columns=["unseen", *map(str, range(len(POSES)))], zoom=1), ratios


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="where to put the page")
    parser.add_argument("--persons", type=int, default=24, help="how many the model is made of")
    options = parser.parse_args()
    page, _ = main(options.persons)
    page.save(options.picture, optimize=True)
