"""Every measure of the face pipeline with its target: `python -m benchmarks faces`.

Always: the speed of fit, normals and light, FaceFactors, and, where it is there, `benchmarks.morphable`. With photos of
CelebA (`--celeba images.zip`, its `labels.csv` beside it) and another morphable model (`--morphable`): the rate and
memory of `facemodels prepare`, and what labels say about the targets. With weights of verification networks
(`--sface`, `--dlib`, `--small`, or an installed package): how well they tell persons apart.

The table is printed and written to benchmarks/results/faces.json with commit and machine.
"""

import argparse
import csv
import datetime
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks.options import command_parser
from facemodels.data.dataset import PreparedSet
from facemodels.data.synthetic import aligned_camera, factors_of, synthesise_set
from facemodels.errors import InputError
from facemodels.evaluation.report import reaches
from facemodels.evaluation.targets import FitReport, judge_fit, judge_targets, person_auc
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.landmarks import POINTS, MediaPipeDetector, canonical_face, find_model
from facemodels.fitting.lighting import mean_albedo, observe, solve_light, surface_samples
from facemodels.fitting.shape import Correspondence, fit
from facemodels.morphable import MorphableModel
from facemodels.networks.verification import Verifier, load_dlib, load_sface, load_small
from facemodels.rendering import matrix_to_euler, project_weak_perspective, render_geometry

Measures = dict[str, tuple[float, str, str]]
"""Value, unit and target ("<= 2", or empty) of each measure by name; NaN where it could not be taken."""

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "faces.json"

NOISE = 0.5
"""Standard deviation in pixels of the crop by which landmarks of rendered faces are disturbed: the detector's error on
photos. Depths get twice as much."""

