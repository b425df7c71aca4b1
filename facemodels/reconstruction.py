"""Faces as coloured 3D meshes, from the codes of a network or from a photo (the paper's Figure 5).

The shape comes from the shape stream (eq. 3), from the coefficients that the network regresses (eq. 10 and 11), or
from a fit of the morphable model to landmarks, where the paper fits it to the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import Face, NeuroTensorialAutoencoder, full_precision, orthogonal
from facemodels.codes import Codes
from facemodels.config import SIZE
from facemodels.data.alignment import AlignedPhoto
from facemodels.editing import to_tensor
from facemodels.errors import InputError
from facemodels.fitting import Fit
from facemodels.fitting import fit as fit_landmarks
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.carry import MIRRORED_WEIGHT, mirrored_vertices
from facemodels.fitting.framing import frame
from facemodels.fitting.texture import Sight, bake, combine, sight, spread
from facemodels.mesh import Mesh
from facemodels.morphable import MorphableModel
from facemodels.morphable.patches import Whole, whole_of
from facemodels.rendering import euler_to_matrix, render_surface, shade, vertex_normals
from facemodels.rendering.chart import chart_of

Source = Literal["stream", "coefficients"]

DETAIL = 512
"""Side of a texture in pixels."""

_TURNS = (0.0, -0.6, 0.6)
"""Yaws, in radians, in which the network paints a face to colour what its own pose hides."""

_NO_STREAM = (
    "this network was exported without its cores, so it has no shape stream; ask for the shape of its coefficients,"
    " or take the checkpoint it was made of"
)
_TURNED_WEIGHT = 0.15  # of a face painted in another pose, against the own


def face_mesh(
    model: NeuroTensorialAutoencoder,
    codes: Codes,
    *,
    source: Source | None = None,
    picture: Float[Tensor, "3 size size"] | None = None,
    detail: int | None = DETAIL,
) -> Mesh:
    """The face of some codes as a coloured mesh, without pose; `mesh.save("face.glb")` writes it.

    The colours are the decoded albedo, painted in several poses so that both sides are seen; with a picture they are
    those of the picture where it shows the face, and the network's own, under the picture's light, where it does not.

    Args:
        model: A network with a morphable model.
        codes: Of one face.
        source: "stream" for the shape stream, "coefficients" for the regressed coefficients of the morphable model; by
            default the stream, or the coefficients of a network that was exported without its cores.
        picture: The aligned crop that the codes are of, in [0, 1]; it may have more pixels than the network takes.
        detail: Side of the texture in pixels; None for colours of the vertices alone.

    Returns:
        The mesh. Its first vertices are those of `model.morphable`, in their order. Behind them come those that fill
        the holes of a model without eyes, and those that the seams of a texture need a second time.

    Raises:
        InputError: The network has no morphable model, or no cores and the stream is asked for.
        ValueError: There is more than one face, or the picture is not square.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> morphable = MorphableModel.procedural()
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2), morphable).eval()
        >>> mesh = face_mesh(model, model.encode(torch.rand(1, 3, 64, 64)), detail=None)
        >>> mesh.vertices.shape
        torch.Size([9375, 3])
    """
    if len(codes) != 1:
        raise ValueError(f"face_mesh: takes the codes of one face, got {len(codes)}; take one with codes[k]")
    if picture is not None and (picture.ndim != 3 or picture.shape[0] != 3 or picture.shape[1] != picture.shape[2]):
        raise ValueError(f"face_mesh: the picture must have shape (3, size, size), got {tuple(picture.shape)}")
    return coloured(model, codes, shapes(model, codes, source)[0], picture=picture, detail=detail)


@torch.no_grad()
def shapes(
    model: NeuroTensorialAutoencoder, codes: Codes, source: Source | None = None
) -> Float[Tensor, "n vertices 3"]:
    """Shapes of faces in mm, without pose, one for each of the codes.

    Args:
        model: A network with a morphable model.
        codes: Of any number of faces.
        source: As in `face_mesh`.

    Raises:
        InputError: The network has no morphable model, or no cores and the stream is asked for.
    """
    morphable = morphable_of(model)
    if source is None:
        source = "stream" if model.config.cores else "coefficients"
    if source == "coefficients":
        identity, expression = model.coefficients(codes)
        return morphable.vertices(identity.cpu(), expression.cpu())
    vertices = model.vertices(codes)
    if vertices is None:
        raise InputError(_NO_STREAM)
    return vertices.cpu()


def morphable_of(model: NeuroTensorialAutoencoder) -> MorphableModel:
    """The morphable model that a network carries, on the CPU.

    Raises:
        InputError: It carries none.
    """
    if model.morphable is None:
        raise InputError(
            "this network carries no morphable model, so its shapes have no vertices; export it again with --morphable,"
            " or in Python give it the one of the set it was trained on: from_pretrained(..., morphable=...)"
        )
    return model.morphable


@torch.no_grad()
def coloured(
    model: NeuroTensorialAutoencoder,
    codes: Codes,
    vertices: Float[Tensor, "vertices 3"],
    *,
    picture: Float[Tensor, "3 size size"] | None = None,
    detail: int | None = DETAIL,
) -> Mesh:
    """A shape with the colours that a network and, if one is given, a picture have for it; as in `face_mesh`.

    Args:
        model: A network with a morphable model.
        codes: Of one face.
        vertices: Its shape.
        picture: The crop that the codes are of.
        detail: Side of the texture in pixels; None for colours of the vertices alone.
    """
    morphable = morphable_of(model)
    rotation, face, mask = _painted(model, codes)
    count = len(rotation)
    shape = vertices.expand(count, -1, -1)
    scale, shift = frame(shape, morphable.triangles, morphable.face, rotation, face.normals, mask)
    whole = whole_of(morphable)
    morphable, vertices = whole.morphable, whole.complete(vertices)
    normals = vertex_normals(vertices[None], morphable.triangles)[0]
    weights = [1.0] + [_TURNED_WEIGHT] * (count - 1)
    sights = [
        sight(face.albedo[k], mask[k], vertices, morphable, rotation[k], scale[k], shift[k]) for k in range(count)
    ]
    albedo = spread(*combine(sights, weights, vertices, normals), morphable)
    if picture is None:
        return assembled(sights, weights, albedo, vertices, whole, detail)
    lit = albedo * _shading(normals @ rotation[0].T, codes.light)
    photo = sight(picture, mask[0], vertices, morphable, rotation[0], scale[0], shift[0])
    read, trust = photo.read(vertices, normals)
    return assembled([photo], [1.0], lit + trust[:, None] * (read - lit), vertices, whole, detail)


def assembled(
    sights: Sequence[Sight],
    weights: Sequence[float],
    colours: Float[Tensor, "vertices 3"],
    vertices: Float[Tensor, "vertices 3"],
    whole: Whole,
    detail: int | None,
) -> Mesh:
    """A mesh with a texture of what pictures show, over the colours of its vertices; none if `detail` is."""
    if detail is None:
        return Mesh(vertices, whole.morphable.triangles, colours.clamp(0, 1))
    chart = chart_of(whole)
    texture = bake(sights, weights, colours, vertices, whole, detail)
    return Mesh(vertices[chart.vertex], chart.triangles, colours[chart.vertex].clamp(0, 1), chart.uv, texture)


def fitted_mesh(
    fit: Fit,
    morphable: MorphableModel,
    picture: Float[Tensor, "3 size size"],
    *,
    detail: int | None = DETAIL,
) -> Mesh:
    """The mesh of a fitted face, without a network: the paper's 3DMM fit.

    Where the picture does not show the face, the other side of the face stands in, and around both the nearest colours.

    Args:
        fit: Of one face, in pixels of a crop of 64.
        morphable: The model that was fitted.
        picture: The aligned crop in [0, 1]; it may have more pixels.
        detail: Side of the texture in pixels; None for colours of the vertices alone.

    Raises:
        ValueError: There is more than one face.
    """
    if len(fit) != 1:
        raise ValueError(f"fitted_mesh: takes the fit of one face, got {len(fit)}; take one with fit[k : k + 1]")
    vertices = morphable.vertices(fit.identity, fit.expression)
    camera = fit.rotation, fit.scale, fit.shift
    whole = whole_of(morphable)
    morphable, vertices = whole.morphable, whole.complete(vertices[0])
    mask = render_surface(vertices[None], morphable.triangles, morphable.face, *camera, SIZE).mask
    photo = sight(picture, mask[0], vertices, morphable, fit.rotation[0], fit.scale[0], fit.shift[0])
    normals = vertex_normals(vertices[None], morphable.triangles)[0]
    read, trust = photo.read(vertices, normals)
    other = mirrored_vertices(morphable)
    doubt = MIRRORED_WEIGHT * trust[other] * (1 - trust)
    total = (trust + doubt).clamp_min(1e-6)
    mixed = (trust[:, None] * read + doubt[:, None] * read[other]) / total[:, None]
    colours = spread(mixed, trust + doubt, morphable)
    return assembled([photo], [1.0], colours, vertices, whole, detail)


def fit_photos(photos: Sequence[AlignedPhoto], morphable: MorphableModel) -> Fit:
    """The fit of a morphable model to the landmarks of photos, in pixels of crops of 64.

    Args:
        photos: Aligned photos.
        morphable: Any morphable model.

    Raises:
        InputError: Of a model that is not the built-in one, MediaPipe's canonical face is needed and not there.
    """
    points = torch.from_numpy(np.stack([photo.landmarks.points for photo in photos]))
    return fit_landmarks(points, morphable, mediapipe_correspondence(morphable))


@dataclass(frozen=True)
class Reconstruction:
    """Meshes of the face of a photo.

    Attributes:
        name: Of the photo.
        picture: Its aligned crop in [0, 1], as the network takes it.
        meshes: By where the shape comes from: some of `SHAPES`, in that order.
    """

    name: str
    picture: Float[Tensor, "3 h w"]
    meshes: Mapping[str, Mesh]


SHAPES = ("stream", "coefficients", "fit")
"""Where shapes come from: the shape stream, the regressed coefficients, the fit to landmarks."""


@torch.no_grad()
def reconstruct(
    model: NeuroTensorialAutoencoder,
    photo: AlignedPhoto,
    *,
    wanted: Sequence[str] | None = None,
    detail: int | None = DETAIL,
    from_photo: bool = True,
) -> Reconstruction:
    """The face of a photo in 3D, in all three ways (the paper's Figure 5).

    Args:
        model: A network with a morphable model.
        photo: From `facemodels.data.alignment.load_photo`, with a crop of the network's size.
        wanted: Some of `SHAPES`; by default all that the network has.
        detail: Side of the textures in pixels; None for colours of the vertices alone.
        from_photo: Colours of the photo, in its full resolution; otherwise the network's albedo, free of light, on its
            own two meshes.

    Raises:
        InputError: The network has no morphable model, or no cores and the stream is asked for.
        ValueError: Something else than `SHAPES` is asked for.
    """
    if wanted is None:
        wanted = SHAPES if model.config.cores else SHAPES[1:]
    check_shapes(model, wanted)
    morphable = morphable_of(model)
    crop = to_tensor(photo.crop)
    codes = model.encode(crop)
    fine = to_tensor(photo.enlarged(max(detail or 0, len(photo.crop))))[0]
    colours = fine if from_photo else None

    def mesh(name: str) -> Mesh:
        if name == "fit":
            return fitted_mesh(fit_photos([photo], morphable), morphable, fine, detail=detail)
        source: Source = "stream" if name == "stream" else "coefficients"
        return face_mesh(model, codes, source=source, picture=colours, detail=detail)

    return Reconstruction(photo.name, crop[0], {name: mesh(name) for name in SHAPES if name in wanted})


def check_shapes(model: NeuroTensorialAutoencoder, wanted: Sequence[str]) -> None:
    """Refuse shapes that a network does not have.

    Raises:
        InputError: It has no morphable model, or no cores and the stream is wanted.
        ValueError: Something else than `SHAPES` is wanted.
    """
    morphable_of(model)
    strangers = [name for name in wanted if name not in SHAPES]
    if strangers:
        raise ValueError(f"reconstruct: there is no shape {strangers[0]!r}; choose one of {', '.join(SHAPES)}")
    if "stream" in wanted and not model.config.cores:
        raise InputError(_NO_STREAM)


def _painted(
    model: NeuroTensorialAutoencoder, codes: Codes
) -> tuple[Float[Tensor, "views 3 3"], Face, Float[Tensor, "views 1 h w"]]:
    """A face in its own pose and in others: rotations, what is painted, and masks."""
    own = orthogonal(full_precision(codes.pose).unflatten(1, (3, 3)))
    yaw = torch.tensor(_TURNS)
    others = euler_to_matrix(yaw, torch.zeros_like(yaw), torch.zeros_like(yaw)).to(own)
    rotation = torch.cat([own, others])
    count = len(rotation)
    many = (code.expand(count, -1) for code in (codes.expression, codes.identity, codes.light))
    face = model.paint(rotation.flatten(1).to(codes.pose), *many)
    if face.mask_logits is None:  # only the outline of the own pose is known
        face, rotation = face[:1], rotation[:1]
        mask = model.surround(codes)[0].sigmoid()
    else:
        mask = full_precision(face.mask_logits).sigmoid()
    values = (None if value is None else value.cpu() for value in vars(face).values())
    return rotation.cpu(), Face(*values), mask.cpu()  # type: ignore[arg-type]


def _shading(normals: Float[Tensor, "vertices 3"], light: Float[Tensor, "1 k_light"]) -> Float[Tensor, "vertices c"]:
    return shade(normals.T[None, :, None], full_precision(light).cpu())[0, :, 0].relu().T
