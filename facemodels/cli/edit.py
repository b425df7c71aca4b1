"""Commands that change faces in photos and videos: `edit`, `interpolate` and `animate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from facemodels.cli.ending import PARTLY, stop
from facemodels.cli.networks import load_network
from facemodels.cli.options import Expression, Face, Identity, Light, Model, Pose, Refine, TargetFace, wanted_factors
from facemodels.cli.photos import aligned, check_some, end_batch, name_failure, noted
from facemodels.errors import InputError

_PASTED = 192  # pixels of a face in a strip or film of pasted steps


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
    refine: Refine = 0,
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
    from facemodels.editing import decode_edit, edit_photo, to_tensor
    from facemodels.editing import refine as refined
    from facemodels.figures import check_picture, save_picture
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.pasting import write_pasted
    from facemodels.reconstruction import morphable_of
    from facemodels.sheets import photo_edits_sheet

    check_picture(out)
    factors, asked = wanted_factors(expression, pose, light, identity)
    if baseline and not set(factors) & set(MORPHABLE_EDITABLE):
        raise InputError("a morphable model cannot lend an identity; leave out --baseline, or ask for another factor")
    network, detector = load_network(model), MediaPipeDetector()
    size = network.config.size
    photo = aligned(source, detector, size, face)
    edits = {name: [name] for name in factors} | ({"together": factors} if asked and len(factors) > 1 else {})
    crop = to_tensor(photo.crop)
    own = decode_edit(network, refined(network, crop, refine))
    morphable = morphable_of(network) if baseline else None
    fitted = fit_faces([photo], morphable) if morphable else None
    edited, baselines, failed = [], [], []
    alone = len(targets) == 1 and not targets[0].is_dir()
    for target in noted(load_photos(targets, detector, size=size, face=target_face), target_face, "--target-face"):
        if isinstance(target, Failure):
            if alone:
                raise InputError(target.reason)
            name_failure(target, failed)
            continue
        one = edit_photo(network, own, target, edits)
        edited.append(one)
        if morphable and fitted:
            donor = fit_faces([target], morphable)
            known: list[Any] = [name for name in factors if name in MORPHABLE_EDITABLE]
            baselines.append({name: morphable_edit(fitted, donor, name, morphable)[0] for name in known})
        for label in (["together"] if "together" in edits else factors) if paste else []:
            print(f"wrote {write_pasted(photo, one, label, own, out, detail=detail, number=len(edited))}")
    check_some(edited, failed, "targets")
    save_picture(photo_edits_sheet(crop[0], own.image[0], edited, baselines), out)
    print(f"wrote {out}")
    end_batch(edited, failed, "targets")


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
    refine: Refine = 0,
    face: Face = 1,
    target_face: TargetFace = 1,
) -> None:
    """Move one factor after the other from a photo to another; without a flag each of the four."""
    from facemodels.editing import interpolate as interpolate_faces
    from facemodels.editing import refine as refined
    from facemodels.editing import to_tensor
    from facemodels.figures import check_picture, save_picture
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.movies import MOVIE_SUFFIXES, write_movie
    from facemodels.pasting import enlarged
    from facemodels.sheets import pasted_steps, steps_frames, steps_sheet

    check_picture(out, sorted(MOVIE_SUFFIXES))
    network, detector = load_network(model), MediaPipeDetector()
    size = network.config.size
    mine = aligned(source, detector, size, face)
    theirs = aligned(target, detector, size, target_face, "--target-face")
    factors, _ = wanted_factors(expression, pose, light, identity)
    own = refined(network, to_tensor(mine.crop), refine)
    if paste:
        mine, theirs = enlarged(mine, _PASTED), enlarged(theirs, _PASTED)
        ends = to_tensor(mine.photo), to_tensor(theirs.photo)
        moving = {name: pasted_steps(network, mine, theirs, name, steps, own) for name in factors}
    else:
        ends = to_tensor(mine.crop), to_tensor(theirs.crop)
        moving = {name: interpolate_faces(network, *ends, name, steps, own) for name in factors}
    zoom = 1 if paste else 2
    if out.suffix.lower() in MOVIE_SUFFIXES:
        write_movie(out, steps_frames(ends[0][0], moving, ends[1][0], zoom), rate)
    else:
        save_picture(steps_sheet(ends[0][0], moving, ends[1][0], zoom), out)
    print(f"wrote {out}")


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
    refine: Refine = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Take only the first frames.")] = None,
    face: Annotated[int, typer.Option(min=1, help="Which face of the video to follow; 1 is the largest.")] = 1,
    template_face: Annotated[int, typer.Option(min=1, help="Which face of the photo; 1 is the largest.")] = 1,
) -> None:
    """Give a photo the expression of every frame of a video, beside the video and the photo warped to its landmarks.

    Frames without a face hold the last expression. A video that breaks off is used as far as it can be read, and the
    status is then 1.
    """
    from facemodels.editing import refine as refined
    from facemodels.editing import to_tensor
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.movies import check_movie
    from facemodels.video import animate as animate_photo

    check_movie(out)
    network, detector = load_network(model), MediaPipeDetector()
    photo = aligned(template, detector, network.config.size, template_face, "--template-face")
    try:
        animation = animate_photo(
            network,
            video,
            photo,
            out,
            detector,
            own=refined(network, to_tensor(photo.crop), refine),
            pose=pose,
            smooth=smooth,
            face=face,
            whole=paste,
            limit=limit,
            progress=True,
        )
    except KeyboardInterrupt:
        stop("interrupted; nothing was written")
    for line in animation.lines():
        print(line)
    if animation.broken:
        raise typer.Exit(PARTLY)
