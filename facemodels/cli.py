"""The command line: every command parses, calls its twin in Python and prints."""

import itertools
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

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

_PARTLY, _INTERRUPTED = 1, 130
_SHOWN = 12  # rows of a sheet
_RUNS = Path("runs")
_SHIPPED = "facefactors"
_PASTED = 192  # pixels of a face in a strip or film of pasted steps

Model = Annotated[
    Path | None,
    typer.Option(
        help="Checkpoint or run, here or as OWNER/NAME on the Hugging Face hub; by default the newest run, or"
        " facefactors, the network that comes with the package."
    ),
]

Expression = Annotated[bool, typer.Option("--expression", help="Take the expression.")]
Pose = Annotated[bool, typer.Option("--pose", help="Take the pose.")]
Light = Annotated[bool, typer.Option("--light", help="Take the light.")]
Identity = Annotated[bool, typer.Option("--identity", help="Take the identity.")]
Face = Annotated[int, typer.Option(min=1, help="Which face of the photo: 1 is the largest, 2 the next smaller one.")]
TargetFace = Annotated[int, typer.Option(min=1, help="The same of the target.")]


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
    targets: Annotated[
        list[Path], typer.Argument(metavar="TARGET...", help="Photos whose factors it takes, or folders of photos.")
    ],
    expression: Expression = False,
    pose: Pose = False,
    light: Light = False,
    identity: Identity = False,
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("edit.png"),
    paste: Annotated[
        bool, typer.Option("--paste", help="Also put each edit back into the whole photo, in files beside OUT.")
    ] = False,
    detail: Annotated[
        float,
        typer.Option(min=0, max=1, help="How much of its own detail the photo keeps in --paste, where nothing moves."),
    ] = 1.0,
    baseline: Annotated[
        bool, typer.Option("--baseline", help="Show beside each edit what the morphable model alone makes of it.")
    ] = False,
    face: Face = 1,
    target_face: TargetFace = 1,
) -> None:
    """Give a photo factors of others and write a labelled picture with a row for each of them.

    Without a flag it shows each of the four; with several also all of them together, and --paste takes that. Targets
    that cannot be used are named and left out, and the status is then 1.
    """
    from facemodels.baselines.morphable_edit import MORPHABLE_EDITABLE, fit_faces, morphable_edit
    from facemodels.data.loading import Failure, load_photos
    from facemodels.editing import edit_photo, to_tensor, transfer
    from facemodels.figures import check_picture, save_picture
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.pasting import write_pasted
    from facemodels.reconstruction import morphable_of
    from facemodels.sheets import photo_edits_sheet

    check_picture(out)
    network, detector = _load(model), MediaPipeDetector()
    size = network.config.size
    photo = _photo(source, detector, size, face)
    factors, asked = _factors(expression, pose, light, identity)
    edits = {name: [name] for name in factors} | ({"together": factors} if asked and len(factors) > 1 else {})
    crop = to_tensor(photo.crop)
    own = transfer(network, crop, crop, [])
    morphable = morphable_of(network) if baseline else None
    fitted = fit_faces([photo], morphable) if morphable else None
    edited, baselines, failed = [], [], []
    alone = len(targets) == 1 and not targets[0].is_dir()
    for target in _noted(load_photos(targets, detector, size=size, face=target_face), target_face, "--target-face"):
        if isinstance(target, Failure):
            if alone:
                raise InputError(target.reason)
            _name_failure(target, failed)
            continue
        one = edit_photo(network, own, target, edits)
        edited.append(one)
        if morphable and fitted:
            donor = fit_faces([target], morphable)
            known: list[Any] = [name for name in factors if name in MORPHABLE_EDITABLE]
            baselines.append({name: morphable_edit(fitted, donor, name, morphable)[0] for name in known})
        for label in (["together"] if "together" in edits else factors) if paste else []:
            print(f"wrote {write_pasted(photo, one, label, own, out, detail=detail, number=len(edited))}")
    _check_some(edited, failed, "targets")
    save_picture(photo_edits_sheet(crop[0], own.image[0], edited, baselines), out)
    print(f"wrote {out}")
    _end_batch(edited, failed, "targets")


