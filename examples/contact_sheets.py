"""Draw contact sheets of the built-in head and of synthetic faces: `python examples/contact_sheets.py docs/sheets`.

One sheet each of identities, expressions, poses, lights, complexions and haircuts, and one of samples with their masks
and normals.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from facemodels.data.factors import sample_factors
from facemodels.data.portrait import build_heads, draw_heads
from facemodels.data.synthetic import synthesise
from facemodels.morphable import MorphableModel
from facemodels.morphable.procedural import EMOTIONS, Complexion, emotion_coefficients, masculinity, sample_complexion
from facemodels.morphable.procedural.albedo import HAIRCUTS, sample_haircut
from facemodels.rendering import euler_to_matrix, light_from_direction

TILE = 160
"""Side of a tile in pixels; the faces of a sheet fit a page at this size."""
PIXELS_PER_MM = 0.68
GREY = 0.42
CUT = ("bald", "fringe", "hair_length", "hair_top", "hair_volume", "hair_front", "hair_wave", "hair_curl")


def lamp(x: float = 0.35, y: float = 0.5, z: float = 0.8) -> Tensor:
    """A lamp in direction (x, y, z) with some light from everywhere."""
    return light_from_direction(torch.tensor([x, y, z]).float(), strength=torch.tensor(0.7), ambient=torch.tensor(0.36))


def portrait(
    identity: Tensor | None = None,
    expression: Tensor | None = None,
    *,
    yaw: float = 0.0,
    pitch: float = 0.0,
    light: Tensor | None = None,
    complexion: Complexion | None = None,
) -> Tensor:
    """One face, angles in degrees; shape (3, TILE, TILE)."""
    model = MorphableModel.procedural()
    identity = torch.zeros(model.n_identity) if identity is None else identity
    expression = torch.zeros(model.n_expression) if expression is None else expression
    heads = build_heads(identity[None], expression[None], [complexion or Complexion()])
    rotation = euler_to_matrix(*torch.deg2rad(torch.tensor([[yaw], [pitch], [0.0]])))
    middle = PIXELS_PER_MM * (rotation[0] @ torch.tensor([0.0, 0.0, 25.0]))  # the heads turn about this point
    shift = torch.stack([TILE / 2 - middle[0], 0.46 * TILE + middle[1]])
    background = torch.full((1, 3, TILE, TILE), GREY)
    light = lamp() if light is None else light
    return draw_heads(heads, rotation, torch.tensor([PIXELS_PER_MM]), shift[None], light[None], background)[0][0]


def sheet(tiles: list[Tensor], columns: int, labels: list[str] | None = None) -> Image.Image:
    """Tiles row by row, with labels in their corners."""
    side = tiles[0].shape[-1]
    page = Image.new("RGB", (columns * side, -(-len(tiles) // columns) * side))
    draw = ImageDraw.Draw(page)
    for k, tile in enumerate(tiles):
        place = (k % columns * side, k // columns * side)
        page.paste(Image.fromarray((255 * tile).byte().permute(1, 2, 0).numpy()), place)
        if labels:
            draw.text((place[0] + 3, place[1] + 1), labels[k], fill=(255, 255, 120))
    return page


def small(page: Image.Image) -> Image.Image:
    """The page in 256 colours, chosen for it and dithered: a third of the file."""
    palette = page.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    return page.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def identities() -> Image.Image:
    """Twelve people, each from the front and from the side."""
    tiles = []
    for k in range(12):
        generator = np.random.default_rng([5, k])
        identity = torch.from_numpy(generator.standard_normal(157)).float().clamp(-2.6, 2.6)
        complexion = sample_complexion(generator, masculinity(identity.numpy()))
        tiles += [portrait(identity, complexion=complexion), portrait(identity, complexion=complexion, yaw=40)]
    return sheet(tiles, 8)


def expressions() -> Image.Image:
    """The mean face with each component at 1.5 standard deviations, and the emotions."""
    names = MorphableModel.procedural().expression_names
    tiles, labels = [portrait()], ["neutral"]
    for name, direction in zip(names, 1.5 * torch.eye(len(names)), strict=True):
        tiles.append(portrait(expression=direction))
        labels.append(name)
    for emotion in EMOTIONS:
        tiles.append(portrait(expression=torch.from_numpy(emotion_coefficients(emotion)).float()))
        labels.append(emotion.upper())
    return sheet(tiles, 9, labels)


def poses() -> Image.Image:
    """The mean face from many sides."""
    views = [(yaw, 0) for yaw in (-60, -40, -20, 0, 20, 40, 60, 90)]
    views += [(yaw, pitch) for yaw in (0, 30) for pitch in (-25, -12, 12, 25)]
    tiles = [portrait(yaw=yaw, pitch=pitch) for yaw, pitch in views]
    return sheet(tiles, 8, [f"yaw {yaw} pitch {pitch}" for yaw, pitch in views])


def lights() -> Image.Image:
    """Lamps from several directions, and lights as they are drawn."""
    directions = [(-0.9, 0.2, 0.4), (0.9, 0.2, 0.4), (0, 0.95, 0.3), (0, -0.8, 0.6), (0, 0, 1)]
    tiles = [portrait(light=lamp(*direction)) for direction in directions]
    labels = [f"lamp {direction}" for direction in directions]
    for k in range(11):
        tiles.append(portrait(light=torch.from_numpy(sample_factors(0, k).light).float()))
        labels.append("as drawn")
    return sheet(tiles, 8, labels)


def complexions() -> Image.Image:
    """Skin tones from light to dark, and single parameters of colour."""
    shades = [
        Complexion(melanin=m, hair=0.1 + 0.9 * m, iris=max(0.0, 0.9 - 2 * m)) for m in np.linspace(0, 1, 8).tolist()
    ]
    changes = [
        {"beard": 0.8}, {"beard": 0.3}, {"age": 1.0, "grey": 0.6}, {"freckles": 1.0, "melanin": 0.05, "red": 0.9},
        {"grey": 0.9}, {"blush": 1.0, "blood": 0.8}, {"brow_thickness": 1.4, "brow_density": 1.0, "hair": 1.0},
        {"make_up": 1.0},
    ]  # fmt: skip
    labels = [f"melanin {one.melanin:.2f}" for one in shades]
    labels += [", ".join(f"{key} {value}" for key, value in change.items()) for change in changes]
    return sheet(
        [portrait(complexion=one) for one in [*shades, *(replace(Complexion(), **c) for c in changes)]], 8, labels
    )


def haircuts() -> Image.Image:
    """Each haircut twice, from the front and from the side."""
    tiles, labels = [], []
    for number, name in enumerate(HAIRCUTS):
        for k in range(2):
            generator = np.random.default_rng([3, number, k])
            identity = torch.from_numpy(0.8 * generator.standard_normal(157)).float()
            one = replace(sample_complexion(generator, masculinity(identity.numpy())), beard=0.0, grey=0.0)
            bare = {key: getattr(Complexion(), key) for key in CUT}
            one = replace(one, **bare | sample_haircut(generator, name))
            tiles += [portrait(identity, complexion=one), portrait(identity, complexion=one, yaw=45)]
            labels += [name, name]
    return sheet(tiles, 8, labels)


def samples() -> Image.Image:
    """Samples as a network gets them: image, mask, normals, and the second view."""
    tiles = []
    for k, sample in enumerate(synthesise(38, 11)):
        tiles.append(sample["image"])
        if k >= 36:
            mask = np.repeat(sample["mask"][..., None], 3, axis=2)
            normals = (sample["normals"].astype(int) + 128).clip(0, 255).astype(np.uint8)
            turned_normals = (sample["turned_normals"].astype(int) + 128).clip(0, 255).astype(np.uint8)
            turned_mask = np.repeat(sample["turned_mask"][..., None], 3, axis=2)
            tiles += [mask, normals, sample["turned_image"], turned_mask, turned_normals]
    enlarged = [np.repeat(np.repeat(tile, 2, axis=0), 2, axis=1) for tile in tiles]
    return sheet([torch.from_numpy(tile).permute(2, 0, 1) / 255 for tile in enlarged], 12)


SHEETS = {
    function.__name__: function for function in (identities, expressions, poses, lights, complexions, haircuts, samples)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to put the pictures")
    parser.add_argument("--only", choices=SHEETS, nargs="+", default=list(SHEETS), help="sheets to draw")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        small(SHEETS[name]()).save(arguments.folder / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
