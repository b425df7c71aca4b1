"""Hypothesis strategies: tensors of small whole numbers in awkward shapes and memory layouts.

The entries are small integers in floating point, so that sums and products are exact and a failing example shrinks to
zeros and ones.
"""

from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

SIZES = st.sampled_from([1, 2, 3, 4, 0, 5, 7])
"""Sizes of a mode, from the simplest to the rarest: 0 and 1 are where code breaks."""

LAYOUTS = st.sampled_from(["contiguous", "transposed", "strided", "expanded"])


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Sequence[int] | st.SearchStrategy[Sequence[int]] | None = None,
    *,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float64,
    layout: str | st.SearchStrategy[str] = LAYOUTS,
) -> Tensor:
    """Tensors of small whole numbers.

    Args:
        draw: Given by hypothesis.
        shape: A shape, or a strategy for one; by default one to four modes of sizes 0 to 7.
        dtype: A dtype, or a strategy for one.
        layout: "contiguous", "transposed" (first mode fastest in memory), "strided" (every second element),
            "expanded" (the first mode with stride 0), or a strategy for one.

    Returns:
        A strategy for tensors.

    Example:
        >>> from hypothesis import given, settings
        >>> from multilinear.testing import tensors
        >>> import multilinear as ml
        >>> @settings(deadline=None)  # the first call of torch is slow
        ... @given(tensors((2, 3, 4)))
        ... def test_unfolding_keeps_the_norm(x):
        ...     assert x.square().sum() == ml.unfold(x, 1).square().sum()
        >>> test_unfolding_keeps_the_norm()
    """
    sizes = tuple(_drawn(draw, shape if shape is not None else st.lists(SIZES, min_size=1, max_size=4)))
    kind, chosen = _drawn(draw, dtype), _drawn(draw, layout)
    count = torch.Size(sizes[1:] if chosen == "expanded" and sizes else sizes).numel()
    numbers = draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count))
    values = torch.tensor(numbers, dtype=kind)
    if kind.is_complex:
        values = values + 1j * torch.tensor(
            draw(st.lists(st.integers(-4, 4), min_size=count, max_size=count)), dtype=kind
        )
    return _laid_out(values, sizes, chosen)


@st.composite
def factor_matrices(
    draw: st.DrawFn,
    *,
    min_factors: int = 1,
    max_factors: int = 4,
    sizes: st.SearchStrategy[int] = SIZES,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float64,
) -> list[Tensor]:
    """Matrices `(I_m, R)` with one number of columns: the factors of a CP tensor, the arguments of `khatri_rao`.

    Args:
        draw: Given by hypothesis.
        min_factors: Fewest matrices.
        max_factors: Most matrices.
        sizes: Strategy for every I_m and for R.
        dtype: A dtype, or a strategy for the common dtype.

    Returns:
        A strategy for lists of matrices.

    Example:
        >>> from hypothesis import given, settings
        >>> from multilinear.testing import factor_matrices
        >>> import multilinear as ml
        >>> @settings(deadline=None)  # the first call of torch is slow
        ... @given(factor_matrices(min_factors=2, max_factors=2))
        ... def test_gram_identity(factors):
        ...     a, b = factors
        ...     c = ml.khatri_rao([a, b])
        ...     assert (c.T @ c == (a.T @ a) * (b.T @ b)).all()
        >>> test_gram_identity()
    """
    rank, kind = draw(sizes), _drawn(draw, dtype)
    rows = draw(st.lists(sizes, min_size=min_factors, max_size=max_factors))
    return [draw(tensors((size, rank), dtype=kind)) for size in rows]


@st.composite
def cores_with_latents(
    draw: st.DrawFn,
    *,
    min_inputs: int = 1,
    max_inputs: int = 3,
    sizes: st.SearchStrategy[int] = SIZES,
    dtype: torch.dtype | st.SearchStrategy[torch.dtype] = torch.float64,
) -> tuple[Tensor, list[Tensor]]:
    """A core `(k, k_1, ..., k_M)` and inputs `(n, k_m)`: the arguments of `multilinear_map`.

    Args:
        draw: Given by hypothesis.
        min_inputs: Fewest inputs.
        max_inputs: Most inputs.
        sizes: Strategy for every size.
        dtype: A dtype, or a strategy for the common dtype.

    Returns:
        A strategy for pairs of a core and a list of inputs.

    Example:
        >>> from hypothesis import given, settings
        >>> from multilinear.testing import cores_with_latents
        >>> import multilinear as ml
        >>> @settings(deadline=None)  # the first call of torch is slow
        ... @given(cores_with_latents())
        ... def test_doubling_the_core_doubles_the_map(problem):
        ...     core, inputs = problem
        ...     assert (ml.multilinear_map(2 * core, inputs) == 2 * ml.multilinear_map(core, inputs)).all()
        >>> test_doubling_the_core_doubles_the_map()
    """
    batch, outputs, kind = draw(sizes), draw(sizes), _drawn(draw, dtype)
    widths = draw(st.lists(sizes, min_size=min_inputs, max_size=max_inputs))
    core = draw(tensors((outputs, *widths), dtype=kind))
    return core, [draw(tensors((batch, width), dtype=kind)) for width in widths]


def _drawn(draw: st.DrawFn, value: Any) -> Any:
    return draw(value) if isinstance(value, st.SearchStrategy) else value


def _laid_out(values: Tensor, sizes: tuple[int, ...], layout: str) -> Tensor:
    if layout == "expanded" and sizes:
        return values.reshape(sizes[1:]).expand(sizes)
    values = values.reshape(sizes)
    if layout == "transposed":
        axes = tuple(range(len(sizes)))[::-1]
        return values.permute(axes).contiguous().permute(axes)
    if layout == "strided":
        wide = values.new_full([2 * size + 1 for size in sizes], float("nan") if values.is_floating_point() else 99)
        return wide[tuple(slice(1, None, 2) for _ in sizes)].copy_(values)
    return values