@app.command()
def interpolate(
    source: Annotated[Path, typer.Argument(help="Photo to start from.")],
    target: Annotated[Path, typer.Argument(help="Photo whose factors are approached.")],
    expression: Expression = False,
    pose: Pose = False,
    light: Light = False,
    identity: Identity = False,
    model: Model = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures from one to the other; 11 are 0.1 apart.")] = 11,
    out: Annotated[Path, typer.Option(help="Picture to write, a row a factor; or .gif or .mp4, which moves.")] = Path(
        "interpolation.png"
    ),
    rate: Annotated[float, typer.Option(min=0.1, max=50, help="Pictures a second of what moves.")] = 10.0,
    paste: Annotated[
        bool, typer.Option("--paste", help="Show the steps pasted into the photo, not the network's small pictures.")
    ] = False,
    face: Face = 1,
    target_face: TargetFace = 1,
) -> None:
    """Move one factor after the other from a photo to another; without a flag each of the four."""
    from facemodels.editing import interpolate as interpolate_faces
    from facemodels.editing import to_tensor
    from facemodels.figures import check_picture, save_picture
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.movies import MOVIE_SUFFIXES, write_movie
    from facemodels.pasting import enlarged
    from facemodels.sheets import pasted_steps, steps_frames, steps_sheet

    check_picture(out, sorted(MOVIE_SUFFIXES))
    network, detector = _load(model), MediaPipeDetector()
    size = network.config.size
    mine = _photo(source, detector, size, face)
    theirs = _photo(target, detector, size, target_face, "--target-face")
    factors, _ = _factors(expression, pose, light, identity)
    if paste:
        mine, theirs = enlarged(mine, _PASTED), enlarged(theirs, _PASTED)
        ends = to_tensor(mine.photo), to_tensor(theirs.photo)
        moving = {name: pasted_steps(network, mine, theirs, name, steps) for name in factors}
    else:
        ends = to_tensor(mine.crop), to_tensor(theirs.crop)
        moving = {name: interpolate_faces(network, *ends, name, steps) for name in factors}
    zoom = 1 if paste else 2
    if out.suffix.lower() in MOVIE_SUFFIXES:
        write_movie(out, steps_frames(ends[0][0], moving, ends[1][0], zoom), rate)
    else:
        save_picture(steps_sheet(ends[0][0], moving, ends[1][0], zoom), out)
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
def report(
    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint or run, here or on the hub; by default the newest run.")
    ] = None,
    prepared: Annotated[
        Path | None, typer.Option(help="Prepared set to measure on; by default FaceFactors is rendered.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with the columns `file` and any of `identity`, `expression`, `pose` and `light`."),
    ] = None,
    label: Annotated[str, typer.Option(help="Column that stands in for `expression`.")] = "Smiling",
    split: Annotated[str, typer.Option(help="test, train, or all of a set that was not trained on.")] = "test",
    limit: Annotated[
        int, typer.Option(min=0, help="Measure at most so many faces, evenly spread; 0 for all of them.")
    ] = 2000,
    taught_by: Annotated[
        Path | None, typer.Option(help="Set whose split train the baselines learn from; by default the set itself.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Adversarial autoencoder that `train-baseline` has trained.")
    ] = None,
    baseline_steps: Annotated[
        int, typer.Option(min=0, help="Steps to train one for where none is given; 0 goes without.")
    ] = 600,
    verifier: Annotated[
        str | None,
        typer.Option(help="Who judges whether edits keep the person: sface, dlib, or a file of weights."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes pairs and folds.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
    out: Annotated[Path, typer.Option(help="Directory of the page.")] = Path("report"),
) -> None:
    """Write OUT/index.html: every figure and table of the paper for a network, beside the baselines."""
    from facemodels.data.dataset import PreparedSet
    from facemodels.evaluation.page import ReportSettings
    from facemodels.evaluation.page import report as write_report
    from facemodels.networks.verification import load_verifier

    if split not in ("test", "train", "all"):
        raise InputError(f"there is no split {split!r}; choose test, train or all")
    network = _load(model)
    try:
        page = write_report(
            network,
            out,
            None if prepared is None else PreparedSet(prepared),
            ReportSettings(split=split, limit=limit or None, label=label, steps=baseline_steps, seed=seed),
            name=_name(model),
            labels=labels,
            teacher=None if taught_by is None else PreparedSet(taught_by),
            z0=baseline,
            verifier=None if verifier is None else load_verifier(verifier),
            workers=workers,
        )
    except KeyboardInterrupt:
        _stop(f"interrupted; {out} keeps what the baselines have learnt, and the same command goes on from there")
    print(f"look at {page}")


@app.command("train-baseline")
def train_baseline(
    prepared: Annotated[Path, typer.Argument(help="Prepared set; its split train is learnt from.")],
    out: Annotated[Path, typer.Option(help="File of weights to write.")] = Path("z0.safetensors"),
    steps: Annotated[int, typer.Option(min=1, help="Length of the training.")] = 3000,
    batch: Annotated[int, typer.Option(min=2, help="Faces at once.")] = 32,
    seed: Annotated[int, typer.Option(min=0, help="Fixes weights, order and draws.")] = 0,
) -> None:
    """Train the adversarial autoencoder Z0 that the paper compares its codes with.

    The same command goes on where a run was ended.
    """
    from facemodels.baselines import AdversarialConfig, train_adversarial
    from facemodels.data.dataset import PreparedSet

    faces = PreparedSet(prepared)
    config = AdversarialConfig(size=faces.size, steps=steps, batch=batch, seed=seed)
    try:
        train_adversarial(faces, out, config)
    except KeyboardInterrupt:
        _stop(f"interrupted; {out} keeps what is done, and the same command goes on from there")
    print(f"wrote {out}")


@app.command()
def animate(
    video: Annotated[Path, typer.Argument(help="Video of somebody who makes faces; its sound is not kept.")],
    template: Annotated[Path, typer.Argument(help="Photo that makes them, too.")],
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Film to write: .mp4, .mov, .mkv, .webm or .gif.")] = Path("animation.mp4"),
    pose: Pose = False,
    smooth: Annotated[float, typer.Option(min=0, help="Smooth over time, so strongly; 10 is a good choice.")] = 0.0,
    paste: Annotated[
        bool, typer.Option("--paste", help="Write the whole photo with its animated face, alone and in full size.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first frames.")] = None,
    face: Annotated[int, typer.Option(min=1, help="Which face of the video to follow; 1 is the largest.")] = 1,
    template_face: Annotated[int, typer.Option(min=1, help="Which face of the photo; 1 is the largest.")] = 1,
) -> None:
    """Give a photo the expression of every frame of a video, beside the video and the photo warped to its landmarks.

    Frames without a face hold the last expression. A video that breaks off is used as far as it can be read, and the
    status is then 1.
    """
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.movies import check_movie
    from facemodels.video import animate as animate_photo

    check_movie(out)
    network, detector = _load(model), MediaPipeDetector()
    photo = _photo(template, detector, network.config.size, template_face, "--template-face")
    try:
        animation = animate_photo(
            network,
            video,
            photo,
            out,
            detector,
            pose=pose,
            smooth=smooth,
            face=face,
            whole=paste,
            limit=limit,
            progress=True,
        )
    except KeyboardInterrupt:
        _stop("interrupted; nothing was written")
    for line in animation.lines():
        print(line)
    if animation.broken:
        raise typer.Exit(_PARTLY)


@app.command()
def reconstruct(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTO...", help="Photos, or folders of photos.")],
    model: Model = None,
    out: Annotated[Path, typer.Option(help="Directory of the meshes; made if it does not exist.")] = Path("meshes"),
    formats: Annotated[
        list[str] | None, typer.Option("--format", help="glb (also without this), obj or ply; again for a second one.")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="stream, coefficients or fit (to landmarks); again for a second one; by default all there are."
        ),
    ] = None,
    albedo: Annotated[
        bool, typer.Option("--albedo", help="The network's colours, free of light, instead of the photo's.")
    ] = False,
    detail: Annotated[int, typer.Option(min=32, max=4096, help="Side of the texture in pixels.")] = 512,
    turntable: Annotated[
        str | None, typer.Option(help="Also show each mesh from side to side: gif, mp4 (films), or png (a strip).")
    ] = None,
    face: Face = 1,
) -> None:
    """Make 3D meshes of the faces in photos, in mm (GLB in metres), and a picture of all of them.

    Photos that cannot be used are named and left out, and the status is then 1.
    """
    from facemodels.data.loading import Failure, load_photos
    from facemodels.figures import save_picture
    from facemodels.files import make_folder
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.mesh import FORMATS
    from facemodels.reconstruction import SHAPES, check_shapes, morphable_of
    from facemodels.reconstruction import reconstruct as reconstruct_photo
    from facemodels.sheets import reconstruction_sheet, write_turntable

    formats = formats or ["glb"]
    _check_choices("format", formats, [ending.lstrip(".") for ending in FORMATS])
    _check_choices("shape", shape or [], SHAPES)
    _check_choices("turntable", [turntable or "gif"], ("gif", "mp4", "png"))
    network = _load(model)
    check_shapes(network, shape or [])
    detector = MediaPipeDetector()
    make_folder(out)
    done, failed, taken = [], [], set()
    for photo in _noted(load_photos(photos, detector, size=network.config.size, face=face), face, "--face"):
        if isinstance(photo, Failure):
            _name_failure(photo, failed)
            continue
        one = reconstruct_photo(network, photo, detail=detail, from_photo=not albedo, wanted=shape)
        name = _new_name(Path(photo.name).stem, taken)
        for kind, mesh in one.meshes.items():
            files = [mesh.save(out / f"{name}-{kind}.{ending}")[-1] for ending in formats]
            if turntable:
                files.append(write_turntable(mesh, out / f"{name}-{kind}-turntable.{turntable}"))
            print("wrote " + ", ".join(map(str, files)), flush=True)
        done.append(one)
    _check_some(done, failed, "photos")
    save_picture(reconstruction_sheet(done[:_SHOWN], morphable_of(network)), out / "reconstruction.png")
    print(f"wrote {out / 'reconstruction.png'}")
    _end_batch(done, failed, "photos")


