import pytest
import torch
from factories import assert_close, random_tensors
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

import multilinear as ml
from multilinear import reference

SIZES = [  # batch, outputs, inputs
    (3, 4, (2,)),
    (1, 1, (1, 1)),
    (3, 4, (2, 5)),
    (1, 4, (3, 2)),
    (3, 2, (2, 3, 4)),
    (2, 2, (2, 1, 2, 2)),
    (2, 2, (2, 1, 2, 2, 2)),
]
EMPTY = [(0, 4, (2, 3)), (3, 0, (2, 3)), (3, 4, (0, 2)), (3, 4, (2, 0, 2))]


def problem(batch, outputs, sizes, **options):
    core, *inputs = random_tensors([(outputs, *sizes), *((batch, size) for size in sizes)], **options)
    return core, inputs


class TestMultilinearMap:
    @pytest.mark.parametrize(("batch", "outputs", "sizes"), SIZES + EMPTY, ids=str)
    def test_matches_definition(self, batch, outputs, sizes):
        core, inputs = problem(batch, outputs, sizes)
        assert_close(ml.multilinear_map(core, inputs), reference.multilinear_map(core, inputs))

    @pytest.mark.parametrize(("batch", "outputs", "sizes"), SIZES, ids=str)
    def test_gradients(self, batch, outputs, sizes):
        core, inputs = problem(batch, outputs, sizes, requires_grad=True)
        assert gradcheck(lambda c, *z: ml.multilinear_map(c, z), (core, *inputs))
        assert gradgradcheck(lambda c, *z: ml.multilinear_map(c, z), (core, *inputs))

    @pytest.mark.parametrize(("batch", "outputs", "sizes"), EMPTY, ids=str)
    def test_gradients_of_empty_problems(self, batch, outputs, sizes):
        core, inputs = problem(batch, outputs, sizes, requires_grad=True)
        ml.multilinear_map(core, inputs).sum().backward()
        for tensor in (core, *inputs):
            assert_close(tensor.grad, torch.zeros_like(tensor))

    def test_two_inputs_are_torch_bilinear(self):
        core, (a, b) = problem(3, 4, (2, 5))
        assert_close(ml.multilinear_map(core, [a, b]), torch.nn.functional.bilinear(a, b, core))

    def test_complex_inputs_are_not_conjugated(self):
        core, inputs = problem(2, 3, (2, 2), dtype=torch.complex128, requires_grad=True)
        expected = reference.multilinear_map(core.detach(), [z.detach() for z in inputs])
        assert_close(ml.multilinear_map(core, inputs).detach(), expected)
        assert gradcheck(lambda c, *z: ml.multilinear_map(c, z), (core, *inputs))
        assert gradgradcheck(lambda c, *z: ml.multilinear_map(c, z), (core, *inputs))

    def test_integers_are_exact(self):
        core, z = torch.full((1, 2, 2), 2**40), torch.tensor([[3, 5]])
        assert ml.multilinear_map(core, [z, z]).item() == 64 * 2**40


