"""The command that makes meshes of photos: `reconstruct`."""

from pathlib import Path
from typing import Annotated

import typer

from facemodels.cli.networks import load_network
from facemodels.cli.options import Face, Model, check_choices
from facemodels.cli.photos import check_some, end_batch, name_failure, new_name, noted

_SHOWN = 12  # rows of a sheet
_ENDING = "-0000-coefficients-turntable.gif"  # the longest that a name may get


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
    from facemodels.files import make_folder, shortened
    from facemodels.fitting.landmarks import MediaPipeDetector
    from facemodels.mesh import FORMATS
    from facemodels.reconstruction import SHAPES, check_shapes, morphable_of
    from facemodels.reconstruction import reconstruct as reconstruct_photo
    from facemodels.sheets import reconstruction_sheet, write_turntable

    formats = formats or ["glb"]
    check_choices("format", formats, [ending.lstrip(".") for ending in FORMATS])
    check_choices("shape", shape or [], SHAPES)
    check_choices("turntable", [turntable or "gif"], ("gif", "mp4", "png"))
    network = load_network(model)
    check_shapes(network, shape or [])
    detector = MediaPipeDetector()
    make_folder(out)
    done, shown, failed, taken = [], [], [], set()
    for photo in noted(load_photos(photos, detector, size=network.config.size, face=face), face, "--face"):
        if isinstance(photo, Failure):
            name_failure(photo, failed)
            continue
        one = reconstruct_photo(network, photo, detail=detail, from_photo=not albedo, wanted=shape)
        name = new_name(shortened(Path(photo.name).stem, _ENDING), taken)
        for kind, mesh in one.meshes.items():
            files = [mesh.save(out / f"{name}-{kind}.{ending}")[-1] for ending in formats]
            if turntable:
                files.append(write_turntable(mesh, out / f"{name}-{kind}-turntable.{turntable}"))
            print("wrote " + ", ".join(map(str, files)), flush=True)
        done.append(name)
        if len(shown) < _SHOWN:  # textures are large: the others are let go
            shown.append(one)
    check_some(done, failed, "photos")
    save_picture(reconstruction_sheet(shown, morphable_of(network)), out / "reconstruction.png")
    print(f"wrote {out / 'reconstruction.png'}")
    end_batch(done, failed, "photos")
