"""Factored gradients: every number is that of the dense gradient, and the dense gradient is never there."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from factories import assert_close
from torch.nn.parallel import DistributedDataParallel

import multilinear as ml
from multilinear.nn import CPCore, Multilinear, TuckerCore
from multilinear.optim import FactoredGradient, factor_gradients, gather_gradients

SIZES, OUTPUTS, SAMPLES = (3, 4, 5), 70, 3
ROWS = torch.arange(OUTPUTS, dtype=torch.float64)
OPTIMIZERS = {
    "AdamW fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.1),
    "Adam fused": lambda parameters: torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1, amsgrad=True, fused=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
    "SGD fused": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, fused=True),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),
    "AdamW, maximising": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, maximize=True),
}
DENSE = {  # what finds no factored form
    "Adam with decay": lambda parameters: torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1),
    "RMSprop, centred": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, centered=True, weight_decay=0.1),
}


class Faces(torch.nn.Module):
    """A core that is used three ways in a step, as the paper's are, beside a layer with ordinary gradients."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.codes = torch.nn.Linear(6, sum(SIZES), dtype=dtype)
        self.core = Multilinear(SIZES, OUTPUTS, dtype=dtype)

    def forward(self, x, target):
        light, *others = self.codes(x).tanh().split(SIZES, 1)
        constant = torch.full((SIZES[0],), 1 / SIZES[0], dtype=light.dtype)
        error = (self.core(light, *others) - target).square().mean() + self.core(constant, *others).sin().mean()
        return error + ml.multilinear_loss(target, self.core.weight, [light, *others], reduction="mean")


def batch(step, samples=SAMPLES, dtype=torch.float64):
    generator = torch.Generator().manual_seed(step)
    draws = [torch.randn(samples, size, generator=generator, dtype=torch.float64) for size in (6, OUTPUTS)]
    return tuple(draw.to(dtype) for draw in draws)


def train(make, *, factored, steps=8, accumulation=2):
    model = Faces()
    if factored:
        assert factor_gradients(model, smallest=0) == ["core.weight"]
    optimizer = make(model.parameters())
    norms, forms = [], []
    for step in range(steps):
        for part in range(accumulation):
            (model(*batch(10 * step + part)) / accumulation).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        gradient = model.core.weight.grad
        optimizer.step()
        forms.append(isinstance(gradient, FactoredGradient) and gradient.is_factored)
        optimizer.zero_grad()
    return model, torch.stack(norms), optimizer, forms


def assert_same_state(ours, theirs):
    ours, theirs = ours.state_dict(), theirs.state_dict()
    assert ours["param_groups"] == theirs["param_groups"] and ours["state"].keys() == theirs["state"].keys()
    for number, entries in theirs["state"].items():
        for name, value in entries.items():
            if isinstance(value, torch.Tensor):
                assert type(ours["state"][number][name]) is torch.Tensor
                assert_close(ours["state"][number][name], value, rtol=1e-12, atol=1e-12)


