"""Reading and writing the file of a morphable model: safetensors, with its texts as metadata.

| tensor | shape | dtype | |
| --- | --- | --- | --- |
| `mean` | (vertices, 3) | float32 | mm; x to the viewer's right, y up, z to the viewer |
| `identity` | (n_identity, vertices, 3) | float32 | mm per standard deviation |
| `expression` | (n_expression, vertices, 3) | float32 | mm per standard deviation |
| `triangles` | (triangles, 3) | int64 | anticlockwise from outside |
| `face` | (triangles,) | bool | which belong to the face proper |
| `landmarks` | (68,) | int64 | vertices of the iBUG landmarks |
| `albedo` | (vertices, 3) | float32 | optional, in [0, 1] |
| `uv` | (vertices, 2) | float32 | optional, texture coordinates |

The metadata hold `format` (`facemodels.MorphableModel/1`), `name`, `licence`, `source`, and `expression_names`, a list
in JSON.
"""

import struct
from pathlib import Path

from torch import Tensor

from facemodels.errors import InputError
from facemodels.files import read_tensors, write_tensors

FORMAT = "facemodels.MorphableModel/1"
"""Marks the files that we write; the number goes up when their content changes."""


def write(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """Write tensors and texts, whole or not at all.

    Args:
        path: File to write.
        tensors: Arrays by name.
        texts: Texts by name.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"MorphableModel.save: cannot write in {path.parent}: there is no such folder; make it first")
    write_tensors(path, tensors, {"format": FORMAT, **texts})


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write` wrote.

    Args:
        path: File to read.

    Returns:
        The tensors and the texts, by name.

    Raises:
        InputError: There is no such file, it is no safetensors file, or it holds something else.
    """
    try:
        tensors, texts = read_tensors(path)
    except InputError as error:
        raise InputError(f"MorphableModel.load: {error}") from error
    if texts.pop("format", None) != FORMAT:
        raise InputError(f"MorphableModel.load: {path} is a safetensors file, but holds no morphable model")
    return tensors, texts


def is_safetensors(path: Path) -> bool:
    """Whether the file starts as safetensors do: the length of a header in JSON, then the header."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= path.stat().st_size
