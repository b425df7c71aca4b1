"""Full sizes for measurements, tiny ones for tests of the same cases."""

from collections.abc import Callable

Size = Callable[[int], int]


def full(size: int) -> int:
    return size


def tiny(size: int) -> int:
    """The cube root: order and equality of sizes stay as they are, 1 stays 1."""
    return max(round(size ** (1 / 3)), 1)
