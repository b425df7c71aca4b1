"""The command `facemodels`, also as `python -m facemodels`, the form launchers of distributed runs use."""

import importlib.util
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line, or say what it needs."""
    if importlib.util.find_spec("typer") is None:
        print("facemodels: its packages are not installed; pip install 'multilinear-faces[faces]'", file=sys.stderr)
        sys.exit(2)
    from facemodels.cli import main as run

    run()


if __name__ == "__main__":
    main()
