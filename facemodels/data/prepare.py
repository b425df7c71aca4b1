"""From photos to a prepared set: detect, align, fit, learn, render, solve the light, write.

The work is done in shards of 512 photos, each written when it is whole. So memory does not depend on the number of
photos, and a run that was ended in whatever way goes on where it was, with the same result.
"""

import csv
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facemodels.config import SIZE
from facemodels.data.alignment import check_size
from facemodels.data.dataset import PreparedSet, join_rows, write_rows
from facemodels.data.detection import FoundFace, examine
from facemodels.data.pool import one_thread, ordered_map
from facemodels.data.report import write_report
from facemodels.data.rows import Learned, batch_of_shard, learn
from facemodels.data.sources import Joined, Photo, PhotoSource, digest, open_source, photos_from
from facemodels.data.workspace import (
    SHARD,
    FoundShard,
    Workspace,
    clean,
    differences,
    rejects_of,
)
from facemodels.errors import InputError
from facemodels.files import explained, whole_file, write_json
from facemodels.fitting.calibrated import mediapipe_correspondence
from facemodels.fitting.landmarks import LandmarkDetector, MediaPipeDetector, find_model
from facemodels.fitting.mirror import mirror_points
from facemodels.fitting.quality import QualityLimits, reasons_against
from facemodels.fitting.shape import Correspondence, correspond, fit
from facemodels.fitting.temporal import check_strength
from facemodels.morphable import MorphableModel
from facemodels.progress import progress_bar

FORMAT = 4
"""Goes up when the same settings give another set."""

_GROUP = 8  # photos sent to a process together ...
_GROUP_BYTES = 16_000_000  # ... or fewer, if they are large

Path_ = str | os.PathLike[str]


def prepare(
    sources: Path_ | Sequence[Path_],
    out: Path_,
    *,
    morphable: MorphableModel,
    limit: int | None = None,
    held_out: float = 0.1,
    frame_step: int = 1,
    smoothing: float = 0.0,
    mirror: bool = False,
    size: int = SIZE,
    limits: QualityLimits | None = None,
    workers: int = 2,
    seed: int = 0,
    detector: LandmarkDetector | None = None,
    progress: bool = True,
) -> PreparedSet:
    """Make a prepared set from photos.

    Photos that cannot be used (no image, no face, landmarks that are not to be trusted) are listed with the reason in
    `rejects.csv`, and `report.html` shows what was made of the others. The last photos become the test split. The same
    call goes on with a set that was begun and returns one that is finished; the number of workers does not change it.

    Args:
        sources: Folders, zip or tar files, videos, or Hugging Face datasets: see `open_source`. One, or several.
        out: Directory to make; it appears under its name only when it is complete, until then with `.partial` added.
        morphable: The model to fit. The set's own model, whose coefficients the set holds, is made from it.
        limit: Use only so many photos, the first ones.
        held_out: Share of the usable photos for the test split.
        frame_step: Of a video, every so many frames one is taken.
        smoothing: Strength of smoothing over time for the frames of videos, or of folders of frames; 10 is a good one,
            0 is none. See `facemodels.fitting.temporal`.
        mirror: Add every training photo a second time, mirrored, with fits to its mirrored landmarks.
        size: Side of the crops in pixels: 64 or 128. Figures in pixels are those of crops of 64, whatever the size.
        limits: What is turned away.
        workers: Processes. More than one needs the usual `if __name__ == "__main__":` in a script.
        seed: Fixes the draw of the other poses.
        detector: By default MediaPipe; another one runs in this process.
        progress: Show a progress bar for each stage.

    Returns:
        The set, opened.

    Raises:
        InputError: `out` holds another set, a source cannot be read, too few photos can be used, the disk is full, or
            MediaPipe is missing.
    """
    _check(held_out=held_out, limit=limit, smoothing=smoothing, workers=workers)
    check_size("prepare", size)
    out = Path(out)
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    if not listed:
        raise InputError("there is no source of photos; name a folder, an archive, a video or a dataset")
    source = Joined(tuple(open_source(path, frame_step=frame_step) for path in listed))
    limits = limits or QualityLimits()
    settings: dict[str, Any] = {
        "format": FORMAT,
        "source": source.path,
        "photos fingerprint": source.fingerprint(),
        "morphable": morphable.name,
        "morphable fingerprint": morphable.fingerprint(),
        "limit": limit,
        "held_out": held_out,
        "frame_step": frame_step,
        "smoothing": smoothing,
        "mirror": mirror,
        "size": size,
        "limits": asdict(limits),
        "seed": seed,
        "detector": _detector_name(detector),
    }
    if out.exists():
        return _finished(out, settings)
    # Sums in another order differ in the last digit: with one thread the result is the same whatever runs beside.
    with one_thread(), Workspace(out.with_name(out.name + ".partial"), settings) as work:
        run = _Run(work, source, morphable, settings, limits, detector, workers, progress)
        try:
            run.find_faces()
            run.render()
        except _Useless as error:
            clean(work.path)
            work.path.rmdir()
            raise InputError(str(error)) from error
        run.finish()
        work.finish(out)
    return PreparedSet(out)


