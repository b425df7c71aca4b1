"""`python -m benchmarks NAME`: run one of the measurements below."""

import importlib
import sys

NAMES = ("faces",)


def main(arguments: list[str] | None = None) -> int:
    """Run a measurement by name; the other arguments are for it."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name not in NAMES:
        print(f"benchmarks: there is no {name!r}; choose one of {', '.join(NAMES)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{name}").main(rest)


if __name__ == "__main__":
    sys.exit(main())
