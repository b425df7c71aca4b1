"""A training step of the whole network: where the time goes, images a second, and the choices behind the defaults.

    python -m benchmarks step                  measures, writes results/step.json and the tables of benchmarks/README.md
    python -m benchmarks step --only profile   a part: speed, profile, choices, sizes; the others stay as they are
    python -m benchmarks step --only           no part: the tables alone
    python -m benchmarks step --compile        torch.compile among the choices, which compiles for minutes
    python -m benchmarks step --device cuda    on a GPU, whose figures stand beside those of the CPU

The faces are random pictures and the morphable model is random numbers, of the sizes of the preset: a step takes as
long as with any others. Its E_adv is on; E_veri is not, whose network the user chooses.
"""

import argparse
import contextlib
import datetime
import gc
import json
import platform
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import multilinear as ml
from benchmarks import results
from benchmarks.options import command_parser
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import NetworkConfig, TrainingConfig, preset
from facemodels.data.dataset import Faces
from facemodels.morphable import MorphableModel
from facemodels.networks import channels_last
from facemodels.training.adversary import Adversary
from facemodels.training.step import TrainingStep

RESULTS = results.RESULTS / "step.json"
README = results.ROOT / "README.md"
START, END = "<!-- from here on written by `python -m benchmarks step` -->", "<!-- end of the training step -->"
PRESETS = ("paper", "default", "small")
PARTS = ("speed", "profile", "choices", "sizes")
FACES = 32
FRONTAL = 0.6
"""Share of near-frontal faces, on which stream 3 runs: about that of CelebA."""


@dataclass(frozen=True)
class Setting:
    """How a step is computed; the defaults are those of training."""

    preset: str
    operators: str = "multilinear"
    factored: bool = True
    precision: str = "bf16"
    channels_last: bool = True
    fused: bool = True
    compiled: bool = False


RIVALS = {
    "multilinear": Setting(""),
    "autodiff": Setting("", operators="autodiff", factored=False),
    "by hand": Setting("", operators="by hand", factored=False),
}
CHOICES = {
    "default": {
        "as trained": {},
        "float32 instead of bf16": {"precision": "no"},
        "without channels_last": {"channels_last": False},
        "AdamW not fused": {"fused": False},
    },
    "paper": {"as trained": {}, "dense gradients of the cores": {"factored": False}},
}


def khatri_rao(inputs: Sequence[Tensor]) -> Tensor:
    """Rows of products, as one writes them by hand."""
    batch = torch.broadcast_shapes(*(z.shape[:-1] for z in inputs))
    rows = [z.expand(*batch, -1) for z in inputs]
    return reduce(lambda left, right: (left[..., :, None] * right[..., None, :]).flatten(-2), rows)


