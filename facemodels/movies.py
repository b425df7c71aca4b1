"""Moving pictures, written whole or not at all: GIF by Pillow, everything else by PyAV."""

import importlib.util
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from facemodels.errors import InputError
from facemodels.files import check_place, whole_file

_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_CODECS = {"webm": ("libvpx-vp9", "libvpx")}
_OTHER_CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has
_QUALITY = {"libx264": {"crf": "18"}, "libvpx-vp9": {"crf": "24", "b": "0"}}
_MOST = 600  # frames of a GIF, all of which are in memory at once

MOVIE_SUFFIXES = frozenset({".gif", *_CONTAINERS})
"""Endings of names that are written as moving pictures."""


def check_movie(path: Path) -> None:
    """Refuse names that cannot be written, before any work.

    Raises:
        InputError: The name has another ending, or no file of that name can be written; or PyAV is missing.
    """
    suffix = path.suffix.lower()
    if suffix not in MOVIE_SUFFIXES:
        raise InputError(f"{path} is no name for a moving picture; end it in {', '.join(sorted(MOVIE_SUFFIXES))}")
    check_place(path)
    if suffix != ".gif" and importlib.util.find_spec("av") is None:
        raise InputError("writing videos needs PyAV; run `pip install multilinear-faces[faces]`, or write a .gif")


def write_movie(path: Path, frames: Iterable[UInt8[np.ndarray, "height width 3"]], rate: Fraction | float) -> int:
    """Write frames as they come; without any, or with an error on the way, nothing is written.

    Odd heights and widths get a white row or column, which most codecs need.

    Args:
        path: File to write; one that exists is replaced. Its ending says the format: .gif, .mp4, .mov, .mkv, .webm.
        frames: RGB, all of one size.
        rate: Frames a second.

    Returns:
        The number of frames.

    Raises:
        InputError: The name cannot be written, or a GIF gets more than 600 frames.
        ValueError: There is no frame.
    """
    check_movie(path)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("write_movie: there is no frame to write")
    every = chain([first], iterator)
    with whole_file(path) as file:
        if path.suffix.lower() == ".gif":
            return _write_gif(file, every, float(rate))
        return _write_video(file, every, first.shape[:2], _CONTAINERS[path.suffix.lower()], rate)


def _write_gif(file: Path, frames: Iterator[np.ndarray], rate: float) -> int:
    pictures = []
    for frame in frames:
        if len(pictures) == _MOST:
            raise InputError(f"a GIF of more than {_MOST} frames is too large to be seen; write an .mp4")
        pictures.append(Image.fromarray(frame).quantize(dither=Image.Dither.FLOYDSTEINBERG))
    duration = max(20, round(1000 / rate))  # milliseconds; browsers slow down what is faster
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return len(pictures)


def _write_video(
    file: Path, frames: Iterator[np.ndarray], size: tuple[int, int], container: str, rate: Fraction | float
) -> int:
    import av

    height, width = size
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    codec = next(name for name in _CODECS.get(container, _OTHER_CODECS) if name in av.codecs_available)
    count = 0
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream(
            codec, rate=Fraction(rate).limit_denominator(1001), options=_QUALITY.get(codec, {})
        )
        stream.height, stream.width, stream.pix_fmt = height + height % 2, width + width % 2, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.pad(frame, odd, constant_values=255), format="rgb24")
            output.mux(stream.encode(picture))
            count += 1
        output.mux(stream.encode())
    return count
