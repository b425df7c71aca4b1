"""Which of torch's function transforms is active: the only file that reads private names of torch.

An operator chooses its path by these questions (`autograd/_operator.py`). All names are private, so
`tests/multilinear/test_transforms.py` asks them inside every transform and fails loudly when torch moves them.
"""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def forward_mode_active() -> bool:
    """Whether dual numbers are in play: `torch.func.jvp`, `jacfwd`, `hessian`, `forward_ad.dual_level`."""
    return forward_ad._current_level >= 0


def functorch_active() -> bool:
    """Whether a `torch.func` transform (`grad`, `vjp`, `jacrev`, `vmap`, ...) is running."""
    return torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore[reportAttributeAccessIssue]


# Dynamo asks once while it traces, instead of tracing into it: what it makes of the private call is never None. This is
# what torch.compiler.assume_constant_result does, which imports all of Dynamo.
functorch_active._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


def is_batched_gradient(gradient: Tensor) -> bool:
    """Whether a backward pass gets many gradients at once (`is_grads_batched`, `jacobian(vectorize=True)`)."""
    return torch._C._functorch.is_legacy_batchedtensor(gradient)  # pyright: ignore[reportAttributeAccessIssue]
