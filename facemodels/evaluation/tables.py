"""Tables that users write: CSV files with labels of faces."""

import csv
import os
from pathlib import Path

from facemodels.errors import InputError

_BETWEEN = (",", ";", "\t")  # spreadsheets of some countries separate by semicolons


def read_table(path: str | os.PathLike[str], columns: str) -> list[dict[str, str]]:
    """The rows of a CSV whose cells are parted by commas, semicolons or tabs; cells that a short row lacks are empty.

    Args:
        path: The file, in UTF-8.
        columns: Which columns it needs, in words, for the message.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            return list(csv.DictReader(file, delimiter=max(_BETWEEN, key=header.count), restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({error}); give a table with {columns}") from error
