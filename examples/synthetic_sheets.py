"""Draw sheets of the synthetic sets: `python examples/synthetic_sheets.py docs/sheets`.

`facefactors.png` shows persons of FaceFactors, expressions down, its eight poses and then its four lights across;
`wild.png` shows faces in the wild as a network is trained on them.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from facemodels.data.factorial import EXPRESSIONS, LIGHTS, POSES
from facemodels.data.synthetic import synthesise

TILE = 80
PERSONS = (1, 4)
COLUMNS = len(POSES) + len(LIGHTS)


def facefactors() -> list[np.ndarray]:
    """A row for each person and expression: every pose, each under another light, then every light."""
    images = []
    for person in PERSONS:
        for expression in range(len(EXPRESSIONS)):
            first = (person * len(EXPRESSIONS) + expression) * len(POSES) * len(LIGHTS)
            cells = list(synthesise(first + len(POSES) * len(LIGHTS), design="facefactors", start=first))
            shown = [pose * len(LIGHTS) + pose % len(LIGHTS) for pose in range(len(POSES))]
            images += [cells[number]["image"] for number in [*shown, *range(len(LIGHTS))]]
    return images


def wild(count: int = 6 * COLUMNS) -> list[np.ndarray]:
    """Some persons, one face each."""
    return [sample["image"] for sample in synthesise(count, 6, design="wild", images_per_person=1)]


def sheet(images: list[np.ndarray]) -> Image.Image:
    """The images row by row, in 256 colours that suit them."""
    page = Image.new("RGB", (COLUMNS * TILE, len(images) // COLUMNS * TILE))
    for number, image in enumerate(images):
        tile = Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BICUBIC)
        page.paste(tile, (number % COLUMNS * TILE, number // COLUMNS * TILE))
    palette = page.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    return page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to put the pictures")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (facefactors, wild):
        sheet(draw()).save(folder / f"{draw.__name__}.png", optimize=True)


if __name__ == "__main__":
    main()
