"""What each term of the objective brings: `python -m benchmarks ablation --prepared SET [--labels CSV]`.

A ladder of objectives, the paper's first; every rung adds one thing to the one before. On each rung small networks are
trained with the same steps and several seeds, and measured on the held-out faces as `facemodels evaluate` does. Every
finished run is appended to benchmarks/results/ablation.csv, and the table benchmarks/results/ablation.md is written
anew; runs that are there already are not done again.
"""

import argparse
import csv
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.options import command_parser
from facemodels.config import NetworkConfig, TrainingConfig, preset
from facemodels.data.dataset import PreparedSet
from facemodels.evaluation.report import LINES, evaluate, teach_judge
from facemodels.training import train

RESULTS = Path(__file__).parent / "results"
CHANNELS = (24, 24, 24)
"""A quarter of the paper's width."""

RATE = 2e-3  # such small networks learn fastest at this rate
KEYS = ("set", "steps", "rung", "seed")


@dataclass(frozen=True)
class Rung:
    """A step of the ladder.

    Attributes:
        name: What it is called.
        adds: What it adds to the rung before, in words.
        weights, training, network: The settings that it changes.
    """

    name: str
    adds: str
    weights: dict[str, float] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)


LADDER = (
    Rung("paper", "the paper's terms but its adversary and verification network, which come last"),
    Rung("known_mask", "composite with the fitted mask, face stream judged on its own", training={"known_mask": True}),
    Rung("swapped_shape", "shape of pairs with exchanged expressions", {"swapped_shape": 1.0}),
    Rung("decorrelation", "codes uncorrelated with the other factors' targets", {"decorrelation": 8.0}),
    Rung(
        "turned_normals",
        "normals and mask of the face in another pose, rendered from the morphable model",
        {"turned_normals": 2.0, "face_mask": 0.5},
        network={"face_mask": True},
    ),
    Rung("turned_face", "the photo itself carried to that pose", {"turned_face": 2.0}),
    Rung(
        "background",
        "a background decoder that never sees the face, and the face filled in as its target",
        {"background": 1.0},
        network={"cut_background": True},
    ),
    Rung("carried_codes", "codes of the carried photo equal those of the photo", {"carried_codes": 0.1}),
    Rung("cycle", "codes of the decoded face in another pose equal those put in", {"cycle": 0.1}),
    Rung("swapped_codes", "the encoder reads a swapped expression as what was lent", {"swapped_codes": 0.3}),
    Rung("verification", "the paper's E_veri", {"verification": 0.2}),
    Rung(
        "adversarial",
        "the paper's E_adv",
        {"adversarial": 0.3},
        training={"gamma": 0.95, "balance_rate": 0.01},  # those of the preset: at BEGAN's own, k_t stays at 0
    ),
)

SHOWN = {
    "psnr": "PSNR",
    "psnr_face": "PSNR, face",
    "pose_degrees": "pose °",
    "normals_degrees": "normals °",
    "person_auc": "person AUC",
    "expression_follows": "expression follows",
    "identity_follows": "identity follows",
    "share_of_pose": "share of pose",
    "turned_normals_degrees": "turned normals °",
    "turned_mask_iou": "turned mask IoU",
    "turn_of_appearance": "turn",
    "cycle_pose_degrees": "cycle °",
    "unedited_pose_degrees": "unedited °",
    "leak": "leak",
    "background_knows_face": "background knows",
}