class TestTraining:
    @pytest.mark.parametrize("name", [*OPTIMIZERS, *DENSE])
    def test_every_number_is_that_of_the_dense_gradient(self, name):
        make = (OPTIMIZERS | DENSE)[name]
        ours, norms, optimizer, forms = train(make, factored=True)
        theirs, expected, plain, _ = train(make, factored=False)
        for value, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_close(value, other, rtol=1e-12, atol=1e-12)
        assert_close(norms, expected, rtol=1e-12, atol=0)
        assert_same_state(optimizer, plain)
        assert all(forms) == (name in OPTIMIZERS)

    def test_a_run_goes_on_without_factors(self):
        model, _, optimizer, _ = train(OPTIMIZERS["AdamW fused"], factored=True)
        assert factor_gradients(model, enabled=False, smallest=0) == ["core.weight"]
        model(*batch(0)).backward()
        assert type(model.core.weight.grad) is torch.Tensor
        optimizer.step()

    def test_all_cores_are_taken_back(self):
        model = Faces()
        factor_gradients(model, smallest=0)
        assert factor_gradients(model, enabled=False) == ["core.weight"]
        model(*batch(0)).backward()
        assert type(model.core.weight.grad) is torch.Tensor
        assert model._ddp_params_and_buffers_to_ignore == []

    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("shape", [(3,), (2, 3)])
    def test_an_activation_in_place(self, shape, bias):
        def gradients(factored):
            torch.manual_seed(0)
            layer = Multilinear(SIZES, OUTPUTS, bias=bias)
            factor_gradients(layer, enabled=factored, smallest=0)
            inputs = [torch.randn(*shape, size, requires_grad=True) for size in SIZES]
            torch.nn.functional.relu(layer(*inputs), inplace=factored).square().sum().backward()
            return [x.grad + 0 for x in (*layer.parameters(), *inputs)]

        for ours, theirs in zip(gradients(True), gradients(False), strict=True):
            assert_close(ours, theirs)

    def test_float32_is_as_exact_as_torch(self):
        def gradient(factored, dtype):
            model = Faces().to(dtype)
            if factored:
                factor_gradients(model, smallest=0)
            model(*batch(0, dtype=dtype)).backward()
            return model.core.weight.grad.clone()

        exact = gradient(False, torch.float64)
        assert (gradient(True, torch.float32) - exact).abs().max() < 1e-6 * exact.abs().max()

    def test_autocast(self):
        def gradients(factored):
            model = Faces(torch.float32)
            if factored:
                factor_gradients(model, smallest=0)
            with torch.autocast("cpu", torch.bfloat16):
                model(*batch(0, dtype=torch.float32)).backward()
            assert isinstance(model.core.weight.grad, FactoredGradient) == factored
            return [parameter.grad.clone() for parameter in model.parameters()]

        for ours, theirs in zip(gradients(True), gradients(False), strict=True):
            assert ours.dtype == torch.float32
            assert (ours - theirs).norm() < 0.01 * theirs.norm()  # 8 bits of mantissa

    @pytest.mark.parametrize("fused", [True, False])
    def test_gradients_set_to_zero(self, fused):
        model = Faces()
        factor_gradients(model, smallest=0)
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
        for _ in range(2):
            model(*batch(0)).backward()
            optimizer.zero_grad(set_to_none=False)
            assert model.core.weight.grad.is_factored and model.core.weight.grad.norm() == 0
        optimizer.step()

    @pytest.mark.parametrize("rows", [1, 7, 70, 1000])
    def test_any_height_of_blocks(self, rows, monkeypatch):
        monkeypatch.setattr("multilinear.autograd.factored_gradient.BLOCK", rows * 60)
        ours, *_ = train(OPTIMIZERS["AdamW fused"], factored=True, steps=2)
        theirs, *_ = train(OPTIMIZERS["AdamW fused"], factored=False, steps=2)
        assert_close(ours.core.weight, theirs.core.weight, rtol=1e-12, atol=1e-12)

    def test_weights_in_another_memory_format(self):
        def run(factored):
            model = Faces().to(memory_format=torch.channels_last)
            if factored:
                factor_gradients(model, smallest=0)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
            for step in range(3):
                model(*batch(step)).backward()
                optimizer.step()
                optimizer.zero_grad()
            return model.core.weight

        assert not run(True).is_contiguous()
        assert_close(run(True), run(False), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ["AdamW fused", "SGD fused"])
    def test_weights_whose_outputs_vary_fastest(self, name, monkeypatch):
        monkeypatch.setattr("multilinear.autograd.factored_gradient.BLOCK", 7 * 60)

        def run(factored):
            torch.manual_seed(0)
            core = torch.nn.Parameter(torch.randn(*SIZES, OUTPUTS, dtype=torch.float64).permute(3, 0, 1, 2))
            core.factored_gradient = factored
            optimizer = OPTIMIZERS[name]([core])
            for _ in range(3):
                inputs = [torch.randn(SAMPLES, size, dtype=torch.float64) for size in SIZES]
                ml.multilinear_map(core, inputs).sin().sum().backward()
                optimizer.step()
                optimizer.zero_grad()
            return core

        assert_close(run(True), run(False), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ["AdamW fused", "AdamW", "SGD fused", "SGD"])
    def test_inputs_that_are_learnt_too(self, name):
        """The step changes them before the core."""

        def run(factored):
            torch.manual_seed(0)
            layer = Multilinear(SIZES, OUTPUTS, dtype=torch.float64)
            factor_gradients(layer, enabled=factored, smallest=0)
            codes = [torch.nn.Parameter(torch.randn(SAMPLES, size, dtype=torch.float64)) for size in SIZES]
            optimizer = OPTIMIZERS[name]([*codes, layer.weight])
            for step in range(3):
                (layer(*codes) - batch(step)[1]).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            return [layer.weight, *codes]

        for ours, theirs in zip(run(True), run(False), strict=True):
            assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def gradient_of(samples=4, **terms):
    """A factored gradient of a small core, and the same one dense."""
    torch.manual_seed(samples)
    core = torch.nn.Parameter(torch.randn(OUTPUTS, *SIZES, dtype=torch.float64))
    core.factored_gradient = True
    inputs = [torch.randn(samples, size, dtype=torch.float64) for size in SIZES]
    ml.multilinear_map(core, inputs).sin().sum().backward()
    ours, plain = core.grad, core.detach().clone().requires_grad_()
    ml.multilinear_map(plain, inputs).sin().sum().backward()
    assert ours.is_factored
    return ours, plain.grad


