"""The prepared set: photos (or rendered faces) beside everything a morphable model says about them.

On disk it is a Hugging Face `datasets` directory, so that other tools can open, browse and stream it, with two
files of our own beside the Arrow data:

    morphable.safetensors   the `MorphableModel` whose coefficients the columns `identity` and `expression` are
    preparation.json        where the set came from and the settings that made it

Columns (one row per face, h = w = 64 or the size that was asked for; pixels of figures are those of crops of 64):

    name             string      file name, or the number of the synthetic face
    split            string      "train" or "test"
    image            PNG RGB     the aligned crop
    normals          PNG RGB     unit normals in the camera frame, stored as round(127 n) + 128; (0, 0, 0) off the face
    mask             PNG grey    255 where the face is
    rotation         9 x float32 face -> camera, row by row
    identity         float32     coefficients in standard deviations
    expression       float32     likewise
    light            9 x float32 spherical-harmonic coefficients
    frontal          bool        near-frontal: the only faces the frontal losses see
    turned_rotation, turned_normals, turned_mask
                                 the same face rendered in another pose
    turned_image     PNG RGB     the photo carried to that pose and lit there; synthetic faces are drawn anew instead
    turned_weight    PNG grey    how far turned_image is known: 255 seen in the photo, less where only the other side of
                                 the face was seen, 0 where neither was and off the face; (0, 0, 0) in turned_image
    turned_partner   string      name of the face of the same split whose pose it is; "" if none has it

Sets of synthetic faces may have these columns; photos do not, as no fit tells how a photo would look with another
expression (one carried to it by the fit keeps the folds of its own, and teaches that the identity code smiles):

    swapped_image    PNG RGB     the same face in the own pose with the expression of another
    swapped_weight   PNG grey    255 on the face
    swapped_partner  string      name of the face of the same split whose expression it is; "" if that one is not in the
                                 set, and then nothing of swapped_image is used

Sets made from photos have these columns, too:

    quality          float32     root mean square distance of the landmarks to the fit, in pixels
    disagreement     float32     the same between the landmarks of the photo and of its mirror image
    coefficient_norm float32     root mean square of the raw coefficients, in standard deviations
    mask_agreement   float32     intersection over union of the mask and the outline of the landmarks
    light_error      float32     root mean square brightness, of 1, that light and mean albedo leave unexplained
    faces_in_photo   int64       how many faces the photo shows; this is the largest
    photo_turned     int64       by how many degrees the photo was turned, anticlockwise, to find the face
    mirrored         bool        the photo mirrored, with fits of its own

Further columns (labels for evaluation such as `person` or `emotion`) may follow; training reads none.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import datasets.arrow_writer
import numpy as np
import pyarrow
import pyarrow.ipc
import torch
from jaxtyping import Bool, Float, Int8, Int64, UInt8
from PIL import Image
from torch import Tensor

from facemodels.batch import Rows
from facemodels.errors import InputError
from facemodels.morphable import MorphableModel

REQUIRED_COLUMNS = (
    "name",
    "split",
    "image",
    "normals",
    "mask",
    "rotation",
    "identity",
    "expression",
    "light",
    "frontal",
    "turned_rotation",
    "turned_normals",
    "turned_mask",
    "turned_image",
    "turned_weight",
    "turned_partner",
)
_PICTURES = (
    "image",
    "normals",
    "mask",
    "turned_image",
    "turned_normals",
    "turned_mask",
    "turned_weight",
    "swapped_image",
    "swapped_weight",
)
_SHARD_BYTES = "200MB"
_FILES_A_SHARD = 16  # of a few hundred faces each: some 50 MB


@dataclass(frozen=True)
class Faces(Rows):
    """A batch of prepared faces as tensors; `faces[index]` takes rows from every field.

    Whole sets are kept in this form in memory: 7000 faces take about 550 MB.

    Attributes:
        swapped_row: Which face of all that were read lends its expression to `swapped_image`; it counts in the whole,
            also where some rows were taken since. Faces without such a one name themselves and have no weight, as all
            faces of a set that has no such pictures.

    The others are the columns of their names.
    """

    image: UInt8[Tensor, "faces 3 height width"]
    normals: Int8[Tensor, "faces 3 height width"]
    mask: UInt8[Tensor, "faces 1 height width"]
    rotation: Float[Tensor, "faces 9"]
    identity: Float[Tensor, "faces n_identity"]
    expression: Float[Tensor, "faces n_expression"]
    light: Float[Tensor, "faces 9"]
    frontal: Bool[Tensor, " faces"]
    turned_rotation: Float[Tensor, "faces 9"]
    turned_normals: Int8[Tensor, "faces 3 height width"]
    turned_mask: UInt8[Tensor, "faces 1 height width"]
    turned_image: UInt8[Tensor, "faces 3 height width"]
    turned_weight: UInt8[Tensor, "faces 1 height width"]
    swapped_image: UInt8[Tensor, "faces 3 height width"]
    swapped_weight: UInt8[Tensor, "faces 1 height width"]
    swapped_row: Int64[Tensor, " faces"]

    def to(self, device: torch.device | str) -> "Faces":
        """The same faces on `device`."""
        return Faces(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})

    def usable(self, usable: Bool[Tensor, " faces"]) -> "Faces":
        """The faces of a whole set without some; those that lent their expression are found at their new rows."""
        lent = usable[self.swapped_row]
        place = usable.cumsum(0) - 1
        own = place.clamp_min(0)
        return replace(
            self,
            swapped_row=torch.where(lent, place[self.swapped_row], own),
            swapped_weight=self.swapped_weight * lent[:, None, None, None],
        )[usable]

    def pictures(self) -> Float[Tensor, "faces 3 height width"]:
        """Images in [0, 1]."""
        return self.image.float() / 255

    def masks(self) -> Float[Tensor, "faces 1 height width"]:
        """Masks in {0, 1}."""
        return (self.mask > 127).float()


class PreparedSet:
    """A prepared set on disk, opened for reading.

    Args:
        path: Directory written by `write_prepared` (the commands `facemodels prepare` and `facemodels synthesise`).

    Attributes:
        table: The `datasets.Dataset` of all rows.
        morphable: The morphable model whose coefficients the set holds.
        info: The content of `preparation.json`.

    Raises:
        InputError: The directory is missing, is no prepared set, or lacks a column.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not (self.path / "preparation.json").is_file():
            raise InputError(
                f"{self.path} is not a prepared set (no preparation.json in it);"
                " make one with `facemodels prepare PHOTOS` or `facemodels synthesise`"
            )
        try:
            self.info: dict[str, Any] = json.loads((self.path / "preparation.json").read_text())
            self.table = datasets.Dataset.load_from_disk(str(self.path))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path} cannot be read as a prepared set ({error}); prepare it again") from error
        missing = [name for name in REQUIRED_COLUMNS if name not in self.table.column_names]
        if missing:
            raise InputError(f"{self.path} lacks the columns {', '.join(missing)}; prepare it again with this version")
        self.morphable = MorphableModel.load(self.path / "morphable.safetensors")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.table[0]["image"].width

    def require_size(self, size: int) -> None:
        """Refuse a set whose pictures are not of the size that a network takes.

        Raises:
            InputError: They are smaller or larger.
        """
        if len(self) and self.size != size:
            raise InputError(
                f"{self.path} holds pictures of {self.size} pixels, the network takes {size};"
                f" prepare it anew with --size {size}, or choose another network"
            )

    def split(self, split: str) -> datasets.Dataset:
        """The rows of `split` ("train", "test" or "all") in their order on disk."""
        if split == "all":
            return self.table
        rows = [number for number, value in enumerate(self.table["split"]) if value == split]
        return self.table.select(rows)

    def faces(self, split: str, limit: int | None = None) -> Faces:
        """All faces of `split` as tensors in memory, at most `limit` of them.

        Raises:
            InputError: The split is empty.
        """
        rows = self.split(split)
        if limit is not None:
            rows = rows.select(range(min(limit, len(rows))))
        if len(rows) == 0:
            raise InputError(f"{self.path} holds no faces of the split {split!r}; prepare it from more photos")
        return faces_from_rows(rows)


