"""Processes for the tests of `multilinear.distributed`: what they do, and how they are started.

Every piece of work is a function of a device mesh that returns tensors; the tests compare those of 1, 2 and 4 processes
and those of none. Processes are forked from a server that has imported torch already.
"""

import multiprocessing
import os
import signal
import time
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile

import multilinear as ml
import multilinear.testing
from multilinear.distributed import OutputParallel, report_lost_process
from multilinear.nn import CPCore, Multilinear, TuckerCore

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["multilinear.distributed", "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp"]
)
DEADLINE = 900.0  # seconds that a process may take on a busy machine
SILENCE = 600.0  # seconds after which a group gives up a process that does not answer

CORES: dict[str, Any] = {
    "full": "full",
    "cp": CPCore(3),
    "tucker": TuckerCore((4, 2, 3)),
    "tucker, outputs not factored": TuckerCore((10, 2, 4)),
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "outputs split": {},
    "outputs gathered": {"output_layouts": Replicate()},
    "samples split": {"input_layouts": Shard(0), "output_layouts": Shard(0)},
}
SAMPLES, SIZES = 8, (3, 4)


def data(outputs: int) -> tuple[list[Tensor], Tensor]:
    """Inputs and a target, the same everywhere."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return [draw(SAMPLES, size) for size in SIZES], draw(SAMPLES, outputs)


def make_layer(core: Any, outputs: int) -> Multilinear:
    torch.manual_seed(0)
    return Multilinear(SIZES, outputs, bias=True, core=core, dtype=torch.float64)


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def one_step(layer: torch.nn.Module, objective: Tensor, **results: Tensor) -> dict[str, Tensor]:
    """Backward pass, clipping and a step of AdamW: everything that has changed."""
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    objective.backward()
    for name, parameter in layer.named_parameters():
        results[f"gradient of {name}"] = whole(parameter.grad)
    results["norm"] = whole(torch.nn.utils.clip_grad_norm_(layer.parameters(), 0.5))
    optimizer.step()
    for name, parameter in layer.named_parameters():
        results[f"new {name}"] = whole(parameter)
    return {name.replace("module.", ""): value for name, value in results.items()}


def step_of_one(core: Any, outputs: int) -> dict[str, Tensor]:
    """What every split of the layer has to equal."""
    layer, (inputs, target) = make_layer(core, outputs), data(outputs)
    inputs = [z.requires_grad_() for z in inputs]
    output = layer(*inputs)
    loss = (output - target).square().sum()
    results = one_step(layer, loss, output=whole(output), loss=whole(loss))
    return results | {f"gradient of input {i}": z.grad for i, z in enumerate(inputs)}


def step_of_layer(mesh: Any, core: str, layout: str, outputs: int) -> dict[str, Tensor]:
    """The same, split: with ordinary tensors in and out."""
    inputs, target = data(outputs)
    layer = parallelize_module(make_layer(CORES[core], outputs), mesh, OutputParallel(**LAYOUTS[layout]))
    rank, processes = mesh.get_local_rank(), mesh.size()
    samples_split = layout == "samples split"
    if samples_split:
        inputs, target = [z.chunk(processes)[rank].clone() for z in inputs], target.chunk(processes)[rank]
    elif layout == "outputs split":
        target = distribute_tensor(target, mesh, [Shard(1)], src_data_rank=None).to_local()
    inputs = [z.clone().requires_grad_() for z in inputs]
    output = layer(*inputs)
    loss = (output - target).square().sum()
    total, placement = loss.detach().clone(), Replicate() if layout == "outputs gathered" else LAYOUTS[layout]
    if layout != "outputs gathered":
        dist.all_reduce(total)
        placement = Shard(0) if samples_split else Shard(1)
    everything = DTensor.from_local(
        output.detach(), mesh, [placement], shape=torch.Size((SAMPLES, outputs)), stride=(outputs, 1)
    )
    results = one_step(layer, loss, output=whole(everything), loss=total)
    for i, z in enumerate(inputs):
        gathered = DTensor.from_local(z.grad, mesh, [Shard(0) if samples_split else Replicate()])
        results[f"gradient of input {i}"] = whole(gathered)
    return results


def layers(mesh: Any) -> dict[str, dict[str, Tensor]]:
    """All cores and layouts; 10 rows over 4 processes are 3, 3, 3 and 1, 5 rows are 2, 2, 1 and none."""
    cases = [("full", layout, 10) for layout in LAYOUTS] + [("full", "outputs split", 5)]
    cases += [(core, "samples split", 10) for core in CORES if core != "full"]
    return {f"{core} | {layout} | {k}": step_of_layer(mesh, core, layout, k) for core, layout, k in cases}


def functions(mesh: Any) -> dict[str, dict[str, Tensor]]:
    """The functions with DTensors and without a layer, against themselves with whole tensors."""
    results = {}
    (z1, z2), target = data(10)
    core = make_layer("full", 10).weight.detach()
    placements = {
        "rows": (Shard(0), Replicate(), Shard(1)),
        "rows, samples": (Shard(0), Shard(0), Shard(0)),
        "samples": (Replicate(), Shard(0), Shard(0)),
        "columns": (Shard(1), Replicate(), Replicate()),
        "sum": (Partial(), Replicate(), Replicate()),
    }
    for name, (of_core, of_inputs, of_target) in placements.items():
        given = core / mesh.size() if of_core.is_partial() else core
        split = DTensor.from_local(given, mesh, [of_core]) if of_core.is_partial() else None
        split = distribute_tensor(core, mesh, [of_core]) if split is None else split
        inputs = [distribute_tensor(z, mesh, [of_inputs]).requires_grad_() for z in (z1, z2)]
        operands = [split.detach().requires_grad_(), *inputs]
        goal = distribute_tensor(target, mesh, [of_target])
        results[f"{name}: loss"] = derivatives(lambda c, *z, t=goal: ml.multilinear_loss(t, c, z), operands)
        results[f"{name}: map"] = derivatives(
            lambda c, *z, t=goal: (ml.multilinear_map(c, z) - t).pow(3).sum(), operands
        )
        if name != "rows":
            continue
        mean = lambda c, *z, t=goal: ml.multilinear_loss(t, c, z, reduction="mean")  # noqa: E731
        results[f"{name}: mean"] = derivatives(mean, operands)
        vector = distribute_tensor(z2[0], mesh, [Replicate()]).requires_grad_()
        constant = [operands[0], operands[1], vector]
        results[f"{name}: constant"] = derivatives(lambda c, *z: ml.multilinear_map(c, z).pow(3).sum(), constant)
    return results


def functions_of_one() -> dict[str, dict[str, Tensor]]:
    (z1, z2), target = data(10)
    core = make_layer("full", 10).weight.detach()
    operands = [x.requires_grad_() for x in (core, z1, z2)]
    vector = z2[0].detach().clone().requires_grad_()
    with ml.use("autodiff"):
        return {
            "loss": derivatives(lambda c, *z: (ml.multilinear_map(c, z) - target).square().sum(), operands),
            "mean": derivatives(lambda c, *z: (ml.multilinear_map(c, z) - target).square().sum() / SAMPLES, operands),
            "map": derivatives(lambda c, *z: (ml.multilinear_map(c, z) - target).pow(3).sum(), operands),
            "constant": derivatives(lambda c, *z: ml.multilinear_map(c, z).pow(3).sum(), [core, z1, vector]),
        }


def other_functions(mesh: Any) -> dict[str, dict[str, Tensor]]:
    """What else takes DTensors: values and gradients, with tensors split by rows, "s", or whole, "w"."""
    x, y, a, b, c = multilinear.testing.random_tensors([(5, 3, 4), (5, 3), (5, 2), (3, 2), (4, 2)])
    cases: dict[str, tuple[Any, list[Tensor], str]] = {
        "mttkrp": (lambda x, *factors: ml.mttkrp(x, factors, 0), [x, a, b, c], "swww"),
        "mttkrps": (lambda x, *factors: torch.cat(ml.mttkrps(x, factors)), [x, a, b, c], "ssww"),
        "cp_to_tensor": (lambda *factors: ml.cp_to_tensor(factors), [a, b, c], "sww"),
        "cp_loss": (lambda x, *factors: ml.cp_loss(x, factors), [x, a, b, c], "ssww"),
        "face_splitting": (lambda *rows: ml.face_splitting(rows), [a, y], "ss"),
        "khatri_rao": (lambda *columns: ml.khatri_rao(columns), [a, b], "ww"),
        "mode_dot, mode 0": (lambda x, y: ml.mode_dot(x, y.mT, 0), [x, y], "ss"),
        "mode_dot, mode 1": (lambda x, b: ml.mode_dot(x, b.mT, 1), [x, b], "sw"),
        "mode_dot, last mode": (lambda x, c: ml.mode_dot(x, c.mT, 2), [x, c], "sw"),
        "multi_mode_dot": (lambda x, b, c: ml.multi_mode_dot(x, [b.mT, c.mT], [1, 2]), [x, b, c], "sww"),
    }
    results = {}
    for name, (function, tensors, splits) in cases.items():
        if mesh is None:
            operands = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        else:
            placements = [Shard(0) if split == "s" else Replicate() for split in splits]
            operands = [
                distribute_tensor(tensor, mesh, [placement]).requires_grad_()
                for tensor, placement in zip(tensors, placements, strict=True)
            ]
        result = function(*operands)
        gradients = torch.autograd.grad(result.square().sum(), operands, allow_unused=True)
        results[name] = {"value": whole(result)} | {
            f"gradient {i}": whole(gradient) for i, gradient in enumerate(gradients) if gradient is not None
        }
    return results


def derivatives(function: Any, operands: list[Tensor]) -> dict[str, Tensor]:
    """Value, gradient, and the gradient of the gradient's squared norm."""
    value = function(*operands)
    first = torch.autograd.grad(value, operands, retain_graph=True)
    graph = torch.autograd.grad(function(*operands), operands, create_graph=True)
    norm = sum((whole_with_graph(g).square().sum() for g in graph), torch.zeros(()))
    second = torch.autograd.grad(norm, operands)
    results = {"value": whole(value), "value under no_grad": whole(torch.no_grad()(function)(*operands))}
    for order, gradients in (("first", first), ("first, with a graph", graph), ("second", second)):
        results |= {f"{order} {i}": whole(g) for i, g in enumerate(gradients)}
    return results