class TestLeadingDimensions:
    def test_broadcast(self):
        core, a, b = random_tensors([(4, 2, 3), (5, 1, 2), (6, 3)], requires_grad=True)
        expected = torch.einsum("kij,abi,abj->abk", core, a.expand(5, 6, 2), b.expand(5, 6, 3))
        assert_close(ml.multilinear_map(core, [a, b]), expected)
        assert gradcheck(lambda c, *z: ml.multilinear_map(c, z), (core, a, b))

    def test_single_vectors(self):
        core, a, b = random_tensors([(4, 2, 3), (2,), (3,)], requires_grad=True)
        assert_close(ml.multilinear_map(core, [a, b]), torch.einsum("kij,i,j->k", core, a, b))
        assert gradcheck(lambda c, *z: ml.multilinear_map(c, z), (core, a, b))

    @pytest.mark.parametrize(
        ("shapes", "batch"),
        [
            ([(0, 3), (4,)], (0,)),
            ([(0, 3), (1, 4)], (0,)),
            ([(2, 0, 3), (2, 0, 4)], (2, 0)),
            ([(3,), (2, 0, 4)], (2, 0)),
        ],
        ids=str,
    )
    def test_empty_batch(self, shapes, batch):
        core, *inputs = random_tensors([(5, 3, 4), *shapes], requires_grad=True)
        target = torch.zeros(*batch, 5, dtype=torch.float64)
        result = ml.multilinear_map(core, inputs)
        losses = [ml.multilinear_loss(target, core, inputs, reduction=way) for way in ("sum", "mean", "none")]
        assert result.shape == target.shape and losses[2].shape == batch
        assert losses[0] == 0 and losses[1] == 0
        for gradients in (torch.autograd.grad(value.sum(), (core, *inputs)) for value in (result, *losses)):
            assert all(torch.equal(g, torch.zeros_like(x)) for g, x in zip(gradients, (core, *inputs), strict=True))

    @pytest.mark.parametrize("constant", [0, 1, 2])
    @pytest.mark.parametrize("form", ["vector", "row", "expanded"])
    def test_constant_input(self, constant, form):
        core, inputs = problem(4, 3, (2, 3, 2), requires_grad=True)
        vector = inputs[constant].detach()[0].clone()
        expected_inputs = [vector.expand(4, -1).clone() if m == constant else z for m, z in enumerate(inputs)]
        given = {"vector": vector, "row": vector[None], "expanded": vector.expand(4, -1)}[form]
        given_inputs = [given if m == constant else z for m, z in enumerate(inputs)]
        actual, expected = ml.multilinear_map(core, given_inputs), ml.multilinear_map(core, expected_inputs)
        assert_close(actual, expected)
        wanted = [core, *(z for m, z in enumerate(inputs) if m != constant)]
        for a, b in zip(
            torch.autograd.grad(actual.square().sum(), wanted),
            torch.autograd.grad(expected.square().sum(), wanted),
            strict=True,
        ):
            assert_close(a, b)

    @pytest.mark.parametrize("form", ["vector", "row", "expanded"])
    def test_gradient_of_constant_input(self, form):
        core, light, b = random_tensors([(3, 2, 4), (2,), (5, 4)], requires_grad=True)
        forms = {"vector": lambda v: v, "row": lambda v: v[None], "expanded": lambda v: v.expand(5, -1)}
        assert gradcheck(lambda c, v, b: ml.multilinear_map(c, [forms[form](v), b]), (core, light, b))
        assert gradgradcheck(lambda c, v, b: ml.multilinear_map(c, [forms[form](v), b]), (core, light, b))

    def test_gradient_of_an_expanded_leaf_is_per_sample(self):
        core, b = random_tensors([(3, 2, 4), (5, 4)])
        light = torch.ones(2, dtype=torch.float64).expand(5, 2).requires_grad_()
        (gradient,) = torch.autograd.grad(ml.multilinear_map(core, [light, b]).sum(), light)
        assert_close(gradient, torch.einsum("kij,nj->ni", core, b))

    def test_tangent_of_an_expanded_vector(self):
        core, b, light, tangent = random_tensors([(3, 2, 4), (5, 4), (2,), (2,)])
        f = lambda v: ml.multilinear_map(core, [v.expand(5, 2), b])  # noqa: E731
        _, actual = torch.func.jvp(f, (light,), (tangent,))
        assert_close(actual, ml.multilinear_map(core, [tangent, b]))

    def test_all_inputs_constant(self):
        core, a, b = random_tensors([(3, 2, 4), (2,), (4,)])
        actual = ml.multilinear_map(core, [a.expand(5, -1), b.expand(5, -1)])
        assert_close(actual, torch.einsum("kij,i,j->k", core, a, b).expand(5, -1))


