"""What cores of 10^9 and 10^12 numbers need on many GPUs, counted.

`python -m benchmarks split` writes docs/distributed.md. Nothing here is measured. Bytes and operations are those of
`multilinear_loss` and AdamW on a core split by rows (`multilinear.distributed`), each number read and written as
often as it must be; times are these over what the hardware can do at best, and so floors. What every line counts stands
beside it.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent / "docs" / "distributed.md"
BEGIN, END = "<!-- begin: python -m benchmarks split -->", "<!-- end -->"

SAMPLES = 1024
"""Samples that `multilinear_loss` takes through the core at once, and here the batch."""


@dataclass(frozen=True)
class Hardware:
    """One GPU of many, as its maker states it (H100 SXM), and its share of the network."""

    capacity: float = 80e9  # bytes
    memory: float = 3.35e12  # bytes a second
    float32: float = 67e12  # operations a second, outside tensor cores
    bfloat16: float = 989e12  # dense, in tensor cores
    node: int = 8  # GPUs in a node
    inside: float = 450e9  # bytes a second and direction: NVLink's 900 GB/s are both directions together
    between: float = 50e9  # bytes a second and GPU from node to node

    def link(self, processes: int) -> float:
        """Bytes a second of the slowest link that a ring of all GPUs crosses."""
        return self.inside if processes <= self.node else self.between


@dataclass(frozen=True)
class Precision:
    """Bytes of a number of the core: what is kept of it, and what is read and written in a step."""

    name: str
    weights: int
    gradient: int
    loss: tuple[int, ...]
    update: tuple[int, ...]
    product: int  # of K, dK and the outputs
    again: int  # for each 1024 samples after the first ones
    moments: int = 8  # AdamW's, two float32

    @property
    def kept(self) -> int:
        return self.weights + self.gradient + self.moments

    @property
    def moved(self) -> int:
        return sum(self.loss) + sum(self.update)


# loss: weight read, gradient written; update: weight, gradient, moments read, weight, moments written
FLOAT32 = Precision("float32", 4, 4, loss=(4, 4), update=(4, 4, 8, 4, 8), product=4, again=4 + 8)
# under torch.autocast the weight and the gradient have copies in bfloat16; loss: weight read, its copy written, the
# copy read for the outputs and for dK, the gradient's copy written and read, the gradient written
MIXED = Precision("mixed", 6, 6, loss=(4, 2, 2, 2, 2, 2, 4), update=(4, 4, 8, 4, 8), product=2, again=4 + 4)


@dataclass(frozen=True)
class Core:
    """A core of shape `(outputs, *inputs)`."""

    outputs: int
    inputs: tuple[int, ...]

    @property
    def columns(self) -> int:
        return math.prod(self.inputs)

    @property
    def numbers(self) -> int:
        return self.outputs * self.columns


CORES = (Core(100_000, (10, 20, 50)), Core(1_000_000, (100, 100, 100)))
PROCESSES = (8, 64, 1024)


@dataclass(frozen=True)
class Estimate:
    """One step of one GPU of `processes`, which take all `samples` through the core: 1024 at once."""

    core: Core
    processes: int
    precision: Precision
    samples: int = SAMPLES
    hardware: Hardware = Hardware()

    @property
    def rows(self) -> int:
        """Of the fullest process."""
        return math.ceil(self.core.outputs / self.processes)

    @property
    def part(self) -> int:
        """Numbers of the core here."""
        return self.rows * self.core.columns

    @property
    def products(self) -> int:
        """Bytes of K, dK and dK times an input, (samples, columns) each, which every process has whole."""
        return 3 * min(self.samples, SAMPLES) * self.core.columns * self.precision.product

    @property
    def outputs(self) -> int:
        """Bytes of target and residual of this process's outputs."""
        return 2 * self.samples * self.rows * self.precision.product

    @property
    def bytes(self) -> int:
        return self.part * self.precision.kept + self.products + self.outputs

    @property
    def fits(self) -> bool:
        return self.bytes <= self.hardware.capacity

    @property
    def moved(self) -> int:
        """Bytes to and from memory: the core, once for each 1024 samples, and K and dK.

        K is written and read twice, for the residual and for the core's gradient; dK is written and read once.
        """
        chunks = math.ceil(self.samples / SAMPLES)
        again = (chunks - 1) * self.precision.again * self.part
        products = 5 * self.samples * self.core.columns * self.precision.product
        return self.part * self.precision.moved + again + products + 2 * self.outputs

    @property
    def operations(self) -> int:
        """Three matrix products, for the outputs, the core's gradient and dK: 2 operations a number and sample each."""
        return 6 * self.samples * self.part

    @property
    def sent(self) -> float:
        """Bytes to the network: the sum of the inputs' gradients over all processes, in a ring."""
        gradients = self.samples * sum(self.core.inputs) * 4
        return 2 * (self.processes - 1) / self.processes * gradients

    @property
    def sent_outputs(self) -> float:
        """Bytes more where every process wants the outputs of its own samples, and gives back their gradient."""
        return 2 * (self.processes - 1) / self.processes * self.samples / self.processes * self._row_of_outputs

    @property
    def sent_gathered(self) -> float:
        """Bytes more where every process wants all outputs of all samples; their gradient is there then."""
        return (self.processes - 1) / self.processes * self.samples * self._row_of_outputs

    @property
    def sent_by_fsdp(self) -> float:
        """Bytes that FSDP would send instead: the weight gathered forward and backward, the gradient reduced."""
        whole = self.core.numbers * 3 * self.precision.product
        return (self.processes - 1) / self.processes * whole

    @property
    def _row_of_outputs(self) -> int:
        return self.core.outputs * self.precision.product

    @property
    def memory_time(self) -> float:
        return self.moved / self.hardware.memory

    @property
    def arithmetic_time(self) -> float:
        peak = self.hardware.bfloat16 if self.precision is MIXED else self.hardware.float32
        return self.operations / peak

    def network_time(self, sent: float) -> float:
        return sent / self.hardware.link(self.processes)


