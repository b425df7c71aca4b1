"""Commands that make what one trains on: `synthesise`, `prepare` and `convert-model`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from facemodels.cli.ending import stop
from facemodels.config import SIZE
from facemodels.errors import InputError


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
        stop(f"interrupted; {out}.partial keeps what is done, and the same command goes on from there")
    print(f"{len(prepared)} faces in {out}" + (", finished before" if finished else ""))


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
        stop(f"interrupted; {out}.partial keeps what is done, and the same command goes on from there")
    done = ", finished before: there was nothing to do" if finished else f" of {prepared.info['photos']} photos"
    print(f"{len(prepared)} faces in {out}{done}; look at {out / 'report.html'}")


def join(
    sets: Annotated[list[Path], typer.Argument(metavar="SET...", help="Prepared sets of one morphable model.")],
    out: Annotated[Path, typer.Option(help="Directory to write the joined set to.")] = Path("joined"),
) -> None:
    """Make one set to train on of several, such as rendered faces of two designs."""
    from facemodels.data.dataset import join_sets

    prepared = join_sets(sets, out)
    print(f"{len(prepared)} faces in {out}")


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
