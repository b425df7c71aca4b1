"""Khatri-Rao factorisation of unlabelled samples: Wang et al., CVPR 2017."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from multilinear.decomposition._codes import Projector, align, balance, improve, rank_one
from multilinear.decomposition._iterations import (
    Progress,
    RandomState,
    Stopping,
    check_data,
    check_positive,
    check_sizes,
    generator,
    iterate,
    random_matrix,
    relative_error,
    squared_norm,
    without_autocast,
)
from multilinear.decomposition._solve import leading, polar, signs_of, solve_gram
from multilinear.maps import multilinear_map
from multilinear.products import face_splitting

Codes = list[Tensor]
Basis = Literal["orthonormal", "free"]


class KhatriRaoFactorization:
    """Codes of several causes from unlabelled samples: `X ≈ B (Z1 ⊙ ... ⊙ ZM)`.

    Every sample is a multilinear map of M codes, as in `tensorfaces`, but nobody says which samples share a person or a
    light. The samples are rows here: `data ≈ face_splitting([z1, ..., zM]) @ unfold(core, 0).T`.

    The fit alternates; its error on what was observed never grows. Every sample's codes are the best rank-one
    approximation of its coordinates, reshaped to `(k1, ..., kM)`; then the orthonormal basis is a Procrustes problem.
    It finds a stationary point, which depends on the start: use several. What a cause means, and the mixing of its
    code's entries, is not determined by the data.

    Args:
        sizes: Sizes `(k1, ..., kM)` of the codes, two or more.
        basis: "orthonormal" (theirs) or "free": least squares instead, for codes and basis, which fits closer and
            costs more.
        init: "svd" (leading right singular vectors), "random" (a random subspace), or a core `(d, k1, ..., kM)` to
            start from.
        starts: How many starts to try; those after the first are "svd" in a random rotation. The best is kept.
        max_iterations: Most sweeps of a start.
        tolerance: A start ends when the relative error changes by no more than this.
        random_state: Seed or generator (on the CPU) of random starts.
        progress: Called with a `Sweep` after each; raising StopIteration in it ends the start.

    Attributes:
        core_: Basis as a core `(d, k1, ..., kM)` for `multilinear_map`; orthonormal columns once unfolded.
        codes_: Of the samples of the fit, M matrices `(n, km)`; all of a sample's codes are equally long.
        errors_: Relative error `||observed data - model|| / ||observed data||` after every sweep of the best start.
        converged_: Whether the error settled within the tolerance. After Ctrl-C the attributes are those of the best
            start's last whole sweep.

    Raises:
        TypeError: The sizes are no integers.
        ValueError: A size, number of starts or sweeps is not positive, or there are fewer than two sizes.

    Example:
        >>> import torch, multilinear as ml
        >>> from multilinear.decomposition import KhatriRaoFactorization
        >>> numbers = torch.Generator().manual_seed(0)
        >>> data = torch.randn(100, 20, generator=numbers)
        >>> model = KhatriRaoFactorization((2, 3), random_state=0).fit(data)
        >>> [tuple(code.shape) for code in model.codes_]
        [(100, 2), (100, 3)]
        >>> first, second = model.transform(data[:5])
        >>> model.inverse_transform([first, second]).shape
        torch.Size([5, 20])

    Reference:
        Wang, Panagakis, Snape and Zafeiriou, "Learning the Multilinear Structure of Visual Data", CVPR 2017;
        "Disentangling the Modes of Variation in Unlabelled Data", TPAMI 2018.
    """

    core_: Tensor
    codes_: Codes
    errors_: tuple[float, ...]
    converged_: bool

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        basis: Basis = "orthonormal",
        init: Literal["svd", "random"] | Tensor = "svd",
        starts: int = 1,
        max_iterations: int = 100,
        tolerance: float = 1e-6,
        random_state: RandomState = None,
        progress: Progress | None = None,
    ) -> None:
        self.sizes = check_sizes(_NAME, "sizes", sizes)
        if len(self.sizes) < 2:
            raise ValueError(f"{_NAME}: sizes must hold two or more, got {self.sizes}; with one code this is an SVD")
        if basis not in ("orthonormal", "free"):
            raise ValueError(f'{_NAME}: basis must be "orthonormal" or "free", got {basis!r}')
        if not isinstance(init, Tensor) and init not in ("svd", "random"):
            raise ValueError(f'{_NAME}: init must be "svd", "random" or a core, got {init!r}')
        self.basis: Basis = basis
        self.init = init
        self.starts = check_positive(_NAME, "starts", starts)
        self.max_iterations, self.tolerance = max_iterations, tolerance
        self.random_state, self.progress = random_state, progress
        self._stopping = Stopping(_NAME, max_iterations, tolerance, progress)
        self._stopping.check()

    @without_autocast
    def fit(
        self, data: Float[Tensor, "n d"], *, observed: Bool[Tensor, "n d"] | None = None
    ) -> "KhatriRaoFactorization":
        """Find basis and codes.

        Args:
            data: One sample a row, float32 or float64, as many columns as the codes' sizes multiply to, or more.
            observed: Which entries count; the others may hold anything. By default all.

        Returns:
            Itself. Fewer samples than the basis has columns, even one, are fitted, but leave it partly arbitrary.

        Raises:
            TypeError: The data is no torch tensor of float32 or float64, or `observed` none of booleans.
            ValueError: The data is no matrix, has NaN, infinity or too few columns; shapes differ; nothing is observed.
        """
        data, mask = _check(f"{_NAME}.fit", data, observed)
        columns = math.prod(self.sizes)
        if data.shape[1] < columns:
            raise ValueError(
                f"{_NAME}.fit: codes of sizes {self.sizes} need data with at least {columns} columns, their product, "
                f"got {data.shape[1]}; choose smaller codes"
            )
        problem = _Problem(data, mask, self.sizes, self.basis)
        numbers = generator(_NAME, self.random_state)
        self.errors_ = (math.inf,)
        for start in range(self.starts):
            begin = problem.begin(self._start(start, problem, numbers))
            try:
                state, trace = iterate(problem.step, begin, self._stopping, start)
            except KeyboardInterrupt:
                if problem.latest.error < self.errors_[-1]:
                    self._keep(problem, problem.latest, (problem.latest.error,), False)
                raise
            if trace.errors[-1] < self.errors_[-1]:
                self._keep(problem, state, trace.errors, trace.converged)
        return self

    @without_autocast
    def transform(
        self, data: Float[Tensor, "n d"], *, observed: Bool[Tensor, "n d"] | None = None, max_iterations: int = 50
    ) -> "list[Float[Tensor, 'n _']]":
        """Codes of other samples under the basis of the fit, M matrices `(n, km)`.

        Args:
            data: One sample a row.
            observed: Which entries count; by default all.
            max_iterations: Most sweeps.

        Raises:
            TypeError: As in `fit`.
            ValueError: As in `fit`; the data has another number of columns than that of the fit.
            RuntimeError: There was no fit.
        """
        core = self._fitted("transform")
        data, mask = _check(f"{_NAME}.transform", data, observed)
        if data.shape[1] != core.shape[0]:
            raise ValueError(
                f"{_NAME}.transform: data must have {core.shape[0]} columns like that of the fit, got {data.shape[1]}"
            )
        data = data.to(core)
        projector = Projector(core)
        if mask is None:
            codes = projector.project(data, rounds=max_iterations)
        else:
            codes = _observed_codes(data, mask, core, max_iterations)
        return align(balance(codes), self._references)

    def fit_transform(self, data: Float[Tensor, "n d"], *, observed: Bool[Tensor, "n d"] | None = None) -> Codes:
        """Fit, and return the codes of the samples it was fitted to."""
        return self.fit(data, observed=observed).codes_

    @without_autocast
    def inverse_transform(self, codes: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, "n d"]:
        """Samples from codes, one for every cause: matrices `(n, km)`, or a vector that holds for all samples."""
        return multilinear_map(self._fitted("inverse_transform"), list(codes))

    def _start(self, start: int, problem: "_Problem", numbers: torch.Generator) -> Tensor:
        """Basis `(d, k1 * ... * kM)`."""
        columns = math.prod(self.sizes)
        if start == 0 and isinstance(self.init, Tensor):
            if tuple(self.init.shape) != (problem.outputs, *self.sizes):
                raise ValueError(
                    f"{_NAME}.fit: init must be a core of shape {(problem.outputs, *self.sizes)}, got "
                    f"{tuple(self.init.shape)}"
                )
            return problem.shrink(self.init.detach().flatten(1))
        if start == 0 and self.init == "random":
            return torch.linalg.qr(random_matrix(problem.data.shape[1], columns, problem.data, numbers)).Q
        vectors = problem.principal(columns)
        if start == 0:
            return vectors
        return vectors @ torch.linalg.qr(random_matrix(columns, columns, vectors, numbers)).Q

    def _keep(self, problem: "_Problem", state: "_State", errors: tuple[float, ...], converged: bool) -> None:
        self.core_ = problem.grow(state.basis).unflatten(1, self.sizes)
        assert state.codes is not None
        codes = balance(state.codes)
        self._references = [torch.linalg.svd(code, full_matrices=False).Vh[0] for code in codes]
        self.codes_ = align(codes, self._references)
        self.errors_, self.converged_ = errors, converged

    def _fitted(self, method: str) -> Tensor:
        if not hasattr(self, "core_"):
            raise RuntimeError(f"{_NAME}.{method}: there is no basis yet; call fit first")
        return self.core_


_NAME = "KhatriRaoFactorization"


@dataclass(frozen=True)
class _State:
    basis: Tensor  # (d, k1 * ... * kM), orthonormal columns or free
    codes: Codes | None
    filled: Tensor  # the data, with the model in place of what is missing
    error: float = math.inf


class _Problem:
    """The samples, in the coordinates of the space they span where that is smaller."""

    def __init__(self, data: Tensor, mask: Tensor | None, sizes: Sequence[int], kind: Basis):
        self.mask, self.sizes, self.kind = mask, sizes, kind
        self.outputs = data.shape[1]
        self.norm = squared_norm(f"{_NAME}.fit", data, "data")
        columns = math.prod(sizes)
        self.span = None
        if mask is None and columns <= len(data) <= self.outputs // 4:
            # every basis that a sweep finds lies in the span of the samples; with more of them it costs what it saves
            self.span, triangle = torch.linalg.qr(data.mT)
            data = triangle.mT
        self.data = data

    def shrink(self, basis: Tensor) -> Tensor:
        basis = basis.to(self.data)
        return basis if self.span is None else self.span.mT @ basis

    def grow(self, basis: Tensor) -> Tensor:
        return basis if self.span is None else self.span @ basis

    def principal(self, columns: int) -> Tensor:
        """Leading right singular vectors of the data, with orthonormal ones beyond its rank."""
        vectors, _ = leading(self.data, 1, min(columns, *self.data.shape))
        missing = columns - vectors.shape[1]
        if missing > 0:
            numbers = torch.Generator().manual_seed(0)
            more = random_matrix(len(vectors), missing, vectors, numbers)
            vectors = torch.linalg.qr(torch.cat([vectors, more], dim=1)).Q
        return vectors * signs_of(self.grow(vectors))

    def begin(self, basis: Tensor) -> _State:
        self.latest = _State(basis, None, self.data)
        return self.latest

    def step(self, state: _State) -> tuple[_State, float]:
        basis, data = state.basis, state.filled
        coordinates = (data @ basis).unflatten(1, self.sizes)
        if self.kind == "orthonormal" or state.codes is None:
            codes = rank_one(coordinates, state.codes)
        else:
            codes = state.codes
        product = face_splitting(codes)
        if self.kind == "orthonormal":
            basis = polar(data.mT @ product)
        else:
            basis = solve_gram(product.mT @ product, data.mT @ product)
            orthonormal, triangle = torch.linalg.qr(basis)
            codes = improve(data @ orthonormal, triangle.unflatten(1, self.sizes), codes)
            codes = balance(codes)
            product = face_splitting(codes)
        model = product @ basis.mT
        if self.mask is None:
            loss = (data - model).double().square().sum()
        else:
            loss = torch.where(self.mask, self.data - model, 0).double().square().sum()
            data = torch.where(self.mask, self.data, model)
        error = relative_error(loss, self.norm)
        self.latest = _State(basis, codes, data, error)
        return self.latest, error


def _observed_codes(data: Tensor, mask: Tensor, core: Tensor, rounds: int) -> Codes:
    """Codes by alternating least squares in which what is missing is the last sweep's model."""
    projector = Projector(core)
    filled = data
    codes = projector.project(filled, rounds=1)
    for _ in range(rounds):
        filled = torch.where(mask, data, multilinear_map(core, codes))
        small = filled if projector.basis is None else filled @ projector.basis
        codes = improve(small, projector.core, codes)
    return codes


def _check(function: str, data: Tensor, observed: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The data with zeros where nothing was observed, and what was; None for everything."""
    data = check_data(function, "data", data, 2)
    if data.ndim != 2:
        raise ValueError(
            f"{function}: data must be a matrix with one sample a row, got shape {tuple(data.shape)}; flatten the "
            f"samples with .flatten(1)"
        )
    if observed is not None:
        if not isinstance(observed, Tensor) or observed.dtype != torch.bool:
            raise TypeError(f"{function}: observed must be a tensor of booleans; such as ~torch.isnan(data)")
        if observed.shape != data.shape:
            raise ValueError(
                f"{function}: observed must have the data's shape {tuple(data.shape)}, got {tuple(observed.shape)}"
            )
        if not observed.any():
            raise ValueError(f"{function}: nothing is observed; every entry of the mask is False")
        data = torch.where(observed, data, 0)
    if not torch.isfinite(data).all():
        raise ValueError(
            f"{function}: data holds NaN or infinity; for missing entries pass observed=~torch.isnan(data)"
        )
    return data, None if observed is None or bool(observed.all()) else observed