def faces_from_rows(rows: datasets.Dataset) -> Faces:
    """Decode the rows of a prepared set into tensors."""

    def picture(name: str) -> np.ndarray:
        first = np.asarray(rows[0][name])
        stack = np.empty((len(rows), *first.shape), np.uint8)
        for number, value in enumerate(rows.select_columns([name])):
            stack[number] = np.asarray(value[name])  # type: ignore[call-overload]
        return stack

    def channels_first(name: str) -> Tensor:
        pictures = picture(name)
        pictures = pictures[..., None] if pictures.ndim == 3 else pictures
        return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))

    def numbers(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(np.asarray(rows[name]), dtype=dtype)

    image = channels_first("image")
    return Faces(
        image=image,
        normals=decode_normals(channels_first("normals")),
        mask=channels_first("mask"),
        rotation=numbers("rotation"),
        identity=numbers("identity"),
        expression=numbers("expression"),
        light=numbers("light"),
        frontal=numbers("frontal", torch.bool),
        turned_rotation=numbers("turned_rotation"),
        turned_normals=decode_normals(channels_first("turned_normals")),
        turned_mask=channels_first("turned_mask"),
        turned_image=channels_first("turned_image"),
        turned_weight=channels_first("turned_weight"),
        **_swapped(rows, image, channels_first),
    )


def _swapped(rows: datasets.Dataset, image: Tensor, channels_first: Callable[[str], Tensor]) -> dict[str, Tensor]:
    own = torch.arange(len(rows))
    if "swapped_image" not in rows.column_names:  # views that take no memory
        nothing = image.new_zeros(1, 1, 1, 1)
        return {
            "swapped_image": nothing.expand_as(image),
            "swapped_weight": nothing.expand_as(image[:, :1]),
            "swapped_row": own,
        }
    place = {name: row for row, name in enumerate(rows["name"])}
    lenders = torch.tensor([place.get(name, -1) for name in rows["swapped_partner"]])
    known = lenders >= 0
    return {
        "swapped_image": channels_first("swapped_image"),
        "swapped_weight": channels_first("swapped_weight") * known[:, None, None, None],
        "swapped_row": torch.where(known, lenders, own),
    }


def encode_normals(normals: Int8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """round(127 n) as bytes for a PNG: 128 is zero; (0, 0, 0) marks pixels off the face."""
    shifted = (normals.astype(np.int16) + 128).astype(np.uint8)
    return np.where((normals == 0).all(-1, keepdims=True), np.uint8(0), shifted)


def decode_normals(pictures: UInt8[Tensor, "faces 3 height width"]) -> Int8[Tensor, "faces 3 height width"]:
    """The inverse of `encode_normals`, channels first."""
    off_face = (pictures == 0).all(1, keepdim=True)
    return torch.where(off_face, 0, pictures.to(torch.int16) - 128).to(torch.int8)


def write_prepared(
    path: str | os.PathLike[str],
    rows: Iterable[dict[str, Any]],
    morphable: MorphableModel,
    info: dict[str, Any],
) -> PreparedSet:
    """Write a prepared set; the directory appears under its name only when it is complete.

    Args:
        path: Directory to make; must not exist.
        rows: One dictionary per face with the columns of this module's docstring as numpy arrays: `image`
            (h, w, 3) uint8, `normals` (h, w, 3) int8, `mask` (h, w) uint8; others as numbers, strings or vectors.
        morphable: The morphable model of the coefficients.
        info: What goes into `preparation.json`; must be JSON.

    Returns:
        The set, opened.

    Raises:
        InputError: `path` exists, or there is not one row.
    """
    with _appearing(path) as partial:
        count = _write_table(partial, rows)
        if count == 0:
            raise InputError(f"not one face to write to {path}; look at the reasons above and try other photos")
        _write_beside(partial, morphable, {"faces": count, **info})
    return PreparedSet(path)


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows, as `write_prepared` takes them, to one Arrow file; without a row the file is empty.

    Returns:
        How many there were.
    """
    iterator = iter(rows)
    first = next(iterator, None)
    if first is None:
        file.touch()
        return 0
    features = datasets.Features({name: _feature(name, value) for name, value in first.items()})
    writer = datasets.arrow_writer.ArrowWriter(path=str(file), features=features)
    try:
        for row in _chain(first, iterator):
            example: Any = features.encode_example({name: _stored(name, value) for name, value in row.items()})
            writer.write(example)
        return writer.finalize()[0]
    except BaseException:
        writer.close()
        raise


def join_rows(directory: Path, files: Sequence[Path], fingerprint: str) -> None:
    """Make a `datasets` directory of files that `write_rows` wrote.

    Args:
        directory: Where to; its own files are written over.
        files: In their order; empty ones are left out.
        fingerprint: What caches of `datasets` know the table by.
    """
    files = [file for file in files if file.stat().st_size]
    groups = [files[start : start + _FILES_A_SHARD] for start in range(0, len(files), _FILES_A_SHARD)]
    names = [f"data-{number:05d}-of-{len(groups):05d}.arrow" for number in range(len(groups))]
    for name, group in zip(names, groups, strict=True):
        with pyarrow.OSFile(str(directory / name), "wb") as sink:
            schema = _schema(group[0])
            with pyarrow.ipc.new_stream(sink, schema) as writer:
                for file in group:
                    with pyarrow.OSFile(str(file), "rb") as source, pyarrow.ipc.open_stream(source) as reader:
                        for batch in reader:
                            writer.write_batch(batch)
    features = datasets.Features.from_arrow_schema(_schema(files[0]))
    datasets.DatasetInfo(features=features).write_to_directory(str(directory))
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (directory / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True))


def _schema(file: Path) -> Any:
    with pyarrow.OSFile(str(file), "rb") as source, pyarrow.ipc.open_stream(source) as reader:
        return reader.schema


def join_sets(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> PreparedSet:
    """Make one set to train on of several with the same morphable model: rendered faces of two designs, say.

    Args:
        paths: The sets, in the order of their rows.
        out: Directory to make; it appears under its name only when it is complete.

    Returns:
        The set, opened. It has the splits of its parts, and the columns that training reads and all of them have;
        labels of evaluation, whose numbers mean something else in each set, are left out.

    Raises:
        InputError: `out` exists, there are fewer than two sets, or they have other morphable models, pictures of
            another size, or names in common.
    """
    check_new(out)
    sets = [PreparedSet(path) for path in paths]
    if len(sets) < 2:
        raise InputError("joining takes two sets or more; name them all")
    first, *others = sets
    seen = set(first.table["name"])
    for other in others:
        other.require_size(first.size)
        if other.morphable.fingerprint() != first.morphable.fingerprint():
            raise InputError(
                f"{other.path} is of another morphable model than {first.path}: their coefficients mean something else;"
                " prepare one of them anew"
            )
        names = set(other.table["name"])
        if names & seen:
            raise InputError(
                f"{other.path} has names that are there already, such as {min(names & seen)}; take another seed"
            )
        seen |= names
    wanted = (*REQUIRED_COLUMNS, "swapped_image", "swapped_weight", "swapped_partner")
    columns = [name for name in wanted if all(name in one.table.column_names for one in sets)]
    table = datasets.concatenate_datasets([one.table.select_columns(columns) for one in sets])
    info = {"faces": len(table), "source": "joined", "sets": [one.info for one in sets]}
    try:
        with _appearing(out) as partial, _no_progress_bars():
            table.save_to_disk(str(partial), max_shard_size=_SHARD_BYTES)
            _write_beside(partial, first.morphable, info)
    except OSError as error:
        raise InputError(f"{out} could not be written ({error}); nothing of it is left") from error
    return PreparedSet(out)


def check_new(path: str | os.PathLike[str]) -> None:
    """Refuse to write over an existing directory.

    Raises:
        InputError: `path` exists.
    """
    if Path(path).exists():
        raise InputError(f"{path} exists already; remove it or choose another name")


@contextmanager
def _appearing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory to fill, which appears under its name at the end of the block, or not at all."""
    check_new(path)
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    if (partial / "settings.json").exists():  # of `prepare` or `write_shards`, which can go on from there
        raise InputError(f"{partial} holds an unfinished set; finish that one, remove it, or choose another name")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _write_beside(directory: Path, morphable: MorphableModel, info: dict[str, Any]) -> None:
    morphable.save(directory / "morphable.safetensors")
    (directory / "preparation.json").write_text(json.dumps(info, indent=1) + "\n")


def _write_table(directory: Path, rows: Iterable[dict[str, Any]]) -> int:
    cache = directory.with_suffix(".rows")
    try:
        with _no_progress_bars():
            count = write_rows(cache, rows)
            if count:
                table = datasets.Dataset.from_file(str(cache))
                table.save_to_disk(str(directory), max_shard_size=_SHARD_BYTES)
                del table
            return count
    finally:
        cache.unlink(missing_ok=True)


def _chain(first: dict[str, Any], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield first
    yield from rest


def _feature(name: str, value: Any) -> Any:
    if name in _PICTURES:
        return datasets.Image()
    if isinstance(value, str):
        return datasets.Value("string")
    array = np.asarray(value)
    kind = {"b": "bool", "i": "int64", "u": "int64", "f": "float32"}[array.dtype.kind]
    return datasets.Value(kind) if array.ndim == 0 else datasets.List(datasets.Value(kind), length=array.size)


def _stored(name: str, value: Any) -> Any:
    if name in _PICTURES:
        return Image.fromarray(encode_normals(value) if name.endswith("normals") else np.ascontiguousarray(value))
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