def fewest_processes(core: Core, precision: Precision) -> int:
    """The smallest number of GPUs on which the core fits."""
    least = math.ceil(core.numbers * precision.kept / Hardware().capacity)
    return next(p for p in range(max(least, 1), core.outputs + 1) if Estimate(core, p, precision).fits)


def most_useful_processes(core: Core, precision: Precision) -> int:
    """From how many GPUs on K and dK, which do not shrink, are more of the traffic than the rows of the core."""
    products = 5 * SAMPLES * core.columns * precision.product
    return math.ceil(core.numbers * precision.moved / products)


def memory_table() -> str:
    """Bytes kept by one GPU."""
    lines = [
        "| core | GPUs | precision | rows | weights | gradient | Adam | K, dK | outputs | together | 80 GB |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for e in _estimates():
        p = e.precision
        weights, gradient, moments = (size * e.part for size in (p.weights, p.gradient, p.moments))
        sizes = " | ".join(map(_bytes, (weights, gradient, moments, e.products, e.outputs, e.bytes)))
        lines.append(f"{_head(e)} | {e.rows:,} | {sizes} | {'fits' if e.fits else '**does not fit**'} |")
    return "\n".join(lines)


def time_table() -> str:
    """What one GPU moves and computes in a step, and the floors."""
    lines = [
        "| core | GPUs | precision | memory | | arithmetic | | network | | + own outputs | + all outputs | FSDP |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for e in _estimates():
        ms = lambda sent, e=e: _time(e.network_time(sent))  # noqa: E731
        cells = [
            *(_bytes(e.moved), _time(e.memory_time), f"{e.operations / 1e12:.3g} T", _time(e.arithmetic_time)),
            *(_bytes(e.sent), ms(e.sent), ms(e.sent_outputs), ms(e.sent_gathered), ms(e.sent_by_fsdp)),
        ]
        lines.append(f"{_head(e)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def limits() -> str:
    """Where it breaks."""
    lines = []
    for core in CORES:
        for precision in (FLOAT32, MIXED):
            fewest, useful = fewest_processes(core, precision), most_useful_processes(core, precision)
            lines.append(
                f"- {_name(core)}, {precision.name}: fits from {fewest:,} {'GPUs' if fewest > 1 else 'GPU'} on; from "
                f"{useful:,} GPUs on K and dK are most of the traffic, and more GPUs bring less than their share."
            )
    return "\n".join(lines)


def document() -> str:
    """All tables."""
    parts = (("Kept by one GPU", memory_table()), ("One step", time_table()), ("Where it breaks", limits()))
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in parts)


def write(path: Path = DOCUMENT) -> None:
    """Puts the tables between their marks."""
    text = path.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    path.write_text(f"{text[:before]}\n\n{document()}\n\n{text[after:]}")


def main(arguments: list[str]) -> int:
    argparse.ArgumentParser(prog="python -m benchmarks split", description=__doc__).parse_args(arguments)
    write()
    print(f"wrote {DOCUMENT}")
    return 0


def _estimates() -> list[Estimate]:
    return [Estimate(core, p, precision) for core in CORES for p in PROCESSES for precision in (FLOAT32, MIXED)]


def _head(e: Estimate) -> str:
    return f"| {_name(e.core)} | {e.processes:,} | {e.precision.name}"


def _name(core: Core) -> str:
    return f"{core.outputs:,} x {core.inputs}"


def _bytes(count: float) -> str:
    unit, size = next((u, s) for u, s in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1)) if count >= s or s == 1)
    return f"{count / (size if unit != 'kB' else 1e3):.3g} {unit}"


def _time(seconds: float) -> str:
    return (
        f"{seconds:.3g} s"
        if seconds >= 1
        else f"{1e3 * seconds:.3g} ms"
        if seconds >= 1e-4
        else f"{1e6 * seconds:.3g} µs"
    )