_BATCH = 64
PARTS = ("model", "speed", "facefactors", "celeba")
_DETECTED = 1000  # photos on which the detector's own rotation is compared
_PERSONS = 1500  # photos whose pairs the verification networks judge


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if "celeba" in (options.only or ()) and options.celeba is None:
        parser.error("--only celeba needs the photos, with --celeba")
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], dict[str, Measures]]] = {
        "model": lambda: {"model and rasteriser": _morphable()},
        "speed": lambda: {"speed, one core": speed()},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        parts["facefactors"] = lambda: facefactors(work / "facefactors", options)
        if options.celeba is not None:
            parts["celeba"] = lambda: {"CelebA": celeba(work / "celeba", options)}
        wanted = {name: part for name, part in parts.items() if not options.only or name in options.only}
        table: dict[str, Measures] = {}
        for part in wanted.values():
            for title, measures in part().items():
                table[title] = measures
                print("\n".join(["", title, *lines(measures)]), flush=True)
    _write(table, options.out)
    missed = [
        name for part in table.values() for name, (value, _, target) in part.items() if not reaches(value, target)
    ]
    print(f"\n{len(missed)} targets missed" + (f": {'; '.join(missed)}" if missed else "") + f"; wrote {options.out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("faces", __doc__)
    parser.add_argument("--celeba", type=Path, help="zip or folder")
    parser.add_argument("--morphable", type=Path, help="model to fit the photos with; by default the built-in one")
    parser.add_argument("--prepared", type=Path, help="set prepared from the photos already; else they are prepared")
    parser.add_argument("--limit", type=int, help="take only so many photos")
    parser.add_argument("--faces", type=int, help="take only so many images of FaceFactors")
    parser.add_argument("--sface", type=Path, help="ONNX file of SFace")
    parser.add_argument("--dlib", type=Path, help="face_recognition_model.bin of face-api")
    parser.add_argument("--small", type=Path, help="file that `facemodels train-verifier` wrote")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, help="folder to keep the sets in, which another run goes on with")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to measure; by default all that can be")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def lines(measures: Measures) -> Iterator[str]:
    """The measures as lines of a table."""
    for name, (value, unit, target) in measures.items():
        verdict = f"{target:>8}  {'reached' if reaches(value, target) else 'MISSED'}" if target else ""
        yield f"  {name:<58}{value:>10.4g} {unit:<11}{verdict}".rstrip()


def speed() -> Measures:
    """Milliseconds of processor time a face of fit, normals and mask, and light, on one core in batches."""
    model = MorphableModel.procedural()
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(512, model.n_identity, generator=generator)
    expression = 0.5 * torch.randn(512, model.n_expression, generator=generator)
    angles = 0.2 * torch.randn(512, 3, generator=generator)
    match = mediapipe_correspondence(model)
    landmarks = _landmarks(model, match, identity, expression, angles, torch.zeros(512, 3))
    fits = fit(landmarks, model, match)
    some = fits[:_BATCH]
    vertices = model.vertices(some.identity, some.expression)

    def geometry() -> tuple[torch.Tensor, torch.Tensor]:
        return render_geometry(vertices, model.triangles, model.face, some.rotation, some.scale, some.shift, close=7)

    normals, _ = geometry()
    images = torch.randint(256, (_BATCH, 64, 64, 3), generator=generator).to(torch.uint8)
    samples = surface_samples(model)
    albedo = mean_albedo(observe(images, normals, vertices, some, model, samples))

    def light() -> torch.Tensor:
        return solve_light(observe(images, normals, vertices, some, model, samples), albedo)

    return {
        "fit": (_milliseconds(lambda: fit(landmarks, model, match)) / 512, "ms a face", "<= 2"),
        "normals and mask": (_milliseconds(geometry) / _BATCH, "ms a face", "<= 8"),
        "light": (_milliseconds(light) / _BATCH, "ms a face", "<= 6"),
    }


def facefactors(folder: Path, options: argparse.Namespace) -> dict[str, Measures]:
    """Making FaceFactors, and fitting its held-out persons: from the detector's landmarks and from the true ones."""
    known = folder.exists()
    start = time.perf_counter()
    prepared = synthesise_set(folder, design="facefactors", count=options.faces, workers=options.workers)
    seconds = time.perf_counter() - start
    measures: Measures = {"images": (len(prepared), "", "")}
    if not known:
        measures["time to make them"] = (seconds / 60, "minutes", "<= 10")
    split = "test" if "test" in set(prepared.table["split"][:]) else "train"
    rows = prepared.split(split)
    factors = factors_of(prepared, split)
    model = prepared.morphable
    identity, expression, angles, framing = (
        torch.from_numpy(np.stack([getattr(one, name) for one in factors])).float()
        for name in ("identity", "expression", "angles", "framing")
    )
    rotation = torch.tensor(np.asarray(rows["rotation"][:])).float().unflatten(1, (3, 3))
    match = mediapipe_correspondence(model)
    points = _landmarks(model, match, identity, expression, angles, framing)
    noise = torch.randn(points.shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 2.0])
    report = judge_fit(fit(points + NOISE * noise, model, match), rotation, identity, expression)
    parts = {f"FaceFactors, fits of true landmarks with {NOISE} px of noise": _fit_measures(report)}
    detector = _detector()
    if detector is not None:
        ahead = list(range(0, len(rows), 4))  # one light of the four
        found = [_detected(detector, np.asarray(rows[number]["image"])) for number in ahead]
        seen = [number for number, points in zip(ahead, found, strict=True) if points is not None]
        measures["detector finds a face"] = (100 * len(seen) / len(ahead), "%", "")
        points = torch.from_numpy(np.stack([one for one in found if one is not None]))
        report = judge_fit(fit(points, model, match), rotation[seen], identity[seen], expression[seen])
        parts["FaceFactors, fits of detected landmarks"] = _fit_measures(report)
    images = np.stack([np.asarray(row["image"]) for row in rows.select_columns(["image"])])
    measures |= _verification(options, images, np.array([one.person for one in factors]))
    return {"FaceFactors": measures, **parts}