def settings(rung: str, *, steps: int, seed: int, verifier: str | None) -> tuple[NetworkConfig, TrainingConfig]:
    """Network and training of a rung: all that it and the rungs below it change.

    Raises:
        ValueError: There is no such rung.
    """
    names = [one.name for one in LADDER]
    if rung not in names:
        raise ValueError(f"ablation: there is no rung {rung!r}; choose of {', '.join(names)}")
    network, training = preset("paper")
    small, ours = preset("small")
    network = replace(
        network,
        channels=CHANNELS,
        bottleneck=small.bottleneck,
        shape_space=small.shape_space,
        frontal_rank=small.frontal_rank,
    )
    weights = replace(training.weights, adversarial=0.0, verification=0.0)
    training = replace(
        training,
        surround_share=ours.surround_share,
        learning_rate=RATE,
        verifier=verifier,
        steps=steps,
        seed=seed,
        sheet_every=0,
    )
    for one in LADDER[: names.index(rung) + 1]:
        weights = replace(weights, **one.weights)
        training = replace(training, **one.training)
        network = replace(network, **one.network)
    return network, replace(training, weights=weights)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write what is not there yet."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    rungs = options.rows or [one.name for one in LADDER]
    if options.verifier is None and "verification" in rungs:
        print("ablation: verification is left out, and adversarial goes without it; give --verifier", flush=True)
        rungs = [name for name in rungs if name != "verification"]
    plan = {name: settings(name, steps=options.steps, seed=0, verifier=options.verifier) for name in rungs}
    prepared = PreparedSet(options.prepared)
    judge = teach_judge(prepared, options.labels, options.label)
    for seed in range(options.seeds):
        for name, (network, training) in plan.items():
            key = dict(zip(KEYS, (prepared.path.resolve().name, str(options.steps), name, str(seed)), strict=True))
            if any(_is(row, key) for row in read(options.results)):
                print(f"{name}, seed {seed}: is there", flush=True)
                continue
            start = time.perf_counter()
            run = options.work / "-".join(key.values())
            model = train(prepared, run, network=network, training=replace(training, seed=seed), progress=False)
            seconds = time.perf_counter() - start
            report = evaluate(model, prepared, options.labels, options.label, limit=options.faces or None, judge=judge)
            row = {"commit": _commit(), "faces": str(report.faces), "seconds": f"{seconds:.0f}"}
            append(options.results, key | row | {name: f"{value:.6g}" for name, value in report.measures.items()})
            options.results.with_suffix(".md").write_text("\n".join(table(read(options.results))) + "\n")
            shutil.rmtree(run)
            print(f"{name}, seed {seed}: trained in {seconds:.0f} s", flush=True)
    print(f"wrote {options.results} and {options.results.with_suffix('.md')}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("ablation", __doc__)
    parser.add_argument("--prepared", type=Path, required=True, help="prepared set with held-out faces")
    parser.add_argument("--labels", type=Path, help="CSV with the columns file, the label's and identity")
    parser.add_argument("--label", default="Smiling", help="label of expression that swaps are judged by")
    parser.add_argument("--verifier", help="sface, dlib or a file of `facemodels train-verifier`")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", metavar="RUNG", help=", ".join(one.name for one in LADDER))
    parser.add_argument("--faces", type=int, default=300, help="held-out faces that are measured; 0 for all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/ablation"), help="directory of unfinished runs")
    parser.add_argument("--results", type=Path, default=RESULTS / "ablation.csv")
    return parser


def read(path: Path) -> list[dict[str, str]]:
    """The finished runs."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, str]) -> None:
    """Add a finished run; the file is replaced as a whole, so that a reader never meets half a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [*read(path), row]
    columns = [*KEYS, "commit", "faces", "seconds", *LINES]
    partial = path.with_suffix(".partial")
    with partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(partial, path)


def table(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    """The runs as tables of Markdown, one for each set and number of steps: mean and standard deviation over seeds."""
    yield "# What each term of the objective brings"
    yield ""
    yield f"Networks of {' x '.join(map(str, CHANNELS))} filters; every rung adds one thing to the one before."
    yield "Mean ± standard deviation over the seeds; written by `python -m benchmarks ablation`."
    for name, steps in dict.fromkeys((row["set"], row["steps"]) for row in rows):
        some = [row for row in rows if (row["set"], row["steps"]) == (name, steps)]
        shown = [measure for measure in SHOWN if any(row.get(measure) for row in some)]
        yield ""
        yield f"## {name}, {steps} steps, {some[0]['faces']} held-out faces"
        yield ""
        yield "| rung | seeds | " + " | ".join(SHOWN[measure] for measure in shown) + " |"
        yield "|" + "---|" * (len(shown) + 2)
        yield "| *target of a full run* | | " + " | ".join(LINES[measure].target for measure in shown) + " |"
        for rung in LADDER:
            runs = [row for row in some if row["rung"] == rung.name]
            if runs:
                cells = [_cell([float(row[measure]) for row in runs if row[measure]]) for measure in shown]
                yield f"| {rung.name} | {len(runs)} | " + " | ".join(cells) + " |"
    yield ""
    yield from (f"- **{rung.name}**: {rung.adds}" for rung in LADDER)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    mean = statistics.fmean(values)
    digits = 1 if abs(mean) >= 3 else 3
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def _is(row: dict[str, str], key: dict[str, str]) -> bool:
    return all(row[name] == value for name, value in key.items())


def _commit() -> str:
    result = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=RESULTS, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
