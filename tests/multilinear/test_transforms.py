"""The private names of torch that the operators' dispatch reads, asked inside every transform.

If one of these fails after an upgrade of torch, change `multilinear/autograd/_transforms.py`: without it
forward mode would give zero tangents without an error.
"""

import pytest
import torch
from factories import random_tensors
from torch.autograd import forward_ad

import multilinear as ml
from multilinear.autograd._transforms import forward_mode_active, functorch_active, is_batched_gradient

REVERSE = {
    "grad": lambda f: torch.func.grad(f),
    "vjp": lambda f: lambda x: torch.func.vjp(f, x)[0],
    "jacrev": lambda f: torch.func.jacrev(f),
    "vmap": lambda f: torch.vmap(f),
}
FORWARD = {
    "jvp": lambda f: lambda x: torch.func.jvp(f, (x,), (x,)),
    "jacfwd": lambda f: torch.func.jacfwd(f),
    "hessian": lambda f: torch.func.hessian(f),
}


def seen_inside(transform):
    seen = []

    def probe(x):
        seen.append((forward_mode_active(), functorch_active()))
        return x.sum()

    transform(probe)(torch.ones(3))
    return seen


def test_nothing_is_active_outside():
    assert not forward_mode_active()
    assert not functorch_active()


@pytest.mark.parametrize("name", REVERSE)
def test_reverse_transforms_are_seen(name):
    seen = seen_inside(REVERSE[name])
    assert seen and all(functorch and not forward for forward, functorch in seen)


@pytest.mark.parametrize("name", FORWARD)
def test_forward_transforms_are_seen(name):
    seen = seen_inside(FORWARD[name])
    assert seen and all(forward for forward, _ in seen)


def test_dual_numbers_are_seen():
    with forward_ad.dual_level():
        assert forward_mode_active()
    assert not forward_mode_active()


class TestCompiled:
    """While torch.compile traces, functions and transforms inside them."""

    def calls(self, function, *arguments):
        """What the graph of a function calls."""
        found = []

        def backend(graph, example):
            found.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
            return graph.forward

        torch._dynamo.reset()
        torch.compile(function, backend=backend, fullgraph=True)(*arguments)
        return found

    @pytest.mark.parametrize("name", REVERSE)
    def test_transforms_are_seen(self, name):
        x, seen = torch.ones(3), []

        def function(x):
            outside = functorch_active()
            REVERSE[name](probe)(x)
            return x + outside

        def probe(x):
            seen.append(functorch_active())
            return x.sum()

        torch._dynamo.reset()
        assert torch.equal(torch.compile(function, backend="eager", fullgraph=True)(x), x)
        assert seen and all(seen)

    def test_graph_holds_operators_outside_transforms_alone(self):
        a, b = random_tensors([(5, 4, 3), (5, 4, 2)])
        product = lambda a, b: ml.face_splitting([a, b])  # noqa: E731
        assert "multilinear.face_splitting_2.default" in self.calls(product, a[0], b[0])
        for transform in (torch.vmap(product), torch.func.grad(lambda a, b: product(a[0], b[0]).sum())):
            assert not [call for call in self.calls(transform, a, b) if "multilinear" in call]

    @pytest.mark.backend("auto")
    def test_graph_holds_the_formula_by_default(self):
        core, *inputs = random_tensors([(100, 100, 100), (3, 100), (3, 100)])
        calls = self.calls(lambda core, *inputs: ml.multilinear_map(core, inputs), core, *inputs)
        assert not [call for call in calls if "multilinear" in call]


@pytest.mark.parametrize("batched", [True, False])
def test_batched_gradients_are_seen(batched):
    seen = []
    x = torch.ones(3, requires_grad=True)
    y = x * 2
    y.register_hook(lambda gradient: seen.append(is_batched_gradient(gradient)))
    torch.autograd.grad(y, x, torch.eye(3) if batched else torch.ones(3), is_grads_batched=batched)
    assert seen == [batched]
