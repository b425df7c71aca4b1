"""The command line: every command parses, calls its twin in Python and prints."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from facemodels.config import SIZE
from facemodels.errors import InputError, RunError

app = typer.Typer(
    name="facemodels",
    help="Take faces apart into identity, expression, pose and light, and put them together again.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_INTERRUPTED = 130
_RUNS = Path("runs")
_SHIPPED = "facefactors"

Model = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint or run, here or as OWNER/NAME on the Hugging Face hub; by default the newest run, or"
        " facefactors, the network that comes with the package."
    ),
]


def main() -> NoReturn:
    """Run the command line; wrong input, or a run that cannot go on, ends it with one line and status 2."""
    # Before torch loads OpenMP: threads that spin while they wait make a step ten times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except (InputError, RunError) as error:
        print(f"facemodels: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of the page.")] = Path("demo"),
    faces: Annotated[int, typer.Option(min=1000, help="Synthetic faces, a tenth of them held out.")] = 3000,
    minutes: Annotated[float, typer.Option(help="Minutes of training.")] = 5.0,
    workers: Annotated[int, typer.Option(help="Processes that render.")] = 2,
) -> None:
    """Synthesise faces, train on them, edit held-out faces and a photo, and write OUT/index.html."""
    from facemodels.demo import run

    try:
        page = run(out, faces=faces, minutes=minutes, workers=workers)
    except KeyboardInterrupt:
        _stop(f"interrupted; {out} keeps what is done, and the same command goes on from there")
    print(f"look at {page}")


@app.command()
def synthesise(
    out: Annotated[Path, typer.Argument(help="Directory to write the prepared set to.")],
    design: Annotated[
        str,
        typer.Option(help="facefactors: all combinations; wild: random, occluded, spoilt; portraits: random, clean."),
    ] = "facefactors",
    count: Annotated[
        int | None, typer.Option(min=1, help="Number of faces; by default all 10,368 of FaceFactors, else 4000.")
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the persons kept for evaluation.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every face.")] = 0,
    images_per_person: Annotated[int, typer.Option(min=1, help="Faces of the same person, but in FaceFactors.")] = 4,
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels: 64 or 128.")] = SIZE,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
) -> None:
    """Render faces of the built-in model with exact factors; a run that was stopped goes on where it was."""
    from facemodels.data.synthetic import DESIGNS, FACEFACTORS, synthesise_set

    if design not in DESIGNS:
        raise InputError(f"there is no design {design!r}; choose one of {', '.join(DESIGNS)}")
    if design == "facefactors" and count is not None and count > FACEFACTORS:
        raise InputError(f"FaceFactors has {FACEFACTORS} faces, not {count}; the designs wild and portraits have any")
    finished = out.exists()
    try:
        prepared = synthesise_set(
            out,
            design=design,
            count=count,
            held_out=held_out,
            seed=seed,
            images_per_person=images_per_person,
            size=size,
            workers=workers,
        )
    except KeyboardInterrupt:
        _stop(f"interrupted; {out}.partial keeps what is done, and the same command goes on from there")
    print(f"{len(prepared)} faces in {out}" + (", finished before" if finished else ""))


@app.command()
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Folders, zip or tar files, videos, parquet files, Hugging Face datasets (saved, or on the hub).",
        ),
    ],
    morphable_model: Annotated[
        Path | None, typer.Option(help="Morphable model file; by default the built-in model.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory to write the prepared set to.")] = Path("prepared"),
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first photos.")] = None,
    held_out: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the photos, the last ones, kept back.")
    ] = 0.1,
    frame_step: Annotated[int, typer.Option(min=1, help="Of a video, take every so many frames one.")] = 1,
    smooth: Annotated[
        float, typer.Option(min=0, help="Smooth fits of frames over time, so strongly; 10 is a good choice.")
    ] = 0.0,
    mirror: Annotated[bool, typer.Option("--mirror", help="Add each training photo mirrored, fitted anew.")] = False,
    size: Annotated[int, typer.Option(help="Side of the crops in pixels: 64 or 128.")] = SIZE,
    seed: Annotated[int, typer.Option(help="Fixes the draw of other poses.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; each takes about 0.5 GB.")] = 2,
) -> None:
    """Find, align and fit the faces of photos nobody labelled: everything training needs.

    The same command goes on where a run was ended.
    """
    from facemodels.data.prepare import prepare as prepare_photos
    from facemodels.morphable import MorphableModel

    morphable = MorphableModel.load(morphable_model) if morphable_model else MorphableModel.procedural()
    finished = out.exists()
    try:
        prepared = prepare_photos(
            sources,
            out,
            morphable=morphable,
            limit=limit,
            held_out=held_out,
            frame_step=frame_step,
            smoothing=smooth,
            mirror=mirror,
            size=size,
            seed=seed,
            workers=workers,
        )
    except KeyboardInterrupt:
        _stop(f"interrupted; {out}.partial keeps what is done, and the same command goes on from there")
    done = ", finished before: there was nothing to do" if finished else f" of {prepared.info['photos']} photos"
    print(f"{len(prepared)} faces in {out}{done}; look at {out / 'report.html'}")


@app.command("convert-model")
def convert_model(
    source: Annotated[Path, typer.Argument(help="File or folder of a morphable model that you have.")],
    out: Annotated[Path, typer.Argument(help="File to write, ending in .safetensors.")],
    landmarks: Annotated[
        Path | None, typer.Option(help="JSON list of the vertices of the 68 iBUG landmarks, for a mesh we do not know.")
    ] = None,
    blendshapes: Annotated[Path | None, typer.Option(help="Expressions of an eos model, in a second file.")] = None,
) -> None:
    """Convert ICT-FaceKit, the Basel Face Models, FLAME or a model of eos into one documented file."""
    from facemodels.morphable.converters import from_file

    if out.suffix != ".safetensors":
        raise InputError(f"{out} is no name for a model; end it in .safetensors")
    model = from_file(source, landmarks=_vertices(landmarks), blendshapes=blendshapes)
    model.save(out)
    print(
        f"wrote {out}: {model.name}, {model.n_vertices} vertices, {model.n_identity} identity and"
        f" {model.n_expression} expression components; licence: {model.licence}"
    )


def _vertices(path: Path | None) -> list[int] | None:
    if path is None:
        return None
    try:
        vertices = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing or no JSON: {error}") from error
    if not isinstance(vertices, list) or not all(isinstance(vertex, int) for vertex in vertices):
        raise InputError(f"{path} must hold a JSON list of 68 vertex numbers")
    return vertices


@app.command()
def train(
    prepared: Annotated[Path, typer.Argument(help="Prepared set.")],
    preset: Annotated[
        str, typer.Option(help="Sizes and objective: paper, default, small, large, rendered or demo.")
    ] = "small",
    minutes: Annotated[
        float | None, typer.Option(min=0.01, help="Length of the run in minutes; 25 if there is no --steps.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Length of the run in steps.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; by default runs/NAME OF THE SET.")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Faces at once, on each process.")] = None,
    accumulation: Annotated[
        int | None, typer.Option(min=1, help="Batches a step: large steps in little memory.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Peak of the learning rate.")] = None,
    start: Annotated[
        Path | None, typer.Option(help="Model or run whose weights to start from, of the same preset.")
    ] = None,
    adversarial: Annotated[
        bool, typer.Option("--adversarial/--no-adversarial", help="Train with the preset's discriminator.")
    ] = True,
    verifier: Annotated[
        str | None,
        typer.Option(
            help="Network that tells persons apart: sface, dlib or a file of train-verifier; none drops the term."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Fixes weights, order and draws.")] = 0,
    precision: Annotated[str | None, typer.Option(help="bf16, fp16 or no.")] = None,
    sheet_every: Annotated[
        int | None, typer.Option(min=0, help="Steps between sheets and held-out measures; 0 for none.")
    ] = None,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Split the weights among the processes.")] = False,
) -> None:
    """Train a network, or go on with one: the same command goes on where a run stopped.

    Ctrl-C leaves a checkpoint. RUN gets checkpoints, metrics.jsonl, sheets of pictures, and tensorboard/ for
    `tensorboard --logdir RUN`.

    Many processes, on one machine or many: `torchrun --nproc-per-node 4 -m facemodels train ...`, or
    `accelerate launch -m facemodels train ...`.
    """
    import dataclasses

    from facemodels.config import preset as find_preset
    from facemodels.data.dataset import PreparedSet
    from facemodels.parallel import process
    from facemodels.training import end_processes
    from facemodels.training import train as train_network

    network, training = find_preset(preset)
    if precision not in (None, "bf16", "fp16", "no"):
        raise InputError(f"there is no precision {precision!r}; choose bf16, fp16 or no")
    if minutes is None and steps is None:
        minutes = 25.0
    weights = training.weights if adversarial else dataclasses.replace(training.weights, adversarial=0.0)
    changes = {
        "weights": weights,
        "batch": batch,
        "accumulation": accumulation,
        "learning_rate": learning_rate,
        "start": str(start) if start else None,
        "verifier": verifier,
        "precision": precision,
        "sheet_every": sheet_every,
        "steps": steps,
        "minutes": minutes,
        "seed": seed,
    }
    training = dataclasses.replace(training, **{name: value for name, value in changes.items() if value is not None})
    run = out or _RUNS / prepared.resolve().name
    try:
        train_network(PreparedSet(prepared), run, network=network, training=training, shard=fsdp or None)
    except KeyboardInterrupt:
        _stop(f"interrupted; {run} holds a checkpoint, and the same command goes on from there")
    if process() == 0:
        print(f"trained: {run}")
    end_processes()


@app.command()
def train_verifier(
    prepared: Annotated[Path, typer.Argument(help="Set made by `facemodels synthesise`, with many persons.")],
    out: Annotated[Path, typer.Option(help="File of weights to write.")] = Path("verifier.safetensors"),
    epochs: Annotated[int, typer.Option(min=1, help="Times that every face is seen.")] = 12,
    seed: Annotated[int, typer.Option(help="Fixes weights and order.")] = 0,
) -> None:
    """Train a small network to tell rendered persons apart, for those who have no other verification network."""
    import torch

    from facemodels.data.dataset import PreparedSet
    from facemodels.data.synthetic import check_synthetic
    from facemodels.networks.verification import save_small, train_small

    if not out.resolve().parent.is_dir():
        raise InputError(f"the directory of {out} does not exist; make it first")
    faces = PreparedSet(prepared)
    check_synthetic(faces)  # who is on a photo is for evaluation alone
    faces.require_size(SIZE)
    persons = torch.tensor(faces.split("train")["person"][:])
    if len(persons.unique()) < 2:
        raise InputError(f"{prepared} shows fewer than two persons to train on; synthesise more faces")
    try:
        verifier = train_small(faces.faces("train").image, persons, epochs=epochs, seed=seed)
    except KeyboardInterrupt:
        _stop("interrupted; nothing was written")
    save_small(verifier, out)
    print(f"wrote {out}")


@app.command()
def edit(
    source: Annotated[Path, typer.Argument(help="Photo to edit.")],
    target: Annotated[Path, typer.Argument(help="Photo whose factors it takes.")],
    expression: Annotated[bool, typer.Option("--expression", help="Take the expression.")] = False,
    pose: Annotated[bool, typer.Option("--pose", help="Take the pose.")] = False,
    light: Annotated[bool, typer.Option("--light", help="Take the light.")] = False,
    identity: Annotated[bool, typer.Option("--identity", help="Take the identity.")] = False,
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("edit.png"),
) -> None:
    """Exchange factors between two photos and write a labelled picture; without a flag, show each of the four."""
    from facemodels.data.alignment import load_photo
    from facemodels.editing import EDITABLE, to_tensor
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.sheets import edit_sheet

    _check_picture(out)
    network = _load(model)
    chosen = dict(zip(EDITABLE, (expression, pose, light, identity), strict=True))
    factors = [name for name, wanted in chosen.items() if wanted] or list(EDITABLE)
    detector = MediaPipeDetector()
    size = network.config.size
    mine, theirs = (to_tensor(load_photo(path, detector, size=size).crop) for path in (source, target))
    edit_sheet(network, mine, theirs, factors, together=any(chosen.values()) and len(factors) > 1).save(out)
    print(f"wrote {out}")


@app.command()
def evaluate(
    prepared: Annotated[Path, typer.Argument(help="Prepared set.")] = Path("prepared"),
    model: Model = None,
    split: Annotated[str, typer.Option(help="test, train, or all of a set that was not trained on.")] = "test",
    taught_by: Annotated[
        Path | None, typer.Option(help="Set whose split train teaches the judge of swaps; by default the set itself.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns `file`, the label's and, if known, `identity`.")
    ] = None,
    label: Annotated[str, typer.Option(help="Label of expression that swaps are judged by.")] = "Smiling",
    verifier: Annotated[
        str | None,
        typer.Option(help="Who judges whether edits keep the person: sface, dlib, or a file of weights."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Measure at most so many faces, evenly spread.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
) -> None:
    """Measure a network on the held-out split, beside what one trained on photos should reach."""
    from facemodels.data.dataset import PreparedSet
    from facemodels.evaluation.report import evaluate as evaluate_network
    from facemodels.networks.verification import load_verifier

    if split not in ("test", "train", "all"):
        raise InputError(f"there is no split {split!r}; choose test, train or all")
    report = evaluate_network(
        _load(model),
        PreparedSet(prepared),
        labels,
        label,
        split=split,
        teacher=None if taught_by is None else PreparedSet(taught_by),
        verifier=None if verifier is None else load_verifier(verifier),
        limit=limit,
    )
    for line in report.lines():
        print(line)
    if out:
        out.write_text(json.dumps(report.to_dict(), indent=1) + "\n")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint or run, here or as OWNER/NAME on the Hugging Face hub.")],
    out: Annotated[Path, typer.Argument(help="Directory to write to.")],
    cores: Annotated[bool, typer.Option("--cores", help="Keep what only training and the 3D shape need.")] = False,
    pt2: Annotated[
        bool, typer.Option("--pt2", help="Also write encoder.pt2 and decoder.pt2 for torch.export.")
    ] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write encoder.onnx and decoder.onnx.")] = False,
    morphable: Annotated[
        bool,
        typer.Option(
            "--morphable/--no-morphable", help="Put the morphable model beside the cores, if its licence lets you."
        ),
    ] = True,
    report: Annotated[
        Path | None, typer.Option(help="JSON of `facemodels evaluate --out`, whose figures the model card shows.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights, for the model card.")] = None,
    trained_on: Annotated[str | None, typer.Option(help="A sentence about the training data, for the card.")] = None,
) -> None:
    """Write a small copy of a network for inference, in float16, and compare its pictures with the original's."""
    from facemodels.evaluation.report import Report
    from facemodels.export import export as export_network

    facts = {} if report is None else Report.load(report).facts()
    facts |= {"licence": licence, "data_licence": licence} if licence else {}
    facts |= {"training_data": trained_on} if trained_on else {}
    exported = export_network(_load(model), out, cores=cores, pt2=pt2, onnx=onnx, morphable=morphable, facts=facts)
    for line in exported.lines():
        print(line)


