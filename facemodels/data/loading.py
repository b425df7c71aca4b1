"""Many photos at once: those that cannot be used are named, and the rest goes on."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from facemodels.config import SIZE
from facemodels.data.alignment import AlignedPhoto, load_photo
from facemodels.data.sources import open_source
from facemodels.errors import InputError
from facemodels.fitting.landmarks import LandmarkDetector


@dataclass(frozen=True)
class Failure:
    """A photo that cannot be used.

    Attributes:
        name: What the photo is called.
        reason: Why, in one sentence that names it.
    """

    name: str
    reason: str


def load_photos(
    paths: Iterable[str | os.PathLike[str]], detector: LandmarkDetector, *, size: int = SIZE, face: int = 1
) -> Iterator[AlignedPhoto | Failure]:
    """Photos, and those of folders with their subfolders, one after the other, each as it is read.

    Args:
        paths: Photos and folders of photos.
        detector: Finds the landmarks.
        size: Side of the crops in pixels, as the network takes it.
        face: Which of the faces in each photo: 1 is the largest.

    Returns:
        For each photo what `load_photo` makes of it, or why that cannot be done.
    """
    for path in map(Path, paths):
        try:
            if not path.is_dir():
                yield load_photo(path, detector, size=size, face=face)
                continue
            source = open_source(path)
        except InputError as error:
            yield Failure(str(path), str(error))
            continue
        for photo in source.photos():
            name = str(path / photo.name)
            try:
                content = photo.read()
                assert isinstance(content, bytes)  # only videos give pixels
                yield load_photo(content, detector, name, size=size, face=face)
            except InputError as error:
                yield Failure(name, str(error))