def _fit_measures(report: FitReport) -> Measures:
    measures: Measures = {
        "rotation error, median": (report.rotation, "degrees", "<= 2"),
        "  without the turn that all fits share": (report.steady_rotation, "degrees", ""),
        "yaw correlation": (report.yaw_correlation, "", ""),
    }
    for what, found in (("expression", report.expression), ("identity", report.identity)):
        known = found[~np.isnan(found)]
        measures[f"{what} correlation, median of {len(known)} components"] = (
            float(np.median(known)) if len(known) else math.nan,
            "",
            "",
        )
    best = np.sort(np.nan_to_num(report.identity))[::-1]
    for count in (10, 30, 100):
        measures[f"  of the {count} identity components told best, mean"] = (float(best[:count].mean()), "", "")
    named = zip(MorphableModel.procedural().expression_names, report.expression, strict=True)
    return measures | {f"  {name}": (float(value), "", "") for name, value in named}


def celeba(folder: Path, options: argparse.Namespace) -> Measures:
    """Preparing photos, and what labels say about their targets."""
    measures: Measures = {}
    path = options.prepared or folder
    if not (path / "preparation.json").exists():
        seconds, memory = _prepare(path, options)
        photos = PreparedSet(path).info["photos"]
        measures["time to prepare"] = (seconds / 60, "minutes", "<= 10")
        measures["photos a second"] = (photos / seconds, "", "")
        measures["peak memory of all processes"] = (memory / 1e9, "GB", "<= 3")
    prepared = PreparedSet(path)
    photos = prepared.info["photos"]
    table = prepared.table
    if "mirrored" in table.column_names:
        table = table.select([number for number, value in enumerate(table["mirrored"][:]) if not value])
    with (path / "rejects.csv").open(newline="") as file:
        unseen = sum("no face found" in row["reason"] for row in csv.DictReader(file))
    measures["fitted"] = (100 * (photos - unseen) / photos, "%", ">= 99")
    measures["fitted and kept"] = (100 * len(table) / photos, "%", "")
    quality = np.asarray(table["quality"][:])
    measures["landmark error, root mean square"] = (float(np.sqrt(np.mean(quality**2))), "px of 89", "<= 0.8")
    labels = options.celeba.parent / "labels.csv"
    names = [Path(name).name for name in table["name"][:]]
    if labels.exists():
        with labels.open(newline="") as file:
            known = {row["file"]: row for row in csv.DictReader(file)}
        smiling = np.array([known[name]["Smiling"] == "1" for name in names])
        persons = np.array([int(known[name]["identity"]) for name in names])
        identity, expression = np.asarray(table["identity"][:]), np.asarray(table["expression"][:])
        report = judge_targets(identity, expression, smiling, persons)
        measures |= {
            "smile from identity": (report.smile_from_identity, "accuracy", "<= 0.65"),
            "smile from expression": (report.smile_from_expression, "accuracy", ">= 0.88"),
            f"person from identity, {report.pairs} pairs": (report.person_auc, "AUC", ">= 0.73"),
        }
    detector = _detector()
    some = table.select(range(min(_PERSONS, len(table))))
    images = np.stack([np.asarray(row["image"]) for row in some.select_columns(["image"])])
    if detector is not None:
        rotations = torch.tensor(np.asarray(some["rotation"][:])).unflatten(1, (3, 3))
        fitted = matrix_to_euler(rotations)[0].numpy()[:_DETECTED]
        seen = [_own_yaw(detector, image) for image in images[:_DETECTED]]
        pairs = np.array([(ours, theirs) for ours, theirs in zip(fitted, seen, strict=True) if theirs is not None])
        measures["yaw correlation with MediaPipe"] = (float(np.corrcoef(pairs.T)[0, 1]), "", ">= 0.99")
    if labels.exists():
        measures |= _verification(options, images, persons[: len(images)])
    return measures


