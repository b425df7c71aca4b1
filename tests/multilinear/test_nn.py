import io

import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml
from multilinear.nn import CPCore, Multilinear, TuckerCore

CORES = ["full", CPCore(3), TuckerCore((2, 2, 3, 2)), TuckerCore((5, 3, 4, 2)), TuckerCore((5, 2, 4, 1))]


def layer_with_inputs(core, bias=False):
    torch.manual_seed(0)
    layer = Multilinear(in_features=(3, 4, 2), out_features=5, bias=bias, core=core, dtype=torch.float64)
    return layer, random_tensors([(6, 3), (6, 4), (6, 2)])


class TestMultilinear:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_is_the_map_of_its_full_weight(self, core, bias):
        layer, inputs = layer_with_inputs(core, bias)
        expected = ml.multilinear_map(layer.full_weight(), inputs)
        assert layer.full_weight().shape == (5, 3, 4, 2)
        assert_close(layer(*inputs), expected if layer.bias is None else expected + layer.bias)

    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_gradients(self, core):
        layer, inputs = layer_with_inputs(core, bias=True)
        names = [name for name, _ in layer.named_parameters()]

        def run(*values):
            parameters = dict(zip(names, values, strict=False))
            return torch.func.functional_call(layer, parameters, tuple(values[len(names) :]))

        values = [p.detach().clone().requires_grad_() for p in layer.parameters()]
        assert torch.autograd.gradcheck(run, (*values, *(z.requires_grad_() for z in inputs)))

    @pytest.mark.smoke
    def test_is_torch_bilinear_weight_for_weight(self):
        theirs = torch.nn.Bilinear(3, 4, 5)
        ours = Multilinear((3, 4), 5, bias=True)
        ours.load_state_dict(theirs.state_dict())
        a, b = torch.randn(6, 3), torch.randn(6, 4)
        assert_close(ours(a, b), theirs(a, b))

    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_one_vector_for_the_batch(self, core):
        layer, (a, b, c) = layer_with_inputs(core)
        assert_close(layer(a[0], b, c), layer(a[0].expand(6, -1).clone(), b, c))
        assert layer(a[0], b[0], c[0]).shape == (5,)
        assert layer(a.view(2, 3, 3), b.view(2, 3, 4), c.view(2, 3, 2)).shape == (2, 3, 5)

    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_empty_batch(self, core):
        layer, (a, b, c) = layer_with_inputs(core)
        result = layer(a[:0], b[0], c[:1])
        assert result.shape == (0, 5)
        for gradient in torch.autograd.grad(result.sum(), list(layer.parameters())):
            assert_close(gradient, torch.zeros_like(gradient))

    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_state_dict_round_trip(self, core):
        layer, inputs = layer_with_inputs(core, bias=True)
        buffer = io.BytesIO()
        torch.save(layer.state_dict(), buffer)
        buffer.seek(0)
        other = Multilinear((3, 4, 2), 5, bias=True, core=core, dtype=torch.float64)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert_close(other(*inputs), layer(*inputs))

    def test_parameter_shapes(self):
        shapes = lambda core: {n: tuple(p.shape) for n, p in layer_with_inputs(core)[0].named_parameters()}  # noqa: E731
        assert shapes("full") == {"weight": (5, 3, 4, 2)}
        assert shapes(CPCore(7)) == {"factors.0": (5, 7), "factors.1": (3, 7), "factors.2": (4, 7), "factors.3": (2, 7)}
        assert shapes(TuckerCore((5, 2, 4, 1))) == {"weight": (5, 2, 4, 1), "factors.0": (3, 2), "factors.1": (2, 1)}

    @pytest.mark.parametrize("core", ["full", CPCore(64), TuckerCore((40, 8, 10)), TuckerCore((400, 8, 10))], ids=str)
    def test_initial_output_has_variance_one_third(self, core):
        torch.manual_seed(0)
        with torch.no_grad():
            outputs = [
                Multilinear((12, 20), 400, core=core)(torch.randn(100, 12), torch.randn(100, 20)) for _ in range(40)
            ]
        assert torch.stack(outputs).square().mean().item() == pytest.approx(1 / 3, abs=0.05)

    @pytest.mark.parametrize("core", ["full", CPCore(64), TuckerCore((40, 8, 10))], ids=str)
    def test_initial_bias_fills_the_full_cores_bounds(self, core):
        torch.manual_seed(0)
        bias, bound = Multilinear((12, 20), 400, bias=True, core=core).bias, 240**-0.5
        assert -bound <= bias.min() < -0.95 * bound and 0.95 * bound < bias.max() <= bound

    def test_repr(self):
        assert repr(Multilinear((2, 3), 4)) == "Multilinear(in_features=(2, 3), out_features=4, bias=False)"
        assert "out_features=4, bias=True, core=CPCore(rank=5)" in repr(
            Multilinear((2, 3), 4, bias=True, core=CPCore(5))
        )
        assert "core=TuckerCore(ranks=(4, 1, 2))" in repr(Multilinear((2, 3), 4, core=TuckerCore((4, 1, 2))))

    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_trains_under_autocast(self, core):
        torch.manual_seed(0)
        layer = Multilinear((3, 4, 2), 5, bias=True, core=core)
        inputs, target = [torch.randn(32, size) for size in (3, 4, 2)], torch.randn(32, 5)
        optimizer, losses = torch.optim.Adam(layer.parameters(), 0.02), []
        for _ in range(60):
            with torch.autocast("cpu", torch.bfloat16):
                output = layer(*inputs)
            loss = torch.nn.functional.mse_loss(output.float(), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0]
        assert all(p.grad.dtype == torch.float32 for p in layer.parameters())

    @pytest.mark.slow
    @pytest.mark.parametrize("core", CORES, ids=str)
    def test_compiles_into_one_graph(self, core):
        layer, inputs = layer_with_inputs(core, bias=True)
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        assert_close(compiled(*inputs), layer(*inputs))
        expected = torch.autograd.grad(layer(*inputs).square().sum(), list(layer.parameters()))
        actual = torch.autograd.grad(compiled(*inputs).square().sum(), list(layer.parameters()))
        for a, b in zip(actual, expected, strict=True):
            assert_close(a, b)

    @pytest.mark.backend("auto")
    @pytest.mark.parametrize("strict", [False, True])
    @pytest.mark.parametrize("core", ["full", TuckerCore((2, 2, 3, 2)), CPCore(3)], ids=str)
    def test_exports_with_any_number_of_samples(self, core, strict):
        layer, (a, b, c) = layer_with_inputs(core)
        n = torch.export.Dim("n")
        dynamic = {"inputs": ({0: n}, {0: n}, None)}
        program = torch.export.export(layer, (a, b, c[0]), dynamic_shapes=dynamic, strict=strict).module()
        assert_close(program(a[:4], b[:4], c[1]), layer(a[:4], b[:4], c[1]))


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda: Multilinear((), 4), ValueError, r"Multilinear: in_features must hold one or more positive sizes"),
            (lambda: Multilinear(3, 4), TypeError, r"Multilinear: in_features must be a sequence of sizes, got 3"),
            (lambda: Multilinear((2, 0), 4), ValueError, r"got \(2, 0\) and 4"),
            (lambda: Multilinear((2, 3), 4, core=CPCore(0)), ValueError, r"a CP core needs a positive rank, got 0"),
            (
                lambda: Multilinear((2, 3), 4, core=TuckerCore((2, 2))),
                ValueError,
                r"got ranks \(2, 2\) for sizes \(4, 2, 3\)",
            ),
            (lambda: Multilinear((2, 3), 4, core=TuckerCore((5, 2, 2))), ValueError, r"each from 1 to the mode's size"),
            (lambda: Multilinear((2, 3), 4, core="cp"), TypeError, r"core must be \"full\", TuckerCore.*got 'cp'"),
            (
                lambda: Multilinear((2, 3), 4)(torch.zeros(5, 3), torch.zeros(5, 2)),
                ValueError,
                r"Multilinear: inputs must have last sizes \[2, 3\], got \[3, 2\] from shapes \[\(5, 3\), \(5, 2\)\]",
            ),
            (lambda: Multilinear((2, 3), 4)(torch.zeros(5, 2)), ValueError, r"got \[2\] from shapes"),
        ],
    )
    def test_message(self, call, error, message):
        with pytest.raises(error, match=message):
            call()
