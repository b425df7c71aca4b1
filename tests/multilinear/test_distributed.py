"""Cores split over processes: 1, 2 and 4 of them, started by split_work.py, and none at all."""

import re
import signal
import subprocess
import sys

import pytest
import split_work
import torch
from factories import assert_close, random_tensors
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import parallelize_module

import multilinear as ml
from multilinear.autograd import _sharding, cp, face_splitting, mode_dot, multilinear_map
from multilinear.distributed import LostProcess, OutputParallel, is_lost_process, report_lost_process
from multilinear.nn import Multilinear

EXACT = {"rtol": 1e-10, "atol": 1e-10}
BATCHED = (mode_dot.OPERATOR, [(6, 2, 4, 2), (2, 4)], (6, 2, 2, 2))
CASES = [
    *((op, [(4, 2)] * order, (4, 2**order)) for order, op in face_splitting.OPERATORS.items()),
    *((op, [(2, 4)] * order, (2,) * order) for order, op in cp.OPERATORS.items()),
    *((op, [(4, *[2] * order), *[(2, 2)] * order], (2, 4)) for order, op in multilinear_map.OPERATORS.items()),
    (mode_dot.OPERATOR, [(2, 4, 2), (2, 4)], (2, 2, 2)),
    BATCHED,
]


def parts(tensor, placement):
    """What two processes hold."""
    if isinstance(placement, Shard):
        return tensor.chunk(2, placement.dim)
    return (0.25 * tensor, 0.75 * tensor) if isinstance(placement, Partial) else (tensor, tensor)


def put_together(held, placement):
    if isinstance(placement, Shard):
        return torch.cat(held, placement.dim)
    if isinstance(placement, Replicate):
        assert_close(held[0], held[1])
    return sum(held) if isinstance(placement, Partial) else held[0]


class TestRules:
    """Every rule is a theorem about the operator: computed in parts and put together, the result is the whole one."""

    @pytest.mark.parametrize(("operator", "shapes", "result"), CASES, ids=lambda x: getattr(x, "name", ""))
    def test_forward(self, operator, shapes, result):
        tensors = random_tensors(shapes)
        expected = operator(*tensors)
        rules = _sharding.forward_rules(*_sharding.parse(operator.equation), shapes)
        assert len(rules) > len(shapes) + 1
        for (to,), given in rules:
            held = [operator(*each) for each in zip(*map(parts, tensors, given), strict=True)]
            assert_close(put_together(held, to), expected)

    @pytest.mark.parametrize(("operator", "shapes", "result"), CASES, ids=lambda x: getattr(x, "name", ""))
    def test_backward(self, operator, shapes, result):
        gradient, *tensors = random_tensors([result, *shapes])
        for needed in ([True] * len(shapes), [False, *[True] * (len(shapes) - 1)]):
            expected = operator.backward(gradient, tensors, needed)
            rules = _sharding.backward_rules(*_sharding.parse(operator.equation), result, shapes, needed)
            assert len(rules) > len(shapes) + 2
            for to, (*given, nothing) in rules:
                split = zip(*map(parts, [gradient, *tensors], given), strict=True)
                held = [operator.backward(first, rest, needed) for first, *rest in split]
                assert nothing is None
                for i, need in enumerate(needed):
                    if need:
                        assert_close(put_together([each[i] for each in held], to[i]), expected[i])
                    else:
                        assert to[i] == Replicate()

    def test_a_core_split_by_rows_moves_nothing_forward_and_small_sums_backward(self):
        terms, result = _sharding.parse(multilinear_map.OPERATORS[2].equation)
        rows, whole = Shard(0), Replicate()
        assert ([Shard(1)], [rows, whole, whole]) in _sharding.forward_rules(terms, result, [(4, 2, 2), (3, 2), (3, 2)])
        backward = _sharding.backward_rules(terms, result, (3, 4), [(4, 2, 2), (3, 2), (3, 2)], [True] * 3)
        assert ([rows, Partial(), Partial()], [Shard(1), rows, whole, whole, None]) in backward

    def test_merged_dimensions_are_not_split(self):
        (rule,) = [
            r
            for r in _sharding.forward_rules([["n", "a"], ["n", "b"]], ["n", "(ab)"], [(2, 2)] * 2)
            if r[0] != [Partial()]
        ][1:]
        assert rule == ([Shard(0)], [Shard(0), Shard(0)])

    def test_batch_dimensions_are_split_where_they_are_not_broadcast(self):
        terms, result = _sharding.parse("lir,ji->ljr")
        rules = _sharding.forward_rules(terms, result, [(6, 2, 4, 2), (1, 2, 4)])
        assert ([Shard(0)], [Shard(0), Replicate()]) in rules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("split")


