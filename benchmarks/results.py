"""Measured rows: one CSV for each machine, in which a case that is measured again replaces its old rows."""

import csv
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

ROOT = Path(__file__).parent
RESULTS = ROOT / "results"
PACKAGES = ("torch", "numpy", "tensorly", "opt_einsum", "triton", "pyttb")


@dataclass(frozen=True)
class Conditions:
    """What was measured where: the same in all rows of a case."""

    commit: str
    dirty: bool
    timestamp: str
    python: str
    torch: str
    numpy: str
    tensorly: str
    opt_einsum: str
    triton: str
    pyttb: str
    device: str
    driver: str
    threads: int
    huge_pages: bool
    load: float
    dtype: str

    @classmethod
    def now(cls, *, device: str, threads: int, dtype: str) -> "Conditions":
        return cls(
            commit=_git("rev-parse", "--short=10", "HEAD"),
            dirty=bool(_git("status", "--porcelain", "--untracked-files=no", "--", "multilinear")),
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
            python=platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
            device=device_name(device),
            driver=_driver() if device != "cpu" else "",
            threads=threads,
            huge_pages=os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
            load=round(os.getloadavg()[0], 2),
            dtype=dtype,
        )


@dataclass(frozen=True)
class Measurement:
    """One provider in one mode. Seconds of one call; bytes; an empty status is a good one."""

    workload: str
    case: str
    shape: str
    provider: str
    mode: str
    status: str = ""
    wall: float | None = None
    wall_p20: float | None = None
    wall_p80: float | None = None
    cpu: float | None = None
    cpu_p20: float | None = None
    cpu_p80: float | None = None
    rounds: int = 0
    calls: int = 0
    ratio: float | None = None
    """This provider's time over ours, the median over rounds: CPU time on one thread of a CPU, else wall time."""
    floor: float | None = None
    """The floor's time over ours."""
    memory: float | None = None
    """Peak of two iterations besides the operands."""
    memory_unit: float | None = None
    """What the case's memory is compared with: the core's gradient, a Khatri-Rao product."""
    flops: float | None = None
    bytes: float | None = None
    """Read and written at least once."""
    error: float | None = None
    """Largest difference from the reference over its largest entry."""


CONDITIONS, MEASURED = [f.name for f in fields(Conditions)], [f.name for f in fields(Measurement)]
COLUMNS = [*MEASURED, *CONDITIONS]
IDENTITY = ("case", "device", "threads", "huge_pages", "dtype")
"""What makes a new measurement of a case replace an old one."""
Row = dict[str, str]


def path_for(device: str, folder: Path = RESULTS) -> Path:
    return folder / f"{slug(device)}.csv"


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def replace(path: Path, conditions: Conditions, measurements: Sequence[Measurement]) -> None:
    """Puts the rows in place of the case's old ones; the file is whole at any moment."""
    fresh = [{key: _text(x) for key, x in {**asdict(m), **asdict(conditions)}.items()} for m in measurements]
    replaced = {_identity(row) for row in fresh}
    kept = [row for row in read(path) if _identity(row) not in replaced]
    rows = sorted([*kept, *fresh], key=lambda row: row["case"])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", newline="", dir=path.parent, suffix=".part", delete=False) as file:
        try:
            writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    path.chmod(0o644)


def device_name(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    return f"{_processor()}, {os.cpu_count()} cores"


def number(row: Row, column: str) -> float | None:
    return float(row[column]) if row.get(column) else None


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _identity(row: Row) -> tuple[str, ...]:
    return tuple(row.get(column, "") for column in IDENTITY)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _driver() -> str:
    found = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
    return f"driver {found[0] if found else 'unknown'}, CUDA {torch.version.cuda}"


def _git(*arguments: str) -> str:
    return _output("git", *arguments)


def _output(*command: str) -> str:
    """What a command prints, nothing where it does not exist or fails."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
