"""Does the picture of a face turn with its pose code, or only its shading? Measured without a judge that was trained.

Faces that look ahead are decoded at nine yaws. Each picture is compared with the photo carried to each of the nine by
the morphable model, and the best match says how far the picture really turned. A network that was trained to tell the
yaw of photos is no substitute: it takes moving shadows for a turning head.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.batch import Rows
from facemodels.config import FIVE_LANDMARKS, FIVE_POINTS, SIZE
from facemodels.data.dataset import Faces
from facemodels.data.rows import closing
from facemodels.evaluation.exchange import paint, spread
from facemodels.evaluation.measures import Codings, overlap
from facemodels.fitting.carry import carry, mirrored_vertices
from facemodels.morphable import MorphableModel
from facemodels.rendering import euler_to_matrix, matrix_to_euler, render_surface

YAWS = tuple(range(-40, 41, 10))
"""Degrees at which faces are decoded, and to which photos are carried."""

_AHEAD = math.radians(8)  # yaw of faces that look ahead
_FACES = 60  # compared; all yaws of so many take seconds
_BATCH = 20
_MATCHES = 0.9  # intersection over union from which on a camera counts as found
_FINE, _COARSE = 3, 11  # pixels of 64: finer and coarser things than these do not tell the pose
_RIM = 2  # pixels at the rim of what is known that are left out
_KNOWN = 0.15  # weight of a carried pixel from which on it is compared, so that mirrored ones are


@dataclass(frozen=True)
class Camera(Rows):
    """Weak-perspective cameras, as `facemodels.rendering.project_weak_perspective` takes them."""

    rotation: Float[Tensor, "n 3 3"]
    scale: Float[Tensor, " n"]
    shift: Float[Tensor, "n 2"]


@dataclass(frozen=True)
class Turned:
    """Photos of faces that look ahead, carried to every yaw of `YAWS`.

    Attributes:
        rows: Which of the faces they are.
        rotation: Of each yaw, shape `(yaws, 3, 3)`.
        image: Photos in each pose, shape `(yaws, n, 3, h, w)`.
        known: Where they are known, shape `(yaws, n, 1, h, w)`.
    """

    rows: Tensor
    rotation: Float[Tensor, "yaws 3 3"]
    image: Float[Tensor, "yaws n 3 h w"]
    known: Float[Tensor, "yaws n 1 h w"]


def turn_of_appearance(
    model: NeuroTensorialAutoencoder, faces: Faces, codings: Codings, morphable: MorphableModel
) -> dict[str, float]:
    """How far pictures turn when the pose code does, within 40 degrees to either side.

    Args:
        model: The network.
        faces: The faces; at most 60 that look ahead are used.
        codings: `encode_all(model, faces)`.
        morphable: The set's own morphable model.

    Returns:
        "turn_of_appearance": slope of the best-matching yaw on the yaw asked for, 1 if pictures turn as they are told,
        0 if they do not. Nothing if no face looks ahead.
    """
    turned = carried_photos(faces, morphable)
    if turned is None:
        return {}
    codes = codings.codes[turned.rows]
    pictures = [
        paint(model, codes, rotation.flatten().to(codes.pose).expand(len(codes), -1)).image.clamp(0, 1).cpu()
        for rotation in turned.rotation
    ]
    return {"turn_of_appearance": slope(torch.stack(pictures), turned)}


def slope(pictures: Float[Tensor, "yaws n 3 h w"], turned: Turned) -> float:
    """Slope of the best-matching yaw on the yaw asked for.

    Args:
        pictures: Faces decoded at each of `YAWS`.
        turned: The photos carried there.
    """
    inner = 1 - max_pool2d(1 - turned.known.flatten(0, 1), 2 * _RIM + 1, 1, _RIM).unflatten(0, turned.known.shape[:2])
    wanted = [_details(image, known) for image, known in zip(turned.image, turned.known, strict=True)]
    yaws = torch.tensor(YAWS, dtype=torch.float32)
    covariance = torch.zeros(())
    for yaw, picture in zip(yaws, pictures, strict=True):
        matches = torch.stack(
            [
                correlation(_details(picture, known), target, where)
                for known, target, where in zip(turned.known, wanted, inner, strict=True)
            ]
        )
        covariance = covariance + yaw * yaws[matches.argmax(0)].mean()
    return float(covariance / yaws.square().sum())


def correlation(
    first: Float[Tensor, "n 1 h w"], second: Float[Tensor, "n 1 h w"], weight: Float[Tensor, "n 1 h w"]
) -> Float[Tensor, " n"]:
    """Normalised cross-correlation inside a weight; 0 where one picture is constant."""
    total = weight.flatten(1).sum(1).clamp(min=1)[:, None, None, None]

    def centred(picture: Tensor) -> Tensor:
        return (picture - (picture * weight).sum((1, 2, 3), keepdim=True) / total) * weight.sqrt()

    one, two = centred(first).flatten(1), centred(second).flatten(1)
    return (one * two).sum(1) / (one.norm(dim=1) * two.norm(dim=1)).clamp(min=1e-6)


def carried_photos(faces: Faces, morphable: MorphableModel) -> Turned | None:
    """Photos of faces that look ahead carried to every yaw; None if no face does, or no camera was found."""
    faces = faces.to("cpu")
    yaw, pitch, _ = matrix_to_euler(faces.rotation.unflatten(1, (3, 3)))
    rows = ((yaw.abs() < _AHEAD) & faces.frontal).nonzero().flatten()
    if len(rows) == 0:
        return None
    rows = rows[spread(len(rows), _FACES)]
    camera, found = find_camera(faces[rows], morphable)
    rows, camera = rows[found], camera[found]
    if len(rows) == 0:
        return None
    angles = torch.deg2rad(torch.tensor(YAWS, dtype=torch.float32))
    rotation = euler_to_matrix(angles, pitch[rows].mean().expand(len(angles)), torch.zeros(len(angles)))
    parts = [_carried(faces[rows[part]], morphable, camera[part], rotation) for part in _parts(len(rows))]
    image, known = (torch.cat(pictures, 1) for pictures in zip(*parts, strict=True))
    return Turned(rows, rotation, image, known)


def _carried(
    faces: Faces, morphable: MorphableModel, camera: Camera, rotations: Float[Tensor, "yaws 3 3"]
) -> tuple[Float[Tensor, "yaws n 3 h w"], Float[Tensor, "yaws n 1 h w"]]:
    """Photos in every pose, and where they are known there."""
    size = faces.image.shape[-1]
    vertices = morphable.vertices(faces.identity, faces.expression)
    own = _render(vertices, morphable, camera, size)
    own = replace(own, mask=own.mask * faces.masks())  # what hides a face does not turn with it
    mirrored = mirrored_vertices(morphable)
    images, known = [], []
    for rotation in rotations:
        there = turn_camera(vertices, morphable, camera, rotation.expand(len(faces), -1, -1), size)
        image, weight = carry(
            faces.pictures(),
            own,
            _render(vertices, morphable, there, size),
            camera.rotation,
            there.rotation,
            faces.light,
            morphable.triangles,
            mirrored,
            reach=closing(size) // 2,
        )
        images.append(image)
        known.append((weight > _KNOWN).float())
    return torch.stack(images), torch.stack(known)


def find_camera(faces: Faces, morphable: MorphableModel) -> tuple[Camera, Bool[Tensor, " n"]]:
    """The cameras that prepared faces were fitted with, and which of them were found.

    A set holds rotations and masks, but neither scale nor shift: these are first taken from the alignment of the crops
    by five points, then moved until the rendered mask has the place and the area of the set's.

    Args:
        faces: The faces.
        morphable: The set's own morphable model.
    """
    vertices = morphable.vertices(faces.identity, faces.expression)
    rotation, size = faces.rotation.unflatten(1, (3, 3)), faces.image.shape[-1]
    scale, shift = aligned(vertices, morphable, rotation, size)
    mask = faces.masks()
    area, middle = _moments(mask)
    for _ in range(2):
        seen_area, seen_middle = _moments(_masks(vertices, morphable, Camera(rotation, scale, shift), size))
        grow = (area / seen_area).sqrt().clamp(0.8, 1.25)
        scale, shift = grow * scale, middle + grow[:, None] * (shift - seen_middle)
    camera = Camera(rotation, scale, shift)
    return camera, overlap(_masks(vertices, morphable, camera, size), mask) > _MATCHES


def turn_camera(
    vertices: Float[Tensor, "n vertices 3"],
    morphable: MorphableModel,
    camera: Camera,
    rotation: Float[Tensor, "n 3 3"],
    size: int = SIZE,
) -> Camera:
    """The camera that would frame faces in another pose.

    Crops are aligned by five points, so that scale and shift follow from the pose; by what a face's own differ from
    that, they also differ in the new pose.

    Args:
        vertices: Of the faces, in mm.
        morphable: The model they belong to.
        camera: Of the faces in their own pose.
        rotation: The other poses.
        size: Side of the crops in pixels.
    """
    (scale, shift), (new_scale, new_shift) = (
        aligned(vertices, morphable, pose, size) for pose in (camera.rotation, rotation)
    )
    return Camera(rotation, camera.scale * new_scale / scale, camera.shift + new_shift - shift)


def aligned(
    vertices: Float[Tensor, "n vertices 3"],
    morphable: MorphableModel,
    rotation: Float[Tensor, "n 3 3"],
    size: int = SIZE,
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
    """Scale and shift that bring the five points of posed faces nearest to where crops have them."""
    five = torch.stack([vertices[:, morphable.landmarks[a:b]].mean(1) for a, b in FIVE_LANDMARKS], 1)
    points = (five @ rotation.mT)[..., :2] * torch.tensor([1.0, -1.0])
    template = torch.tensor(FIVE_POINTS) * size / SIZE
    centre, goal = points.mean(1), template.mean(0)
    arms = points - centre[:, None]
    scale = (arms * (template - goal)).sum((1, 2)) / arms.square().sum((1, 2)).clamp(min=1e-6)
    return scale, goal - scale[:, None] * centre


def _render(vertices: Tensor, morphable: MorphableModel, camera: Camera, size: int):
    shape = vertices, morphable.triangles, morphable.face
    return render_surface(*shape, camera.rotation, camera.scale, camera.shift, size, close=closing(size))


def _masks(vertices: Tensor, morphable: MorphableModel, camera: Camera, size: int) -> Float[Tensor, "n 1 h w"]:
    return torch.cat([_render(vertices[rows], morphable, camera[rows], size).mask for rows in _parts(len(vertices))])


def _parts(count: int) -> tuple[Tensor, ...]:
    return torch.arange(count).split(_BATCH)


def _moments(mask: Float[Tensor, "n 1 h w"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
    """Area and centre of masks, in pixels."""
    area = mask.sum((1, 2, 3)).clamp(min=1)
    places = torch.arange(mask.shape[-1]) + 0.5
    across, down = mask.sum((1, 2)) @ places, mask.sum((1, 3)) @ places
    return area, torch.stack([across, down], 1) / area[:, None]


def _details(images: Float[Tensor, "n 3 h w"], known: Float[Tensor, "n 1 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Brightness between two widths: eyes, brows, nose and mouth, but neither light nor noise."""
    grey = images.mean(1, keepdim=True) * known

    def blurred(width: int) -> Tensor:
        width = max(3, width * images.shape[-1] // SIZE | 1)
        total, area = (avg_pool2d(part, width, 1, width // 2) for part in (grey, known))
        return total / area.clamp(min=0.05)

    return blurred(_FINE) - blurred(_COARSE)
