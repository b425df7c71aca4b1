"""How the operators take tensors that are split over processes: sharding rules for torch's DTensor.

Every operator is an einsum, linear in each of its tensors, and both facts are rules. For one dimension of a mesh:

    split       one index, or a dimension of the batch, over the processes: every tensor that has it is split
                along it, the others are whole; the result is split along it if it has it, and otherwise a sum that is
                still to be taken (Partial)
    linear      one tensor is a sum still to be taken, the others are whole: so is the result
    whole       everything is whole

Backward, the gradient of a tensor is the einsum of the result's gradient with the other tensors. A core that is split
along its outputs, "o", thus gives outputs that are split, a gradient of its own that is split as it is, and gradients
of the inputs that are sums still to be taken: n k_m numbers, not the n k_1 ... k_M of the formula's own products.

DTensor chooses among the rules, for every dimension of the mesh, the one that it estimates to send for the shortest
time: a small core may be gathered, a large one is not. This file is imported when the first DTensor comes.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard
from torch.distributed.tensor.experimental import register_sharding

from multilinear.autograd._operator import from_bits

Shape = Sequence[int]
Rule = tuple[list[Placement], list[Placement | None]]
"""Placements of the results and of the arguments, None for an argument that is no tensor."""


def register(equation: str, operator: Any, backward: Any) -> None:
    """Tells DTensor the rules of an operator and of its backward pass."""
    terms, result = parse(equation)

    def rules(*tensors: Any) -> list[Rule]:
        return forward_rules(terms, result, [tensor.shape for tensor in tensors])

    def rules_backward(gradient: Any, *arguments: Any) -> list[Rule]:
        *tensors, needed = arguments
        wanted = from_bits(needed, len(tensors))
        return backward_rules(terms, result, gradient.shape, [tensor.shape for tensor in tensors], wanted)

    register_sharding(operator)(rules)
    register_sharding(backward)(rules_backward)


def parse(equation: str) -> tuple[list[list[str]], list[str]]:
    """The dimensions of every tensor and of the result: "na,nb->n(ab)" is [["n", "a"], ["n", "b"]], ["n", "(ab)"]."""
    terms, result = equation.split("->")
    dimensions = re.compile(r"\(\w+\)|\w")
    return [dimensions.findall(term) for term in terms.split(",")], dimensions.findall(result)


def forward_rules(terms: Sequence[list[str]], result: list[str], shapes: Sequence[Shape]) -> list[Rule]:
    """Rules of the operator for tensors of these shapes, in which a batch may come before a term's own dimensions."""
    batch = max(len(shape) - len(term) for term, shape in zip(terms, shapes, strict=True))
    rules: list[Rule] = [([Replicate()], [Replicate()] * len(terms))]
    for index in _indices(terms, result):
        split = [_along(index, term, len(shape)) or Replicate() for term, shape in zip(terms, shapes, strict=True)]
        rules.append(([_along(index, result, batch + len(result)) or Partial()], [*split]))
    for dim in range(batch):
        split = [_along_batch(batch - dim, term, shape) for term, shape in zip(terms, shapes, strict=True)]
        rules.append(([Shard(dim)], [*split]))
    for position in range(len(terms)):
        rules.append(([Partial()], _one_partial(len(terms), position)))
    return rules


