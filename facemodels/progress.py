"""Progress bars that suit a terminal and a log file alike."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_TERMINAL_SECONDS, _FILE_SECONDS = 0.1, 10.0


def progress_bar(iterable: Iterable[Any] | None = None, description: str = "", **options: Any) -> tqdm:
    """A `tqdm` bar on the standard error; written to a file it adds a line every ten seconds, not ten a second."""
    seconds = _TERMINAL_SECONDS if sys.stderr.isatty() else _FILE_SECONDS
    return tqdm(iterable, description, mininterval=seconds, **options)
