"""Checking an operator of your own: a wrong gradient is found, explained, and shrunk to its smallest case.

Needs the extra `testing`.
"""

import torch
from hypothesis import find, settings

from multilinear.testing import assert_gradients, factor_matrices


class ColumnNorms(torch.autograd.Function):
    """Squared norms of the columns of a * b; the gradient of b forgets a factor 2."""

    @staticmethod
    def forward(ctx, a, b):  # noqa: D102
        ctx.save_for_backward(a, b)
        return (a * b).square().sum(0)

    @staticmethod
    def backward(ctx, gradient):  # noqa: D102
        a, b = ctx.saved_tensors
        return 2 * gradient * a * b**2, gradient * a**2 * b


def reference(a, b):
    """The same in operations that torch differentiates."""
    return (a * b).square().sum(0)


def complaint(factors) -> str:
    """What `assert_gradients` says about the operator for these inputs; empty if it is right."""
    a, b = factors
    try:
        assert_gradients(ColumnNorms.apply, reference, [a, b], orders=1)
    except AssertionError as error:
        return str(error)
    return ""


def main() -> str:
    matrices = factor_matrices(min_factors=2, max_factors=2).filter(lambda f: f[0].shape == f[1].shape)
    smallest = find(
        matrices,
        lambda factors: complaint(factors) != "",
        settings=settings(deadline=None, derandomize=True, database=None),
    )
    message = complaint(smallest)
    print(f"smallest wrong case: a = {smallest[0].tolist()}, b = {smallest[1].tolist()}")
    print(message)
    return message


if __name__ == "__main__":
    main()
