"""A photo that makes the faces somebody makes in a video (the paper's appendix E)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.baselines.landmark_warp import LandmarkWarp
from facemodels.codes import Codes
from facemodels.data.alignment import TEMPLATE, AlignedPhoto, align, cut_out, similarity
from facemodels.data.video import Video
from facemodels.editing import Edit, decode_edit, to_tensor
from facemodels.errors import InputError
from facemodels.figures import grid
from facemodels.fitting.landmarks import LandmarkDetector, Landmarks, find_faces
from facemodels.fitting.temporal import check_strength, whittaker
from facemodels.movies import check_movie, write_movie
from facemodels.pasting import enlarged, paste
from facemodels.progress import progress_bar

PANELS = ("video", "animated", "landmarks warped")
"""What stands side by side in an animation."""

_CUT = 0.15  # mean change of a frame's brightness, of 1, that is a cut
_JUMP = 0.35  # of the face's size: a face that moves further from one frame to the next is another one
_AWAY = 25  # frames without the face that is followed, after which one is chosen anew
_THUMBNAIL = 32  # pixels
_STEADY = 1e3  # smoothing of the part of the video that is shown


@dataclass(frozen=True)
class Motion:
    """What a face does in a video; arrays have a row for each frame in which it was seen.

    Attributes:
        length: Number of frames, with and without a face.
        rate: Frames a second.
        frames: Numbers of the frames with a face, ascending from 0.
        shots: Number of the shot each belongs to; a cut, or another face, begins a new one.
        expression: Codes, (seen, 15).
        pose: Codes, (seen, 9).
        points: Landmarks in pixels of a crop of 64, (seen, 478, 3).
        five: The five points of the alignment in pixels of the frame, (seen, 5, 2).
        cuts: How often a new shot began.
        crowded: How many frames show more than one face.
        broken: Why the video could not be read to its end; empty if it could.
    """

    length: int
    rate: Fraction
    frames: Int[np.ndarray, " seen"]
    shots: Int[np.ndarray, " seen"]
    expression: Float[Tensor, "seen k_expression"]
    pose: Float[Tensor, "seen 9"]
    points: Float[np.ndarray, "seen 478 3"]
    five: Float[np.ndarray, "seen 5 2"]
    cuts: int
    crowded: int
    broken: str

    def rows(self) -> Int[np.ndarray, " length"]:
        """For each frame the row of the last one with a face, itself included; -1 before the first."""
        return np.searchsorted(self.frames, np.arange(self.length), side="right") - 1

    def smoothed(self, strength: float) -> "Motion":
        """Codes and landmarks smoothed over time within each shot: see `facemodels.fitting.temporal`.

        Raises:
            InputError: `strength` is negative, or far too large.
        """
        check_strength(strength)
        if strength == 0:
            return self
        return replace(
            self,
            expression=torch.from_numpy(self._over_time(self.expression.numpy(), strength)),
            pose=torch.from_numpy(self._over_time(self.pose.numpy(), strength)),
            points=self._over_time(self.points, strength),
            five=self._over_time(self.five, strength),
        )

    def _over_time(self, values: np.ndarray, strength: float) -> np.ndarray:
        parts = []
        for shot in np.unique(self.shots):
            rows = self.shots == shot
            flat = values[rows].reshape(rows.sum(), -1).astype(np.float64)
            parts.append(whittaker(flat, self.frames[rows], strength))
        return np.concatenate(parts).reshape(values.shape).astype(values.dtype)


@dataclass(frozen=True)
class Animation:
    """What `animate` wrote.

    Attributes:
        path: The file.
        frames: Number of frames.
        faceless: How many of them had no face in the video; they hold the last expression.
        cuts: How many cuts the video has.
        crowded: How many frames show more than one face.
        broken: Why the video could not be read to its end; empty if it could.
    """

    path: Path
    frames: int
    faceless: int
    cuts: int
    crowded: int
    broken: str

    def lines(self) -> list[str]:
        """For the command line."""
        lines = [f"wrote {self.path}: {self.frames} frames, without sound"]
        if self.cuts:
            lines.append(f"cuts: {self.cuts}; nothing is smoothed across them")
        if self.faceless:
            lines.append(f"frames without a face: {self.faceless}; they hold the last expression")
        if self.crowded:
            lines.append(f"frames with several faces: {self.crowded}; the one nearest to where it was is followed")
        return lines + ([self.broken] if self.broken else [])


@torch.no_grad()
def read_motion(
    model: NeuroTensorialAutoencoder,
    video: str | os.PathLike[str],
    detector: LandmarkDetector,
    *,
    face: int = 1,
    limit: int | None = None,
    progress: bool = False,
) -> Motion:
    """Expression, pose and landmarks of a face in every frame of a video.

    Within a shot the face nearest to where it was before is followed, unless another one was nearer to that place. One
    that stays away for more than a second or so is given up.

    Args:
        model: A trained network.
        video: File that PyAV can read.
        detector: Finds the landmarks.
        face: Which face to follow where a shot begins: 1 is the largest.
        limit: Take only the first frames.
        progress: Show a progress bar.

    Raises:
        InputError: The file is no video, or no frame shows that face.
    """
    clip = Video(os.fspath(video))
    reader, broken = _Reader(model, detector, face), ""
    for photo in progress_bar(islice(clip.photos(), limit), "reading", total=_total(clip, limit), disable=not progress):
        try:
            reader.look(photo.read())  # type: ignore[arg-type]  # a video gives pixels
        except InputError as error:
            broken = str(error)
    if not reader.frames:
        which = "no face" if face == 1 else f"no face {face}"
        raise InputError(broken or f"{which} found in any of the {reader.length} frames of {video}")
    return reader.motion(clip.rate(), broken)


class _Reader:
    """Looks at the frames of a video one after the other."""

    def __init__(self, model: NeuroTensorialAutoencoder, detector: LandmarkDetector, face: int):
        self.model, self.detector, self.face = model, detector, face
        self.length = self.crowded = self.shot = 0
        self.frames: list[int] = []
        self.seen: list[tuple[int, Tensor, Tensor, np.ndarray, np.ndarray]] = []
        self._thumbnail: np.ndarray | None = None
        self._five: np.ndarray | None = None  # where the face was, if this shot has shown it
        self._others: list[np.ndarray] = []  # where the middles of the other faces were then

    def look(self, image: UInt8[np.ndarray, "height width 3"]) -> None:
        self._notice_cut(image)
        faces = find_faces(self.detector, image)
        self.crowded += len(faces) > 1
        landmarks = self._followed(faces)
        if landmarks is not None:
            self._keep(image, landmarks)
        self.length += 1

    def motion(self, rate: Fraction, broken: str) -> Motion:
        shots, expression, pose, points, five = zip(*self.seen, strict=True)
        return Motion(
            length=self.length,
            rate=rate,
            frames=np.array(self.frames),
            shots=np.array(shots),
            expression=torch.cat(expression),
            pose=torch.cat(pose),
            points=np.stack(points),
            five=np.stack(five),
            cuts=self.shot,
            crowded=self.crowded,
            broken=broken,
        )

    def _notice_cut(self, image: np.ndarray) -> None:
        small = Image.fromarray(image).convert("L").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
        thumbnail = np.asarray(small, np.float32) / 255
        if self._thumbnail is not None and np.abs(thumbnail - self._thumbnail).mean() > _CUT:
            self.shot += 1
            self._five = None
        self._thumbnail = thumbnail

    def _followed(self, faces: list[Landmarks]) -> Landmarks | None:
        if self._five is None or self.length - self.frames[-1] > _AWAY:
            chosen = faces[self.face - 1] if len(faces) >= self.face else None
        else:
            before = self._five.mean(0)
            own = [
                face
                for face in faces
                if all(_distance(face, before) <= _distance(face, other) for other in self._others)
            ]
            chosen = min(own, key=lambda face: _distance(face, before), default=None)
        if chosen is not None:
            self._others = [face.five.mean(0) for face in faces if face is not chosen]
        return chosen

    def _keep(self, image: np.ndarray, landmarks: Landmarks) -> None:
        try:
            crop, transform = align(image, landmarks.five, self.model.config.size)
        except ValueError:  # five points in one place are no face
            return
        if self._five is not None:
            moved = np.linalg.norm(landmarks.five.mean(0) - self._five.mean(0))
            self.shot += bool(moved > _JUMP * np.ptp(landmarks.points[:, :2], axis=0).max())
        self._five = landmarks.five
        codes = self.model.perceive(to_tensor(crop))
        self.frames.append(self.length)
        points = landmarks.moved(transform).points
        self.seen.append((self.shot, codes.expression, codes.pose, points, landmarks.five.astype(np.float32)))


def _distance(face: Landmarks, place: np.ndarray) -> float:
    """Of a face's middle from a place, in pixels."""
    return float(np.linalg.norm(face.five.mean(0) - place))


