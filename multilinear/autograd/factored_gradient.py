"""The gradient of a core as its factors, which is what a batch gives: a product of two thin matrices, never formed.

    map         y[n] = B (z_1[n] ⊗ ... ⊗ z_M[n])
    gradient    G = Rᵀ K with R = dL/dy, (n, k), and K = face_splitting(z), (n, k_1 * ... * k_M)
    sum         G_1 + G_2 = [R_1; R_2]ᵀ [K_1; K_2]: uses of one core, accumulated batches, other processes
    norm        ||G||² = sum((R Rᵀ) * (z_1 z_1ᵀ) * ... * (z_M z_Mᵀ)), as K Kᵀ is the Hadamard product of the Grams

For n = 32 faces the paper's texture core has 132.7 million numbers, and so has G; R and the z have 0.4 million.
`FactoredGradient` is a tensor that holds R and the z and stands in `parameter.grad`. Optimisers that take it row block
by row block read and write the core and their moments once and see the same numbers; whatever this file does not know
makes the gradient dense, and goes on with that.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree

from multilinear.autograd import _memory, face_splitting
from multilinear.autograd._dispatch import is_eager
from multilinear.autograd._transforms import is_batched_gradient

BLOCK = 1 << 20
"""Elements of a block of rows on a CPU: 4 MB in float32."""
BLOCK_CUDA = 1 << 24
"""The same on a CUDA device: launches should not count."""

MARK = "factored_gradient"
"""The attribute of a parameter whose gradient is to stay factored, and of its layer."""

_aten: Any = torch.ops.aten

Term = tuple[Tensor, tuple[Tensor, ...]]
"""R of shape (n, k), and the z of shapes (n, k_m); one of shape (k_m,) holds for all samples."""


@dataclass
class _Value:
    """What a gradient holds, and shares with its aliases: terms, or a dense tensor in their place."""

    terms: list[Term]
    dense: Tensor | None = None


class FactoredGradient(Tensor):
    """A sum of products Rᵀ K in the place of a dense gradient.

    It has the shape, dtype and device of its core. Sums, products with a number, the 2-norm, and the in-place updates
    by which optimisers take it work on the factors. Any other operation makes it dense first, once and for all. So does
    a batch whose factors would be larger than the gradient.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, like: Tensor, terms: Sequence[Term]) -> "FactoredGradient":
        """A tensor without storage of its own."""
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, like.shape, strides=like.stride(), dtype=like.dtype, device=like.device
        )

    def __init__(self, like: Tensor, terms: Sequence[Term]):
        self._value = _Value(list(terms))
        self._keep_the_smaller()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        form = f"rank <= {self.samples}" if self.is_factored else "dense"
        return f"FactoredGradient({tuple(self.shape)}, {form}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """An ordinary tensor, as a clone is."""
        return memo.setdefault(id(self), self.clone())

    @property
    def terms(self) -> list[Term]:
        """Pairs of R and the z; empty for zero, and after the gradient became dense."""
        return self._value.terms

    @property
    def samples(self) -> int:
        """Samples in all terms: the rank is at most that."""
        return sum(len(residual) for residual, _ in self.terms)

    @property
    def is_factored(self) -> bool:
        """False once it became dense."""
        return self._value.dense is None

    def dense(self) -> Tensor:
        """The gradient as an ordinary tensor, which it stays from then on."""
        if self._value.dense is None:
            self._value.dense, self._value.terms = self._formed(), []
        return self._value.dense

    def _formed(self) -> Tensor:
        result = _memory.empty(self.shape, torch.empty(0, dtype=self.dtype, device=self.device))
        for rows, block in self.blocks():
            result[rows] = block
        return result

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Row blocks of the gradient: where, and a buffer that holds until the next one."""
        if self._value.dense is not None:
            yield slice(None), self._value.dense
            return
        outputs, *sizes = self.shape
        columns = face_splitting.count(sizes)
        height = min(max((BLOCK_CUDA if self.is_cuda else BLOCK) // max(columns, 1), 1), max(outputs, 1))
        buffer = torch.empty(height, columns, dtype=self.dtype, device=self.device)
        whole, partial = self._products()
        # with out=, which autocast leaves alone
        for start in range(0, outputs, height):
            rows = slice(start, min(start + height, outputs))
            block = buffer[: rows.stop - start]
            torch.mm(whole[0][:, rows].mT, whole[1], out=block)
            shaped = block.view(-1, *sizes)
            for residual, product, constant, varying in partial:
                part = torch.mm(residual[:, rows].mT, product, out=product.new_empty(len(block), product.shape[1]))
                shaped.addcmul_(part.view(-1, *varying), constant)
            yield rows, shaped

    def squared_norm(self) -> Tensor:
        """Sum of the squares of all entries, from the Gram matrices of the factors, in float64."""
        if self._value.dense is not None:
            return torch.linalg.vector_norm(self._value.dense, dtype=torch.float64).square()
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        terms = [
            (residual.double(), [z.double().reshape(-1, z.shape[-1]) for z in inputs])
            for residual, inputs in self.terms
        ]
        for i, (residual, inputs) in enumerate(terms):
            for j, (other, others) in enumerate(terms[: i + 1]):
                gram = residual @ other.mT
                for z, w in zip(inputs, others, strict=True):
                    gram *= z @ w.mT
                total += gram.sum() * (1 if i == j else 2)
        return total.clamp(min=0)  # of a sum that cancels

    def _products(self) -> tuple[tuple[Tensor, Tensor], list[tuple[Tensor, Tensor, Tensor, list[int]]]]:
        """R and K of all terms whose inputs vary; and of every other one R, K of what varies, the rest, and a shape."""
        outputs, *sizes = self.shape
        whole: list[tuple[Tensor, Tensor]] = []
        partial = []
        for residual, inputs in self.terms:
            varying = [z for z in inputs if z.ndim == 2]
            if len(varying) == len(inputs):
                whole.append((residual, face_splitting.forward(*inputs)))
                continue
            constant = residual.new_ones(())
            for mode, z in enumerate(inputs):
                if z.ndim == 1:
                    constant = constant * z.view(-1, *[1] * (len(inputs) - 1 - mode))
            shape = [1 if z.ndim == 1 else size for z, size in zip(inputs, sizes, strict=True)]
            partial.append((residual, face_splitting.forward(*varying), constant, shape))
        if not whole:
            like = torch.empty(0, dtype=self.dtype, device=self.device)
            whole = [(like.new_empty(0, outputs), like.new_empty(0, face_splitting.count(sizes)))]
        residuals, products = zip(*whole, strict=True)
        return (residuals[0], products[0]) if len(whole) == 1 else (torch.cat(residuals), torch.cat(products)), partial

    def _keep_the_smaller(self) -> None:
        """Dense once K and R would be larger than the gradient."""
        outputs, columns = self.shape[0], self.shape[1:].numel()
        if self.terms and self.samples * (outputs + columns) >= outputs * columns:
            self.dense()

    def _add(self, other: Tensor, scale: Any = 1) -> "FactoredGradient":
        """Adds a tensor of the same shape to this one."""
        if isinstance(other, FactoredGradient) and other.is_factored and self.is_factored:
            added = [(residual if scale == 1 else scale * residual, inputs) for residual, inputs in other.terms]
            self._value.terms += added
            self._keep_the_smaller()
        else:
            self.dense().add_(other, alpha=scale)
        return self

    def _alias(self) -> "FactoredGradient":
        other = FactoredGradient(self, [])
        other._value = self._value
        return other

    def _map(self, function: Callable[[Tensor], Tensor]) -> "FactoredGradient":
        """With a function that is linear in the gradient applied to R."""
        other = FactoredGradient(self, [(function(residual), inputs) for residual, inputs in self.terms])
        other._value.dense = None if self._value.dense is None else function(self._value.dense)
        return other

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        known = _KNOWN.get(func)
        result = NotImplemented if known is None else known(func, args, kwargs)
        if result is not NotImplemented:
            return result
        dense_args, dense_kwargs = _pytree.tree_map_only(FactoredGradient, FactoredGradient.dense, (args, kwargs))
        result = func(*dense_args, **dense_kwargs)
        in_place = args and isinstance(args[0], FactoredGradient) and result is dense_args[0]
        return args[0] if in_place else result


def applies(core: Tensor, inputs: Sequence[Tensor]) -> bool:
    """Whether this use of a core should give it a factored gradient: marked and real, and autograd runs eagerly."""
    return (
        not torch.compiler.is_compiling()
        and getattr(core, MARK, False)
        and core.requires_grad
        and torch.is_grad_enabled()
        and is_eager(core, *inputs)
        and not any(x.is_complex() for x in (core, *inputs))
    )


def tap(output: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """`output`, the map of `core.detach()`, such that its gradient reaches the core in factors."""
    return _Tap.apply(1, output, core, *(z.detach() for z in inputs))  # type: ignore[return-value]


def tap_target(target: Tensor, core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """`target` of a loss of `target - map`: the map's gradient is what the target gets, with the other sign."""
    return _Tap.apply(-1, target, core, *(z.detach() for z in inputs))  # type: ignore[return-value]


class _Tap(torch.autograd.Function):
    """The identity; on the way back it hands the gradient on, and to the core its product with the inputs."""

    @staticmethod
    def forward(ctx: Any, sign: int, value: Tensor, core: Tensor, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(core, *inputs)
        ctx.sign = sign
        return value.detach()  # to autograd no view, so that an activation may write over it

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        core, *inputs = ctx.saved_tensors
        if torch.is_grad_enabled() or is_batched_gradient(gradient):
            raise RuntimeError(
                "FactoredGradient: derivatives of a gradient, and batches of gradients, need the dense one; call "
                "multilinear.optim.factor_gradients(module, enabled=False) before the forward pass"
            )
        batch = gradient.shape[:-1]
        residual = gradient.reshape(-1, gradient.shape[-1]).to(core.dtype)
        # Copies, as the caller may write over its tensors, and the optimiser's step over inputs that are learnt too.
        rows = tuple(_rows(z.to(core.dtype), batch).clone() for z in inputs)
        return None, gradient, FactoredGradient(core, [(ctx.sign * residual, rows)]), *[None] * len(inputs)


def _rows(z: Tensor, batch: torch.Size) -> Tensor:
    """An input as a row for each sample, or as one vector for all of them."""
    if batch.numel() > 1 and z.shape[:-1].numel() == 1:
        return z.reshape(-1)
    return z.expand(*batch, -1).reshape(batch.numel(), z.shape[-1])


# What is known: `handler(func, args, kwargs)` returns NotImplemented for what it leaves to the dense gradient.


def _detach(func: Any, args: Any, kwargs: Any) -> Any:
    return args[0]._alias()


def _clone(func: Any, args: Any, kwargs: Any) -> Any:
    """An ordinary tensor: optimisers keep clones of gradients as their state."""
    return args[0]._formed()


def _empty_like(func: Any, args: Any, kwargs: Any) -> Any:
    gradient = args[0]
    dtype, device = kwargs.get("dtype") or gradient.dtype, kwargs.get("device") or gradient.device
    return torch.empty_strided(gradient.shape, gradient.stride(), dtype=dtype, device=device)


def _negate(func: Any, args: Any, kwargs: Any) -> Any:
    return args[0]._map(torch.neg)


def _empty(func: Any, args: Any, kwargs: Any) -> Any:
    same = tuple(args[1]) == tuple(args[0].shape) if len(args) > 1 else True
    return FactoredGradient(args[0], []) if same else NotImplemented


def _zero_(func: Any, args: Any, kwargs: Any) -> Any:
    args[0]._value.dense, args[0]._value.terms = None, []
    return args[0]


def _zero_each(func: Any, args: Any, kwargs: Any) -> None:
    for gradient in args[0]:
        gradient.zero_()


def _copy_(func: Any, args: Any, kwargs: Any) -> Any:
    target, source = args[:2]
    if not (isinstance(target, FactoredGradient) and isinstance(source, FactoredGradient)):
        return NotImplemented
    return target if target._value is source._value else _zero_(func, args, kwargs)._add(source)


def _add(func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args
    if not (isinstance(first, FactoredGradient) and isinstance(second, FactoredGradient)):
        return NotImplemented
    return first._map(torch.clone)._add(second, kwargs.get("alpha", 1))


def _add_(func: Any, args: Any, kwargs: Any) -> Any:
    first, second = args
    if not isinstance(first, FactoredGradient):
        return _update(func, args, kwargs)
    if not isinstance(second, Tensor) or second.shape != first.shape:
        return NotImplemented
    return first._add(second, kwargs.get("alpha", 1))


def _multiply(func: Any, args: Any, kwargs: Any) -> Any:
    """Times or over a number, in place or not."""
    first, factor = args
    if not isinstance(first, FactoredGradient) or (isinstance(factor, Tensor) and factor.ndim):
        return NotImplemented
    operation = torch.div if func in (_aten.div.Tensor, _aten.div_.Tensor) else torch.mul
    result = first._map(lambda x: operation(x, factor))
    if not func._schema.is_mutable:
        return result
    first._value.terms, first._value.dense = result._value.terms, result._value.dense
    return first


def _norm(func: Any, args: Any, kwargs: Any) -> Any:
    gradient, order, *rest = args if len(args) > 1 else (*args, 2)
    if order != 2 or any(rest) or kwargs:
        return NotImplemented
    return gradient.squared_norm().sqrt().to(gradient.dtype)


def _update(func: Any, args: Any, kwargs: Any) -> Any:
    """An element-wise update of a dense tensor, rows after rows."""
    gradients = {id(value): value for value in args if isinstance(value, FactoredGradient)}
    if isinstance(args[0], FactoredGradient) or len(gradients) > 1:
        return NotImplemented
    if any(gradient.shape != args[0].shape for gradient in gradients.values()):
        return NotImplemented
    for gradient in gradients.values():
        for rows, block in gradient.blocks():
            func(*(_part(value, rows, block, args[0]) for value in args), **kwargs)
    return args[0]


def _fused(func: Any, args: Any, kwargs: Any) -> Any:
    """Torch's fused optimisers, whose arguments are lists: for a factored gradient they run once for every block."""
    gradients = args[1]
    dense = [i for i, gradient in enumerate(gradients) if not isinstance(gradient, FactoredGradient)]
    if dense:
        func(*(_select(values, dense) for values in args), **kwargs)
    for i, gradient in enumerate(gradients):
        if not isinstance(gradient, FactoredGradient):
            continue
        own, core = [_select(values, [i]) for values in args], args[0][i]
        # Torch's kernels go through memory, in which rows have to lie one after the other.
        by_rows = core.stride(0) == max(core.stride())
        for rows, block in gradient.blocks() if by_rows else [(slice(None), gradient.dense())]:
            func(*([_part(value, rows, block, core) for value in values] for values in own), **kwargs)
    return None


def _select(values: Sequence[Tensor], places: Sequence[int]) -> list[Tensor]:
    return [values[i] for i in places] if values else []


def _part(value: Any, rows: slice, block: Tensor, like: Tensor) -> Any:
    """The rows of an argument that has them; for the gradient itself, the block in the core's layout."""
    if isinstance(value, FactoredGradient):
        target = like[rows]
        return block if target.stride() == block.stride() else torch.empty_like(target).copy_(block)
    has_rows = isinstance(value, Tensor) and value.ndim == like.ndim and len(value) == len(like)
    return value[rows] if has_rows else value


_KNOWN: dict[Any, Callable[[Any, Any, Any], Any]] = {
    _aten.detach.default: _detach,
    _aten.alias.default: _detach,
    _aten.clone.default: _clone,
    _aten.empty_like.default: _empty_like,
    _aten.new_empty_strided.default: _empty,
    _aten.zero_.default: _zero_,
    _aten._foreach_zero_.default: _zero_each,
    _aten.copy_.default: _copy_,
    _aten.add.Tensor: _add,
    _aten.add_.Tensor: _add_,
    _aten.mul.Tensor: _multiply,
    _aten.mul_.Tensor: _multiply,
    _aten.div.Tensor: _multiply,
    _aten.div_.Tensor: _multiply,
    _aten.neg.default: _negate,
    _aten.linalg_vector_norm.default: _norm,
    _aten.sub_.Tensor: _update,
    _aten.lerp_.Scalar: _update,
    _aten.lerp_.Tensor: _update,
    _aten.addcmul_.default: _update,
    _aten.addcdiv_.default: _update,
    _aten._fused_adam_.default: _fused,
    _aten._fused_adam_.tensor_lr: _fused,
    _aten._fused_adamw_.default: _fused,
    _aten._fused_adamw_.tensor_lr: _fused,
    _aten._fused_sgd_.default: _fused,
}
