"""Labelled grids of pictures, the form in which edits are looked at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from facemodels.errors import InputError
from facemodels.files import check_place, whole_file

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of names that are written as pictures."""

_LONGEST_SIDES = {"WEBP": 16383, "JPEG": 65500}  # pixels
_GAP = 4
_LABEL = 13  # pixels of a label's letters
_INK = (40, 40, 40)
_PAPER = (255, 255, 255)


def check_picture(path: Path, others: Sequence[str] = ()) -> None:
    """Refuse names that cannot be written, before any work.

    Args:
        path: The file to be.
        others: Endings that may also be written.

    Raises:
        InputError: The name does not end like a picture, or no file of that name can be written.
    """
    if path.suffix.lower() not in (*PICTURE_SUFFIXES, *others):
        raise InputError(f"{path} is no name for a picture; end it in {' or '.join(('.png', '.jpg', *others))}")
    check_place(path)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of its name, whole or not at all.

    Raises:
        InputError: The disk is full or cannot be written to, or the picture has more pixels than its format takes.
    """
    kind = Image.registered_extensions()[path.suffix.lower()]
    most = _LONGEST_SIDES.get(kind)
    if most is not None and max(picture.size) > most:
        width, height = picture.size
        raise InputError(f"{path} would be {width}x{height} pixels, a {kind} has at most {most} a side; write a .png")
    with whole_file(path) as file:
        picture.save(file, kind, **({} if kind == "PNG" else {"quality": 95}))


def to_bytes(picture: Tensor) -> UInt8[np.ndarray, "height width 3"]:
    """A picture (3, h, w) or (1, h, w) in [0, 1] as bytes (h, w, 3)."""
    picture = picture.detach().float().cpu().clamp(0, 1)
    return picture.expand(3, -1, -1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def normals_as_colours(
    normals: Float[Tensor, "*n 3 h w"], mask: Float[Tensor, "*n 1 h w"]
) -> Float[Tensor, "*n 3 h w"]:
    """Normals as red, green and blue on white: x to the right, y up, z to the viewer."""
    return (normals + 1) / 2 * mask + (1 - mask)


def on_paper(picture: Float[Tensor, "*n c h w"], mask: Float[Tensor, "*n 1 h w"]) -> Float[Tensor, "*n c h w"]:
    """A picture inside its mask, white around it."""
    return picture * mask + (1 - mask)


def grid(
    rows: Sequence[Sequence[Tensor | None]],
    *,
    columns: Sequence[str] = (),
    row_labels: Sequence[str] = (),
    zoom: int = 2,
) -> Image.Image:
    """Pictures in rows and columns, enlarged, with a label above each column and at the left of each row.

    Args:
        rows: Pictures of one size, (3, h, w) or (1, h, w) in [0, 1]; None leaves a place empty.
        columns: Labels of the columns.
        row_labels: Labels of the rows.
        zoom: Factor of enlargement.

    Raises:
        ValueError: There is no picture.
    """
    first = next((picture for row in rows for picture in row if picture is not None), None)
    if first is None:
        raise ValueError("grid: there is no picture to show")
    height, width = first.shape[-2] * zoom, first.shape[-1] * zoom
    font = ImageFont.load_default(_LABEL)
    left = max((round(font.getlength(label)) for label in row_labels), default=0)
    left += 4 * _GAP if left else 0
    top = _LABEL + 2 * _GAP if columns else 0
    across = max(len(row) for row in rows)
    sheet = Image.new("RGB", (left + across * (width + _GAP), top + len(rows) * (height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, label in enumerate(columns):
        draw.text((left + number * (width + _GAP) + width / 2, top / 2), label, _INK, font, anchor="mm")
    for down, row in enumerate(rows):
        y = top + down * (height + _GAP)
        if down < len(row_labels):
            draw.text((left - 2 * _GAP, y + height / 2), row_labels[down], _INK, font, anchor="rm")
        for number, picture in enumerate(row):
            if picture is not None:
                tile = Image.fromarray(to_bytes(picture)).resize((width, height), Image.Resampling.BICUBIC)
                sheet.paste(tile, (left + number * (width + _GAP), y))
    return sheet
