"""Photos from Hugging Face datasets: on the hub, as parquet files, or as `Dataset.save_to_disk` left them.

All of them are streamed, so that memory does not depend on their size.
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facemodels.data.sources import Photo, check_size, digest, is_photo, printable
from facemodels.errors import InputError


@dataclass(frozen=True)
class HubSet:
    """The images of a dataset; splits come one after the other.

    A row is called by its image's file name where it has one, and by its number otherwise.

    Attributes:
        path: What the user called it.
        kind: Loader of `datasets`: "arrow", "parquet", or the name of a dataset on the hub.
        files: The data files; none for a dataset on the hub.
        split: Only this split, or all.
    """

    path: str
    kind: str
    files: tuple[str, ...] = ()
    split: str | None = None

    @classmethod
    def of_directory(cls, path: str) -> "HubSet | None":
        """The dataset in a directory, or None where the directory is none."""
        folder = Path(path)
        saved = _saved(folder)
        if saved:
            return cls(path, "arrow", saved)
        parquet = tuple(sorted(map(str, folder.rglob("*.parquet"))))
        return cls(path, "parquet", parquet) if parquet else None

    @classmethod
    def on_hub(cls, name: str) -> "HubSet":
        """A dataset on the hub by `owner/name` or `owner/name:split`."""
        kind, _, split = name.partition(":")
        return cls(name, kind, split=split or None)

    def photos(self) -> Iterator[Photo]:
        """The images, in the order of the rows."""
        number = 0
        try:
            for part in self._open():
                for row in part:
                    value = next(iter(row.values()))
                    yield Photo(_name(value, number), lambda value=value, number=number: _read(value, number))
                    number += 1
        except InputError:
            raise
        except Exception as error:  # whatever pyarrow, fsspec or the network may raise
            if number == 0:
                raise InputError(f"{self.path} cannot be read as a dataset ({_short(error)})") from error
            reason = f"{self.path} breaks off after {number} rows ({_short(error)}); only those before are used"
            yield Photo.lost(Path(self.path).name, reason)

    def count(self) -> int | None:
        """Known of parquet files, whose footers say so."""
        if self.kind != "parquet":
            return None
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile

        try:
            return sum(ParquetFile(file).metadata.num_rows for file in self.files)
        except (ArrowException, OSError) as error:
            raise InputError(f"{self.path} cannot be read as a dataset ({_short(error)})") from error

    def fingerprint(self) -> str:
        """Of the names and sizes of the files, or of the name on the hub."""
        return digest([self.kind, *(f"{Path(file).name} {os.path.getsize(file)}" for file in self.files)])

    def _open(self) -> Iterator[Any]:
        """Each split as a stream with the image column alone, undecoded."""
        import datasets

        options: dict[str, Any] = {"data_files": list(self.files)} if self.files else {}
        options |= {"split": self.split, "streaming": True}
        try:
            loaded = datasets.load_dataset(self.kind, **options)
        except Exception as error:  # the hub answers in many ways
            raise InputError(
                f"the dataset {self.path} cannot be opened ({_short(error)}); check its name and the network"
            ) from error
        for part in [loaded] if self.split else loaded.values():
            features = part.features or {}
            images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
            if not images:
                raise InputError(f"{self.path} holds no column of images, only {', '.join(features) or 'nothing'}")
            yield part.select_columns(images[:1]).cast_column(images[0], datasets.Image(decode=False))


def _name(value: Any, number: int) -> str:
    path = (value or {}).get("path")
    return printable(Path(path).name) if path and is_photo(path) else f"{number:08d}"


def _read(value: Any, number: int) -> bytes:
    if not value or not (value.get("bytes") or value.get("path")):
        raise InputError(f"row {number} holds no image")
    content = value.get("bytes")
    if content is None:
        import fsspec

        try:
            opened: Any = fsspec.open(value["path"], "rb")  # the path may be one on the hub
            with opened as file:
                content = file.read()
        except Exception as error:  # file systems have exceptions of their own
            raise InputError(f"row {number} points at a file that cannot be read ({_short(error)})") from error
    check_size(f"row {number}", len(content))
    return content


def _saved(folder: Path) -> tuple[str, ...]:
    """The files of `save_to_disk`; those that `datasets` keeps beside them hold what was computed later."""
    splits = folder / "dataset_dict.json"
    arrow = any(folder.glob("*.arrow")) or any(folder.glob("*/*.arrow"))
    if not arrow or not (splits.is_file() or (folder / "state.json").is_file()):
        return ()
    try:
        parts = [folder / name for name in json.loads(splits.read_text())["splits"]] if splits.is_file() else [folder]
        files = [part / file["filename"] for part in parts for file in _state(part)["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} cannot be read as a dataset ({_short(error)})") from error
    for file in files:
        if not file.is_file():
            raise InputError(f"{folder} cannot be read as a dataset (there is no {file}); save it again")
    return tuple(map(str, files))


def _state(part: Path) -> Any:
    return json.loads((part / "state.json").read_text())


def _short(error: Exception) -> str:
    """The first line of a message, without addresses of this machine's memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(error).strip().split("\n")[0])[:200] or type(error).__name__
