"""Pictures of the rows: how many times longer every rival takes, and how far we are from the machine's roof."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from benchmarks.case import AUTODIFF, OURS
from benchmarks.measure import MACHINE
from benchmarks.registry import WORKLOADS
from benchmarks.results import ROOT, Row, number
from benchmarks.summary import Summary, clock, select, settings, summaries
from benchmarks.tables import EVEN, picture_name

WIDEST = 10.0
"""Ratios beyond this are cut, with the number written beside."""


def draw(rows: Sequence[Row], folder: Path = ROOT) -> list[Path]:
    """One picture of bars for each workload and one roofline, of the first setting."""
    threads, dtype, huge_pages = settings(rows)[0]
    chosen = select(rows, threads=threads, dtype=dtype, huge_pages=huge_pages)
    measured = summaries(chosen)
    device = chosen[0]["device"]
    paths = []
    for workload in WORKLOADS:
        about = [s for s in measured if s.workload == workload]
        if about:
            paths.append(_save(_bars(about, workload), folder / picture_name(device, workload)))
    if any(row["case"] == MACHINE for row in chosen):
        paths.append(_save(_roofline(chosen, measured, device), folder / picture_name(device, "roofline")))
    return paths


def _bars(measured: Sequence[Summary], workload: str) -> plt.Figure:
    bars = sum(len(s.rivals) + bool(s.autodiff) for s in measured)
    figure, axes = plt.subplots(figsize=(9, 0.9 + 0.19 * bars + 0.3 * len(measured)), layout="constrained")
    place, ticks = 0.0, []
    for s in measured:
        ratios = {**({AUTODIFF: s.autodiff} if s.autodiff else {}), **s.rivals}
        ticks.append((place + (len(ratios) - 1) / 2, s.shape))
        for name, ratio in ratios.items():
            axes.barh(place, min(ratio, WIDEST), color=_colour(ratio), height=0.9)
            axes.text(min(ratio, WIDEST) + 0.04, place, f"{ratio:.2f}  {name}", va="center", fontsize=7)
            place += 1
        place += 1.2
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks([y for y, _ in ticks], [shape for _, shape in ticks], fontsize=8)
    axes.invert_yaxis()
    largest = max(max(s.rivals.values()) for s in measured)
    axes.set_xlim(0, min(largest, WIDEST) * 1.25 + 0.3)
    axes.set_xlabel("time over ours; green: we are faster, red: slower, grey: within 5 %")
    title = WORKLOADS[workload]
    axes.set_title(title if workload == "small" else f"{workload}: {title}")
    _clean(axes)
    return figure


def _colour(ratio: float) -> str:
    return "#c0504d" if ratio < EVEN else "#a6a6a6" if ratio < 1 / EVEN else "#5a9e6f"


def _roofline(rows: Sequence[Row], measured: Sequence[Summary], device: str) -> plt.Figure:
    machine = {row["provider"]: row for row in rows if row["case"] == MACHINE}
    product, copy = machine["matrix product"], machine["copy"]
    peak = (number(product, "flops") or 0) / (number(product, clock(product)) or 1)
    bandwidth = (number(copy, "bytes") or 0) / (number(copy, clock(copy)) or 1)
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    intensity = np.logspace(-1, 3, 100)
    axes.loglog(intensity, np.minimum(peak, bandwidth * intensity) / 1e9, color="black", linewidth=1)
    axes.text(intensity[-1], peak / 1e9 * 1.08, f"matrix product {peak / 1e9:.0f} GFLOP/s", ha="right", fontsize=8)
    axes.text(0.11, bandwidth * 0.12 / 1e9 * 1.6, f"copy {bandwidth / 1e9:.1f} GB/s", rotation=38, fontsize=8)
    colours = {workload: plt.colormaps["tab10"](n) for n, workload in enumerate(WORKLOADS)}
    for s in measured:
        if s.best is None:
            continue
        ours, best = _point(s.ours), _point(s.rows[s.best])
        label = s.workload if s.workload not in axes.get_legend_handles_labels()[1] else None
        axes.plot([ours[0], best[0]], [ours[1], best[1]], color=colours[s.workload], linewidth=0.8)
        axes.plot(*best, "o", markersize=5, color=colours[s.workload], fillstyle="none")
        axes.plot(*ours, "o", markersize=6, color=colours[s.workload], label=label)
    axes.set_xlabel("operations over bytes that must move once (FLOP/byte)")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"{device}: filled {OURS}, hollow the best rival")
    axes.legend(fontsize=8, loc="lower right")
    _clean(axes)
    return figure


def _point(row: Row) -> tuple[float, float]:
    flops, moved, seconds = (number(row, column) or 1.0 for column in ("flops", "bytes", clock(row)))
    return flops / moved, flops / seconds / 1e9


def _clean(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: plt.Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return path
