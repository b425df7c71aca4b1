"""All commands, in the order of `facemodels --help`."""

import io
import os
import sys
from typing import NoReturn

import typer

from facemodels.cli.data import convert_model, join, prepare, synthesise
from facemodels.cli.edit import animate, edit, interpolate
from facemodels.cli.evaluate import evaluate, probe, report
from facemodels.cli.export import export
from facemodels.cli.play import demo, play
from facemodels.cli.reconstruct import reconstruct
from facemodels.cli.train import train, train_baseline, train_verifier
from facemodels.errors import InputError, RunError

app = typer.Typer(
    name="facemodels",
    help="Take faces apart into identity, expression, pose and light, and put them together again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for _name, _command in {
    "demo": demo,
    "synthesise": synthesise,
    "prepare": prepare,
    "join": join,
    "convert-model": convert_model,
    "train": train,
    "train-verifier": train_verifier,
    "edit": edit,
    "interpolate": interpolate,
    "evaluate": evaluate,
    "probe": probe,
    "export": export,
    "report": report,
    "train-baseline": train_baseline,
    "animate": animate,
    "reconstruct": reconstruct,
    "app": play,
}.items():
    app.command(_name)(_command)


def main() -> NoReturn:
    """Run the command line; wrong input, or a run that cannot go on, ends it with one line and status 2."""
    # Before torch loads OpenMP: threads that spin while they wait make a step ten times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what the terminal cannot show
    try:
        app()
    except (InputError, RunError) as error:
        print(f"facemodels: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
