"""How a command ends that did not do all that was asked."""

import sys
from typing import NoReturn

import typer

PARTLY, INTERRUPTED = 1, 130
"""Status where some of many were left out, and after Ctrl-C."""


def stop(message: str) -> NoReturn:
    """End after Ctrl-C, and say what is kept."""
    print(f"\nfacemodels: {message}", file=sys.stderr)
    raise typer.Exit(INTERRUPTED)
