"""What pictures show, read from the pixels alone: the judges of edits.

Two judges that err in different ways. `LandmarkReader` finds landmarks anew and fits the morphable model to them, as
the targets of training were made; what the detector does not see, such as a smile in a blurred mouth, it does not
tell. `TaughtReader` has no detector: it has learnt from real photos or renders how pictures go with factors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from skimage.feature import hog
from sklearn.decomposition import PCA
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from facemodels.config import SIZE
from facemodels.data.dataset import Faces
from facemodels.evaluation.measures import angle_between, batches, nearest_rotation
from facemodels.fitting.landmarks import POINTS, LandmarkDetector
from facemodels.fitting.shape import Correspondence, correspond, fit
from facemodels.morphable import MorphableModel
from facemodels.networks.verification import Verifier

READABLE = ("expression", "pose", "light", "identity")
"""Factors that readers may tell."""


@dataclass(frozen=True)
class Reading:
    """What pictures show, as a reader sees it.

    Attributes:
        values: By factor: "pose" is a rotation matrix row by row, `(n, 9)`; others are numbers in the reader's own
            units, `(n, k)`. Factors that the reader cannot tell are missing.
        found: In which pictures a face was found; the values of the others mean nothing.
    """

    values: dict[str, Float[Tensor, "n k"]]
    found: Bool[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.found)


class Reader(Protocol):
    """Whatever tells the factors that pictures show."""

    def read(self, images: Float[Tensor, "n 3 h w"]) -> Reading:
        """The factors of aligned pictures in [0, 1]."""
        ...


class LandmarkReader:
    """Landmarks found anew, and the morphable model fitted to them: expression, pose and identity.

    Args:
        detector: Finds the landmarks, such as `facemodels.fitting.landmarks.MediaPipeDetector`.
        morphable: The model to fit.
        correspondence: Which landmark marks which vertex; for MediaPipe
            `facemodels.fitting.calibrated.mediapipe_correspondence`, by default the 51 inner landmarks.
    """

    def __init__(
        self, detector: LandmarkDetector, morphable: MorphableModel, correspondence: Correspondence | None = None
    ):
        self.detector, self.morphable = detector, morphable
        self.correspondence = correspondence or correspond(morphable)

    def read(self, images: Float[Tensor, "n 3 h w"]) -> Reading:
        """The factors of aligned pictures in [0, 1]."""
        photos = (255 * images.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        seen = [self.detector.detect(np.ascontiguousarray(photo)) for photo in photos]
        found = torch.tensor([one is not None for one in seen], dtype=torch.bool)
        nowhere = np.zeros((POINTS, 3), np.float32)
        points = np.stack([nowhere if one is None else one.points for one in seen]) * (SIZE / images.shape[-1])
        fits = fit(torch.from_numpy(points)[found], self.morphable, self.correspondence)
        values = {"expression": fits.expression, "pose": fits.rotation.flatten(1), "identity": fits.identity}
        return Reading({name: _among(value, found) for name, value in values.items()}, found)


class TaughtReader:
    """Kernel ridge regression on edges and colours, learnt from pictures whose factors are known.

    Pictures are described by histograms of oriented gradients, which hardly see the light, and by their colours at
    16 x 16 pixels, which do.

    Args:
        images: Pictures to learn from, in [0, 1]; those of 3000 faces take a minute.
        values: Their factors, by any of the names of `READABLE`; "pose" as rotation matrices row by row.
        components: Principal components of the description that are kept.
        ridge: Weight of the ridge against an error of one standard deviation.

    Raises:
        ValueError: There are fewer than ten pictures, or not one row of values for each.

    Reference:
        Dalal and Triggs, "Histograms of Oriented Gradients for Human Detection", CVPR 2005.
    """

    def __init__(
        self,
        images: Float[Tensor, "n 3 h w"],
        values: Mapping[str, Float[Tensor, "n k"]],
        *,
        components: int = 200,
        ridge: float = 0.1,
    ):
        wrong = {name: len(value) for name, value in values.items() if len(value) != len(images)}
        if len(images) < 10 or wrong:
            raise ValueError(
                f"TaughtReader: needs ten pictures or more and a row of values for each, got {len(images)} pictures"
                + "".join(f" and {count} rows of {name}" for name, count in wrong.items())
            )
        self.sizes = {name: value.shape[1] for name, value in values.items()}
        self._scaler = StandardScaler()
        self._parts = PCA(min(components, len(images)), svd_solver="randomized", random_state=0)
        features = self._parts.fit_transform(self._scaler.fit_transform(describe(images)))
        self._width = float(np.sqrt(features.var(0).sum()))
        self._targets = StandardScaler()
        targets = self._targets.fit_transform(np.concatenate([value.cpu().numpy() for value in values.values()], 1))
        self._regression = KernelRidge(alpha=ridge, kernel="rbf", gamma=0.5)  # type: ignore[arg-type]
        self._regression.fit(features / self._width, targets)

    def read(self, images: Float[Tensor, "n 3 h w"]) -> Reading:
        """The factors of aligned pictures in [0, 1]."""
        features = self._parts.transform(self._scaler.transform(describe(images))) / self._width
        told = torch.from_numpy(self._targets.inverse_transform(self._regression.predict(features))).float()
        values = dict(zip(self.sizes, told.split(list(self.sizes.values()), 1), strict=True))
        if "pose" in values:
            values["pose"] = nearest_rotation(values["pose"].unflatten(1, (3, 3))).flatten(1)
        return Reading(values, torch.ones(len(images), dtype=torch.bool))


class PersonReader:
    """Identity as a verification network sees it.

    Args:
        verifier: One that the network was not trained with; see `facemodels.networks.verification`.
    """

    def __init__(self, verifier: Verifier):
        self.verifier = verifier

    @torch.no_grad()
    def read(self, images: Float[Tensor, "n 3 h w"]) -> Reading:
        """The vectors of aligned pictures in [0, 1]."""
        vectors = torch.cat([self.verifier.embed(images[rows].clamp(0, 1)) for rows in batches(len(images))])
        return Reading({"identity": vectors.cpu()}, torch.ones(len(images), dtype=torch.bool))


class Readers:
    """Several readers as one: each factor is told by the first that can; a face is found if all find it.

    Args:
        readers: In the order of trust.
    """

    def __init__(self, *readers: Reader):
        self.readers = readers

    def read(self, images: Float[Tensor, "n 3 h w"]) -> Reading:
        """The factors of aligned pictures in [0, 1]."""
        readings = [reader.read(images) for reader in self.readers]
        values = {name: value for reading in reversed(readings) for name, value in reading.values.items()}
        return Reading(values, torch.stack([reading.found for reading in readings]).all(0))


def teach_reader(faces: Faces, **settings: int | float) -> TaughtReader:
    """A `TaughtReader` of expression, pose and light from faces that the network has not seen.

    Identity is left to a `PersonReader`: a few dozen persons teach nothing about others.

    Args:
        faces: To learn from.
        settings: Of `TaughtReader`.
    """
    names = {"expression": "expression", "pose": "rotation", "light": "light"}
    return TaughtReader(faces.pictures(), {name: getattr(faces, field) for name, field in names.items()}, **settings)  # type: ignore[arg-type]


def reader_errors(reading: Reading, truth: Mapping[str, Float[Tensor, "n k"]]) -> dict[str, float]:
    """How far a reader is to be trusted: its readings of photos whose factors are known.

    Args:
        reading: Of the photos.
        truth: By the names of the reading; "pose" as rotation matrices row by row.

    Returns:
        "found", the share of photos with a face; "pose_degrees", the mean angle between read and true rotation; and for
        other factors "r2_of_expression" and so on: the share of their variance that is read.
    """
    found = reading.found
    errors = {"found": float(found.float().mean())}
    for name, value in truth.items():
        if name not in reading.values:
            continue
        read, true = reading.values[name][found], value[found].cpu()
        if name == "pose":
            errors["pose_degrees"] = float(angle_between(*(one.unflatten(1, (3, 3)) for one in (read, true))).mean())
        else:
            errors[f"r2_of_{name}"] = float(r2_score(true, read, multioutput="variance_weighted"))
    return errors


def _among(values: Tensor, found: Tensor) -> Tensor:
    """Values of the faces found, among zeros for the others."""
    everyone = values.new_zeros(len(found), values.shape[1])
    everyone[found] = values
    return everyone


def describe(images: Float[Tensor, "n 3 h w"]) -> Float[np.ndarray, "n features"]:
    """Histograms of oriented gradients and colours at 16 x 16 pixels, of pictures in [0, 1]."""
    colours = adaptive_avg_pool2d(images.float(), 16).flatten(1).cpu().numpy()
    small = adaptive_avg_pool2d(images.float(), SIZE) if images.shape[-1] > SIZE else images
    photos = small.permute(0, 2, 3, 1).cpu().double().numpy()
    edges = [hog(photo, 9, (8, 8), (2, 2), channel_axis=-1, feature_vector=True) for photo in photos]
    return np.concatenate([np.stack(edges), colours], axis=1)