class TestFactoredGradient:
    def test_one_sample_by_hand(self):
        core = torch.nn.Parameter(torch.zeros(2, 2, 3))
        core.factored_gradient = True
        output = ml.multilinear_map(core, [torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0, -1.0]])])
        output.backward(torch.tensor([[1.0, 10.0]]))
        expected = torch.tensor([[[1.0, 0, -1], [2, 0, -2]], [[10, 0, -10], [20, 0, -20]]])
        assert_close(core.grad + 0, expected)

    @pytest.mark.parametrize(
        "operation",
        [
            lambda g: g + g,
            lambda g: g * 3,
            lambda g: g / 4,
            lambda g: -g,
            lambda g: g.clone(),
            lambda g: copy.deepcopy(g),
            lambda g: g.detach(),
            lambda g: g.norm(),
            lambda g: torch.linalg.vector_norm(g),
            lambda g: torch.linalg.vector_norm(g, 1),
            lambda g: torch.linalg.vector_norm(g, float("inf")),
            lambda g: torch.linalg.vector_norm(g, dim=1),
            lambda g: g.add(g, alpha=-2),
            lambda g: g * torch.tensor(2.0, dtype=torch.float64),
            lambda g: g * torch.arange(5.0, dtype=torch.float64),
            lambda g: g.mul_(2).add_(torch.ones(OUTPUTS, *SIZES, dtype=torch.float64)).div_(3),
            lambda g: g.add_(1),
            lambda g: g.add_(g.clone(), alpha=0.5),
            lambda g: g.clamp_(-0.1, 0.1),
            lambda g: g.zero_(),
            lambda g: g.zero_().add_(1),
            lambda g: g.copy_(g),
            lambda g: g.detach().mul_(2),
            lambda g: g.detach().add_(1),
            lambda g: g.data.clamp_(-0.1, 0.1),
            lambda g: g.data.div_(2).copy_(g),
            lambda g: torch.empty_like(g, dtype=torch.float32).fill_(1),
            lambda g: g.abs().sum(),
            lambda g: g[3:5].mul(2),
            lambda g: torch.ones_like(g) - g,
            lambda g: torch.zeros(OUTPUTS, *SIZES, dtype=torch.float64).add_(g, alpha=2),
            lambda g: torch.zeros(OUTPUTS, *SIZES, dtype=torch.float64).sub_(g),
            lambda g: torch.zeros(2, OUTPUTS, *SIZES, dtype=torch.float64).add_(g),
            lambda g: torch.ones(OUTPUTS, *SIZES, dtype=torch.float64).addcmul_(g, ROWS.view(-1, 1, 1, 1)),
            lambda g: torch.ones(OUTPUTS, *SIZES, dtype=torch.float64).addcmul_(g, ROWS[:3].view(3, 1, 1)),
            lambda g: torch.ones(OUTPUTS, *SIZES, dtype=torch.float64).lerp_(g, 0.3),
            lambda g: torch.ones(OUTPUTS, *SIZES, dtype=torch.float64).addcmul_(g, g, value=0.3),
            lambda g: torch.ones(OUTPUTS, *SIZES, dtype=torch.float64).addcmul_(g, g * 2, value=0.3),
        ],
    )
    @pytest.mark.parametrize("rows", [1, 7, 70])
    def test_is_the_tensor_it_stands_for(self, operation, rows, monkeypatch):
        monkeypatch.setattr("multilinear.autograd.factored_gradient.BLOCK", rows * 60)
        ours, expected = gradient_of()
        assert_close(operation(ours) + 0, operation(expected) + 0, rtol=1e-12, atol=1e-12)
        assert_close(ours + 0, expected + 0, rtol=1e-12, atol=1e-12)  # and in place it changes as that one does

    def test_clones_share_nothing(self):
        ours, expected = gradient_of()
        copy = ours.clone()
        ours.mul_(5)
        assert_close(copy, expected, rtol=1e-12, atol=1e-12)
        assert type(copy) is torch.Tensor

    def test_what_it_was_made_of_may_be_written_over(self):
        def gradient(factored):
            torch.manual_seed(0)
            core = torch.nn.Parameter(torch.randn(OUTPUTS, *SIZES, dtype=torch.float64))
            core.factored_gradient = factored
            inputs = [torch.randn(SAMPLES, size, dtype=torch.float64) for size in SIZES]
            cotangent = torch.randn(SAMPLES, OUTPUTS, dtype=torch.float64)
            ml.multilinear_map(core, inputs).backward(cotangent)
            for buffer in (cotangent, *inputs):
                buffer.fill_(7)
            return core.grad + 0

        assert_close(gradient(True), gradient(False), rtol=1e-12, atol=1e-12)

    def test_the_norm_of_a_sum_that_cancels(self):
        ours, _ = gradient_of()
        assert ours.add(ours, alpha=-1).norm() < 1e-7 * ours.norm()

    def test_the_norm_of_millions_of_float32(self):
        """Where torch's norm of the dense gradient has lost four digits."""
        layer = Multilinear((30, 40), 3000)
        factor_gradients(layer)
        layer(torch.randn(8, 30), torch.randn(8, 40)).square().sum().backward()
        exact = layer.weight.grad.clone().double().norm()
        assert abs(layer.weight.grad.norm() - exact) < 1e-6 * exact

    def test_dense_once_the_factors_are_larger(self):
        ours, expected = gradient_of(samples=31)  # 31 (70 + 60) < 70 * 60
        assert ours.is_factored
        ours.add_(ours.detach())
        assert not ours.is_factored
        assert_close(ours + 0, 2 * expected, rtol=1e-12, atol=1e-12)

    def test_a_dense_use_is_added(self):
        def gradient(factored):
            model = Faces()
            if factored:
                factor_gradients(model, smallest=0)
            (model(*batch(0)) + model.core.weight.square().sum() + model.core.full_weight().sum()).backward()
            model(*batch(1)).backward()
            return model.core.weight.grad

        assert_close(gradient(True) + 0, gradient(False), rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("shapes", [[(3,), (4,), (5,)], [(2, 1, 3), (4,), (2, 6, 5)], [(1, 3), (7, 4), (7, 5)]])
    def test_leading_dimensions_broadcast(self, shapes):
        def gradient(factored):
            torch.manual_seed(0)
            core = torch.nn.Parameter(torch.randn(OUTPUTS, *SIZES, dtype=torch.float64))
            core.factored_gradient = factored
            inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
            ml.multilinear_map(core, inputs).sin().sum().backward()
            assert isinstance(core.grad, FactoredGradient) == factored
            return [core.grad + 0, *(z.grad for z in inputs)]

        for ours, theirs in zip(gradient(True), gradient(False), strict=True):
            assert_close(ours, theirs, rtol=1e-12, atol=1e-12)

    def test_no_samples(self):
        core = torch.nn.Parameter(torch.randn(5, 2, 3))
        core.factored_gradient = True
        ml.multilinear_map(core, [torch.zeros(0, 2), torch.zeros(0, 3)]).sum().backward()
        assert core.grad.norm() == 0
        assert_close(core.grad + 0, torch.zeros(5, 2, 3))

    @pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
    def test_the_loss_of_a_large_core(self, reduction):
        """Large enough for the one-pass loss, whose gradients come with the value."""

        def gradients(factored):
            torch.manual_seed(0)
            core = torch.nn.Parameter(torch.randn(600, 40, 50, dtype=torch.float64))
            core.factored_gradient = factored
            target = torch.randn(4, 600, dtype=torch.float64, requires_grad=True)
            inputs = [torch.randn(4, size, dtype=torch.float64, requires_grad=True) for size in (40, 50)]
            loss = ml.multilinear_loss(target, core, inputs, reduction=reduction)
            (3 * loss).sum().backward()
            assert isinstance(core.grad, FactoredGradient) == factored
            return [loss, core.grad + 0, target.grad, *(z.grad for z in inputs)]

        for ours, theirs in zip(gradients(True), gradients(False), strict=True):
            assert_close(ours, theirs, rtol=1e-11, atol=1e-11)

    @pytest.mark.parametrize("reduction", ["sum", "mean", "none"])
    def test_the_loss_of_an_integer_target(self, reduction):
        def gradients(factored):
            torch.manual_seed(0)
            core = torch.nn.Parameter(torch.randn(OUTPUTS, *SIZES))
            core.factored_gradient = factored
            images = torch.randint(256, (SAMPLES, OUTPUTS), dtype=torch.uint8)
            inputs = [torch.randn(SAMPLES, size, requires_grad=True) for size in SIZES]
            ml.multilinear_loss(images, core, inputs, reduction=reduction).sum().backward()
            assert isinstance(core.grad, FactoredGradient) == factored
            return [core.grad + 0, *(z.grad for z in inputs)]

        for ours, theirs in zip(gradients(True), gradients(False), strict=True):
            assert_close(ours, theirs, rtol=1e-5, atol=1e-2)  # of numbers of some thousands

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_the_loss_of_a_target_in_half_precision(self, dtype):
        def gradient(factored):
            torch.manual_seed(0)
            core = torch.nn.Parameter(torch.randn(OUTPUTS, *SIZES))
            core.factored_gradient = factored
            inputs = [torch.randn(SAMPLES, size) for size in SIZES]
            ml.multilinear_loss(40_000 * torch.ones(SAMPLES, OUTPUTS, dtype=dtype), core, inputs).backward()
            assert isinstance(core.grad, FactoredGradient) == factored
            return core.grad + 0

        ours, theirs = gradient(True), gradient(False)  # beyond float16's range
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()

    def test_nothing_of_its_size_is_allocated(self):
        """A step of AdamW asks for less memory than a tenth of the core."""
        layer = Multilinear((4, 16, 32), 2048)
        factor_gradients(layer)
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        inputs = [torch.randn(8, size) for size in (4, 16, 32)]

        def step():
            layer(*inputs).square().sum().backward()
            torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        step()  # makes the moments
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step()
        largest = max(event.cpu_memory_usage for event in profile.events())
        # the block of rows, which here is half of the small core, is the largest
        assert largest <= 4 * max(1 << 20, layer.weight.numel() // 10)


class TestDense:
    """Where a factored gradient cannot be, the gradient is dense, or the call is refused."""

    def test_compiled(self):
        layer = Multilinear(SIZES, OUTPUTS)
        factor_gradients(layer, smallest=0)
        inputs = [torch.randn(2, size) for size in SIZES]
        torch.compile(layer, backend="aot_eager", fullgraph=True)(*inputs).sum().backward()
        assert type(layer.weight.grad) is torch.Tensor

    @pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
    def test_complex(self, dtype):
        """Of a complex core, or of complex inputs alone."""

        def gradient(factored):
            torch.manual_seed(0)
            layer = Multilinear(SIZES, OUTPUTS, dtype=dtype)
            factor_gradients(layer, enabled=factored, smallest=0)
            inputs = [torch.randn(SAMPLES, size, dtype=torch.complex128) for size in SIZES]
            layer(*inputs).abs().sum().backward()
            return layer.weight.grad

        assert type(gradient(True)) is torch.Tensor
        assert_close(gradient(True), gradient(False), rtol=1e-12, atol=1e-12)

    def test_torch_func(self):
        layer = Multilinear(SIZES, OUTPUTS)
        factor_gradients(layer, smallest=0)
        inputs = [torch.randn(2, size) for size in SIZES]
        gradient = torch.func.grad(lambda w: ml.multilinear_map(w, inputs).sum())(layer.weight)
        assert type(gradient) is torch.Tensor

    def test_without_gradients(self):
        layer = Multilinear(SIZES, OUTPUTS)
        factor_gradients(layer, smallest=0)
        with torch.no_grad():
            assert not layer(*(torch.randn(2, size) for size in SIZES)).requires_grad

    def test_a_second_derivative_is_refused(self):
        layer = Multilinear(SIZES, OUTPUTS)
        factor_gradients(layer, smallest=0)
        inputs = [torch.randn(2, size, requires_grad=True) for size in SIZES]
        with pytest.raises(RuntimeError, match=r"need the dense one; call .*factor_gradients\(module, enabled=False\)"):
            torch.autograd.grad(layer(*inputs).sum(), inputs, create_graph=True)

    def test_only_large_full_cores(self):
        layers = torch.nn.ModuleList(
            [
                Multilinear((8, 8), 16384),
                Multilinear((8, 8), 16383),
                Multilinear((8, 8), 65536, core=TuckerCore((64, 8, 8))),
                Multilinear((8, 8), 65536, core=CPCore(32)),
            ]
        )
        assert factor_gradients(layers) == ["0.weight"]

    def test_copies_are_not_marked(self):
        layer = Multilinear(SIZES, OUTPUTS)
        factor_gradients(layer, smallest=0)
        other = copy.deepcopy(layer)
        other(*(torch.randn(2, size) for size in SIZES)).sum().backward()
        assert type(other.weight.grad) is torch.Tensor


def _parallel(rank, file):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for dense_rank in (None, 1):
        _train_in_parallel(rank, dense_rank)
    _average_without_marks(rank)
    _average_with_nothing(rank)
    dist.destroy_process_group()


def _train_in_parallel(rank, dense_rank):
    model = Faces()
    if rank:
        torch.nn.init.zeros_(model.core.weight)  # the first process has the say
    assert factor_gradients(model, smallest=0) == ["core.weight"]
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    mine = slice(0, 2) if rank == 0 else slice(2, 6)
    norms = []
    for step in range(4):
        for seed, context in ((step, wrapped.no_sync()), (100 + step, nullcontext())):
            x, target = batch(seed, samples=6)
            with context:
                (wrapped(x[mine], target[mine]) * len(x[mine]) / 6).backward()
        if rank == dense_rank:
            model.core.weight.grad.abs()  # makes it dense
        gather_gradients(model)
        assert isinstance(model.core.weight.grad, FactoredGradient) == (dense_rank is None)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        optimizer.step()
        optimizer.zero_grad()
    gather_gradients(model)  # of nothing
    assert model.core.weight.grad is None
    single, expected = _train_alone()
    for value, other in zip(model.parameters(), single.parameters(), strict=True):
        assert_close(value, other, rtol=1e-12, atol=1e-12)
    assert_close(torch.stack(norms), torch.stack(expected), rtol=1e-12, atol=0)
    ours = model.core.weight.detach()
    everyone = [torch.empty_like(ours), torch.empty_like(ours)]
    dist.all_gather(everyone, ours)
    assert torch.equal(*everyone)


def _average_without_marks(rank):
    """What DistributedDataParallel leaves out is averaged, also where the weight has lost its mark."""
    assigned = Faces()
    factor_gradients(assigned, smallest=0)
    copied = copy.deepcopy(assigned)
    assigned.load_state_dict(copy.deepcopy(copied.state_dict()), assign=True)
    for model in (copied, assigned):
        wrapped = DistributedDataParallel(model)
        wrapped(*batch(rank)).backward()
        gather_gradients(model.core)  # a part will do
        single = Faces()
        (0.5 * (single(*batch(0)) + single(*batch(1)))).backward()
        for value, other in zip(model.parameters(), single.parameters(), strict=True):
            assert_close(value.grad, other.grad, rtol=1e-12, atol=1e-12)


def _average_with_nothing(rank):
    """One of the processes has not used the core."""
    model, single = Faces(), Faces()
    factor_gradients(model, smallest=0)
    if rank:
        model(*batch(0)).backward()
    gather_gradients(model)
    (single(*batch(0)) / 2).backward()
    assert_close(model.core.weight.grad + 0, single.core.weight.grad, rtol=1e-12, atol=1e-12)


def _train_alone():
    model = Faces()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    norms = []
    for step in range(4):
        for seed in (step, 100 + step):
            x, target = batch(seed, samples=6)
            # the mean over processes of sums over their faces
            (0.5 * sum(model(x[p], target[p]) * len(x[p]) / 6 for p in (slice(0, 2), slice(2, 6)))).backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        optimizer.step()
        optimizer.zero_grad()
    return model, norms


def test_two_processes_equal_one(tmp_path):
    mp.spawn(_parallel, (tmp_path / "rendezvous",), nprocs=2)
