"""Where photos come from: a folder or a zip file, sorted by name."""

import os
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from facemodels.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})
"""Endings of file names that are taken for photos."""

_MAX_BYTES = 500_000_000


@dataclass(frozen=True)
class PhotoSource:
    """Photos by name; can be sent to another process.

    Attributes:
        path: The folder or zip file.
        names: Sorted names, with `/` between folders.
    """

    path: Path
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The bytes of one photo; nothing is unpacked to disk.

        Raises:
            InputError: The photo cannot be read.
        """
        try:
            if self.path.is_dir():
                file = self.path / name
                if file.stat().st_size > _MAX_BYTES:
                    raise InputError(f"{name} is larger than {_MAX_BYTES // 10**6} MB; is it a photo?")
                return file.read_bytes()
            archive = _archive(self.path, os.getpid())
            if archive.getinfo(name).file_size > _MAX_BYTES:
                raise InputError(f"{name} is larger than {_MAX_BYTES // 10**6} MB; is it a photo?")
            return archive.read(name)
        except (
            OSError,
            KeyError,
            RuntimeError,
            NotImplementedError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
        ) as error:
            raise InputError(f"{name} cannot be read from {self.path} ({error}); is the file damaged?") from error


def open_source(path: str | os.PathLike[str]) -> PhotoSource:
    """The photos of a folder (with its subfolders) or of a zip file.

    Hidden files and files that do not end like a photo are passed over.

    Raises:
        InputError: There is no such folder or zip file, or no photo in it.
    """
    path = Path(path)
    if path.is_dir():
        found = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    elif zipfile.is_zipfile(path):
        found = [entry.filename for entry in _archive(path, os.getpid()).infolist() if not entry.is_dir()]
    elif path.exists():
        raise InputError(f"{path} is neither a folder nor a zip file of photos; put the photos into a folder")
    else:
        raise InputError(f"there is no folder or zip file {path}; check the path")
    names = tuple(sorted(name for name in set(found) if _is_photo(PurePosixPath(name))))
    if not names:
        raise InputError(f"no photos in {path}; photos end in {', '.join(sorted(SUFFIXES))}")
    return PhotoSource(path, names)


def _is_photo(name: PurePosixPath) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts if part != "..")
    return name.suffix.lower() in SUFFIXES and not hidden


@lru_cache(maxsize=8)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """The opened zip file of this process: a file position must not be shared with a forked one."""
    return zipfile.ZipFile(path)
