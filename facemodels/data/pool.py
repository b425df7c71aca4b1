"""Work spread over processes, with results in order and only a little of it in memory at a time."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from facemodels.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2  # items given out for each process: one to work on, one to go on with


def ordered_map(
    setup: Callable[..., Callable[[Item], Result]], arguments: tuple[Any, ...], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Apply `setup(*arguments)`, which is called once in every process, to each item.

    Args:
        setup: A function of a module that makes the function to apply.
        arguments: What it is called with; must survive pickling if there are several workers.
        items: Taken as needed, a few ahead of the results.
        workers: Processes; with one, all is done in this process.

    Yields:
        The results in the order of the items.

    Raises:
        InputError: A process was ended from outside.
    """
    if workers <= 1:
        yield from map(setup(*arguments), items)
        return
    pool = worker_pool(workers, setup, arguments)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_apply, item))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was ended from outside, perhaps for want of memory; what was finished is kept:"
            " run the same command again, with fewer --workers if this recurs"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def worker_pool(
    workers: int, setup: Callable[..., Callable[[Any], Any]] | None = None, arguments: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """Processes of one thread each that leave an interrupt to their parent and end when it ends, however it does.

    Args:
        workers: Processes.
        setup: Called once in every process, with the arguments.
        arguments: Must survive pickling.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(setup, arguments))


_function: Callable[[Any], Any] | None = None


def _start(setup: Callable[..., Callable[[Any], Any]] | None, arguments: tuple[Any, ...]) -> None:
    global _function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _function = setup(*arguments) if setup else None


def _apply(item: Any) -> Any:
    assert _function is not None
    return _function(item)


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its processes to end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as the processes of a pool do, so that their number does not change a result."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