def _prepare(path: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak memory in bytes, over all its processes, of `facemodels prepare`."""
    command = [sys.executable, "-m", "facemodels", "prepare", options.celeba, "--out", path]
    command += ["--workers", options.workers]
    command += ["--morphable-model", options.morphable] if options.morphable else []
    command += ["--limit", options.limit] if options.limit else []
    start, peak = time.perf_counter(), 0
    process = psutil.Popen(list(map(str, command)))
    while process.poll() is None:
        peak = max(peak, _memory(process))
        time.sleep(0.2)
    if process.returncode:
        raise InputError(f"preparing {options.celeba} ended with status {process.returncode}")
    return time.perf_counter() - start, peak


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def _verification(options: argparse.Namespace, images: np.ndarray, persons: np.ndarray) -> Measures:
    """AUC of every verification network whose weights are at hand."""
    measures: Measures = {}
    crops = torch.from_numpy(images).movedim(3, 1)
    for load, path in ((load_sface, options.sface), (load_dlib, options.dlib), (load_small, options.small)):
        try:
            verifier = load(path)
        except InputError:
            if path is not None:
                raise
            continue
        embedded = _embedded(verifier, crops)
        auc = person_auc(embedded, persons, centre=False)
        measures[f"persons by {verifier.facts.name}, {len(images)} images"] = (auc, "AUC", "")
    return measures


@torch.no_grad()
def _embedded(verifier: Verifier, crops: torch.Tensor) -> np.ndarray:
    return torch.cat([verifier.embed(part.float() / 255) for part in crops.split(_BATCH)]).numpy()


def _detector() -> MediaPipeDetector | None:
    try:
        return MediaPipeDetector()
    except InputError:
        return None


def _landmarks(
    model: MorphableModel,
    match: Correspondence,
    identity: torch.Tensor,
    expression: torch.Tensor,
    angles: torch.Tensor,
    framing: torch.Tensor,
) -> torch.Tensor:
    """Where landmarks of faces of the procedural model lie in their crops, as a perfect detector would say."""
    landmarks = torch.zeros(len(identity), POINTS, 3)
    for rows in torch.arange(len(identity)).split(_BATCH):
        vertices = model.vertices(identity[rows], expression[rows])
        rotation, scale, shift = aligned_camera(vertices, angles[rows], framing[rows])
        screen = project_weak_perspective(vertices[:, match.vertices], rotation, scale, shift)
        screen[..., 2] *= scale[:, None]
        landmarks[rows[:, None], match.points] = screen
    return landmarks


def _detected(detector: MediaPipeDetector, image: np.ndarray) -> np.ndarray | None:
    landmarks = detector.detect(image)
    return None if landmarks is None else landmarks.points.astype(np.float32)


def _own_yaw(detector: MediaPipeDetector, image: np.ndarray) -> float | None:
    """Yaw by MediaPipe itself: the rotation that takes its canonical face to its landmarks."""
    points = _detected(detector, image)
    if points is None:
        return None
    source = torch.from_numpy(canonical_face(find_model())).double()
    target = torch.from_numpy(points[: len(source)]).double() * torch.tensor([1.0, -1.0, -1.0])
    left, _, right = torch.linalg.svd((target - target.mean(0)).T @ (source - source.mean(0)))
    turn = left @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(left @ right).sign())]).double()) @ right
    return float(matrix_to_euler(turn[None])[0])


def _morphable() -> Measures:
    """What `benchmarks.morphable` measures, where it is there."""
    if importlib.util.find_spec("benchmarks.morphable") is None:
        return {}
    return importlib.import_module("benchmarks.morphable").measure()


def _milliseconds(function: Callable[[], Any], repeats: int = 7) -> float:
    """Processor time of a call on one thread, median: what a clock shows on a machine that does nothing else."""
    function()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1e3 * float(np.median(times))


def _write(table: dict[str, Measures], out: Path) -> None:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    record = {
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.date.today().isoformat(),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "torch": torch.__version__,
        "measures": {
            part: {
                name.strip(): {
                    "value": None if math.isnan(value) else value,
                    "unit": unit,
                    "target": target,
                    "reached": reaches(value, target),
                }
                for name, (value, unit, target) in measures.items()
            }
            for part, measures in table.items()
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(record, indent=1) + "\n")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
