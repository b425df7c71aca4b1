"""What the decompositions of a tensor return."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from multilinear.contractions import mttkrp, multi_mode_dot
from multilinear.cp import cp_to_tensor
from multilinear.decomposition._iterations import check_data, without_autocast
from multilinear.decomposition._solve import solve_gram


@dataclass(frozen=True, eq=False)
class TuckerDecomposition:
    """A core and a matrix with orthonormal columns in every mode that was compressed.

    Attributes:
        core: Tensor of shape `(R_0, ..., R_N)`.
        factors: Matrices `(I_m, R_m)`, or None for a mode that was left as it is.
        errors: Relative error `||tensor - model|| / ||tensor||` after every sweep; of `hosvd` a single one.
        converged: Whether the error settled within the tolerance; always true of `hosvd`.
        singular_values: What `hosvd` found: for every mode the singular values of the unfolding it truncated, those it
            dropped included, or None for a mode left as it is. None for `tucker`.
    """

    core: Float[Tensor, "..."]
    factors: tuple[Tensor | None, ...]
    errors: tuple[float, ...]
    converged: bool
    singular_values: tuple[Tensor | None, ...] | None = None

    @property
    def error(self) -> float:
        """Relative error of the model."""
        return self.errors[-1]

    def to_tensor(self) -> Float[Tensor, "..."]:
        """The model as a tensor of shape `(I_0, ..., I_N)`."""
        return self.inverse_transform(self.core)

    @without_autocast
    def transform(self, tensors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Core of other tensors in the same factors: the closest one, as the factors are orthonormal.

        Args:
            tensors: One tensor of shape `(I_0, ..., I_N)`, or a batch `(..., I_0, ..., I_N)`.

        Returns:
            Cores of shape `(..., R_0, ..., R_N)`.
        """
        return self._apply(tensors, [None if factor is None else factor.mT for factor in self.factors])

    @without_autocast
    def inverse_transform(self, cores: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Tensors of shape `(..., I_0, ..., I_N)` from cores `(..., R_0, ..., R_N)`."""
        return self._apply(cores, self.factors)

    def _apply(self, tensors: Tensor, matrices: "list[Tensor | None] | tuple[Tensor | None, ...]") -> Tensor:
        pairs = [(mode - len(matrices), matrix) for mode, matrix in enumerate(matrices) if matrix is not None]
        return multi_mode_dot(tensors, [matrix for _, matrix in pairs], [mode for mode, _ in pairs])


@dataclass(frozen=True, eq=False)
class CPDecomposition:
    """A weighted sum of outer products of unit vectors, the largest weight first.

    Attributes:
        weights: Vector `(R,)`, not negative. A component that the tensor had no use for has weight 0.
        factors: Matrices `(I_m, R)` with columns of length 1.
        errors: Relative error `||tensor - model|| / ||tensor||` after every sweep of the best start, or, of
            `cp_gradient`, whenever it found a better one.
        converged: Whether the error settled within the tolerance.
    """

    weights: Float[Tensor, "rank"]
    factors: tuple[Tensor, ...]
    errors: tuple[float, ...]
    converged: bool

    @property
    def error(self) -> float:
        """Relative error of the model."""
        return self.errors[-1]

    @without_autocast
    def to_tensor(self) -> Float[Tensor, "..."]:
        """The model as a tensor of shape `(I_0, ..., I_N)`."""
        return cp_to_tensor(self.factors, weights=self.weights)

    @without_autocast
    def transform(self, tensors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Weights of other tensors on the same components: least squares, all tensors at once.

        Args:
            tensors: One tensor of shape `(I_0, ..., I_N)`, or a batch `(..., I_0, ..., I_N)`.

        Returns:
            Weights of shape `(..., R)`; where components are dependent, the shortest.
        """
        tensors = check_data("CPDecomposition.transform", "tensors", tensors, len(self.factors))
        batch = tensors.shape[: tensors.ndim - len(self.factors)]
        inner = mttkrp(tensors.reshape(batch.numel(), *tensors.shape[len(batch) :]), [None, *self.factors], 0)
        gram = torch.stack([factor.mT @ factor for factor in self.factors]).prod(0)
        return solve_gram(gram, inner).reshape(*batch, -1)

    @without_autocast
    def inverse_transform(self, weights: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Tensors of shape `(..., I_0, ..., I_N)` from weights `(..., R)`."""
        batch = weights.shape[:-1]
        tensors = cp_to_tensor([weights.reshape(batch.numel(), weights.shape[-1]), *self.factors])
        return tensors.reshape(*batch, *tensors.shape[1:])
