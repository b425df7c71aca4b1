"""The tables of benchmarks/README.md, written from the rows."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import targets
from benchmarks.case import OURS
from benchmarks.registry import WORKLOADS
from benchmarks.results import PACKAGES, ROOT, Row, number, slug
from benchmarks.summary import Summary, clock, select, settings, summaries

README = ROOT / "README.md"
MARKERS = {
    "cpu": ("<!-- from here on written by `python -m benchmarks table` -->", "<!-- end of the CPU's tables -->"),
    "cuda": (
        "<!-- from here on written by `python -m benchmarks table --device cuda` -->",
        "<!-- end of the GPU's tables -->",
    ),
}
EVEN = 0.95
"""Below this ratio we call it a loss."""


def write(rows: Sequence[Row], readme: Path = README, *, device: str = "cpu") -> None:
    """Puts fresh tables between the device's markers."""
    start, end = MARKERS[device]
    before, rest = readme.read_text().split(start)
    _, after = rest.split(end)
    readme.write_text(f"{before}{start}\n\n{tables(rows)}\n{end}{after}")


def tables(rows: Sequence[Row]) -> str:
    """Conditions, targets, and one table for each workload; the same again for other settings."""
    parts = []
    for number_, (threads, dtype, huge_pages) in enumerate(settings(rows)):
        chosen = select(rows, threads=threads, dtype=dtype, huge_pages=huge_pages)
        parts.append(f"## {_title(chosen[0], threads, dtype, huge_pages)}\n\n{conditions(chosen)}\n")
        if number_ == 0 and not chosen[0]["driver"]:
            parts.append(f"### Targets\n\n{targets.report(chosen)}\n")
        measured = summaries(chosen)
        for workload, title in WORKLOADS.items():
            about = [s for s in measured if s.workload == workload]
            if about:
                picture = f"![]({picture_name(chosen[0]['device'], workload)})\n\n" if number_ == 0 else ""
                heading = f"{workload}: {title}" if workload != "small" else title
                parts.append(f"### {heading}\n\n{table(about)}\n\n{absent(about)}{picture}".rstrip() + "\n")
    return "\n".join(parts)


def table(measured: Iterable[Summary]) -> str:
    """Ratios are times over ours: above 1 we are faster; a loss is bold and marked ▼."""
    lines = [
        "| case | ours, ms (20-80 %) | floor | autodiff | best rival | best / ours | the others / ours | inference | "
        "MB ours | MB best rival |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in measured:
        best = (s.best or "", s.rivals.get(s.best or ""))
        others = [(name, ratio) for name, ratio in s.rivals.items() if name != s.best]
        cells = [
            s.shape,
            _milliseconds(s.ours),
            _plain(number(s.ours, "floor")),
            _marked(s.autodiff),
            best[0],
            _marked(best[1]),
            ", ".join(f"{name} {ratio:.2f}" for name, ratio in others),
            _marked(s.inference_ratio) if s.mode == "both" else "",
            _megabytes(s.memory(OURS)),
            _megabytes(s.memory(best[0])),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def absent(measured: Iterable[Summary]) -> str:
    """Who was not timed in which cases, and why."""
    where: dict[tuple[str, str], list[str]] = {}
    for s in measured:
        for provider, reason in s.refused.items():
            where.setdefault((provider, reason), []).append(s.case)
    lines = [f"- {provider}, {reason} ({', '.join(cases)})" for (provider, reason), cases in where.items()]
    return "Not timed:\n\n" + "\n".join(lines) + "\n\n" if lines else ""


def conditions(rows: Sequence[Row]) -> str:
    """Machine, versions, dates and commits behind the rows."""
    row = rows[-1]
    commits = sorted({r["commit"] + (" with changes" if r["dirty"] == "True" else "") for r in rows})
    dates = sorted({r["timestamp"][:10] for r in rows})
    versions = ", ".join(f"{name} {row[name]}" for name in PACKAGES if row[name])
    machine = ", ".join(x for x in (row["device"], row["driver"]) if x)
    load = max(float(r["load"]) for r in rows)
    return (
        f"{machine}; Python {row['python']}, {versions}; measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))}, "
        f"commit {', '.join(commits)}; load average at most {load:g}."
    )


def picture_name(device: str, what: str) -> str:
    return f"results/{slug(device)}-{what.lower()}.png"


def _title(row: Row, threads: int, dtype: str, huge_pages: bool) -> str:
    where = f"{threads} thread{'s' if threads > 1 else ''}" if not row["driver"] else "GPU"
    return f"{where}, {dtype}" + (", huge pages" if huge_pages else "")


def _milliseconds(row: Row) -> str:
    kind = clock(row)
    low, middle, high = (1e3 * (number(row, column) or 0) for column in (f"{kind}_p20", kind, f"{kind}_p80"))
    digits = max(2 - math.floor(math.log10(middle)), 0)
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def _plain(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _marked(ratio: float | None) -> str:
    return _plain(ratio) if ratio is None or ratio >= EVEN else f"**{ratio:.2f}** ▼"


def _megabytes(size: float | None) -> str:
    return "" if size is None else f"{size / 2**20:.1f}"
