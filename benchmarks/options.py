"""What the options of all commands have in common."""

import argparse


def command_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks COMMAND`, whose help is the description as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}".rstrip(),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
