"""What we set out to reach on one thread of a CPU, and whether the rows show it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from benchmarks.case import OURS
from benchmarks.results import Row, number
from benchmarks.summary import Summary, summaries
from benchmarks.workloads.frozen_core import COMPRESSED

ANY = ("*",)


@dataclass(frozen=True)
class Target:
    """A least ratio of the best rival's time to ours, or a largest ratio of our memory to another.

    Attributes:
        cases: Patterns of case names.
        bound: At least this in time, at most this in memory.
        rivals: Patterns of the providers that count.
        of: A variant of ours instead of the plain call.
        memory_of: "" for a target of time; "unit": the case's own unit (the core's gradient, K); "rivals".
    """

    text: str
    cases: tuple[str, ...]
    bound: float
    rivals: tuple[str, ...] = ANY
    memory_of: str = ""
    of: str | None = None

    def values(self, measured: Iterable[Summary]) -> dict[str, float]:
        """The figure of every case that it is about."""
        about = [s for s in measured if any(fnmatch(s.case, pattern) for pattern in self.cases)]
        found = {s.case: self._value(s) for s in about}
        return {case: value for case, value in found.items() if value is not None}

    def _value(self, summary: Summary) -> float | None:
        counted = {
            name: ratio
            for name, ratio in summary.rivals.items()
            if not name.startswith(OURS) and any(fnmatch(name, pattern) for pattern in self.rivals)
        }
        if not self.memory_of:
            fastest = min(counted.values(), default=None)
            if self.of is None or fastest is None:
                return fastest
            ours = summary.rivals.get(self.of)
            return None if ours is None else fastest / ours
        mine = number(summary.ours, "memory")
        others = [number(summary.ours, "memory_unit")]
        if self.memory_of == "rivals":
            others = [summary.memory(name) for name in counted]
        known = [x for x in others if x]
        return mine / min(known) if mine is not None and known else None

    def met(self, value: float) -> bool:
        return value <= self.bound if self.memory_of else value >= self.bound


LARGE = ("w4-*-9x15x80-*", "w4-*-300x300-*", "w4-*-16x16x16x16-*", "w4-*-100x100-*")
MIDDLE = ("w5-*-mode1-*", "w5-*-60x60x60x60-mode2-*")
OUTER = ("w5-*-mode0-*", *(f"w5-*-{sizes}-mode2-*" for sizes in ("200x200x200", "512x64x512", "3000x30x30")))
SMALL = ("w4-*-30x30x30-*", "w4-*-15x80-*", "w4-*-8x8x8x8-*", "small-columns-*")
THROUGH_THE_MODEL = ("model by hand", "einsum", "TensorLy")
TARGETS = (
    Target("W1, W2, n=16: time", ("w[12]-*-n16",), 1.4),
    Target("W1, W2, n=64: time", ("w[12]-*-n64",), 1.15),
    Target("W1, W2, n=256: time", ("w[12]-*-n256",), 1.1),
    Target("W1, W2: memory over the core's gradient", ("w[12]-*-n*",), 1.1, memory_of="unit"),
    Target(
        "W3, light learned: over the Khatri-Rao chain", ("w3-light-learned-*",), 3.0, rivals=("Khatri-Rao by hand",)
    ),
    Target("W3, light learned: over everybody", ("w3-light-learned-*",), 3.0),
    Target("W3, light given: over the Khatri-Rao chain", ("w3-light-given-*",), 5.0, rivals=("Khatri-Rao by hand",)),
    Target("W3, light given: over everybody", ("w3-light-given-*",), 5.0),
    Target("W4, 1e5 elements and more: time", LARGE, 1.8),
    Target("W4, below 1e5 elements: time", SMALL, 0.95),
    Target("W4, 1e5 elements and more: memory over the product", LARGE, 1.3, memory_of="unit"),
    Target("W5, middle modes: time", MIDDLE, 1.5),
    Target("W5, other modes: time", OUTER, 0.95),
    Target("W6, MTTKRP in one mode: time", ("w6-mttkrp-*",), 0.95),
    Target("W6, MTTKRP in all modes, 3-way: time", ("w6-mttkrps-3way-*",), 1.4),
    Target("W6, MTTKRP in all modes, 4-way: time", ("w6-mttkrps-4way-*",), 1.6),
    Target("W6, CP loss: over autodiff through the model", ("w6-cp-loss-*",), 2.5, rivals=THROUGH_THE_MODEL),
    Target("W6, CP loss: over torch.compile of it", ("w6-cp-loss-*",), 2.0, rivals=("torch.compile",)),
    Target("W6, CP loss: memory over theirs", ("w6-cp-loss-*",), 0.1, rivals=THROUGH_THE_MODEL, memory_of="rivals"),
    Target("W7: over the chain by hand", ("w7-*",), 2.2, rivals=("folded by hand",)),
    Target("W7: over einsum and TensorLy", ("w7-*",), 4.5, rivals=("einsum", "TensorLy*")),
    Target("W8: time", ("w8-shape-*", "w8-texture-*"), 0.95),
    Target("W8, frozen shape core, after compressing it", ("w8-shape-*",), 20.0, of=COMPRESSED),
)


def report(rows: Sequence[Row]) -> str:
    """A Markdown table: every target, its worst case, and whether it is met."""
    measured = summaries(rows)
    lines = ["| target | bound | worst case | value | met |", "|---|---|---|---|---|"]
    for target in TARGETS:
        values = target.values(measured)
        sign = "≤" if target.memory_of else "≥"
        if not values:
            lines.append(f"| {target.text} | {sign} {target.bound:g} | not measured | | |")
            continue
        case = (max if target.memory_of else min)(values, key=lambda name: values[name])
        count = sum(target.met(value) for value in values.values())
        verdict = "yes" if count == len(values) else f"no ({count} of {len(values)})"
        lines.append(f"| {target.text} | {sign} {target.bound:g} | {case} | {values[case]:.2f} | {verdict} |")
    return "\n".join(lines)
