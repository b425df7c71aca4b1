"""Where photos come from: folders, zip and tar files here; videos and Hugging Face sets in modules of their own.

A source is read once, in a fixed order, one photo after the other; nothing is unpacked to disk, and only the photo that
is being read is in memory.
"""

import hashlib
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from facemodels.errors import InputError

SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""Endings of file names that are taken for photos."""

MAX_BYTES = 100_000_000
"""Files larger than this are no photos."""

_TAR_NAME = re.compile(r"\.(tar|tgz|tbz2|txz|tar\.(gz|bz2|xz))$", re.IGNORECASE)
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")
_BROKEN_ZIP = (OSError, EOFError, KeyError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_BROKEN_TAR = (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class Photo:
    """One photo of a source.

    Attributes:
        name: What it is called in the prepared set.
        read: Gives the bytes of its file, or its pixels `(height, width, 3)`; raises `InputError` where it cannot be
            read. To be called before the source is asked for the next photo.
    """

    name: str
    read: Callable[[], bytes | np.ndarray]

    @classmethod
    def lost(cls, name: str, reason: str) -> "Photo":
        """A photo of which only the reason is known why it cannot be read."""

        def read() -> bytes:
            raise InputError(reason)

        return cls(printable(name), read)


class PhotoSource(Protocol):
    """Photos in a fixed order."""

    @property
    def path(self) -> str:
        """What the user called it."""
        ...

    def photos(self) -> Iterator[Photo]:
        """All photos, from the first; what cannot be read is a photo whose `read` says why."""
        ...

    def count(self) -> int | None:
        """How many there are; None where only reading to the end would tell."""
        ...

    def fingerprint(self) -> str:
        """Differs when the photos are others, as far as can be told without reading them."""
        ...


def open_source(path: str | os.PathLike[str], *, frame_step: int = 1) -> PhotoSource:
    """The photos of a folder, a zip or tar file, a video, or a Hugging Face dataset.

    Hidden files and files that do not end like a photo are passed over.

    Args:
        path: Folder of photos (with its subfolders), directory of `Dataset.save_to_disk`, parquet file or folder of
            them, zip or tar file, video, or the name of a dataset on the Hugging Face hub, `owner/name` or
            `owner/name:split`.
        frame_step: Of a video, every so many frames one is taken.

    Raises:
        InputError: There is nothing of the kind, or no photo in it.
    """
    source = _open(str(path), Path(path), frame_step)
    if source.count() == 0:
        raise InputError(f"no photos in {path}; photos end in {', '.join(sorted(SUFFIXES))}")
    return source


def _open(name: str, path: Path, frame_step: int) -> PhotoSource:
    from facemodels.data.hub import HubSet
    from facemodels.data.video import VIDEO_SUFFIXES, Video

    if path.is_dir():
        return HubSet.of_directory(name) or Folder(name)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".parquet":
            return HubSet(name, "parquet", (str(path),))
        if suffix in VIDEO_SUFFIXES:
            return Video(name, frame_step)
        if _TAR_NAME.search(path.name):
            return Tar(name)
        if zipfile.is_zipfile(path):
            return Zip(name)
        kind = "is a damaged zip file" if suffix == ".zip" else "is none of them"
        raise InputError(
            f"photos come from folders, zip and tar files, videos, parquet files and Hugging Face datasets;"
            f" {path} {kind}; put the photos into a folder"
        )
    if not path.exists() and _HUB_NAME.fullmatch(name):
        return HubSet.on_hub(name)
    raise InputError(f"there is no folder or file {path}; check the path")


@dataclass(frozen=True)
class Joined:
    """Several sources one after the other; with more than one, the source's own name comes before the photo's."""

    sources: tuple[PhotoSource, ...]

    @property
    def path(self) -> str:
        """The sources as the user called them."""
        return ", ".join(source.path for source in self.sources)

    def photos(self) -> Iterator[Photo]:
        """All photos of the first source, then those of the next."""
        for source, label in zip(self.sources, self._labels(), strict=True):
            for photo in source.photos():
                yield Photo(label + photo.name, photo.read)

    def count(self) -> int | None:
        """The sum, where every source knows its own."""
        counts = [source.count() for source in self.sources]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def fingerprint(self) -> str:
        """Of all fingerprints, in their order."""
        return digest(source.fingerprint() for source in self.sources)

    def _labels(self) -> list[str]:
        if len(self.sources) == 1:
            return [""]
        names = [Path(source.path).name or source.path for source in self.sources]
        twice = len(set(names)) < len(names)
        return [f"{number}-{name}/" if twice else f"{name}/" for number, name in enumerate(names, start=1)]


@dataclass(frozen=True)
class Folder:
    """Photos of a folder and its subfolders, in the order of their whole names."""

    path: str

    def photos(self) -> Iterator[Photo]:
        """The files that end like a photo."""
        for name, file in _walk(Path(self.path)):
            yield Photo(printable(name), lambda name=name, file=file: self._read(name, file))

    def count(self) -> int:
        """Number of photos."""
        return self._sizes[0]

    def fingerprint(self) -> str:
        """Of names and sizes."""
        return self._sizes[1]

    @cached_property
    def _sizes(self) -> tuple[int, str]:
        count, hashed = 0, hashlib.sha256()
        for name, file in _walk(Path(self.path)):
            count += 1
            size = file.stat().st_size if file.is_file() else -1
            hashed.update(f"{printable(name)}\0{size}\0".encode())
        return count, hashed.hexdigest()[:16]

    def _read(self, name: str, file: Path) -> bytes:
        try:
            check_size(name, file.stat().st_size)
            return file.read_bytes()
        except OSError as error:
            raise InputError(f"{name} cannot be read ({error.strerror})") from error


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, Path]]:
    """Names with `/` between folders, sorted as if all were in one list, though only one folder is listed at a time."""
    try:
        entries = [(entry.name + "/" * entry.is_dir(), entry.path) for entry in os.scandir(folder)]
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be read ({error.strerror})") from error
    for name, path in sorted(entries):
        if name.startswith("."):
            continue
        if name.endswith("/"):
            if not Path(path).is_symlink():  # a link to a folder above would never end
                yield from _walk(Path(path), prefix + name)
        elif is_photo(name):
            yield prefix + name, Path(path)


@dataclass(frozen=True)
class Zip:
    """Photos of a zip file by name. Its table of contents is in memory: about 0.6 GB for a million photos."""

    path: str

    def photos(self) -> Iterator[Photo]:
        """The entries that end like a photo."""
        with self._opened() as archive:
            for name, entry in self._entries(archive):
                yield _inside(name) or Photo(
                    printable(name), lambda name=name, entry=entry: self._read(archive, name, entry)
                )

    def count(self) -> int:
        """Number of photos."""
        return self._contents[0]

    def fingerprint(self) -> str:
        """Of names and checksums."""
        return self._contents[1]

    @cached_property
    def _contents(self) -> tuple[int, str]:
        with self._opened() as archive:
            entries = self._entries(archive)
            return len(entries), digest(f"{name}\0{entry.CRC}" for name, entry in entries)

    def _opened(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except _BROKEN_ZIP as error:
            raise InputError(f"{self.path} is a damaged zip file ({error}); put the photos into a folder") from error

    @staticmethod
    def _entries(archive: zipfile.ZipFile) -> list[tuple[str, zipfile.ZipInfo]]:
        entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        return sorted((name, entry) for name, entry in entries.items() if is_photo(name))

    def _read(self, archive: zipfile.ZipFile, name: str, entry: zipfile.ZipInfo) -> bytes:
        check_size(name, entry.file_size)
        try:
            return archive.read(entry)
        except _BROKEN_ZIP as error:
            raise InputError(f"{name} cannot be read from {self.path} ({error}); is the file damaged?") from error


@dataclass(frozen=True)
class Tar:
    """Photos of a tar file, packed or not, in the order in which they lie in it."""

    path: str

    def photos(self) -> Iterator[Photo]:
        """The members that end like a photo."""
        number = 0
        try:
            with tarfile.open(self.path, "r|*") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    if is_photo(member.name) and not member.isdir():
                        number += 1
                        yield _inside(member.name) or self._photo(archive, member)
        except _BROKEN_TAR as error:
            reason = f"{self.path} breaks off after {number} photos ({error}); only those before are used"
            yield Photo.lost(Path(self.path).name, reason)

    def count(self) -> None:
        """Only reading to the end would tell."""

    def fingerprint(self) -> str:
        """Of the size of the file."""
        return digest([str(os.path.getsize(self.path))])

    def _photo(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Photo:
        if not member.isreg():
            return Photo.lost(member.name, f"{member.name} is a link, not a file")

        def read() -> bytes:
            check_size(member.name, member.size)
            try:
                file = archive.extractfile(member)
                assert file is not None  # regular files have a content
                with closing(file):
                    content = file.read()
            except _BROKEN_TAR as error:
                raise InputError(
                    f"{member.name} cannot be read from {self.path} ({error}); is the file damaged?"
                ) from error
            if len(content) < member.size:
                raise InputError(f"{member.name} is cut off in {self.path}; is the file damaged?")
            return content

        return Photo(printable(member.name), read)


def _inside(name: str) -> Photo | None:
    """A member whose path climbs out of its archive, as a lost photo; None for the others."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        return Photo.lost(name, f"the path {printable(name)} leads out of the archive; nothing was read or unpacked")
    return None


def is_photo(name: str) -> bool:
    """Whether a name with `/` between folders ends like a photo and is not hidden."""
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts if part != "..")
    return path.suffix.lower() in SUFFIXES and not hidden


def check_size(name: str, size: int) -> None:
    """Refuse files that are too large for a photo.

    Raises:
        InputError: The file is larger than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise InputError(f"{printable(name)} is larger than {MAX_BYTES // 10**6} MB; is it a photo?")


def printable(name: str) -> str:
    """The name without bytes that are no text."""
    return name.encode("utf-8", "replace").decode()


def digest(texts: Iterator[str] | Sequence[str]) -> str:
    """Sixteen hexadecimal digits that differ when the texts do."""
    hashed = hashlib.sha256()
    for text in texts:
        hashed.update(text.encode("utf-8", "surrogateescape") + b"\0")
    return hashed.hexdigest()[:16]


def photos_from(source: PhotoSource, start: int, limit: int | None) -> Iterator[Photo]:
    """The photos from number `start`, of the first `limit` ones."""
    return islice(source.photos(), start, limit)
