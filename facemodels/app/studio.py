"""What the page shows, without the page: photos read, faces edited, their parts and their mesh."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder, orthogonal
from facemodels.codes import Codes
from facemodels.data.alignment import AlignedPhoto, load_photo
from facemodels.editing import EDITABLE, Edit, decode_edit, refine, to_tensor
from facemodels.expressions import NamedExpressions
from facemodels.fitting.landmarks import LandmarkDetector
from facemodels.mesh import Mesh
from facemodels.pasting import paste
from facemodels.reconstruction import face_mesh
from facemodels.rendering import euler_to_matrix
from facemodels.sheets import part_pictures

_LONG_SIDE = 1024  # pixels: larger photos are shown reduced
_TEXTURE = 256


@dataclass(frozen=True)
class Subject:
    """A face to edit.

    Attributes:
        photo: Where it comes from.
        codes: Of its crop, as they are lent to other faces.
        own: The crop as the network sees it, without any edit.
    """

    photo: AlignedPhoto
    codes: Codes
    own: Edit


@dataclass(frozen=True)
class Settings:
    """Where the sliders stand.

    Attributes:
        amounts: For each factor of `facemodels.editing.EDITABLE` how far to go from one face to the other, 0 to 1.
        yaw: By how many degrees to turn the face to the viewer's right.
        pitch: By how many degrees to turn it up.
        expressions: Amounts of named expressions; 1 is a full one.
    """

    amounts: Mapping[str, float] = field(default_factory=dict)
    yaw: float = 0.0
    pitch: float = 0.0
    expressions: Mapping[str, float] = field(default_factory=dict)

    @property
    def turned(self) -> bool:
        """Whether the face gets another pose."""
        return bool(self.yaw or self.pitch or self.amounts.get("pose"))


class Studio:
    """A network ready to edit photos.

    Args:
        model: A trained network.
        detector: Finds the faces in photos.
        expressions: The expressions that the network knows by name.
        refined: Steps in which identity and light of every photo are fitted to it, see `facemodels.editing.refine`.
    """

    def __init__(
        self,
        model: NeuroTensorialAutoencoder,
        detector: LandmarkDetector,
        expressions: NamedExpressions,
        refined: int = 0,
    ):
        self.model = model
        self.refined = refined
        self.detector = detector
        self.expressions = expressions
        self._one_at_a_time = threading.Lock()  # the detector is made for one thread

    @torch.no_grad()
    def read(self, path: str, name: str) -> Subject:
        """The largest face in a photo.

        Args:
            path: File of the photo.
            name: What to call it in messages.

        Raises:
            InputError: It is no photo, or shows no face.
        """
        with self._one_at_a_time:
            photo = load_photo(path, self.detector, name, size=self.model.config.size)
        photo = _reduced(photo)
        crop = to_tensor(photo.crop)
        own = decode_edit(self.model, refine(self.model, crop, self.refined))
        return Subject(photo, self.model.encode(crop), own)

    def edit(self, subject: Subject, other: Subject | None, settings: Settings) -> Edit:
        """A face with the sliders' changes.

        Args:
            subject: The face.
            other: Whose factors it takes; without one the amounts change nothing.
            settings: The sliders.
        """
        codes = subject.own.codes
        for factor in EDITABLE:
            amount = settings.amounts.get(factor, 0.0)
            if other is not None and amount:
                codes = codes.interpolate(other.codes, factor, amount)
        codes = codes.replace(
            pose=turn(codes.pose, settings.yaw, settings.pitch),
            expression=self.expressions.add(codes.expression, settings.expressions),
        )
        return decode_edit(self.model, codes, settings.turned)

    def in_photo(self, subject: Subject, edit: Edit) -> UInt8[np.ndarray, "height width 3"]:
        """The photo with the edited face."""
        return paste(subject.photo, edit, subject.own)

    @torch.no_grad()
    def parts(self, edit: Edit, settings: Settings) -> dict[str, Float[Tensor, "c h w"]]:
        """What an edited face is made of, by name; inside its own outline if it was turned."""
        made_of = edit.rendering
        if settings.turned:
            made_of = replace(made_of, mask=made_of.face_mask)
        return {name: pictures[0] for name, pictures in part_pictures(self.model, edit.codes, made_of).items()}

    def mesh(self, edit: Edit) -> Mesh:
        """The edited face in 3D.

        Raises:
            InputError: The network has no morphable model.
        """
        return face_mesh(self.model, edit.codes, detail=_TEXTURE)


def turn(pose: Float[Tensor, "n 9"], yaw: float, pitch: float) -> Float[Tensor, "n 9"]:
    """Pose codes of faces that are turned further, in degrees: to the viewer's right, and up."""
    if not yaw and not pitch:
        return pose
    angles = torch.deg2rad(torch.tensor([[yaw], [-pitch], [0.0]]))
    rotation = orthogonal(pose.unflatten(1, (3, 3)))
    return (euler_to_matrix(*angles).to(pose) @ rotation).flatten(1)


def _reduced(photo: AlignedPhoto) -> AlignedPhoto:
    """A photo of no more pixels than the page shows."""
    height, width = photo.photo.shape[:2]
    factor = _LONG_SIDE / max(height, width)
    if factor >= 1:
        return photo
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(Image.fromarray(photo.photo).resize(size, Image.Resampling.LANCZOS))
    scale = np.array([width / size[0], height / size[1], 1.0])
    return AlignedPhoto(photo.name, small, photo.crop, photo.transform * scale, photo.landmarks)
