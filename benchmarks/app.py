"""How long a change on the page of `facemodels app` takes, without the browser: `python -m benchmarks app`.

    python -m benchmarks app                   a network of the preset `small`, not trained: it takes as long as others
    python -m benchmarks app --model DIRECTORY a trained one
    python -m benchmarks app --out FILE        somewhere else than results/app.json

Each line is the median of a few runs in milliseconds: wall clock, and processor time of all threads. The record of each
machine goes to benchmarks/results/app.json, with the load average: wall clocks of a busy machine say little.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.options import command_parser
from facemodels.app import markup
from facemodels.app.examples import examples
from facemodels.app.studio import Settings, Studio
from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.config import preset
from facemodels.editing import to_tensor
from facemodels.expressions import NamedExpressions
from facemodels.fitting.landmarks import MediaPipeDetector
from facemodels.morphable import MorphableModel

RUNS = 7
RESULTS = results.RESULTS / "app.json"


def main(arguments: list[str] | None = None) -> int:
    parser = command_parser("app", __doc__)
    parser.add_argument("--model", type=Path, help="checkpoint")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    if options.model:
        model = NeuroTensorialAutoencoder.from_pretrained(options.model)
    else:
        model = NeuroTensorialAutoencoder(preset("small")[0], MorphableModel.procedural()).eval()
    directions = torch.ones(1, model.config.expression)
    studio = Studio(model, MediaPipeDetector(), NamedExpressions(("smile",), directions))
    found = {}
    for name, (wall, processor) in measure(studio, options.runs):
        print(f"{name:44} {wall:7.0f} ms wall {processor:7.0f} ms processor", flush=True)
        found[name] = {"wall_ms": round(wall, 1), "processor_ms": round(processor, 1)}
    now = results.Conditions.now(device="cpu", threads=torch.get_num_threads(), dtype="float32")
    records = json.loads(options.out.read_text()) if options.out.exists() else {}
    records[results.device_name("cpu")] = {
        "network": "small, not trained" if options.model is None else options.model.name,
        "torch": now.torch,
        "date": now.timestamp[:10],
        "commit": now.commit,
        "threads": now.threads,
        "load": now.load,
        "measures": found,
    }
    options.out.write_text(json.dumps(records, indent=1) + "\n")
    return 0


def measure(studio: Studio, runs: int) -> Iterator[tuple[str, tuple[float, float]]]:
    """Milliseconds, wall and processor, of everything that an event of the page does."""
    first, second = (str(path) for path in examples()[:2])
    mine, theirs = studio.read(first, "A"), studio.read(second, "B")
    settings = Settings({"expression": 0.5, "light": 0.3}, yaw=10.0, expressions={"smile": 0.1})
    before = to_tensor(mine.photo.crop)[0]

    def slide() -> None:
        edit = studio.edit(mine, theirs, settings)
        markup.faces(before, edit.image[0])
        markup.tiles(studio.parts(edit, settings))

    def slide_in_photo() -> None:
        edit = studio.edit(mine, theirs, settings)
        markup.photo(studio.in_photo(mine, edit))
        markup.tiles(studio.parts(edit, settings))

    yield "a slider moves", clock(slide, runs)
    yield "a slider moves, the whole photo is shown", clock(slide_in_photo, runs)
    yield "the mesh follows", clock(lambda: studio.mesh(studio.edit(mine, theirs, settings)), runs)
    yield "another photo is read", clock(lambda: studio.read(first, "A"), runs)


def clock(run: Callable[[], object], runs: int) -> tuple[float, float]:
    """Medians in milliseconds; a first run is not counted."""
    run()
    times = []
    for _ in range(runs):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    wall, processor = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    return wall, processor


if __name__ == "__main__":
    sys.exit(main())
