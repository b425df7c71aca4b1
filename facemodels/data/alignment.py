"""Photos into the paper's crops and back: reading, alignment by five points, and the photo of a prepared face.

Coordinates are continuous: pixel (0, 0) covers the square from (0, 0) to (1, 1).
"""

import contextlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from facemodels.config import FIVE_POINTS, SIZE
from facemodels.data.sources import printable
from facemodels.errors import InputError
from facemodels.fitting.landmarks import LandmarkDetector, Landmarks, search_faces

TEMPLATE = np.array(FIVE_POINTS)
"""Where the eyes' centres, the nose tip and the mouth's corners lie in the 64x64 crop, in pixels."""

CROP_SIZES = range(32, 513, 16)
"""Sides in pixels that a crop may have: networks halve them three or four times."""

MIN_SIDE, MAX_PIXELS = 16, 105_000_000
"""Photos with a side shorter than this, or with more pixels in all, are refused."""


@dataclass(frozen=True)
class AlignedPhoto:
    """A photo and the crop of its face.

    Attributes:
        name: What to call the photo in messages.
        photo: The whole photo, shape `(height, width, 3)`.
        crop: The aligned face, shape `(size, size, 3)`.
        transform: Takes points of the photo to points of a crop of 64 pixels, whatever the size of this one.
        landmarks: In pixels of a crop of 64.
    """

    name: str
    photo: UInt8[np.ndarray, "height width 3"]
    crop: UInt8[np.ndarray, "size size 3"]
    transform: Float[np.ndarray, "2 3"]
    landmarks: Landmarks

    def enlarged(self, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The same crop in other pixels, taken from the photo anew.

        Args:
            size: Side in pixels.
        """
        return cut_out(self.photo, self.transform, size)


def check_size(caller: str, size: int) -> None:
    """Refuse crops of a size that no network takes.

    Raises:
        InputError: The size is none of `CROP_SIZES`.
    """
    if size not in CROP_SIZES:
        raise InputError(
            f"{caller}: size must be {CROP_SIZES.start} to {CROP_SIZES.stop - 1} pixels, a multiple of"
            f" {CROP_SIZES.step}, got {size}; 64 and 128 are usual"
        )


def load_photo(
    photo: str | os.PathLike[str] | bytes,
    detector: LandmarkDetector,
    name: str = "",
    *,
    size: int = SIZE,
    face: int = 1,
) -> AlignedPhoto:
    """Read a photo, find a face in it and align it.

    Args:
        photo: Path, or the bytes of the file.
        detector: Finds the landmarks.
        name: What to call the photo in messages; by default the path.
        size: Side of the crop in pixels, as the network takes it.
        face: Which of the faces in the photo: 1 is the largest, 2 the next smaller one, and so on.

    Raises:
        InputError: The file is no image, or shows no face or not that many.
    """
    if face < 1:
        raise InputError(f"faces of a photo are counted from 1, got {face}")
    name = name or _name(photo)
    image = read_image(photo, name)
    faces = search_faces(detector, image)
    if not faces:
        raise InputError(f"no face found in {name}; try a larger or more frontal photo")
    if face > len(faces):
        raise InputError(f"{name} has no face {face}; faces found in it: {len(faces)}")
    landmarks = faces[face - 1]
    crop, transform = align(image, landmarks.five, size)
    return AlignedPhoto(name, image, crop, transform, landmarks.moved(transform))


def align(
    image: UInt8[np.ndarray, "height width 3"], five: Float[np.ndarray, "5 2"], size: int = SIZE
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "2 3"]]:
    """The crop in which the five points lie as near as possible to `TEMPLATE`.

    The photo is turned, scaled and shifted, never mirrored or stretched; outside it its border pixels are repeated.

    Args:
        image: RGB.
        five: Eye centres, nose tip and mouth corners in pixels of `image`, as in `Landmarks.five`.
        size: Side of the crop in pixels; larger crops show the same in more pixels.

    Returns:
        The crop, and the matrix `[scale * rotation | shift]` that takes points of the image to points of a crop of 64
        pixels.

    Raises:
        ValueError: The five points coincide.

    Reference:
        Umeyama, "Least-Squares Estimation of Transformation Parameters Between Two Point Patterns", PAMI 13(4), 1991.
    """
    transform = similarity(five, TEMPLATE)
    return cut_out(image, transform, size), transform


def cut_out(
    image: UInt8[np.ndarray, "height width 3"], transform: Float[np.ndarray, "2 3"], size: int = SIZE
) -> UInt8[np.ndarray, "size size 3"]:
    """The crop that a transform of `align` stands for, of any size."""
    to_image = invert(transform)
    to_image[:, :2] *= SIZE / size
    return resample(image, to_image, (size, size))


def similarity(
    source: Float[np.ndarray, "points 2"], target: Float[np.ndarray, "points 2"]
) -> Float[np.ndarray, "2 3"]:
    """Least-squares rotation, scale and shift of the plane that take `source` to `target`.

    Raises:
        ValueError: All points of `source` coincide.

    Example:
        >>> triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> similarity(triangle, 2 * triangle + 5).round(6)
        array([[ 2., -0.,  5.],
               [ 0.,  2.,  5.]])
    """
    # In the plane a rotation with scale is a complex factor.
    here, there = (np.asarray(points, np.float64) @ np.array([1.0, 1j]) for points in (source, target))
    centred = here - here.mean()
    spread = np.vdot(centred, centred).real
    if spread < 1e-9:
        raise ValueError("similarity: the points coincide, so they fix no scale")
    factor = np.vdot(centred, there - there.mean()) / spread
    shift = there.mean() - factor * here.mean()
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def invert(transform: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The transform that undoes an affine transform of the plane."""
    inverse = np.linalg.inv(transform[:, :2])
    return np.concatenate([inverse, -inverse @ transform[:, 2:]], axis=1)


def apply_transform(transform: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "points 2"]) -> np.ndarray:
    """Points after an affine transform of the plane."""
    return points @ transform[:, :2].T + transform[:, 2]


