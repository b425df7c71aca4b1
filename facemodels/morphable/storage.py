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

import json
import os
import struct
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facemodels.errors import InputError

FORMAT = "facemodels.MorphableModel/1"
"""Marks the files that we write; the number goes up when their content changes."""


def write(path: Path, tensors: dict[str, Tensor], texts: dict[str, str]) -> None:
    """Write tensors and texts next to the target first, then put the finished file in its place.

    Args:
        path: File to write.
        tensors: Arrays by name.
        texts: Texts by name.

    Raises:
        InputError: The folder does not exist or cannot be written.
    """
    try:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
        temporary.touch()
        mode = temporary.stat().st_mode
    except OSError as error:
        raise InputError(f"MorphableModel.save: cannot write in {path.parent}: {error.strerror}") from error
    try:
        content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(content, temporary, metadata={"format": FORMAT, **texts})
        temporary.chmod(mode)  # safetensors lets only the owner read it
        _sort_header(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sort_header(file: Path) -> None:
    """Order the names in the header, which safetensors leaves to chance: the same model is the same file."""
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(content) <= size:  # otherwise the order stays; the content is the same
            stream.seek(8)
            stream.write(content.ljust(size))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write` wrote.

    Args:
        path: File to read.

    Returns:
        The tensors and the texts, by name.

    Raises:
        InputError: There is no such file, it is no safetensors file, or it holds something else.
    """
    if not path.is_file():
        raise InputError(f"MorphableModel.load: there is no file {path}")
    try:
        with safe_open(path, framework="pt") as content:
            texts = dict(content.metadata() or {})
            tensors = {name: content.get_tensor(name) for name in content.keys()}
    except (SafetensorError, OSError) as error:
        raise InputError(f"MorphableModel.load: {path} is a damaged safetensors file: {error}") from error
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
