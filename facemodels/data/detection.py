"""From the pixels of a photo to its aligned face, seen twice: as it is and mirrored."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from facemodels.config import SIZE
from facemodels.data.alignment import align, read_image
from facemodels.errors import InputError
from facemodels.fitting.landmarks import LandmarkDetector, Landmarks
from facemodels.fitting.mirror import mirror_points

_SURROUNDINGS = 0.6  # of the face's larger side, all around: what the second look sees of the photo
_DOUBTFUL = 2.0  # pixels of the 64 between the two looks above which turned photos are tried, too


@dataclass(frozen=True)
class FoundFace:
    """The largest face of a photo.

    Attributes:
        crop: The aligned face, RGB.
        points: Landmarks in pixels of a crop of 64, the mean of both looks.
        transform: Takes points of the photo to points of a crop of 64.
        disagreement: Root mean square distance between the landmarks of both looks, in pixels of a crop of 64;
            infinite where the second look found no face.
        faces: How many faces the photo shows.
        turn: By how many degrees the photo had to be turned, anticlockwise, to find the face: 0, 90, 180 or 270.
    """

    crop: UInt8[np.ndarray, "size size 3"]
    points: Float[np.ndarray, "478 3"]
    transform: Float[np.ndarray, "2 3"]
    disagreement: float
    faces: int
    turn: int


def find_face(
    image: UInt8[np.ndarray, "height width 3"], detector: LandmarkDetector, size: int = SIZE
) -> FoundFace | None:
    """Find, check and align the largest face of a photo; None where there is none.

    The second look is at the mirrored surroundings of the face. Landmarks that follow the picture agree in both looks,
    landmarks that are guessed do not; their mean is nearer to the truth than either. A photo without a trustworthy
    face is tried upside down and on its sides, as telephones leave them.

    Args:
        image: RGB.
        detector: Finds landmarks.
        size: Side of the crop in pixels.
    """
    upright = _look_twice(image, detector, size, 0)
    if upright is not None and upright.disagreement <= _DOUBTFUL:
        return upright
    for quarters in (2, 1, 3):
        turned = _look_twice(np.rot90(image, quarters), detector, size, quarters)
        # believed only if both looks agree: textures look like faces from one side or another
        if turned is not None and turned.disagreement <= _DOUBTFUL:
            return turned
    return upright


def examine(name: str, content: bytes | np.ndarray, detector: LandmarkDetector, size: int = SIZE) -> FoundFace | str:
    """The face of a photo, or the reason why there is none.

    Args:
        name: What to call the photo.
        content: The bytes of the file, or the pixels.
        detector: Finds landmarks.
        size: Side of the crop in pixels.
    """
    try:
        image = read_image(content, name) if isinstance(content, bytes) else content
        found = find_face(image, detector, size)
    except InputError as error:
        return str(error)
    return found or f"no face found in {name}; try a larger or more frontal photo"


def _look_twice(image: np.ndarray, detector: LandmarkDetector, size: int, quarters: int) -> FoundFace | None:
    first = detector.detect(np.ascontiguousarray(image))
    if first is None:
        return None
    second = _second_look(image, first, detector)
    mean = first if second is None else Landmarks.from_points((first.points + second) / 2, first.faces)
    try:
        crop, transform = align(image, mean.five, size)
    except ValueError:  # five points in one place are no face
        return None
    scale = math.sqrt(abs(np.linalg.det(transform[:, :2])))
    disagreement = math.inf
    if second is not None:
        apart = (first.points - second)[:, :2]
        disagreement = scale * float(np.sqrt(np.square(apart).sum(1).mean()))
    points = mean.moved(transform).points
    return FoundFace(crop, points, _unturned(transform, image, quarters), disagreement, first.faces, 90 * quarters)


def _second_look(image: np.ndarray, first: Landmarks, detector: LandmarkDetector) -> np.ndarray | None:
    """Landmarks as found in the mirrored surroundings of the face, brought back to where they belong."""
    low, high = first.points[:, :2].min(0), first.points[:, :2].max(0)
    margin = _SURROUNDINGS * (high - low).max()
    extent = np.array(image.shape[1::-1])
    start = np.clip(np.floor(low - margin), 0, extent - 1).astype(int)
    stop = np.clip(np.ceil(high + margin), start + 1, extent).astype(int)
    part = image[start[1] : stop[1], start[0] : stop[0]]
    mirrored = detector.detect(np.ascontiguousarray(part[:, ::-1]))
    if mirrored is None:
        return None
    return mirror_points(mirrored.points, part.shape[1]) + np.array([*start, 0], np.float32)


def _unturned(transform: np.ndarray, turned: np.ndarray, quarters: int) -> np.ndarray:
    """A transform of the turned photo as one of the photo itself."""
    height, width = turned.shape[:2]
    # np.rot90 turns anticlockwise: where the points of the photo are found in the turned one
    to_turned = {
        0: np.array([[1, 0, 0], [0, 1, 0]]),
        1: np.array([[0, 1, 0], [-1, 0, height]]),
        2: np.array([[-1, 0, width], [0, -1, height]]),
        3: np.array([[0, -1, width], [1, 0, 0]]),
    }[quarters].astype(np.float64)
    both = transform[:, :2] @ to_turned
    both[:, 2] += transform[:, 2]
    return both
