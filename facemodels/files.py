"""Files that are written whole or not at all, and tensors in them without pickle.

Every file is written beside its place and moved there when it is on the disk, so that a run that was killed, or that
found the disk full, leaves nothing that looks finished and is not.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from facemodels.errors import InputError

UNFINISHED = ".unfinished"
"""Ends the name of a file that is being written."""

_LONGEST = 255  # bytes of a name
_NO_PLACE = (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError, IsADirectoryError)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, if it is not there.

    Raises:
        InputError: There is a file of that name, or the place cannot be written to.
    """
    with explained(path):
        path.mkdir(parents=True, exist_ok=True)
    _check_folder(path)


def check_place(path: Path) -> None:
    """Refuse a file that cannot be written, before any work.

    Raises:
        InputError: Its folder does not exist or cannot be written to, it is a folder itself, or its name is too long.
    """
    if not os.path.isdir(path.parent):  # unlike Path.is_dir it takes names of any length
        raise InputError(f"the directory of {path} does not exist; make it first")
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder; name a file in it")
    if not _fits(path.name):
        raise InputError(f"the name {path.name} is too long; choose a shorter one")
    _check_folder(path.parent)


def shortened(stem: str, rest: str) -> str:
    """The start of a stem, cut so that a file that is called by it and `rest` can be written."""
    while stem and not _fits(stem + rest):
        stem = stem[:-1]
    return stem


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Another name to write a file under; it gets its own when all of it is on the disk.

    Raises:
        InputError: The disk is full or cannot be written to.
    """
    with whole_files(path) as (file,):
        yield file


@contextlib.contextmanager
def whole_files(*paths: Path) -> Iterator[list[Path]]:
    """Other names to write files of one folder under; they get their own, in this order, when all are on the disk.

    Raises:
        InputError: The disk is full or cannot be written to.
    """
    temporaries = [path.with_name(_unfinished(path.name)) for path in paths]
    try:
        with explained(paths[0].parent):
            yield temporaries
            for temporary in temporaries:
                with temporary.open("r+b") as stream:  # Windows syncs only what may be written
                    os.fsync(stream.fileno())
            for temporary, path in zip(temporaries, paths, strict=True):
                temporary.replace(path)
    except BaseException:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as file:
        file.write_text(json.dumps(value, indent=1) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write tensors and texts as a safetensors file, whole or not at all; the same content is the same file.

    Args:
        path: File to write; one that exists is replaced.
        tensors: Arrays by name, of any device and memory format.
        texts: The file's metadata by name.

    Raises:
        InputError: The disk is full or cannot be written to.
    """
    with whole_file(path) as file:
        file.touch()
        mode = file.stat().st_mode
        content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(content, file, metadata=dict(texts))
        file.chmod(mode)  # safetensors lets only the owner read it
        _sort_header(file)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, on the CPU, and the texts of a safetensors file, by name.

    Raises:
        InputError: There is no such file, or it is damaged.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as content:
            return {name: content.get_tensor(name) for name in content.keys()}, dict(content.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is a damaged safetensors file ({error}); copy it again") from error


@contextlib.contextmanager
def explained(place: Path) -> Iterator[None]:
    """Say what to do where the disk is full or cannot be written to; other errors pass.

    Raises:
        InputError: Instead of the system's own error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # safetensors and pyarrow have exceptions of their own
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            raise InputError(
                f"the disk of {place} is full; what was finished is kept:"
                " free some space and run the same command again"
            ) from error
        if isinstance(error, _NO_PLACE) or number in (errno.EROFS, errno.ENAMETOOLONG):
            raise InputError(f"{place} cannot be written to ({error}); choose another --out") from error
        raise


def _check_folder(folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder} cannot be written to; choose another --out")


def _unfinished(name: str) -> str:
    return f"{name}.{os.getpid()}{UNFINISHED}"


def _fits(name: str) -> bool:
    """Whether a file of that name can be written."""
    return len(os.fsencode(_unfinished(name))) <= _LONGEST


def _sort_header(file: Path) -> None:
    """Order the texts in the header, which safetensors leaves to chance."""
    with file.open("r+b") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(content) <= size:  # otherwise the order stays; the content is the same
            stream.seek(8)
            stream.write(content.ljust(size))
