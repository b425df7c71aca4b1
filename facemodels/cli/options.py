"""Options that several commands have, and what they may be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from facemodels.errors import InputError

Model = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint or run, here or as OWNER/NAME on the Hugging Face hub; by default the newest run, or"
        " facefactors, the network that comes with the package."
    ),
]

Expression = Annotated[bool, typer.Option("--expression", help="Take the expression.")]
Pose = Annotated[bool, typer.Option("--pose", help="Take the pose.")]
Light = Annotated[bool, typer.Option("--light", help="Take the light.")]
Identity = Annotated[bool, typer.Option("--identity", help="Take the identity.")]
Face = Annotated[int, typer.Option(min=1, help="Which face of the photo: 1 is the largest, 2 the next smaller one.")]
Refine = Annotated[
    int,
    typer.Option(
        min=0,
        help="Steps in which identity and light are fitted to the photo that is changed, so that the result looks more"
        " like it; 60 are a good choice, some seconds.",
    ),
]
TargetFace = Annotated[int, typer.Option(min=1, help="The same of the target.")]


def check_choices(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    """Refuse names that are not known."""
    for name in given:
        if name not in known:
            raise InputError(f"there is no {what} {name!r}; choose one of {', '.join(known)}")


def check_split(split: str) -> None:
    """Refuse what is no split of a set."""
    if split not in ("test", "train", "all"):
        raise InputError(f"there is no split {split!r}; choose test, train or all")


def wanted_factors(expression: bool, pose: bool, light: bool, identity: bool) -> tuple[list[str], bool]:
    """The factors to take, all without a flag, and whether there was one."""
    from facemodels.editing import EDITABLE

    flags = dict(zip(EDITABLE, (expression, pose, light, identity), strict=True))
    return [name for name, wanted in flags.items() if wanted] or list(EDITABLE), any(flags.values())
