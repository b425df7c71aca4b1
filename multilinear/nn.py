"""Multilinear layer: `torch.nn.Bilinear` for any number of inputs, with a full, Tucker or CP core."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import mul
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module, Parameter, ParameterList, init

from multilinear.autograd._dispatch import is_distributed
from multilinear.contractions import mode_dot
from multilinear.maps import multilinear_map
from multilinear.products import khatri_rao


@dataclass(frozen=True)
class TuckerCore:
    """A core in Tucker form: a small core tensor times one matrix per mode.

    Args:
        ranks: Size of the small core in every mode, the output first, then the inputs; at most the mode's own size. A
            mode at its own size gets no matrix.

    Reference:
        Tucker, "Some mathematical notes on three-mode factor analysis", Psychometrika 31(3), 1966.
    """

    ranks: tuple[int, ...]


@dataclass(frozen=True)
class CPCore:
    """A core in CP form: a sum of `rank` outer products.

    Args:
        rank: Number of components.

    Reference:
        Carroll and Chang, Psychometrika 35(3), 1970; Harshman, UCLA Working Papers in Phonetics 16, 1970.
    """

    rank: int


class Multilinear(Module):
    """Linear in each of its inputs: `y[o] = sum over i, j, ... of W[o, i, j, ...] z1[i] z2[j] ... + bias[o]`.

    With two inputs and a full core this is `torch.nn.Bilinear`, weight for weight. `forward(z1, ..., zM)` takes tensors
    `(..., in_features[m])` whose leading dimensions broadcast and returns `(..., out_features)`.

    The full core starts uniform within ±1/sqrt(product of in_features), as `torch.nn.Linear` does for that many
    features (`torch.nn.Bilinear` uses the first input's size alone, and then its output grows with the second's).
    Tucker and CP cores start so that the output has the same variance, 1/3 for inputs of unit variance. The bias
    starts uniform in the full core's bounds.

    Args:
        in_features: Sizes of the inputs, one or more.
        out_features: Size of the output.
        bias: Whether to add a learnt vector.
        core: "full" (parameter `weight`, shape `(out_features, *in_features)`), `TuckerCore(ranks)` (parameter
            `weight`, the small core, and `factors`), or `CPCore(rank)` (parameter `factors`). The factors are in mode
            order, the output first, of shapes `(size, rank)`.
        device: Of the parameters.
        dtype: Of the parameters.

    Raises:
        TypeError: The core is none of the three kinds, or in_features is no sequence.
        ValueError: A size or rank is not positive, or the ranks do not fit the modes.

    Example:
        >>> import torch, multilinear as ml
        >>> layer = ml.nn.Multilinear(in_features=(9, 15, 80), out_features=12288, core=ml.nn.CPCore(rank=96))
        >>> layer(torch.randn(9), torch.randn(32, 15), torch.randn(32, 80)).shape
        torch.Size([32, 12288])

    Reference:
        The paper's sec. 3.5: "projection", an unbiased fully-connected layer on the Khatri-Rao product of the codes.
    """

    def __init__(
        self,
        in_features: Sequence[int],
        out_features: int,
        bias: bool = False,
        core: Literal["full"] | TuckerCore | CPCore = "full",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not isinstance(in_features, Sequence):
            raise TypeError(
                f"Multilinear: in_features must be a sequence of sizes, got {in_features!r}; such as (9, 15, 80)"
            )
        self.in_features = tuple(in_features)
        self.out_features = out_features
        self.core = core
        sizes = (out_features, *self.in_features)
        if len(sizes) < 2 or any(size < 1 for size in sizes):
            raise ValueError(
                f"Multilinear: in_features must hold one or more positive sizes and out_features one, got "
                f"{self.in_features} "
                f"and {out_features}; for instance in_features=(9, 15), out_features=64"
            )

        def empty(*shape: int) -> Parameter:
            return Parameter(torch.empty(shape, device=device, dtype=dtype))

        if isinstance(core, CPCore):
            if core.rank < 1:
                raise ValueError(f"Multilinear: a CP core needs a positive rank, got {core.rank}; try CPCore(32)")
            self.factors = ParameterList([empty(size, core.rank) for size in sizes])
        elif isinstance(core, TuckerCore):
            if len(core.ranks) != len(sizes) or not all(
                0 < rank <= size for rank, size in zip(core.ranks, sizes, strict=False)
            ):
                raise ValueError(
                    f"Multilinear: a Tucker core needs one rank for the output and one for each input, each "
                    f"from 1 to the "
                    f"mode's size, got ranks {tuple(core.ranks)} for sizes {sizes}; try TuckerCore({sizes})"
                )
            self.weight = empty(*core.ranks)
            self.factored_modes = [mode for mode, size in enumerate(sizes) if core.ranks[mode] != size]
            self.factors = ParameterList([empty(sizes[mode], core.ranks[mode]) for mode in self.factored_modes])
        elif core == "full":
            self.weight = empty(*sizes)
        else:
            raise TypeError(f'Multilinear: core must be "full", TuckerCore(ranks) or CPCore(rank), got {core!r}')
        self.bias = empty(out_features) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values.

        The rows of a parameter that is split over processes come each from a generator of its own, so that the values
        do not depend on the number of processes (`multilinear.distributed`).
        """
        with torch.no_grad():
            for parameter, draw in self._initial():
                if is_distributed([parameter]):
                    from multilinear.distributed import draw_rows

                    draw_rows(parameter, draw)
                else:
                    draw(parameter)

    def _initial(self) -> Iterator[tuple[Parameter, Callable[..., Tensor]]]:
        """Every parameter with what draws its values."""
        bound = 1 / math.sqrt(math.prod(self.in_features))
        if isinstance(self.core, CPCore):
            yield self.factors[0], _uniform_output(self.core.rank)
            for factor in self.factors[1:]:
                yield factor, _unit_variance(factor.shape[0])
        elif isinstance(self.core, TuckerCore):
            fan_in = math.prod(self.weight.shape[1:])
            for mode, factor in zip(self.factored_modes, self.factors, strict=True):
                yield factor, _unit_variance(factor.shape[0]) if mode else _uniform_output(factor.shape[1])
            yield self.weight, _unit_variance(fan_in) if 0 in self.factored_modes else _uniform_output(fan_in)
        else:
            yield self.weight, partial(init.uniform_, a=-bound, b=bound)
        if self.bias is not None:
            yield self.bias, partial(init.uniform_, a=-bound, b=bound)

    def forward(self, *inputs: Float[Tensor, "*_batch _size"]) -> Float[Tensor, "*batch outputs"]:
        """The layer's output for inputs `(..., in_features[m])`, whose leading dimensions broadcast."""
        sizes = [z.shape[-1] if z.ndim else 0 for z in inputs]
        if sizes != list(self.in_features):
            raise ValueError(
                f"Multilinear: inputs must have last sizes {list(self.in_features)}, got {sizes} from shapes "
                f"{[tuple(z.shape) for z in inputs]}; pass one tensor per input, the batch first"
            )
        if isinstance(self.core, CPCore):
            output, *factors = self.factors
            components = reduce(mul, (z @ factor for z, factor in zip(inputs, factors, strict=True)))
            result = components @ output.mT
        elif isinstance(self.core, TuckerCore):
            result = self._tucker(inputs)
        else:
            result = multilinear_map(self.weight, inputs)
        return result if self.bias is None else result + self.bias

    def _tucker(self, inputs: Sequence[Tensor]) -> Tensor:
        factors = dict(zip(self.factored_modes, self.factors, strict=True))
        coordinates = [z @ factors[mode] if mode in factors else z for mode, z in enumerate(inputs, start=1)]
        result = multilinear_map(self.weight, coordinates)
        return result @ factors[0].mT if 0 in factors else result

    def full_weight(self) -> Float[Tensor, "outputs *inputs"]:
        """The core as one tensor of shape `(out_features, *in_features)`, whatever its form."""
        if isinstance(self.core, CPCore):
            output, *factors = self.factors
            return (output @ khatri_rao(factors).mT).reshape(self.out_features, *self.in_features)
        weight = self.weight
        if isinstance(self.core, TuckerCore):
            for mode, factor in zip(self.factored_modes, self.factors, strict=True):
                weight = mode_dot(weight, factor, mode)
        return weight

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        core = "" if self.core == "full" else f", core={self.core}"
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}{core}"


def _unit_variance(fan_in: int) -> Callable[..., Tensor]:
    return partial(init.normal_, std=1 / math.sqrt(fan_in))


def _uniform_output(fan_in: int) -> Callable[..., Tensor]:
    return partial(init.uniform_, a=-1 / math.sqrt(fan_in), b=1 / math.sqrt(fan_in))