@torch.no_grad()
def animate(
    model: NeuroTensorialAutoencoder,
    video: str | os.PathLike[str],
    template: AlignedPhoto,
    out: Path,
    detector: LandmarkDetector,
    *,
    own: Codes | None = None,
    pose: bool = False,
    smooth: float = 0.0,
    face: int = 1,
    whole: bool = False,
    panel: int = 256,
    limit: int | None = None,
    progress: bool = False,
) -> Animation:
    """Give a photo the expression of every frame of a video.

    Side by side stand the video's face, the photo with its expression, and the photo warped to its landmarks. A frame
    without a face holds the last expression; before the first one the photo stays as it is.

    Args:
        model: A trained network.
        video: File that PyAV can read; its sound is not kept.
        template: The photo, its crop of the network's size.
        out: File to write; its ending says the format, see `facemodels.movies`.
        detector: Finds the landmarks in the video.
        own: Codes of the photo, such as `facemodels.editing.refine` finds; by default those that the encoder reads.
        pose: Take the pose, too.
        smooth: Strength of the smoothing over time; 0 for none, 10 is a good choice.
        face: Which face of the video to follow: 1 is the largest where a shot begins.
        whole: Write the whole photo with its animated face, alone, instead of the three panels.
        panel: Side of a panel in pixels.
        limit: Take only the first frames.
        progress: Show progress bars.

    Raises:
        InputError: `video` is no video or shows no face, or `out` cannot be written; nothing is left then.
        InputError: `smooth` is negative, or far too large.
    """
    check_movie(out)
    own = model.encode(to_tensor(template.crop)) if own is None else own
    check_strength(smooth)
    motion = read_motion(model, video, detector, face=face, limit=limit, progress=progress).smoothed(smooth)
    pictures = (
        _whole_photos(model, template, motion, own, pose)
        if whole
        else _panels(model, template, motion, own, pose, Video(os.fspath(video)), panel)
    )
    bar = progress_bar(pictures, "painting", total=motion.length, disable=not progress)
    frames = write_movie(out, bar, motion.rate)
    faceless = motion.length - len(motion.frames)
    return Animation(out, frames, faceless, motion.cuts, motion.crowded, motion.broken)