@app.command()
def probe(
    labels: Annotated[
        Path, typer.Argument(help="CSV with the columns path, identity, expression, pose; or a prepared FaceFactors.")
    ],
    model: Model = None,
    split: Annotated[str, typer.Option(help="Of a prepared set: all, test or train.")] = "all",
    aligned: Annotated[bool, typer.Option("--aligned", help="The photos are crops of the network's size.")] = False,
    folds: Annotated[int, typer.Option(min=2, help="Parts of the faces, each classified once.")] = 10,
    workers: Annotated[int, typer.Option(min=1, help="Processes that look for faces.")] = 2,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON, too.")] = None,
) -> None:
    """Tell identity, expression and pose from the codes of labelled faces: the paper's Table 1 on your photos."""
    from facemodels.data.dataset import PreparedSet
    from facemodels.evaluation.labelled import labels_of, read_labelled
    from facemodels.evaluation.protocol import run_protocol

    if split not in ("test", "train", "all"):
        raise InputError(f"there is no split {split!r}; choose test, train or all")
    if out and not out.resolve().parent.is_dir():
        raise InputError(f"the directory of {out} does not exist; make it first")
    network = _load(model)
    if labels.is_dir():
        prepared = PreparedSet(labels)
        prepared.require_size(network.config.size)
        faces = labels_of(prepared, split)
    else:
        faces = read_labelled(labels, size=network.config.size, aligned=aligned, workers=workers)
    protocol = run_protocol(network, faces, folds=folds, progress=True)
    for line in protocol.lines():
        print(line)
    if out:
        out.write_text(json.dumps(protocol.to_dict(), indent=1) + "\n")


def _load(model: Path | None):
    from facemodels.autoencoder import NeuroTensorialAutoencoder
    from facemodels.training.checkpoint import newest_run, resolve

    path = model or newest_run(_RUNS)
    if path is None:
        print("facemodels: no run under runs/: taking the network of the package", file=sys.stderr)
        path = Path(_SHIPPED)
    return NeuroTensorialAutoencoder.from_pretrained(resolve(path))


def _check_picture(path: Path) -> None:
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise InputError(f"{path} is no name for a picture; end it in .png or .jpg")
    if not path.resolve().parent.is_dir():
        raise InputError(f"the directory of {path} does not exist; make it first")


def _stop(message: str) -> NoReturn:
    print(f"\nfacemodels: {message}", file=sys.stderr)
    raise typer.Exit(_INTERRUPTED)
