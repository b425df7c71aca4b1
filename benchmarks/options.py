"""What the options of all commands have in common."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facemodels.data.dataset import PreparedSet


def command_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks COMMAND`, whose help is the description as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}".rstrip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_teacher(parser: argparse.ArgumentParser) -> None:
    """The option that `teacher_from` reads."""
    parser.add_argument(
        "--taught-by", type=Path, help="set whose split train teaches the judge, for other splits than test"
    )


def teacher_from(options: argparse.Namespace, prepared: "PreparedSet") -> "PreparedSet":
    """The set that teaches the judge of `options.split`.

    Raises:
        InputError: None is named where the measured set must not teach, or that set itself.
    """
    from facemodels.data.dataset import PreparedSet
    from facemodels.errors import InputError
    from facemodels.evaluation.report import teacher_of

    named = PreparedSet(options.taught_by) if options.taught_by else None
    teacher = teacher_of(prepared, options.split, named)
    if teacher is None:
        raise InputError(f"name a set that teaches the judge of the split {options.split!r}, with --taught-by")
    return teacher