def projection(core: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    """The multilinear map by hand: one matrix product."""
    return khatri_rao(inputs) @ core.flatten(1).mT


def squared_error(target: Tensor, core: Tensor, inputs: Sequence[Tensor], *, reduction: str) -> Tensor:
    """The loss by hand."""
    assert reduction == "mean"
    return (projection(core, inputs) - target).square().sum() / len(target)


@contextlib.contextmanager
def operators(name: str) -> Iterator[None]:
    """Our operators, the same on torch's tape, or what one writes with torch alone."""
    with contextlib.ExitStack() as stack:
        if name == "autodiff":
            stack.enter_context(ml.use("autodiff"))
        elif name == "by hand":
            for place, function in (
                ("facemodels.autoencoder.face_splitting", khatri_rao),
                ("multilinear.nn.multilinear_map", projection),
                ("facemodels.losses.multilinear_loss", squared_error),
            ):
                stack.enter_context(mock.patch(place, function))
        yield


def random_faces(config: NetworkConfig, count: int) -> Faces:
    """Random pictures with a disc for a face."""
    generator = torch.Generator().manual_seed(0)
    size = config.size
    axis = torch.linspace(-1, 1, size)
    disc = ((axis[:, None] ** 2 + axis**2) < 0.4).mul(255).to(torch.uint8).expand(count, 1, -1, -1)

    def draw(low: int, high: int, dtype: torch.dtype) -> Tensor:
        return torch.randint(low, high, (count, 3, size, size), generator=generator).to(dtype)

    return Faces(
        image=draw(0, 256, torch.uint8),
        normals=draw(-70, 70, torch.int8),
        mask=disc,
        rotation=torch.eye(3).flatten().expand(count, -1),
        identity=torch.randn(count, config.morphable_identity, generator=generator),
        expression=torch.randn(count, config.morphable_expression, generator=generator),
        light=torch.eye(9)[0].expand(count, -1),
        frontal=torch.arange(count) < FRONTAL * count,
        turned_rotation=torch.eye(3).flatten().expand(count, -1),
        turned_normals=draw(-70, 70, torch.int8),
        turned_mask=disc,
        turned_image=draw(0, 256, torch.uint8),
        turned_weight=disc,
        swapped_image=draw(0, 256, torch.uint8),
        swapped_weight=disc,
        swapped_row=torch.arange(count).roll(1),
    )


def random_morphable(config: NetworkConfig) -> MorphableModel:
    """A morphable model of the sizes of a preset."""
    generator = torch.Generator().manual_seed(1)
    return MorphableModel(
        mean=50 * torch.randn(config.vertices, 3, generator=generator),
        identity=torch.randn(config.morphable_identity, config.vertices, 3, generator=generator),
        expression=torch.randn(config.morphable_expression, config.vertices, 3, generator=generator),
        triangles=torch.tensor([[0, 1, 2]]),
        face=torch.tensor([True]),
        landmarks=torch.zeros(68, dtype=torch.long),
        expression_names=tuple(map(str, range(config.morphable_expression))),
        name="random",
        licence="none",
        source="random numbers",
    )


class Trainer:
    """A network in training, one step at a time, as `facemodels train` runs it."""

    def __init__(
        self, setting: Setting, *, device: str = "cpu", sizes: dict[str, Any] | None = None, count: int = FACES
    ):
        self.setting, self.device = setting, device
        config, training = preset(setting.preset)
        config = replace(config, **(sizes or {}))
        morphable = random_morphable(config)
        torch.manual_seed(0)
        network = NeuroTensorialAutoencoder(config, morphable).to(device)
        self.adversary = Adversary(config, training).to(device) if training.weights.adversarial else None
        self.step_module = TrainingStep(network, training, morphable, self.adversary)
        if setting.channels_last:
            channels_last(self.step_module)
            if self.adversary is not None:
                channels_last(self.adversary)
        if setting.factored:
            ml.optim.factor_gradients(self.step_module)
        if setting.compiled:
            for part in (network.encoder, network.normals, network.albedo, network.mask, network.background):
                part.compile(dynamic=False)
        self.optimizer = torch.optim.AdamW(
            network.parameters(), training.learning_rate, training.betas, fused=setting.fused
        )
        self.discriminator_optimizer = (
            torch.optim.Adam(self.adversary.parameters(), training.discriminator_rate, fused=setting.fused)
            if self.adversary is not None
            else None
        )
        self.training: TrainingConfig = training
        self.faces = random_faces(config, count).to(device)
        self.steps = 0

    def step(self, mark: Callable[[str], Any] = lambda name: None) -> float:
        """One step; `mark` is told what begins. Returns the objective."""
        setting = self.setting
        with contextlib.ExitStack() as stack:
            stack.enter_context(operators(setting.operators))
            if not setting.channels_last:
                stack.enter_context(mock.patch("facemodels.training.step._contiguous", Tensor.contiguous))
            autocast = partial(torch.autocast, self.device, torch.bfloat16, enabled=setting.precision == "bf16")
            mark("forward")
            with autocast():
                lenders = self.faces.image[self.faces.swapped_row]
                result = self.step_module(self.faces, self.steps, 1.0, 0, lenders)
            mark("backward")
            result.total.backward()
            mark("clipping")
            parameters = self.step_module.network.parameters()
            torch.nn.utils.clip_grad_norm_(parameters, self.training.gradient_clip)
            mark("optimiser")
            self.optimizer.step()
            self.optimizer.zero_grad()
            if self.adversary is not None and self.discriminator_optimizer is not None:
                mark("discriminator")
                with autocast():
                    loss, errors = self.adversary.loss(result.real, result.fake)
                loss.backward()
                self.discriminator_optimizer.step()
                self.discriminator_optimizer.zero_grad()
                self.adversary.update(float(errors["real_error"]), float(errors["fake_error"]))
            mark("end")
        self.steps += 1
        return float(result.total.detach())

    def seconds(self, *, wall: bool) -> float:
        """How long a step takes: on one thread of a CPU in processor time, which others disturb less."""
        clock = time.perf_counter if wall else time.process_time
        self._wait()
        start = clock()
        self.step()
        self._wait()
        return clock() - start

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def interleave(settings: dict[str, Setting], *, device: str, rounds: int, threads: int = 1) -> dict[str, Any]:
    """Seconds of a step in each setting, in rounds of a new order; the first step of each is not counted."""
    torch.set_num_threads(threads)
    trainers = {name: Trainer(setting, device=device) for name, setting in settings.items()}
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(rounds + 1):
        for name in order.sample(list(trainers), len(trainers)):
            seconds = trainers[name].seconds(wall=device != "cpu" or threads > 1)
            if number:
                times[name].append(seconds)
    leader = next(iter(times))
    table = {}
    for name, values in times.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(values, times[leader], strict=True))
        table[name] = {
            "seconds": statistics.median(values),
            "slowest": max(values),
            "images_per_second": FACES / statistics.median(values),
            "time_over_ours": ratio,
        }
    del trainers
    gc.collect()
    return table


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Images a second of the presets, ours and the same network on other operators."""
    table: dict[str, Any] = {}
    for name in PRESETS:
        for threads in options.threads:
            settings = {rival: replace(setting, preset=name) for rival, setting in RIVALS.items()}
            print(f"speed of {name}, {threads} thread{'s' * (threads > 1)}", flush=True)
            found = interleave(settings, device=options.device, rounds=options.rounds, threads=threads)
            table.setdefault(name, {})[str(threads)] = found
            for rival, row in found.items():
                print(f"  {rival:14}{row['images_per_second']:8.1f} images/s {row['time_over_ours']:6.2f} x our time")
    return table


def choices(options: argparse.Namespace) -> dict[str, Any]:
    """What each default brings: the step without it."""
    table: dict[str, Any] = {}
    for name, variants in CHOICES.items():
        settings = {what: Setting(name, **changes) for what, changes in variants.items()}
        if options.compile and name == "default":
            settings["torch.compile of encoder and decoders"] = Setting(name, compiled=True)
        print(f"choices of {name}", flush=True)
        table[name] = interleave(settings, device=options.device, rounds=options.rounds)
        for what, row in table[name].items():
            print(f"  {what:40}{row['images_per_second']:8.1f} images/s {row['time_over_ours']:6.2f} x our time")
    return table


class Profile:
    """Seconds of every part of a step, forward and backward, taken in a running step on a CPU.

    The time between two events belongs to the part that the earlier one named: modules and losses say when they begin
    and end, and identities around them say it in the backward pass.
    """

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self.phase, self.part, self.since = "", "", 0.0

    def mark(self, phase: str) -> None:
        """A phase of the step begins."""
        self._switch(phase, "rest")

    def begin(self, part: str) -> None:
        self._switch(self.phase, part)

    def end(self) -> None:
        self._switch(self.phase, "rest")

    def watch(self, module: nn.Module, part: str) -> None:
        """Takes the time of a module's calls."""

        def before(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            self.begin(part)
            return self.entering(inputs)

        def after(_: Any, inputs: Any, output: Any) -> Any:
            self.end()
            return self.leaving(part, output)

        module.register_forward_pre_hook(before)
        module.register_forward_hook(after)

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The same of a function."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.begin(part)
            output = function(*self.entering(args), **kwargs)
            self.end()
            return self.leaving(part, output)

        return run

    def entering(self, arguments: Any) -> Any:
        """On the way back, the part ends where its arguments' gradients are found."""
        if isinstance(arguments, nn.Parameter):
            return arguments
        if isinstance(arguments, Tensor):
            return _Event.apply(self.end, arguments) if arguments.requires_grad else arguments
        if isinstance(arguments, tuple | list):
            return type(arguments)(self.entering(value) for value in arguments)
        return arguments

    def leaving(self, part: str, output: Any) -> Any:
        """And it begins where that of its result is known, the first one if there are many."""
        first, *rest = output if isinstance(output, tuple) else (output,)
        first = _Event.apply(partial(self.begin, part), first) if first.requires_grad else first
        return (first, *rest) if isinstance(output, tuple) else first

    def _switch(self, phase: str, part: str) -> None:
        now = time.process_time()
        if self.phase:
            self.seconds[self.phase, self.part] += now - self.since
        self.phase, self.part, self.since = phase, part, now


class _Event(torch.autograd.Function):
    """The identity, which says so when a gradient comes by."""

    @staticmethod
    def forward(ctx: Any, event: Callable[[], None], value: Tensor) -> Tensor:
        ctx.event = event
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.event()
        return None, gradient


def profile_step(name: str, *, steps: int = 3, trainer: Trainer | None = None) -> dict[str, dict[str, float]]:
    """Milliseconds of each part, forward and backward; the least of several steps."""
    torch.set_num_threads(1)
    trainer = trainer or Trainer(Setting(name))
    network = trainer.step_module.network
    profile = Profile()
    for part in ("encoder", "normals", "albedo", "mask", "background"):
        profile.watch(getattr(network, part), part)
    profile.watch(network.frontal_core, "stream 3")
    if trainer.adversary is not None:
        error = trainer.step_module.objective.terms["adversarial"]
        error.error = profile.timed(error.error, "discriminator's judgement")  # type: ignore[attr-defined]
    import facemodels.losses

    stream_1 = profile.timed(facemodels.losses.multilinear_loss, "stream 1")
    rows: list[dict[tuple[str, str], float]] = []
    with mock.patch("facemodels.losses.multilinear_loss", stream_1):
        for _ in range(steps + 1):
            profile.seconds.clear()
            trainer.step(profile.mark)
            profile.phase = ""
            rows.append(dict(profile.seconds))
    least = {key: min(row[key] for row in rows[1:] if key in row) for key in rows[-1]}
    table: dict[str, dict[str, float]] = {}
    for (phase, part), seconds in least.items():
        if phase in ("forward", "backward"):
            what = "losses, shading and the rest" if part == "rest" else part
            table.setdefault(what, {})[phase] = 1e3 * seconds
        else:
            what = "discriminator's own step" if phase == "discriminator" else phase
            table.setdefault(what, {"step": 0.0})["step"] += 1e3 * seconds
    return dict(sorted(table.items(), key=lambda item: -sum(item[1].values())))


def profiles(options: argparse.Namespace) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name in PRESETS:
        print(f"profile of {name}", flush=True)
        table[name] = profile_step(name)
        for part, phases in table[name].items():
            print(f"  {part:30}" + "".join(f"{value:9.1f} ms {phase}" for phase, value in phases.items()))
        gc.collect()
    return table


def sizes(options: argparse.Namespace | None = None) -> dict[str, Any]:
    """Parameters of every part of the presets, and bytes in training."""
    table = {}
    for name in (*PRESETS, "large"):
        with torch.device("meta"):
            network = NeuroTensorialAutoencoder(preset(name)[0])
        parts = {part: sum(p.numel() for p in child.parameters()) for part, child in network.named_children()}
        table[name] = {part: count for part, count in parts.items() if count}
    return table


def tables(record: dict[str, Any]) -> str:
    """The section of benchmarks/README.md."""
    lines = [
        f"{record['machine']}; torch {record['torch']}; measured {record['date']}, commit {record['commit']}; "
        f"load average {record['load']:g}."
    ]
    if "speed" in record:
        lines += [
            "",
            "### Images a second",
            "",
            f"Whole steps of {FACES} faces, discriminator included. autodiff: our forward formulas on torch's tape; by "
            "hand: broadcasting and `@`; both with the usual dense gradient of the cores. In brackets their time over "
            "ours, the median of ratios in the same round. Processor time with one thread, the clock's with more.",
            "",
            "| preset | threads | multilinear | autodiff | by hand |",
            "|---|---|---|---|---|",
        ]
        for name, by_threads in record["speed"].items():
            for threads, row in by_threads.items():
                ours, *others = (row[rival] for rival in RIVALS)
                cells = [f"{o['images_per_second']:.1f} ({o['time_over_ours']:.2f})" for o in others]
                lines.append(f"| {name} | {threads} | {ours['images_per_second']:.1f} | {' | '.join(cells)} |")
    if "profile" in record:
        lines += [
            "",
            "### Where the time goes",
            "",
            f"Milliseconds for {FACES} faces, 1 thread, forward + backward.",
            "",
        ]
        names = list(record["profile"])
        parts = list(dict.fromkeys(part for name in names for part in record["profile"][name]))
        lines += [f"| part | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for part in parts:
            cells = [_milliseconds(record["profile"][name].get(part)) for name in names]
            lines.append(f"| {part} | {' | '.join(cells)} |")
        totals = [sum(sum(row.values()) for row in record["profile"][name].values()) for name in names]
        lines.append(f"| all | {' | '.join(f'{total:.0f}' for total in totals)} |")
    if "choices" in record:
        lines += ["", "### Choices", "", "1 thread. Above 1: the default is the faster one.", ""]
        lines += ["| preset | step | images/s | time over the default's |", "|---|---|---|---|"]
        for name, rows in record["choices"].items():
            for what, row in rows.items():
                lines.append(f"| {name} | {what} | {row['images_per_second']:.1f} | {row['time_over_ours']:.2f} |")
    if "sizes" in record:
        lines += ["", "### Parameters", ""]
        names = list(record["sizes"])
        parts = list(record["sizes"][names[0]])
        lines += [f"| part | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for part in parts:
            cells = [f"{record['sizes'][name].get(part, 0):,}" for name in names]
            lines.append(f"| {part} | {' | '.join(cells)} |")
        totals = [sum(record["sizes"][name].values()) for name in names]
        lines.append(f"| all | {' | '.join(f'{total:,}' for total in totals)} |")
        for what, copies in (("weights", 1), ("weights and AdamW's two moments", 3)):
            cells = [f"{4 * copies * total / 1e6:,.0f} MB" for total in totals]
            lines.append(f"| {what}, float32 | {' | '.join(cells)} |")
    return "\n".join(lines)


def _milliseconds(phases: dict[str, float] | None) -> str:
    if phases is None:
        return ""
    if "step" in phases:
        return f"{phases['step']:.0f}"
    return f"{phases.get('forward', 0):.0f} + {phases.get('backward', 0):.0f}"


def write(records: dict[str, Any], path: Path, readme: Path) -> None:
    """The record of every machine as JSON, and the tables of all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1) + "\n")
    before, rest = readme.read_text().split(START)
    _, after = rest.split(END)
    body = "\n\n".join(tables(record) for record in records.values())
    readme.write_text(f"{before}{START}\n\n{body}\n\n{END}{after}")


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    options = parser().parse_args(arguments)
    if options.device == "cuda":
        options.threads = [1]
    torch.manual_seed(0)
    measures: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "speed": speed,
        "profile": profiles,
        "choices": choices,
        "sizes": sizes,
    }
    parts = [part for part in options.only if part != "profile" or options.device == "cpu"]
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    machine = results.device_name(options.device)
    start = time.monotonic()
    if parts:
        found = {part: measures[part](options) for part in parts}
        conditions = results.Conditions.now(device=options.device, threads=1, dtype="float32")
        records[machine] = {
            **records.get(machine, {}),
            "machine": f"{machine}, {platform.system()}",
            "torch": torch.__version__,
            "date": datetime.date.today().isoformat(),
            "commit": conditions.commit,
            "load": conditions.load,
            **found,
        }
    write(records, options.out, options.readme)
    print(f"wrote {options.out} after {time.monotonic() - start:.0f} s")
    return 0


def parser() -> argparse.ArgumentParser:
    """Its options."""
    parser = command_parser("step", __doc__)
    parser.add_argument(
        "--only", nargs="*", choices=PARTS, default=PARTS, help="parts to measure; none: the tables alone"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="torch.compile among the choices: minutes more")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--readme", type=Path, default=README)
    return parser


if __name__ == "__main__":
    sys.exit(main())
