"""Photos from a video: its frames, decoded by PyAV."""

import importlib.util
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from facemodels.data.sources import Photo, digest
from facemodels.errors import InputError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
"""Endings of file names that are taken for videos."""

_MISSING = 0.5  # seconds: what ends so long before its header says was cut


@dataclass(frozen=True)
class Video:
    """Frames of a video, the right way up; they are called by the video's name and their number, `clip.mp4#000120`.

    Raises:
        InputError: The file cannot be opened as a video, `step` is below 1, or PyAV is missing.
    """

    path: str
    step: int = 1

    def __post_init__(self) -> None:
        if self.step < 1:
            raise InputError(f"the frame step must be at least 1, got {self.step}")
        if importlib.util.find_spec("av") is None:
            raise InputError("reading videos needs PyAV; run `pip install multilinear-faces[faces]`")
        with self._open():
            pass

    def photos(self) -> Iterator[Photo]:
        """Every `step`-th frame."""
        import av

        name, number, shown = Path(self.path).name, -1, 0.0
        try:
            with self._open() as container:
                stream = container.streams.video[0]
                for number, frame in enumerate(container.decode(stream)):
                    shown = _end(frame, stream)
                    if number % self.step == 0:
                        yield Photo(f"{name}#{number:06d}", lambda frame=frame: _upright(frame))
                whole = _promised(stream)
                if whole - shown > _MISSING:
                    raise ValueError(f"{whole - shown:.1f} of {whole:.1f} seconds are missing")
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = f"{self.path} breaks off after {number + 1} frames ({error}); only those before are used"
            yield Photo.lost(name, reason)

    def count(self) -> int | None:
        """From the header, where it says so."""
        with self._open() as container:
            frames = container.streams.video[0].frames
        return -(-frames // self.step) or None

    def rate(self) -> Fraction:
        """Frames a second, on average; 25 where the file does not say."""
        with self._open() as container:
            return container.streams.video[0].average_rate or Fraction(25)

    def fingerprint(self) -> str:
        """Of the size of the file and the step."""
        return digest([str(os.path.getsize(self.path)), str(self.step)])

    def _open(self) -> Any:
        import av

        try:
            container = av.open(self.path)
        except FileNotFoundError as error:
            raise InputError(f"there is no video {self.path}; check the path") from error
        except IsADirectoryError as error:
            raise InputError(f"{self.path} is a folder; name one video in it") from error
        except (av.FFmpegError, OSError) as error:
            raise InputError(f"{self.path} cannot be read as a video ({error}); is the file damaged?") from error
        if not container.streams.video:
            container.close()
            raise InputError(f"{self.path} holds no video; is it sound alone?")
        return container


def _promised(stream: Any) -> float:
    """Seconds that the header of a Matroska or WebM file promises, 0 where it does not.

    Where such a file was cut, FFmpeg says that it ends. MP4 fails there; cut AVI and MPEG pass as whole.
    """
    time = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if time is None:
        return 0.0
    hours, minutes, seconds = map(float, time.groups())
    return 3600 * hours + 60 * minutes + seconds


def _end(frame: Any, stream: Any) -> float:
    """The second until which a frame is shown; endless where the file does not say."""
    if frame.time is None:
        return math.inf
    return frame.time + max(float((frame.duration or 0) * stream.time_base), 1 / (stream.average_rate or 25))


def _upright(frame: Any) -> np.ndarray:
    """The pixels of a frame as it is meant to be seen; telephones store how they were held."""
    return np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
