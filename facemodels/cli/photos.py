"""Photos of the command line: one, or many of which some cannot be used."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from facemodels.cli.ending import PARTLY
from facemodels.errors import InputError


def aligned(path: Path, detector: Any, size: int, face: int, option: str = "--face") -> Any:
    """The aligned photo."""
    from facemodels.data.alignment import load_photo

    return next(noted(iter([load_photo(path, detector, size=size, face=face)]), face, option))


def noted(photos: Iterator[Any], face: int, option: str) -> Iterator[Any]:
    """Photos as they come; that one shows other faces, too, is said on the standard error."""
    from facemodels.data.loading import Failure

    for photo in photos:
        if not isinstance(photo, Failure) and face == 1 and photo.landmarks.faces > 1:
            count = photo.landmarks.faces
            print(f"{photo.name} shows {count} faces; the largest is taken, {option} takes another", file=sys.stderr)
        yield photo


def name_failure(failure: Any, failed: list[Any]) -> None:
    """Say why a photo of many is left out; the others go on."""
    print(f"facemodels: {failure.reason}", file=sys.stderr)
    failed.append(failure)


def check_some(done: Sequence[Any], failed: Sequence[Any], what: str) -> None:
    """Refuse many of which none can be used."""
    if not done:
        raise InputError(f"none of the {len(failed)} {what} can be used; each was named above")


def end_batch(done: Sequence[Any], failed: Sequence[Any], what: str) -> None:
    """Status 1 if some of many were left out."""
    if failed:
        print(f"{len(failed)} of {len(failed) + len(done)} {what} were left out", file=sys.stderr)
        raise typer.Exit(PARTLY)


def new_name(name: str, taken: set[str]) -> str:
    """The name, or with the first number that makes it new, also on disks that do not tell capitals."""
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    new = next(one for one in names if one.casefold() not in taken)
    taken.add(new.casefold())
    return new