def _whole_photos(
    model: NeuroTensorialAutoencoder, template: AlignedPhoto, motion: Motion, codes: Codes, pose: bool
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """The photo as each frame makes it."""
    own = decode_edit(model, codes)
    shown, before = template.photo, -1
    for row in motion.rows():
        if row != before:
            shown, before = paste(template, _animated(model, own, motion, row, pose), own), row
        yield shown


def _panels(
    model: NeuroTensorialAutoencoder,
    template: AlignedPhoto,
    motion: Motion,
    own: Codes,
    pose: bool,
    clip: Video,
    side: int,
) -> Iterator[UInt8[np.ndarray, "height width 3"]]:
    """Three crops side by side: the video, the photo animated, the photo warped."""
    small = enlarged(template, side)
    still = to_tensor(small.photo)[0]
    warp = LandmarkWarp(still, template.landmarks.points)
    steady = motion.smoothed(_STEADY).five
    ours = _whole_photos(model, small, motion, own, pose)
    for row, photo, animated in zip(motion.rows(), clip.photos(), ours, strict=False):
        frame = cut_out(photo.read(), similarity(steady[max(row, 0)], TEMPLATE), side)  # type: ignore[arg-type]
        warped = still if row < 0 else warp(motion.points[row : row + 1])[0]
        pictures = [to_tensor(frame)[0], to_tensor(animated)[0], warped]
        yield np.asarray(grid([pictures], columns=PANELS, zoom=1))


def _animated(model: NeuroTensorialAutoencoder, own: Edit, motion: Motion, row: int, pose: bool) -> Edit:
    taken = {"expression": motion.expression[row : row + 1]}
    if pose:
        taken["pose"] = motion.pose[row : row + 1]
    return decode_edit(model, own.codes.replace(**taken), pose)


def _total(clip: Video, limit: int | None) -> int | None:
    counts = [count for count in (clip.count(), limit) if count is not None]
    return min(counts, default=None)