def backward_rules(
    terms: Sequence[list[str]], result: list[str], gradient: Shape, shapes: Sequence[Shape], needed: Sequence[bool]
) -> list[Rule]:
    """Rules of the backward pass: gradients of all tensors from `(gradient, *tensors, needed)`."""
    batch = len(gradient) - len(result)  # which all gradients keep

    def results(placements: Sequence[Placement]) -> list[Placement]:
        return [placement if need else Replicate() for placement, need in zip(placements, needed, strict=True)]

    rules: list[Rule] = [([Replicate()] * len(terms), [*[Replicate()] * (len(terms) + 1), None])]
    for index in _indices(terms, result):
        gradients = [_along(index, term, batch + len(term)) or Partial() for term in terms]
        split = [_along(index, term, len(shape)) or Replicate() for term, shape in zip(terms, shapes, strict=True)]
        rules.append((results(gradients), [_along(index, result, len(gradient)) or Replicate(), *split, None]))
    for dim in range(batch):
        split = [_along_batch(batch - dim, term, shape) for term, shape in zip(terms, shapes, strict=True)]
        rules.append((results([Shard(dim)] * len(terms)), [Shard(dim), *split, None]))
    for position in range(len(terms) + 1):
        sums: list[Placement] = [Partial()] * len(terms)
        if position:
            sums[position - 1] = Replicate()  # which does not depend on its own tensor
        rules.append((results(sums), [*_one_partial(len(terms) + 1, position), None]))
    return rules


def loss_indices(core: Any, target: Any, inputs: Sequence[Any]) -> "list[str] | None":
    """For every dimension of the mesh the index that is split in the loss: "o", "n", or "" for none.

    None where the core is split otherwise than by rows: then the loss is taken from the map.
    """
    indices = []
    for dim, placement in enumerate(core.placements):
        if type(placement) is Shard and placement.dim == 0:
            indices.append("o")
        elif not isinstance(placement, Replicate):
            return None
        elif any(z.placements[dim] == Shard(0) for z in inputs):
            indices.append("n")
        else:
            indices.append("o" if target.placements[dim] == Shard(1) else "")
    return indices


def loss_and_gradients(
    local: Callable[..., Any], target: Any, core: Any, inputs: Sequence[Any], needed: Sequence[bool], scale: float
) -> "tuple[Tensor, list[Tensor | None]]":
    """What `multilinear_loss.loss_and_gradients` returns, made by it from the part of every process.

    The loss of some rows of the core, or of some samples, is a term of the whole; so are the gradients that are not
    split along with it.
    """
    mesh = core.device_mesh
    indices = loss_indices(core, target, inputs)
    assert indices is not None
    operands = [target, core, *inputs]
    terms = [["n", "o"], ["o", *"abcd"[: len(inputs)]], *(["n", mode] for mode in "abcd"[: len(inputs)])]

    def split(term: list[str], otherwise: Placement) -> list[Placement]:
        return [(_along(i, term, len(term)) or otherwise) if i else Replicate() for i in indices]

    parts = [
        x.redistribute(placements=split(term, Replicate())).to_local() for x, term in zip(operands, terms, strict=True)
    ]
    loss, gradients = local(parts[0], parts[1], parts[2:], needed, scale)
    whole: list[Tensor | None] = [
        None
        if gradient is None
        else DTensor.from_local(
            gradient.contiguous(), mesh, split(term, Partial()), shape=x.shape, stride=_contiguous(x.shape)
        )
        for gradient, x, term in zip(gradients, operands, terms, strict=True)
    ]
    return DTensor.from_local(loss, mesh, split([], Partial())), whole


def _indices(terms: Sequence[list[str]], result: list[str]) -> list[str]:
    """Indices that may be split: those of a merged dimension may not."""
    merged = "".join(dimension for dimension in result if len(dimension) > 1)
    return sorted({index for term in terms for index in term if index not in merged})


def _along(index: str, dimensions: list[str], ndim: int) -> Shard | None:
    return Shard(ndim - len(dimensions) + dimensions.index(index)) if index in dimensions else None


def _along_batch(place: int, term: list[str], shape: Shape) -> Placement:
    """Split along the batch dimension that stands `place` before the term's own, where the tensor has it."""
    dim = len(shape) - len(term) - place
    return Shard(dim) if dim >= 0 and shape[dim] > 1 else Replicate()


def _one_partial(count: int, position: int) -> list[Placement | None]:
    return [Partial() if p == position else Replicate() for p in range(count)]


def _contiguous(shape: Shape) -> tuple[int, ...]:
    """Strides of a contiguous tensor."""
    return tuple(math.prod(shape[dim + 1 :]) for dim in range(len(shape)))