def whole_with_graph(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def drawn(mesh: Any) -> dict[str, dict[str, Tensor]]:
    """Layers that were never whole."""
    results = {}
    for name, core in CORES.items():
        torch.manual_seed(7)
        layer = Multilinear(SIZES, 10, bias=True, core=core, device="meta")
        parallelize_module(layer, mesh, OutputParallel())
        layer.to_empty(device="cpu").reset_parameters()
        results[name] = {key: whole(value) for key, value in layer.named_parameters()}
    return results


def drawn_on_a_plane(mesh: Any) -> dict[str, dict[str, Tensor]]:
    """The same with FSDP2 over it, which splits rows once more, before and after they are drawn."""
    both = init_device_mesh("cpu", (2, mesh.size() // 2), mesh_dim_names=("data", "core"))
    results: dict[str, dict[str, Tensor]] = {}
    for outputs in (10, 9):
        results[f"{outputs}"] = {}
        for order in ("before", "after"):
            torch.manual_seed(7)
            layer = Multilinear(SIZES, outputs, device="meta")
            parallelize_module(layer, both["core"], OutputParallel())
            if order == "after":
                fully_shard(layer, mesh=both["data"])
            layer.to_empty(device="cpu").reset_parameters()
            if order == "before":
                fully_shard(layer, mesh=both["data"])
            results[f"{outputs}"][order] = whole(layer.weight)
    return results


def compiled(mesh: Any) -> dict[str, Tensor]:
    """The step in one graph."""
    inputs, target = data(10)
    layer = parallelize_module(make_layer("full", 10), mesh, OutputParallel(output_layouts=Replicate()))
    program = torch.compile(layer, backend="aot_eager", fullgraph=True)
    (program(*inputs) - target).square().sum().backward()
    return {"gradient of weight": whole(layer.weight.grad)}


def plane(mesh: Any, kind: str) -> dict[str, dict[str, Tensor]]:
    """A mesh of data x core, in which each row has samples of its own: two steps of FSDP2 or DDP."""
    results = {}
    both = init_device_mesh("cpu", (2, mesh.size() // 2), mesh_dim_names=("data", "core"))
    data_mesh, core_mesh = both["data"], both["core"]
    for outputs in (10, 9):
        inputs, target = data(outputs)
        rank = data_mesh.get_local_rank()
        inputs, target = [z.chunk(2)[rank].clone().requires_grad_() for z in inputs], target.chunk(2)[rank]
        layer = make_layer("full", outputs)
        shapes = {name: parameter.shape for name, parameter in layer.named_parameters()}
        parallelize_module(layer, core_mesh, OutputParallel(output_layouts=Replicate()))
        if kind == "fsdp":
            fully_shard(layer, mesh=data_mesh)
        else:
            layer = DistributedDataParallel(layer, device_mesh=data_mesh)

        def seen(x: Tensor, shape: Any) -> Tensor:
            """A parameter or its gradient, whole; DDP makes local tensors of all."""
            if not isinstance(x, DTensor):
                stride = torch.empty(shape, device="meta").stride()
                x = DTensor.from_local(x.detach(), core_mesh, [Shard(0)], shape=shape, stride=stride)
            return whole(x)

        parameters = {name.removeprefix("module."): p for name, p in layer.named_parameters()}
        optimizer = torch.optim.AdamW(parameters.values(), lr=0.1, weight_decay=0.1)
        result = {}
        for _ in range(2):
            optimizer.zero_grad()
            output = layer(*inputs)
            (2 * (output - target).square().sum()).backward()  # both kinds average over the samples' processes
            result |= {f"gradient of {name}": seen(p.grad, shapes[name]) for name, p in parameters.items()}
            optimizer.step()
        result |= {f"new {name}": seen(p, shapes[name]) for name, p in parameters.items()}
        result |= {f"gradient of input {i}": joined(z.grad / 2, data_mesh) for i, z in enumerate(inputs)}
        results[f"{outputs}"] = result | {"output": joined(output.detach(), data_mesh)}
    return results


def two_steps_of_one(outputs: int) -> dict[str, Tensor]:
    """The same in one process."""
    layer, (inputs, target) = make_layer("full", outputs), data(outputs)
    inputs = [z.requires_grad_() for z in inputs]
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        output = layer(*inputs)
        (output - target).square().sum().backward()
        gradients = {f"gradient of {name}": whole(p.grad) for name, p in layer.named_parameters()}
        optimizer.step()
    new = {f"new {name}": whole(p) for name, p in layer.named_parameters()}
    of_inputs = {f"gradient of input {i}": z.grad for i, z in enumerate(inputs)}
    return gradients | new | of_inputs | {"output": whole(output)}


def joined(part: Tensor, mesh: Any) -> Tensor:
    return whole(DTensor.from_local(part, mesh, [Shard(0)]))


def fsdp(mesh: Any) -> Any:
    return plane(mesh, "fsdp")


def ddp(mesh: Any) -> Any:
    return plane(mesh, "ddp")


def trainer(mesh: Any) -> tuple[Any, Any, Any]:
    """A split layer, its optimiser, and a function that takes one step."""
    inputs, target = data(10)
    layer = parallelize_module(make_layer("full", 10), mesh, OutputParallel(output_layouts=Replicate()))
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        (layer(*inputs) - target).square().sum().backward()
        optimizer.step()

    return layer, optimizer, step


def save(mesh: Any, folder: str) -> dict[str, Tensor]:
    """Two steps, a checkpoint in parts and one in one piece, and two more steps."""
    layer, optimizer, step = trainer(mesh)
    step(), step()
    model, state = get_state_dict(layer, optimizer)
    dcp.save({"model": model, "optimizer": state}, checkpoint_id=f"{folder}/parts")
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    one = get_state_dict(layer, optimizer, options=options)
    if dist.get_rank() == 0:
        torch.save(one, f"{folder}/one.pt")
    step(), step()
    return {name: whole(p) for name, p in layer.named_parameters()}


def load(mesh: Any, folder: str) -> dict[str, dict[str, Tensor]]:
    """Goes on from both, with another number of processes."""
    results = {}
    for kind in ("parts", "one"):
        layer, optimizer, step = trainer(mesh)
        if kind == "parts":
            model, state = get_state_dict(layer, optimizer)
            dcp.load({"model": model, "optimizer": state}, checkpoint_id=f"{folder}/parts")
            options = None
        else:
            model, state = torch.load(f"{folder}/one.pt", weights_only=True)
            options = StateDictOptions(full_state_dict=True)
        set_state_dict(layer, optimizer, model_state_dict=model, optim_state_dict=state, options=options)
        step(), step()
        results[kind] = {name: whole(p) for name, p in layer.named_parameters()}
    return results


def memory(mesh: Any) -> dict[str, int]:
    """Bytes of this process: of the parts of weights, gradients and optimiser state, and the most it held at once.

    A core of 64 MB in float32, with a gradient and two moments.
    """
    inputs = [torch.randn(4, size, generator=torch.Generator().manual_seed(0)) for size in (16, 32)]
    warm = parallelize_module(Multilinear((16, 32), 64), mesh, OutputParallel())
    warm_optimizer = torch.optim.AdamW(warm.parameters(), fused=True)
    for _ in range(2):  # what the first step imports and allocates for itself
        warm_optimizer.zero_grad()
        warm(*inputs).square().sum().backward()
        warm_optimizer.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        layer = Multilinear((16, 32), 32768, device="meta")
        parallelize_module(layer, mesh, OutputParallel())
        layer.to_empty(device="cpu")
        with torch.no_grad():
            layer.weight.to_local().fill_(1e-3)
        optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
        for _ in range(2):
            optimizer.zero_grad()
            layer(*inputs).square().sum().backward()
            optimizer.step()
    size = lambda x: x.to_local().untyped_storage().nbytes()  # noqa: E731
    state = optimizer.state[layer.weight]
    return {
        "weights": size(layer.weight),
        "gradient": size(layer.weight.grad),
        "state": sum(size(x) for x in state.values() if isinstance(x, DTensor) and x.ndim),
        "peak": peak(record),
    }


def peak(record: profile) -> int:
    """The most that torch held at once, in bytes; resident memory would depend on what else the machine does."""
    results = record.profiler.kineto_results  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]")
    return max(accumulate(size for _, size in changes))


def killed(mesh: Any) -> None:
    """The last process is killed in its third step."""
    _, _, step = trainer(mesh)
    for number in range(100):
        if number == 2 and mesh.get_local_rank() == mesh.size() - 1:
            print("killed at", time.time(), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            with report_lost_process():
                step()
        except RuntimeError as error:
            print("ended at", time.time(), type(error).__name__, error, flush=True)
            raise SystemExit(3) from error


def start(folder: Path, processes: int, work: list[str], **options: Any) -> list[Any]:
    """Starts the processes of one group, each with the pieces of work by name, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [(rank, processes, folder, work, options) for rank in range(processes)]
    started = [CONTEXT.Process(target=_work, args=each) for each in arguments]
    for process in started:
        process.start()
    return started


def finish(folder: Path, started: list[Any]) -> list[tuple[int, str]]:
    """Waits; the exit status and the output of each."""
    for process in started:
        process.join(DEADLINE)
        if process.is_alive():
            for other in started:
                other.kill()
            raise AssertionError(f"a process of {folder} is still at work after {DEADLINE} seconds")
    return [(process.exitcode, (folder / f"{rank}.txt").read_text()) for rank, process in enumerate(started)]


def run(folder: Path, processes: int, work: list[str], **options: Any) -> list[dict[str, Any]]:
    """What every process returned for every piece of work."""
    for status, text in finish(folder, start(folder, processes, work, **options)):
        assert status == 0, text
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]


def _work(rank: int, processes: int, folder: Path, work: list[str], options: dict[str, Any]) -> None:
    descriptor = os.open(folder / f"{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=timedelta(seconds=SILENCE))
    mesh = init_device_mesh("cpu", (processes,))
    results: dict[str, Any] = {}
    for name in work:
        results[name] = globals()[name](mesh, **options.get(name, {}))
        print(f"{name}: {time.process_time():.1f} s of CPU so far", flush=True)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()