class _Useless(InputError):
    """These photos make no set; going on would end in the same."""


@dataclass
class _Run:
    """One call of `prepare`, stage by stage."""

    work: Workspace
    source: PhotoSource
    morphable: MorphableModel
    settings: dict[str, Any]
    limits: QualityLimits
    detector: LandmarkDetector | None
    workers: int
    progress: bool

    def find_faces(self) -> None:
        """First stage: detect, align and fit, shard by shard."""
        if self.work.photos is not None:
            return
        start = self.work.shards * SHARD
        limit = self.settings["limit"]
        known = self.source.count()
        total = limit if known is None else min(known, limit or known)
        correspondence = (correspond if self.detector else mediapipe_correspondence)(self.morphable)
        workers = 1 if self.detector else self.workers
        groups = _groups(photos_from(self.source, start, limit))
        found = (
            one
            for group in ordered_map(_examiner, (self.detector, self.settings["size"]), groups, workers)
            for one in group
        )
        bar = progress_bar(found, "find faces", total=total, initial=start, unit="photo", disable=not self.progress)
        shard: list[tuple[str, FoundFace | str]] = []
        count = start
        for result in bar:
            shard.append(result)
            count += 1
            if len(shard) == SHARD:
                self._save(count, shard, correspondence)
                shard = []
        if shard:
            self._save(count, shard, correspondence)
        self.work.close_found()

    def _save(self, stop: int, results: list[tuple[str, FoundFace | str]], correspondence: Correspondence) -> None:
        first = stop - len(results)
        found = [
            (first + place, name, face) for place, (name, face) in enumerate(results) if isinstance(face, FoundFace)
        ]
        faces = [face for _, _, face in found]
        size = self.settings["size"]
        points = _stacked([face.points for face in faces], (478, 3))
        raw = fit(torch.from_numpy(points), self.morphable, correspondence)
        mirrored = None
        if self.settings["mirror"]:
            mirrored = fit(mirror_points(torch.from_numpy(points), SIZE), self.morphable, correspondence)
        disagreement = np.array([face.disagreement for face in faces], np.float64)
        self.work.save(
            first // SHARD,
            FoundShard(
                position=np.array([position for position, _, _ in found], np.int64),
                names=[name for _, name, _ in found],
                reasons=reasons_against(raw, torch.from_numpy(disagreement), self.limits),
                crops=_stacked([face.crop for face in faces], (size, size, 3), np.uint8),
                points=points,
                transforms=_stacked([face.transform for face in faces], (2, 3), np.float64),
                disagreement=disagreement,
                faces=np.array([face.faces for face in faces], np.int64),
                turn=np.array([face.turn for face in faces], np.int64),
                lost=[(name, face) for name, face in results if isinstance(face, str)],
                fit=raw,
                mirrored=mirrored,
            ),
        )

    def render(self) -> None:
        """Second stage: learn from all training faces, then make the rows, shard by shard."""
        work = self.work
        total = sum(self.counts)
        if total == 0:
            raise _Useless(
                f"not one of the {work.photos} photos of {self.source.path} shows a usable face{_first_reason(work)}"
            )
        missing = [number for number in range(work.shards) if not work.rows_file(number).is_file()]
        if not missing:
            return
        try:
            learned = learn(work, self.counts, self.training, self.morphable, self.settings["smoothing"])
        except InputError as error:
            raise _Useless(
                f"{self.source.path}: {total} of {work.photos} photos show a usable face; {error}"
            ) from error
        with whole_file(work.path / "morphable.safetensors") as file:
            learned.cleaning.morphable.save(file)
        arguments = (work.path, work.settings, learned, self.counts, self.training)
        done = total - sum(self.counts[number] for number in missing)
        options = {"total": total, "initial": done, "unit": "face", "disable": not self.progress}
        with progress_bar(None, "render", **options) as bar:
            for number in ordered_map(_renderer, arguments, missing, min(self.workers, len(missing))):
                bar.update(self.counts[number])

    def finish(self) -> None:
        """Last stage: put the rows together, and write the list of rejects and the report."""
        work = self.work
        with explained(work.path):
            files = [work.rows_file(number) for number in range(work.shards)]
            join_rows(work.path, files, digest([json.dumps(self.settings)]))
        rejected = write_rejects(work)
        errors = [raw.error[torch.from_numpy(kept)] for kept, raw, _ in map(work.load_fits, range(work.shards))]
        faces = sum(self.counts)
        info = {
            "faces": faces + self.training * self.settings["mirror"],
            "photos": work.photos,
            "rejected": rejected,
            "training": self.training,
            "landmark_error": round(float(torch.cat(errors).median()), 3),
            **{name: self.settings[name] for name in ("source", "held_out", "seed", "morphable")},
            "settings": self.settings,
        }
        write_report(work, info, self.morphable)
        write_json(work.path / "preparation.json", info)

    @functools.cached_property
    def counts(self) -> list[int]:
        """Usable faces of each shard."""
        return [len(self.work.load_fits(number)[0]) for number in range(self.work.shards)]

    @property
    def training(self) -> int:
        """How many usable faces, the first ones, are for training."""
        total = sum(self.counts)
        return max(1, total - round(self.settings["held_out"] * total))