@pytest.fixture(scope="module")
def results(folder):
    """Everything that processes do, in one start of each number of them; by that number, of every process."""
    shared = {"folder": str(folder)}
    work = ["memory", "layers", "functions", "other_functions", "drawn"]
    two = split_work.run(folder / "2", 2, [*work, "compiled", "save"], save=shared)
    four = split_work.run(folder / "4", 4, [*work, "load", "fsdp", "ddp", "drawn_on_a_plane"], load=shared)
    one = split_work.run(folder / "1", 1, [*work, "load"], load=shared)
    return {1: one, 2: two, 4: four}


PROCESSES = pytest.mark.parametrize("processes", [1, 2, 4])


def assert_equal_results(actual, expected):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(actual[name], value, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
class TestProcesses:
    @PROCESSES
    def test_layers_equal_one_process(self, results, processes):
        cases = results[processes][0]["layers"]
        assert len(cases) == 7
        for case, actual in cases.items():
            core, _, outputs = case.split(" | ")
            assert_equal_results(actual, split_work.step_of_one(split_work.CORES[core], int(outputs)))

    @PROCESSES
    def test_functions_of_dtensors_equal_those_of_tensors(self, results, processes):
        cases, expected = results[processes][0]["functions"], split_work.functions_of_one()
        assert len(cases) == 5 * 2 + 2
        for case, actual in cases.items():
            assert_equal_results(actual, expected[case.split(": ")[1]])

    @PROCESSES
    def test_other_functions_of_dtensors(self, results, processes):
        expected = split_work.other_functions(None)
        for case, actual in results[processes][0]["other_functions"].items():
            assert_equal_results(actual, expected[case])

    @PROCESSES
    def test_parts_are_drawn_alike_however_many(self, results, processes):
        for core, actual in results[processes][0]["drawn"].items():
            assert_equal_results(actual, results[1][0]["drawn"][core])

    def test_parts_are_drawn_as_a_whole_layer_is(self, results):
        for core, parameters in results[4][0]["drawn"].items():
            torch.manual_seed(0)
            layer = Multilinear(split_work.SIZES, 10, bias=True, core=split_work.CORES[core])
            for name, parameter in layer.named_parameters():
                rows = parameters[name].flatten(1) if parameter.ndim > 1 else parameters[name].unsqueeze(1)
                assert len(rows.unique(dim=0)) == len(rows)
                if parameter.numel() >= 100:
                    assert 0.5 < rows.square().mean() / parameter.square().mean() < 2

    @pytest.mark.parametrize("kind", ["fsdp", "ddp"])
    def test_two_dimensions_equal_one_process(self, results, kind):
        for outputs, actual in results[4][0][kind].items():
            assert_equal_results(actual, split_work.two_steps_of_one(int(outputs)))

    def test_parts_are_drawn_alike_after_fsdp(self, results):
        for outputs, actual in results[4][0]["drawn_on_a_plane"].items():
            assert actual["before"].shape == (int(outputs), *split_work.SIZES)
            assert torch.equal(actual["before"], actual["after"])

    def test_compiles_into_one_graph(self, results):
        expected = split_work.step_of_one("full", 10)
        for process in results[2]:
            assert_close(process["compiled"]["gradient of weight"], expected["gradient of weight"], **EXACT)

    @pytest.mark.parametrize("processes", [1, 4])
    def test_checkpoints_go_on_with_another_number(self, results, processes):
        for actual in results[processes][0]["load"].values():
            assert_equal_results(actual, results[2][0]["save"])

    @PROCESSES
    def test_memory_shrinks(self, results, processes):
        whole = 4 * 32768 * 16 * 32
        for process in results[processes]:
            memory = process["memory"]
            assert memory["weights"] == memory["gradient"] == memory["state"] // 2 == whole // processes
            assert memory["peak"] == pytest.approx(4 * whole / processes, rel=0.01)

    def test_a_killed_process_ends_the_others_with_a_message(self, folder):
        processes = split_work.start(folder / "killed", 3, ["killed"])
        (first, text), (second, other), (last, killed) = split_work.finish(folder / "killed", processes)
        assert (first, second, last) == (3, 3, -signal.SIGKILL), text
        death = float(re.search(r"killed at ([\d.]+)", killed)[1])
        for output in (text, other):
            end, name, message = re.search(r"ended at ([\d.]+) (\w+) (.*)", output).groups()
            assert name == "LostProcess" and "another process of this group ended or hangs" in message
            assert float(end) - death < split_work.SILENCE / 2  # told by the broken connection


class TestOneProcess:
    """What needs no other process."""

    @pytest.fixture(autouse=True)
    def mesh(self):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        yield init_device_mesh("cpu", (1,))
        torch.distributed.destroy_process_group()

    @pytest.mark.backend("auto")
    def test_a_plain_dtensor_takes_the_operator(self, mesh, monkeypatch):
        monkeypatch.setattr(multilinear_map.OPERATORS[2], "_is_sharded", False)
        asked = []
        register = _sharding.register
        monkeypatch.setattr(_sharding, "register", lambda *of: (asked.append(of[0]), register(*of)))
        core, z1, z2 = (distribute_tensor(x, mesh) for x in random_tensors([(5, 3, 4), (6, 3), (6, 4)]))
        for _ in range(2):
            assert ml.multilinear_map(core, [z1, z2]).shape == (6, 5)
        assert asked == ["oab,na,nb->no"]

    def test_mixed_tensors_are_named(self, mesh):
        core, z1, z2 = random_tensors([(5, 3, 4), (6, 3), (6, 4)])
        split = distribute_tensor(core, mesh)
        message = r"multilinear_map: all tensors must be DTensors or none of them, got \['DTensor', 'Tensor'\]"
        with pytest.raises(TypeError, match=message):
            ml.multilinear_map(split, [z1, z2])
        with pytest.raises(TypeError, match=r"multilinear_loss: all tensors must be DTensors.*OutputParallel"):
            ml.multilinear_loss(torch.zeros(6, 5), split, [distribute_tensor(z, mesh) for z in (z1, z2)])
        with pytest.raises(TypeError, match="mode_dot: all tensors must be DTensors"):
            ml.mode_dot(split, torch.ones(2, 3, dtype=torch.float64), 1)

    def test_errors_of_the_style(self, mesh):
        with pytest.raises(TypeError, match=r"must be a multilinear.nn.Multilinear, got Linear; name the layer"):
            parallelize_module(torch.nn.Linear(2, 3), mesh, OutputParallel())
        with pytest.raises(TypeError, match=r"output_layouts must be Replicate\(\) or Shard\(...\), got \['rows'\]"):
            OutputParallel(output_layouts="rows")
        with pytest.raises(TypeError, match="input_layouts must be"):
            OutputParallel(input_layouts=[Replicate(), Partial()])
        layer = parallelize_module(Multilinear((2, 3), 4), mesh, OutputParallel(input_layouts=[Replicate()]))
        with pytest.raises(ValueError, match="1 input_layouts for 2 inputs"):
            layer(torch.ones(5, 2), torch.ones(5, 3))
        with pytest.raises(ValueError, match=r"the mesh must have one dimension, got \(1, 1\)"):
            OutputParallel()._apply(Multilinear((2, 3), 4), init_device_mesh("cpu", (1, 1)))
        with pytest.raises(ValueError, match="Multilinear: inputs must have last sizes"):
            parallelize_module(Multilinear((2, 3), 4), mesh, OutputParallel())(torch.ones(5, 3), torch.ones(5, 2))

    def test_fewer_outputs_than_processes(self, mesh, monkeypatch):
        monkeypatch.setattr(type(mesh), "size", lambda self: 5)
        with pytest.raises(ValueError, match="the layer has 4 outputs for 5 processes"):
            OutputParallel()._apply(Multilinear((2, 3), 4), mesh)

    def test_only_rows_are_drawn_in_parts(self, mesh):
        layer = Multilinear((2, 3), 4)
        layer.weight = torch.nn.Parameter(distribute_tensor(layer.weight, mesh, [Shard(1)]))
        with pytest.raises(ValueError, match="only tensors that are split along mode 0 can be drawn in parts"):
            layer.reset_parameters()

    def test_frozen_core_and_repr(self, mesh):
        layer = Multilinear((2, 3), 4).requires_grad_(False)
        style = OutputParallel(output_layouts=Replicate())
        parallelize_module(layer, mesh, style)
        z = torch.ones(5, 2, requires_grad=True)
        layer(z, torch.ones(5, 3)).sum().backward()
        assert z.grad is not None and layer.weight.grad is None
        assert repr(style) == "OutputParallel(input_layouts=R, output_layouts=R, use_local_output=True)"


class TestPlacements:
    """What four processes hold and send, seen from one of them whose collective operations do nothing."""

    @pytest.fixture
    def mesh(self, request):
        from torch.testing._internal.distributed.fake_pg import FakeStore

        torch.distributed.init_process_group("fake", store=FakeStore(), rank=getattr(request, "param", 0), world_size=4)
        yield init_device_mesh("cpu", (4,))
        torch.distributed.destroy_process_group()

    @pytest.mark.parametrize("mesh, rows", [(0, 3), (3, 1)], indirect=["mesh"])
    @pytest.mark.parametrize("core", split_work.CORES)
    def test_rows_are_split_and_the_rest_is_whole(self, mesh, rows, core):
        whole = split_work.make_layer(split_work.CORES[core], 10)
        layer = parallelize_module(split_work.make_layer(split_work.CORES[core], 10), mesh, OutputParallel())
        split = {"full": "weight", "tucker, outputs not factored": "weight"}.get(core, "factors.0")
        for name, parameter in layer.named_parameters():
            size, *rest = whole.get_parameter(name).shape
            assert parameter.shape == (size, *rest) and isinstance(parameter, torch.nn.Parameter)
            assert parameter.to_local().shape == (rows if name in (split, "bias") else size, *rest)

    @pytest.mark.parametrize("mesh", [3], indirect=True)
    def test_every_row_is_drawn_from_its_own_generator(self, mesh):
        layer = parallelize_module(Multilinear((3, 4), 7, device="meta"), mesh, OutputParallel()).to_empty(device="cpu")
        torch.manual_seed(3)
        layer.reset_parameters()
        torch.manual_seed(3)
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 40, ())) + 6)
        expected = torch.nn.init.uniform_(torch.empty(3, 4), -(12**-0.5), 12**-0.5, generator=generator)
        assert torch.equal(layer.weight.to_local(), expected.unsqueeze(0))

    def test_forward_sends_nothing_and_backward_the_inputs_gradients(self, mesh):
        layer = parallelize_module(Multilinear((3, 4), 10), mesh, OutputParallel())
        inputs = [torch.randn(8, size, requires_grad=True) for size in (3, 4)]
        with CommDebugMode() as forward:
            output = layer(*inputs)
        assert output.shape == (8, 3) and forward.get_total_counts() == 0
        with CommDebugMode() as backward:
            output.sum().backward()
        assert backward.get_comm_counts() == {torch.ops.c10d_functional.all_reduce: 2}
        assert layer.weight.grad.placements == (Shard(0),) and layer.weight.grad.to_local().shape == (3, 3, 4)

    def test_the_loss_sends_nothing_forward(self, mesh):
        core, z1, z2 = (
            distribute_tensor(x, mesh, [p])
            for x, p in zip(
                random_tensors([(10, 3, 4), (8, 3), (8, 4)]), (Shard(0), Replicate(), Replicate()), strict=True
            )
        )
        target = distribute_tensor(torch.zeros(8, 10, dtype=torch.float64), mesh, [Shard(1)])
        operands = [core.requires_grad_(), z1.requires_grad_(), z2.requires_grad_()]
        with CommDebugMode() as sent:
            loss = ml.multilinear_loss(target, core, [z1, z2])
        assert loss.placements == (Partial(),) and sent.get_total_counts() == 0
        gradients = torch.autograd.grad(loss, operands)
        assert [g.placements for g in gradients] == [(Shard(0),), (Partial(),), (Partial(),)]
        assert [g.stride() for g in gradients] == [x.stride() for x in operands]

    @pytest.mark.parametrize(
        "layout, shape", [(Shard(-1), (8, 3)), (Replicate(), (8, 10)), (Shard(0), (2, 10))], ids=str
    )
    def test_layouts_of_the_output(self, mesh, layout, shape):
        style = OutputParallel(output_layouts=layout)
        layer = parallelize_module(Multilinear((3, 4), 10, bias=True), mesh, style)
        assert layer(torch.randn(8, 3), torch.randn(8, 4)).shape == shape

    def test_layouts_of_the_inputs(self, mesh):
        style = OutputParallel(input_layouts=Shard(0), use_local_output=False)
        layer = parallelize_module(Multilinear((3, 4), 10), mesh, style)
        output = layer(torch.randn(3), torch.randn(2, 4))  # one vector for all samples, two samples of eight
        assert output.shape == (8, 10) and output.placements == (Shard(1),)
        mixed = OutputParallel(input_layouts=[Replicate(), Shard(0)], use_local_output=False)
        layer = parallelize_module(Multilinear((3, 4), 10), mesh, mixed)
        assert layer(torch.randn(8, 3), torch.randn(2, 4)).shape == (8, 10)

    def test_samples_are_gathered_and_never_the_core_however_small(self, mesh):
        style = OutputParallel(input_layouts=Shard(0), output_layouts=Shard(0))
        layer = parallelize_module(Multilinear((3, 4), 4), mesh, style)
        with CommDebugMode() as sent:
            layer(torch.randn(40, 3), torch.randn(40, 4))
        # two inputs and, as the CPU has no exchange of all with all, the output; gathering the core would be one
        assert sent.get_comm_counts() == {torch.ops.c10d_functional.all_gather_into_tensor: 3}

    def test_gradients_of_whole_factors_arrive_summed(self, mesh):
        layer = parallelize_module(Multilinear((3, 4), 10, core=ml.nn.CPCore(2)), mesh, OutputParallel())
        layer(torch.randn(8, 3), torch.randn(8, 4)).sum().backward()
        assert [p.grad.placements for p in layer.factors] == [(Shard(0),), (Replicate(),), (Replicate(),)]


