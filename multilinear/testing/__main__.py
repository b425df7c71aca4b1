"""`python -m multilinear.testing`: every operator's errors, by derivative, dtype and device."""

import argparse
import sys

import torch

from multilinear.testing.cases import CASES
from multilinear.testing.verification import TOLERANCES, verify

NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in TOLERANCES}


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and prints the table; 0 if every error is within tolerance."""
    parser = argparse.ArgumentParser(prog="python -m multilinear.testing", description=__doc__)
    parser.add_argument("operators", nargs="*", metavar="operator", help=f"any of {', '.join(CASES)}; by default all")
    parser.add_argument("--dtype", nargs="+", choices=NAMES, default=["float64", "float32", "complex128"])
    parser.add_argument("--device", nargs="+", default=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    parser.add_argument("--compile", action="store_true", help="include torch.compile and torch.export (minutes)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.operators if name not in CASES]
    if unknown:
        parser.error(f"no operator is called {unknown[0]}; there are {', '.join(CASES)}")
    dtypes = [NAMES[name] for name in options.dtype]
    good = verify(options.operators or None, dtypes=dtypes, devices=options.device, compile=options.compile)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