@app.command("app")
def play(
    model: Model = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; by default the first free one from 7860 on.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Show the page in the browser.")] = True,
) -> None:
    """Edit faces in the browser, with sliders; photos stay on this machine and are not kept."""
    import signal
    from threading import Event

    from facemodels.app import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service that is stopped keeps no photos, either
    network = _load(model)
    print("starting the page; it takes some seconds", flush=True)
    with serve(network, host=host, port=port, open_browser=open_browser) as address:
        print(f"the page is at {address} until you press Ctrl-C", flush=True)
        try:
            Event().wait()
        except KeyboardInterrupt:
            print("\nended; nothing was kept")


def _check_choices(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"there is no {what} {name!r}; choose one of {', '.join(known)}")


def _name_failure(failure: Any, failed: list[Any]) -> None:
    """Say why a photo of many is left out; the others go on."""
    print(f"facemodels: {failure.reason}", file=sys.stderr)
    failed.append(failure)


def _check_some(done: Sequence[Any], failed: Sequence[Any], what: str) -> None:
    if not done:
        raise InputError(f"none of the {len(failed)} {what} can be used; each was named above")


def _end_batch(done: Sequence[Any], failed: Sequence[Any], what: str) -> None:
    """Status 1 if some of many were left out."""
    if failed:
        print(f"{len(failed)} of {len(failed) + len(done)} {what} were left out", file=sys.stderr)
        raise typer.Exit(_PARTLY)


