"""What the rows of a case say: who is the best rival, by how much, and with how much memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from benchmarks.case import AUTODIFF, FLOOR, OURS
from benchmarks.results import Row, number

OWN = (OURS, AUTODIFF, FLOOR)


@dataclass(frozen=True)
class Summary:
    """One case in its main mode: "both" where there are gradients, else "forward"."""

    case: str
    workload: str
    shape: str
    mode: str
    rows: dict[str, Row]
    """The main mode's row of every provider."""
    inference: dict[str, Row]
    refused: dict[str, str]

    @property
    def ours(self) -> Row:
        return self.rows[OURS]

    @property
    def rivals(self) -> dict[str, float]:
        """Time over ours of everyone else, our own variants too, the fastest first."""
        return _rivals(self.rows)

    @property
    def best(self) -> str | None:
        """The fastest that is not ours."""
        return next((name for name in self.rivals if not name.startswith(OURS)), None)

    @property
    def inference_ratio(self) -> float | None:
        return next((x for name, x in _rivals(self.inference).items() if not name.startswith(OURS)), None)

    @property
    def autodiff(self) -> float | None:
        return number(self.rows[AUTODIFF], "ratio") if AUTODIFF in self.rows else None

    def memory(self, provider: str) -> float | None:
        return number(self.rows[provider], "memory") if provider in self.rows else None


def summaries(rows: Iterable[Row]) -> list[Summary]:
    """One for each case in which we took part."""
    result = []
    for case, group in groupby(sorted(rows, key=lambda row: row["case"]), key=lambda row: row["case"]):
        of_case = list(group)
        timed = [row for row in of_case if row["mode"]]
        if not any(row["provider"] == OURS for row in timed):
            continue
        mode = "both" if any(row["mode"] == "both" for row in timed) else "forward"
        result.append(
            Summary(
                case,
                of_case[0]["workload"],
                of_case[0]["shape"],
                mode,
                rows={row["provider"]: row for row in timed if row["mode"] == mode},
                inference={row["provider"]: row for row in timed if row["mode"] == "forward"},
                refused={row["provider"]: row["status"] for row in of_case if row["status"]},
            )
        )
    return sorted(result, key=lambda s: (s.workload, s.case))


def select(rows: Sequence[Row], *, threads: int = 1, dtype: str = "float32", huge_pages: bool = False) -> list[Row]:
    """The rows of one setting."""
    setting = (str(threads), dtype, str(huge_pages))
    return [row for row in rows if (row["threads"], row["dtype"], row["huge_pages"]) == setting]


def settings(rows: Iterable[Row]) -> list[tuple[int, str, bool]]:
    found = {(int(row["threads"]), row["dtype"], row["huge_pages"] == "True") for row in rows}
    return sorted(found, key=lambda setting: (setting[1] != "float32", setting[2], setting[0]))


def clock(row: Row) -> str:
    """The column that counts: CPU time on one thread of a CPU, else wall time."""
    return "cpu" if row["threads"] == "1" and not row["driver"] else "wall"


def _rivals(rows: dict[str, Row]) -> dict[str, float]:
    ratios = {name: number(row, "ratio") for name, row in rows.items() if name not in OWN}
    return dict(sorted(((name, x) for name, x in ratios.items() if x is not None), key=lambda item: item[1]))