def write_rejects(work: Workspace) -> int:
    """Write `rejects.csv`: names and reasons of the photos that are not used, in their order.

    Returns:
        How many there are.
    """
    count = 0
    with whole_file(work.path / "rejects.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "reason"))
        for number in range(work.shards):
            rejects = rejects_of(work.load(number))
            writer.writerows(rejects)
            count += len(rejects)
    return count


def _groups(photos: Iterator[Photo]) -> Iterator[list[tuple[str, Any]]]:
    """A few photos together, with their content, or the reason why it cannot be read."""
    group: list[tuple[str, Any]] = []
    size = 0
    for photo in photos:
        try:
            content: Any = photo.read()
            size += len(content) if isinstance(content, bytes) else content.nbytes
        except InputError as error:
            content = error
        group.append((photo.name, content))
        if len(group) == _GROUP or size > _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _examiner(detector: LandmarkDetector | None, size: int) -> Any:
    """For each process: a function from a group of photos to names with faces, or with reasons why there are none."""
    chosen = detector or MediaPipeDetector()

    def work(group: list[tuple[str, Any]]) -> list[tuple[str, FoundFace | str]]:
        return [
            (name, str(content) if isinstance(content, InputError) else examine(name, content, chosen, size))
            for name, content in group
        ]

    return work


def _renderer(path: Path, settings: dict[str, Any], learned: Learned, counts: list[int], training: int) -> Any:
    """For each process: a function that writes the rows of a shard and returns the shard's number."""
    work = Workspace(path, settings)

    def render(number: int) -> int:
        batch = batch_of_shard(work, number, sum(counts[:number]), training, settings["smoothing"], settings["mirror"])
        generator = torch.Generator().manual_seed((1_000_003 * settings["seed"] + number) % 2**64)
        with whole_file(work.rows_file(number)) as file:
            write_rows(file, learned.rows(batch, generator))
        return number

    return render


def _first_reason(work: Workspace) -> str:
    for number in range(work.shards):
        for _, reason in rejects_of(work.load(number)):
            return f"; the first: {reason}"
    return ""


def _finished(out: Path, settings: dict[str, Any]) -> PreparedSet:
    """The finished set, if it is the one that is asked for."""
    file = out / "preparation.json"
    known = json.loads(file.read_text()).get("settings") if file.is_file() else None
    if known is None:
        raise InputError(f"{out} exists already and was not made from photos; remove it or choose another name")
    if known != settings:
        raise InputError(f"{out} is finished, with {differences(known, settings)}; choose another --out, or remove it")
    clean(out)
    return PreparedSet(out)


def _detector_name(detector: LandmarkDetector | None) -> str:
    if detector is not None:
        return type(detector).__qualname__
    model = find_model()
    return f"MediaPipe {hashlib.sha256(model.read_bytes()).hexdigest()[:16]}"


def _check(held_out: float, limit: int | None, smoothing: float, workers: int) -> None:
    if not 0 <= held_out < 1:
        raise InputError(f"held_out must be a share from 0 up to 1, got {held_out}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1 photo, got {limit}")
    check_strength(smoothing)
    if workers < 1:
        raise InputError(f"workers must be at least 1 process, got {workers}")


def _stacked(arrays: list[np.ndarray], shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
    return np.array(arrays, dtype).reshape(-1, *shape)