class TestMemory:
    def test_only_operands_are_kept_for_backward(self):
        core, inputs = problem(64, 8, (10, 10, 10), requires_grad=True)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            ml.multilinear_map(core, inputs)
        assert sorted(kept) == sorted(x.numel() for x in (core, *inputs))

    def test_loss_keeps_operands_and_residual(self):
        core, inputs = problem(64, 8, (10, 10, 10), requires_grad=True)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            ml.multilinear_loss(torch.zeros(64, 8, dtype=torch.float64), core, inputs)
        assert max(kept) == core.numel() and sum(kept) <= core.numel() + 64 * (30 + 2 * 8)

    def test_the_products_are_not_in_memory_between_forward_and_backward(self):
        core, inputs = problem(500, 4, (10, 10, 10), requires_grad=True)  # the products take 4 MB
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            result = ml.multilinear_map(core, inputs)
        events = profile.events()
        assert any(event.self_cpu_memory_usage >= 4e6 for event in events)  # they were made,
        assert sum(event.self_cpu_memory_usage for event in events) == result.numel() * 8  # and freed


class TestDtypes:
    def test_autocast_runs_the_product_in_bfloat16(self):
        core, inputs = problem(4, 3, (2, 3), dtype=torch.float32, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            result = ml.multilinear_map(core, inputs)
            assert ml.multilinear_loss(torch.zeros(4, 3), core, inputs).dtype == torch.float32
        assert result.dtype == torch.bfloat16
        result.float().sum().backward()
        assert core.grad is not None and core.grad.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):  # backward inside the region gives the same
            gradient = torch.autograd.grad(ml.multilinear_map(core, inputs).float().sum(), core)[0]
        assert_close(gradient, core.grad)

    def test_autocast_leaves_float64_alone(self):
        core, inputs = problem(4, 3, (2, 3))
        with torch.autocast("cpu", torch.bfloat16):
            assert ml.multilinear_map(core, inputs).dtype == torch.float64

    def test_mixed_dtypes_promote(self):
        core, inputs = problem(4, 3, (2, 3))
        assert ml.multilinear_map(core.float(), inputs).dtype == torch.float64

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        core, inputs = problem(4, 3, (2, 30), requires_grad=True)
        halves = [x.detach().to(dtype).requires_grad_() for x in (core, *inputs)]
        exact = [x.detach().double().requires_grad_() for x in halves]
        result = ml.multilinear_map(halves[0], halves[1:])
        expected = ml.multilinear_map(exact[0], exact[1:])
        assert result.dtype == dtype
        assert_close(result.double(), expected, rtol=0, atol=8 * torch.finfo(dtype).eps * expected.abs().max().item())
        result.sum().backward()
        expected.sum().backward()
        for half, full in zip(halves, exact, strict=True):
            tolerance = 8 * torch.finfo(dtype).eps * full.grad.abs().max().item()
            assert_close(half.grad.double(), full.grad, rtol=0, atol=tolerance)


class TestModes:
    def test_inference_mode(self):
        core, inputs = problem(3, 4, (2, 3), requires_grad=True)
        with torch.inference_mode():
            result = ml.multilinear_map(core, inputs)
        assert result.is_inference()
        assert_close(result.clone(), ml.multilinear_map(core, inputs).detach())

    def test_no_grad(self):
        core, inputs = problem(3, 4, (2, 3), requires_grad=True)
        with torch.no_grad():
            assert not ml.multilinear_map(core, inputs).requires_grad


