"""The unfinished directory of a prepared set: what is done stays done, whatever ends the run."""

import json
import shutil
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float, Int, UInt8

from facemodels.errors import InputError
from facemodels.files import UNFINISHED, explained, whole_file, write_json
from facemodels.fitting.shape import Fit

SHARD = 512
"""Photos that are worked on together; a run that was killed loses less than one shard of each stage."""

_SETTINGS, _FOUND, _LOCK = "settings.json", "found.json", "lock"


@dataclass(frozen=True)
class FoundShard:
    """What the first stage found in some photos.

    Attributes:
        position: Numbers of the photos in which a face was found, counted over the whole source.
        names: Their names.
        reasons: Why the face is not used; an empty text where it is.
        crops: Aligned faces.
        points: Landmarks in pixels of crops of 64.
        transforms: From photo to a crop of 64.
        disagreement: Between the two looks, in pixels of a crop of 64.
        faces: How many faces each photo shows.
        turn: By how many degrees each photo was turned.
        lost: Names of the photos without a face, and the reasons.
        fit: Raw fits.
        mirrored: Raw fits of the mirrored landmarks, where they are wanted.
    """

    position: Int[np.ndarray, " n"]
    names: list[str]
    reasons: list[str]
    crops: UInt8[np.ndarray, "n size size 3"]
    points: Float[np.ndarray, "n 478 3"]
    transforms: Float[np.ndarray, "n 2 3"]
    disagreement: Float[np.ndarray, " n"]
    faces: Int[np.ndarray, " n"]
    turn: Int[np.ndarray, " n"]
    lost: list[tuple[str, str]]
    fit: Fit
    mirrored: Fit | None

    @property
    def kept(self) -> np.ndarray:
        """Rows of the faces that are used."""
        return np.flatnonzero([not reason for reason in self.reasons])


def rejects_of(shard: FoundShard) -> list[tuple[str, str]]:
    """Names and reasons of the photos of a shard that are not used."""
    turned_away = [(name, reason) for name, reason in zip(shard.names, shard.reasons, strict=True) if reason]
    return sorted([*shard.lost, *turned_away])


class Workspace:
    """Files of an unfinished prepared set.

    Use it as a context manager: the directory is locked, and what a killed run left half-written is removed.

    Args:
        path: The unfinished directory; made if it does not exist.
        settings: Everything the result depends on, as JSON.

    Raises:
        InputError: Another run works on it, or it was begun with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]):
        self.path, self.settings = path, settings
        self._lock = FileLock(path / _LOCK)

    def __enter__(self) -> "Workspace":
        with explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another run is writing {self.path}; wait for it, or choose another --out") from None
        try:
            self._begin()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _begin(self) -> None:
        for file in self.path.rglob("*" + UNFINISHED):
            file.unlink()
        file = self.path / _SETTINGS
        if file.is_file():
            known = json.loads(file.read_text())
            if known != self.settings:
                raise InputError(
                    f"{self.path} was begun with {differences(known, self.settings)};"
                    " use the same settings to go on, remove it to start afresh, or choose another --out"
                )
        else:
            write_json(file, self.settings)
        for folder in ("found", "rows"):
            (self.path / folder).mkdir(exist_ok=True)

    @property
    def shards(self) -> int:
        """How many shards the first stage has finished."""
        number = 0
        while self._found(number).is_file():
            number += 1
        return number

    @property
    def photos(self) -> int | None:
        """How many photos there are; None while the first stage is unfinished."""
        file = self.path / _FOUND
        return json.loads(file.read_text())["photos"] if file.is_file() else None

    def close_found(self) -> None:
        """Say that the first stage is finished."""
        sizes = [len(shard.names) + len(shard.lost) for shard in map(self.load, range(self.shards))]
        write_json(self.path / _FOUND, {"photos": sum(sizes)})

    def rows_file(self, number: int) -> Path:
        """Where the rows of a shard belong."""
        return self.path / "rows" / f"{number:05d}.arrow"

    def save(self, number: int, shard: FoundShard) -> None:
        """Write a shard of the first stage, whole or not at all."""
        arrays: dict[str, Any] = {}
        for field in fields(FoundShard):
            value = getattr(shard, field.name)
            if isinstance(value, Fit):
                arrays |= {f"{field.name}.{name}": part.numpy() for name, part in vars(value).items()}
            elif isinstance(value, list):
                arrays[field.name] = np.frombuffer(json.dumps(value).encode(), np.uint8)
            elif value is not None:
                arrays[field.name] = value
        with whole_file(self._found(number)) as file, file.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)

    def load(self, number: int) -> FoundShard:
        """Read a shard of the first stage."""
        with np.load(self._found(number), allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files if "." not in name}
            for name in ("names", "reasons", "lost"):
                values[name] = json.loads(bytes(values[name]))
            values["lost"] = [tuple(pair) for pair in values["lost"]]
            return FoundShard(**values, fit=_fit(arrays, "fit"), mirrored=_fit(arrays, "mirrored"))

    def load_fits(self, number: int) -> tuple[np.ndarray, Fit, Fit | None]:
        """The kept rows of a shard, and all its fits, without the pictures."""
        with np.load(self._found(number), allow_pickle=False) as arrays:
            kept = np.flatnonzero([not reason for reason in json.loads(bytes(arrays["reasons"]))])
            return kept, _fit(arrays, "fit"), _fit(arrays, "mirrored")

    def kept_names(self, number: int) -> list[str]:
        """Names of the usable faces of a shard, without the pictures."""
        with np.load(self._found(number), allow_pickle=False) as arrays:
            names, reasons = (json.loads(bytes(arrays[field])) for field in ("names", "reasons"))
            return [name for name, reason in zip(names, reasons, strict=True) if not reason]

    def finish(self, out: Path) -> None:
        """Give the directory its name, then remove what only the unfinished run needed."""
        with explained(self.path):
            self.path.rename(out)
        clean(out)

    def _found(self, number: int) -> Path:
        return self.path / "found" / f"{number:05d}.npz"


def clean(out: Path) -> None:
    """Remove what a run that was killed at the very end may have left in a finished set."""
    for name in ("found", "rows"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in (_SETTINGS, _FOUND, _LOCK):
        (out / name).unlink(missing_ok=True)


def _fit(arrays: Any, prefix: str) -> Any:
    names = [field.name for field in fields(Fit)]
    if f"{prefix}.scale" not in arrays.files:
        return None
    return Fit(**{name: torch.from_numpy(arrays[f"{prefix}.{name}"]) for name in names})


def differences(known: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The settings that differ, as a text."""
    names = [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]
    return ", ".join(f"{name} {_shown(known.get(name))}, not {_shown(wanted.get(name))}" for name in names)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