@pytest.mark.gpu
class TestOnDevice:
    @pytest.fixture
    def mesh(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
        yield init_device_mesh("cuda", (1,))
        torch.distributed.destroy_process_group()

    @pytest.mark.parametrize("core", split_work.CORES)
    def test_a_step_equals_that_of_a_whole_layer(self, mesh, core):
        results = []
        for split in (False, True):
            layer = split_work.make_layer(split_work.CORES[core], 10).cuda()
            if split:
                layer = parallelize_module(layer, mesh, OutputParallel())
            inputs, target = split_work.data(10)
            inputs = [z.cuda().requires_grad_() for z in inputs]
            loss = (layer(*inputs) - target.cuda()).square().sum()
            step = split_work.one_step(layer, loss, loss=loss.detach())
            results.append(step | {f"input {i}": z.grad for i, z in enumerate(inputs)})
        assert_equal_results(results[1], results[0])

    def test_functions_equal_those_of_whole_tensors(self, mesh):
        expected = split_work.functions_of_one()["loss"]
        inputs, target = split_work.data(10)
        core = split_work.make_layer("full", 10).weight.detach()
        core, z1, z2, target = (distribute_tensor(x.cuda(), mesh, [Shard(0)]) for x in (core, *inputs, target))
        operands = [x.requires_grad_() for x in (core, z1, z2)]
        actual = split_work.derivatives(lambda c, *z: ml.multilinear_loss(target, c, z), operands)
        assert_equal_results({name: value.cpu() for name, value in actual.items()}, expected)

    def test_parts_are_drawn(self, mesh):
        layer = parallelize_module(Multilinear((3, 4), 10, device="meta"), mesh, OutputParallel()).to_empty(
            device="cuda"
        )
        layer.reset_parameters()
        rows = layer.weight.to_local().flatten(1)
        assert len(rows.unique(dim=0)) == 10 and rows.abs().max() <= 12**-0.5


class TestLostProcess:
    def test_other_errors_pass(self):
        with pytest.raises(RuntimeError, match=r"^size mismatch$") as caught, report_lost_process():
            raise RuntimeError("size mismatch")
        assert not isinstance(caught.value, LostProcess)
        with pytest.raises(ValueError, match="gloo"), report_lost_process():
            raise ValueError("gloo")

    def test_signs(self):
        assert is_lost_process(torch.distributed.DistNetworkError("x"))
        assert is_lost_process(RuntimeError("Connection reset by peer"))
        assert not is_lost_process(ValueError("nccl"))


def test_import_of_the_package_leaves_torch_distributed_tensor_alone():
    script = "import multilinear, sys; sys.exit('torch.distributed.tensor' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