class TestCompiled:
    @pytest.mark.slow
    def test_autocast_region_compiles_into_one_graph(self):
        core, inputs = problem(4, 3, (2, 3), dtype=torch.float32, requires_grad=True)

        def step(core, *inputs):
            with torch.autocast("cpu", torch.bfloat16):
                return ml.multilinear_map(core, inputs).float().square().sum()

        torch._dynamo.reset()
        compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
        expected = torch.autograd.grad(step(core, *inputs), (core, *inputs))
        for actual, gradient in zip(
            torch.autograd.grad(compiled(core, *inputs), (core, *inputs)), expected, strict=True
        ):
            assert_close(actual, gradient)

    @pytest.mark.slow
    def test_constant_input_compiles_into_one_graph(self):
        core, inputs = problem(4, 3, (2, 3), requires_grad=True)
        vector = inputs[0].detach()[0]
        torch._dynamo.reset()
        compiled = torch.compile(lambda c, *z: ml.multilinear_map(c, z), backend="aot_eager", fullgraph=True)
        for light in (vector, vector[None], vector.expand(4, -1)):
            assert_close(compiled(core, light, inputs[1]), ml.multilinear_map(core, [light, inputs[1]]))


class TestMultilinearLoss:
    @pytest.mark.parametrize(("batch", "outputs", "sizes"), SIZES + EMPTY[:2], ids=str)
    def test_matches_definition(self, batch, outputs, sizes):
        core, inputs = problem(batch, outputs, sizes)
        (target,) = random_tensors([(batch, outputs)], seed=1)
        expected = float(reference.multilinear_loss(target, core, inputs))
        assert_close(ml.multilinear_loss(target, core, inputs), expected)

    @pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
    @pytest.mark.parametrize(("batch", "outputs", "sizes"), [(3, 4, (2,)), (3, 2, (2, 3)), (2, 2, (2, 3, 2))], ids=str)
    def test_gradients(self, batch, outputs, sizes, reduction):
        core, inputs = problem(batch, outputs, sizes, requires_grad=True)
        (target,) = random_tensors([(batch, outputs)], seed=1, requires_grad=True)
        loss = lambda x, c, *z: ml.multilinear_loss(x, c, z, reduction=reduction)  # noqa: E731
        assert gradcheck(loss, (target, core, *inputs))
        assert gradgradcheck(loss, (target, core, *inputs))

    def test_reductions(self):
        core, inputs = problem(3, 4, (2, 3))
        target = torch.zeros(3, 4, dtype=torch.float64)
        per_sample = ml.multilinear_map(core, inputs).square().sum(-1)
        assert_close(ml.multilinear_loss(target, core, inputs, reduction="none"), per_sample)
        assert_close(ml.multilinear_loss(target, core, inputs, reduction="mean"), per_sample.mean())
        assert_close(ml.multilinear_loss(target, core, inputs), per_sample.sum())

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
    def test_integer_target(self, dtype):
        core, inputs = problem(3, 4, (2, 3), dtype=torch.float32, requires_grad=True)
        target = torch.arange(12).reshape(3, 4)
        loss = ml.multilinear_loss(target.to(dtype), core, inputs)
        expected = ml.multilinear_loss(target.float(), core, inputs)
        for actual, gradient in zip(*(torch.autograd.grad(x, (core, *inputs)) for x in (loss, expected)), strict=True):
            assert_close(actual, gradient)
        assert_close(loss, expected)

    def test_zero_residual_has_zero_gradient(self):
        core, inputs = problem(3, 4, (2, 3), requires_grad=True)
        loss = ml.multilinear_loss(ml.multilinear_map(core, inputs).detach(), core, inputs)
        assert loss.item() == 0
        assert all(not g.any() for g in torch.autograd.grad(loss, (core, *inputs)))

    def test_complex(self):
        core, inputs = problem(3, 4, (2, 3), dtype=torch.complex128, requires_grad=True)
        (target,) = random_tensors([(3, 4)], seed=1, dtype=torch.complex128)
        loss = ml.multilinear_loss(target, core, inputs)
        assert loss.dtype == torch.float64
        expected = float(reference.multilinear_loss(target, core.detach(), [z.detach() for z in inputs]))
        assert_close(loss.detach(), expected)
        assert gradcheck(lambda c, *z: ml.multilinear_loss(target, c, z), (core, *inputs))

    def test_sum_of_many_float32_residuals(self):
        generator = torch.Generator().manual_seed(0)
        core, z = torch.zeros(12288, 1), torch.ones(1000, 1)
        target = torch.rand(1000, 12288, generator=generator)
        exact = torch.linalg.vector_norm(target, dtype=torch.float64).square()
        assert abs(ml.multilinear_loss(target, core, [z]).double() / exact - 1) < 1e-6


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (
                lambda c, a, b: ml.multilinear_map(c, [a]),
                ValueError,
                r"multilinear_map: a core with 3 modes maps 2 inputs, got 1 "
                r"\(core is \(4, 2, 3\), inputs are \[\(5, 2\)\]\)",
            ),
            (
                lambda c, a, b: ml.multilinear_map(c, [b, a]),
                ValueError,
                r"multilinear_map: inputs\[0\] must have shape \(..., 2\), got \(5, 3\)",
            ),
            (
                lambda c, a, b: ml.multilinear_map(c, [a, b[:4]]),
                ValueError,
                r"multilinear_map: the leading dimensions of the inputs must broadcast, got shapes \[\(5, 2\), \(4, ",
            ),
            (lambda c, a, b: ml.multilinear_map(c, a), TypeError, r"multilinear_map: inputs must be a list or tuple"),
            (lambda c, a, b: ml.multilinear_map(c, []), ValueError, r"multilinear_map: inputs is empty"),
            (
                lambda c, a, b: ml.multilinear_map(c.numpy(), [a, b]),
                TypeError,
                r"core must be a torch.Tensor, got ndarray",
            ),
            (lambda c, a, b: ml.multilinear_map(c > 0, [a, b]), TypeError, r"multilinear_map: core is boolean"),
            (lambda c, a, b: ml.multilinear_map(c, [a, b.numpy()]), TypeError, r"must come from one library"),
            (lambda c, a, b: ml.multilinear_map(c, [a, b > 0]), TypeError, r"inputs\[1\] is boolean"),
            (
                lambda c, a, b: ml.multilinear_map(c.to("meta"), [a, b]),
                ValueError,
                r"must be on one device, got \['meta'",
            ),
            (
                lambda c, a, b: ml.multilinear_loss(torch.zeros(4, 5), c, [a, b]),
                ValueError,
                r"multilinear_loss: target must have the shape of the map, \(5, 4\), got \(4, 5\); the batch",
            ),
            (
                lambda c, a, b: ml.multilinear_loss(torch.zeros(5, 4), c, [a, b], reduction="max"),
                ValueError,
                r"multilinear_loss: reduction must be \"sum\", \"mean\" or \"none\", got 'max'",
            ),
            (lambda c, a, b: ml.multilinear_loss(torch.zeros(5, 4), c, [a]), ValueError, r"multilinear_loss: a core"),
            (
                lambda c, a, b: ml.multilinear_loss([0], c, [a, b]),
                TypeError,
                r"multilinear_loss: target must be a torch",
            ),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call(*random_tensors([(4, 2, 3), (5, 2), (5, 3)]))

    def test_on_fake_tensors(self):
        with FakeTensorMode():
            core, inputs = torch.empty(4, 2, 3), [torch.empty(5, 2), torch.empty(5, 3)]
            assert ml.multilinear_map(core, inputs).shape == (5, 4)
            with pytest.raises(ValueError, match="must have shape"):
                ml.multilinear_map(core, inputs[::-1])
            with pytest.raises(ValueError, match="target must have the shape"):
                ml.multilinear_loss(torch.empty(4, 5), core, inputs)

    def test_on_meta_tensors(self):
        core, inputs = problem(3, 4, (2, 3))
        core, inputs = core.to("meta"), [z.to("meta") for z in inputs]
        assert ml.multilinear_map(core, inputs).shape == (3, 4)
        with pytest.raises(ValueError, match="must have shape"):
            ml.multilinear_map(core, inputs[::-1])