def resample(
    image: UInt8[np.ndarray, "height width 3"], to_image: Float[np.ndarray, "2 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "rows columns 3"]:
    """A turned, scaled and shifted part of an image, without aliasing; outside it its border pixels are repeated.

    Args:
        image: RGB.
        to_image: Takes points of the result to points of `image`.
        size: Width and height of the result in pixels.
    """
    shrink = np.sqrt(abs(np.linalg.det(to_image[:, :2])))
    picture = Image.fromarray(np.ascontiguousarray(image))
    reduction = max(1, int(shrink / 2))
    if reduction > 1:
        picture = picture.reduce(reduction)
        to_image = to_image / reduction
    picture, to_image = _with_border(picture, to_image, size)
    # Twice the resolution first, so that the interpolation sees every pixel, then a proper low-pass.
    a, b, c, d, e, f = np.concatenate([to_image[:, :2] / 2, to_image[:, 2:]], axis=1).ravel()
    double = picture.transform(
        (2 * size[0], 2 * size[1]), Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BICUBIC
    )
    return np.asarray(double.resize(size, Image.Resampling.LANCZOS))


def _with_border(picture: Image.Image, to_image: np.ndarray, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """The part of a picture that a transform looks at, with repeated border pixels where it looks outside."""
    corners = apply_transform(to_image, np.array([[0, 0], [size[0], 0], [0, size[1]], size], np.float64))
    low = np.floor(corners.min(0)).astype(int) - 3
    high = np.ceil(corners.max(0)).astype(int) + 3
    extent = np.array(picture.size)
    # At least one row and column of the picture is kept, from which the border is repeated.
    start, stop = np.clip(low, 0, extent - 1), np.clip(high, 1, extent)
    part = np.asarray(picture.crop((*start, *np.maximum(stop, start + 1))))
    before, after = start - low, high - np.maximum(stop, start + 1)
    before, after = np.maximum(before, 0), np.maximum(after, 0)
    part = np.pad(part, ((before[1], after[1]), (before[0], after[0]), (0, 0)), mode="edge")
    origin = (start - before).astype(np.float64)
    return Image.fromarray(part), np.concatenate([to_image[:, :2], to_image[:, 2:] - origin[:, None]], axis=1)


def read_image(photo: str | os.PathLike[str] | bytes, name: str = "") -> UInt8[np.ndarray, "height width 3"]:
    """A photo as RGB bytes, the right way up, whatever its format.

    The EXIF orientation is applied; colours are taken into sRGB by the photo's own profile, if it has one; grey,
    palette, CMYK and 16-bit images are converted; transparent parts become white; of an animation the first frame is
    taken.

    Args:
        photo: Path, or the bytes of the file.
        name: What to call the photo in messages; by default the path.

    Raises:
        InputError: The file cannot be read, is no image, is damaged, or has a size that no photo has.
    """
    name = name or _name(photo)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(photo) if isinstance(photo, bytes) else photo) as picture:
                _check_size(picture.size, name)
                picture.load()
                return _to_rgb(ImageOps.exif_transpose(picture))
    except FileNotFoundError as error:
        raise InputError(f"there is no photo {name}; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{name} is a folder; name one photo in it") from error
    except UnidentifiedImageError as error:
        if name.lower().endswith((".heic", ".heif")):
            raise InputError(f"{name} is a HEIC photo, which cannot be read here; save it as JPEG") from error
        # Pillow's own text names an address in memory, which differs from run to run.
        raise InputError(f"{name} is no image or is damaged; try to open and save it again") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has too many pixels ({error}); make it smaller") from error
    except InputError:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, IndexError, TypeError) as error:
        raise InputError(f"{name} is no image or is damaged ({error}); try to open and save it again") from error


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if min(size) < MIN_SIDE:
        raise InputError(f"{name} is {width}x{height} pixels, too small for a face; try a larger photo")
    if width * height > MAX_PIXELS:
        raise InputError(f"{name} is {width}x{height} pixels, more than {MAX_PIXELS // 10**6} million; make it smaller")


def _to_rgb(picture: Image.Image) -> np.ndarray:
    if picture.mode.startswith("I") or picture.mode == "F":  # 16 or 32 bits, or floats, in one channel
        values = np.asarray(picture, np.float32)
        full = 255.0 if values.max() <= 255 and picture.mode != "I;16" else 65535.0
        full = 1.0 if picture.mode == "F" and values.max() <= 1 else full
        grey = (values / full * 255).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    colours = _in_srgb(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        opaque = picture.convert("RGBA").getchannel("A")
        colours = Image.composite(colours, Image.new("RGB", picture.size, "white"), opaque)
    return np.asarray(colours)


def _in_srgb(picture: Image.Image) -> Image.Image:
    """The colours by the photo's profile, such as Display P3; as they are without one that fits."""
    profile = picture.info.get("icc_profile")
    if profile:
        mode = {"1": "L", "L": "L", "LA": "L", "CMYK": "CMYK"}.get(picture.mode, "RGB")
        with contextlib.suppress(OSError, ImageCms.PyCMSError):  # damaged, or of another mode
            own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            to_srgb = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
            return to_srgb.apply(picture.convert(mode))
    return picture.convert("RGB")


def _name(photo: str | os.PathLike[str] | bytes) -> str:
    return "the photo" if isinstance(photo, bytes) else printable(str(Path(photo)))