def _new_name(name: str, taken: set[str]) -> str:
    """The name, or with the first number that makes it new."""
    new = next(one for one in itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2))) if one not in taken)
    taken.add(new)
    return new


def _load(model: Path | None):
    from facemodels.autoencoder import NeuroTensorialAutoencoder
    from facemodels.training.checkpoint import newest_run, resolve

    path = model or newest_run(_RUNS)
    if path is None:
        print("facemodels: no run under runs/: taking the network of the package", file=sys.stderr)
        path = Path(_SHIPPED)
    return NeuroTensorialAutoencoder.from_pretrained(resolve(path))


def _name(model: Path | None) -> str:
    """What a network is called: its directory, or that of its run."""
    if model is None:
        return "the newest run"
    place = model.resolve()
    return place.parent.name if place.name == "model" or place.name.startswith("checkpoint-") else place.name


def _factors(expression: bool, pose: bool, light: bool, identity: bool) -> tuple[list[str], bool]:
    """The factors to take, all without a flag, and whether there was one."""
    from facemodels.editing import EDITABLE

    flags = dict(zip(EDITABLE, (expression, pose, light, identity), strict=True))
    return [name for name, wanted in flags.items() if wanted] or list(EDITABLE), any(flags.values())


def _photo(path: Path, detector: Any, size: int, face: int, option: str = "--face") -> Any:
    """The aligned photo."""
    from facemodels.data.alignment import load_photo

    return next(_noted(iter([load_photo(path, detector, size=size, face=face)]), face, option))


def _noted(photos: Iterator[Any], face: int, option: str) -> Iterator[Any]:
    """Photos as they come; that one shows other faces, too, is said on the standard error."""
    from facemodels.data.loading import Failure

    for photo in photos:
        if not isinstance(photo, Failure) and face == 1 and photo.landmarks.faces > 1:
            count = photo.landmarks.faces
            print(f"{photo.name} shows {count} faces; the largest is taken, {option} takes another", file=sys.stderr)
        yield photo


def _stop(message: str) -> NoReturn:
    print(f"\nfacemodels: {message}", file=sys.stderr)
    raise typer.Exit(_INTERRUPTED)
