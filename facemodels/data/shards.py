"""Prepared sets written by several processes in shards: a killed run goes on where it was.

While a set is being made its shards lie in `OUT.partial`. A shard appears under its name only when it is whole, and
depends on the settings and its number alone, so a set made in two runs is the same as one made in a single run.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial as partially
from pathlib import Path
from typing import Any

import datasets

from facemodels.data.dataset import PreparedSet, check_new, write_rows
from facemodels.data.pool import worker_pool
from facemodels.errors import InputError
from facemodels.files import whole_file, write_json
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar

Row = dict[str, Any]

_SETTINGS = "settings.json"


def write_shards(
    out: str | os.PathLike[str],
    make: Callable[[int], list[Row]],
    shards: int,
    morphable: MorphableModel,
    info: dict[str, Any],
    *,
    total: int,
    workers: int = 1,
    unit: str = "face",
) -> PreparedSet:
    """Write a prepared set shard by shard, or finish one that an earlier run began.

    Args:
        out: Directory to make. A finished set with the same `info` is opened and left as it is.
        make: Rows of a shard by its number, as `write_prepared` takes them; picklable, and the same at every call.
        shards: Number of shards.
        morphable: The morphable model of the coefficients.
        info: What goes into `preparation.json` and tells one set from another; must be JSON.
        total: Number of rows of all shards, for the progress bar.
        workers: Processes. With more than one, the calling script needs `if __name__ == "__main__":`.
        unit: What a row is, for the progress bar.

    Returns:
        The set, opened.

    Raises:
        InputError: `out` holds something else, `OUT.partial` was begun with other settings, or the disk is full.
    """
    out = Path(out)
    partial = out.with_name(out.name + ".partial")
    if _is_finished(out, info):
        shutil.rmtree(partial, ignore_errors=True)
        return PreparedSet(out)
    check_new(out)
    try:
        _begin(partial, info)
        missing = [number for number in range(shards) if not _path(partial, number).exists()]
        done = total * (shards - len(missing)) // max(shards, 1)
        with progress_bar(None, "rendering", total=total, initial=done, unit=unit) as bar:
            for rows in _run(partially(_write_shard, make, partial), missing, workers):
                bar.update(rows)
        _join(partial, shards, morphable, info, out)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"the disk of {out} is full; {partial} keeps what is done: make room and run the same command again"
        ) from error
    return PreparedSet(out)


def _is_finished(out: Path, info: dict[str, Any]) -> bool:
    try:
        found = json.loads((out / "preparation.json").read_text())
    except (OSError, ValueError):
        return False
    return {name: found.get(name) for name in info} == info


def _begin(partial: Path, info: dict[str, Any]) -> None:
    """Make the directory of the shards, or see that the one there belongs to the same set."""
    settings = partial / _SETTINGS
    if settings.exists():
        found = json.loads(settings.read_text())
        other = sorted(name for name in {*found, *info} if found.get(name) != info.get(name))
        if other:
            what = ", ".join(f"{name} {found.get(name)!r} instead of {info.get(name)!r}" for name in other)
            raise InputError(f"{partial} holds an unfinished set with {what}; finish that one or remove the directory")
        return
    partial.mkdir(parents=True, exist_ok=True)
    write_json(settings, info)


def _path(partial: Path, number: int) -> Path:
    return partial / f"shard-{number:05d}.arrow"


def _write_shard(make: Callable[[int], list[Row]], partial: Path, number: int) -> int:
    rows = make(number)
    with whole_file(_path(partial, number)) as path:
        write_rows(path, rows)
    return len(rows)


def _join(partial: Path, shards: int, morphable: MorphableModel, info: dict[str, Any], out: Path) -> None:
    whole = partial / "set"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    table = datasets.concatenate_datasets(
        [datasets.Dataset.from_file(str(_path(partial, number))) for number in range(shards)]
    )
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        table.save_to_disk(str(whole))
    finally:
        if shown:
            datasets.enable_progress_bars()
    morphable.save(whole / "morphable.safetensors")
    (whole / "preparation.json").write_text(json.dumps({"faces": len(table), **info}, indent=1) + "\n")
    whole.rename(out)
    del table  # it holds the shards open
    shutil.rmtree(partial)


def _run(work: Callable[[int], int], numbers: list[int], workers: int) -> Iterator[int]:
    """Results of the work on each number, as they come."""
    if workers == 1 or len(numbers) < 2:
        yield from map(work, numbers)
        return
    with worker_pool(workers) as pool:
        waiting: set[Future[int]] = {pool.submit(work, number) for number in numbers}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "a process that renders was killed, for want of memory perhaps;"
                " the same command goes on where it was, with fewer workers if need be"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
