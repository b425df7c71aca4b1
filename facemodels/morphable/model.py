"""The morphable model: a mean face, and what identity and expression add to it."""

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facemodels.errors import InputError
from facemodels.morphable import storage

_LANDMARKS = 68


@dataclass(frozen=True)
class MorphableModel:
    """A linear model of face shape: mean, identity components and expression components.

    Lengths are in mm; x runs to the viewer's right (the subject's left), y up, z to the viewer. Components are scaled
    so that coefficients are in standard deviations: a draw from N(0, I) is a plausible face.

    Attributes:
        mean: The mean face, shape `(vertices, 3)`.
        identity: Displacements per standard deviation, shape `(n_identity, vertices, 3)`.
        expression: Displacements per standard deviation, shape `(n_expression, vertices, 3)`.
        triangles: Vertex numbers, anticlockwise seen from outside, shape `(triangles, 3)`, int64.
        face: Which triangles belong to the face proper, from brow or forehead to chin with eyes, nose, lips, mouth and
            teeth, but not hair, ears, scalp or neck. Shape `(triangles,)`, bool.
        landmarks: Vertices of the 68 iBUG landmarks, the first on the jaw at the subject's right. Shape `(68,)`, int64.
        expression_names: One name for each expression component.
        name: What the model is called.
        licence: Under which terms it may be used.
        source: Where it comes from.
        albedo: Mean albedo in [0, 1], shape `(vertices, 3)`, or None.
        uv: Texture coordinates, shape `(vertices, 2)`, or None.

    Raises:
        ValueError: Shapes do not fit together, or an index points outside of the vertices.

    Reference:
        Blanz and Vetter, "A Morphable Model for the Synthesis of 3D Faces", SIGGRAPH 1999.
    """

    mean: Float[Tensor, "vertices 3"]
    identity: Float[Tensor, "n_identity vertices 3"]
    expression: Float[Tensor, "n_expression vertices 3"]
    triangles: Int[Tensor, "triangles 3"]
    face: Bool[Tensor, "triangles"]
    landmarks: Int[Tensor, "68"]
    expression_names: tuple[str, ...]
    name: str
    licence: str
    source: str
    albedo: Float[Tensor, "vertices 3"] | None = None
    uv: Float[Tensor, "vertices 2"] | None = None

    def __post_init__(self) -> None:
        count = len(self.mean)
        for field, expected in {
            "mean": (count, 3),
            "identity": (len(self.identity), count, 3),
            "expression": (len(self.expression), count, 3),
            "triangles": (len(self.triangles), 3),
            "face": (len(self.triangles),),
            "landmarks": (_LANDMARKS,),
            "albedo": (count, 3),
            "uv": (count, 2),
        }.items():
            value = getattr(self, field)
            if value is not None and tuple(value.shape) != expected:
                raise ValueError(f"MorphableModel: {field} must have shape {expected}, got {tuple(value.shape)}")
        for field in ("triangles", "landmarks"):
            value = getattr(self, field)
            if value.numel() and not 0 <= int(value.min()) <= int(value.max()) < count:
                raise ValueError(
                    f"MorphableModel: {field} must number vertices from 0 to {count - 1}, "
                    f"got {int(value.min())} to {int(value.max())}"
                )
        if len(self.expression_names) != len(self.expression):
            raise ValueError(
                f"MorphableModel: {len(self.expression)} expression components need as many names, "
                f"got {len(self.expression_names)}"
            )

    @property
    def n_vertices(self) -> int:
        """Number of vertices."""
        return len(self.mean)

    @property
    def n_identity(self) -> int:
        """Number of identity components."""
        return len(self.identity)

    @property
    def n_expression(self) -> int:
        """Number of expression components."""
        return len(self.expression)

    def vertices(
        self,
        identity: Float[Tensor, "*batch n_identity"] | None = None,
        expression: Float[Tensor, "*batch n_expression"] | None = None,
    ) -> Float[Tensor, "*batch vertices 3"]:
        """Vertices of faces with these coefficients; no coefficients mean the mean face or a neutral expression.

        Args:
            identity: In standard deviations, shape `(*batch, n_identity)`.
            expression: In standard deviations, shape `(*batch, n_expression)`; leading dimensions broadcast.

        Returns:
            Positions in mm, shape `(*batch, vertices, 3)`.

        Raises:
            ValueError: The number of coefficients is not the model's.

        Example:
            >>> model = MorphableModel.procedural()
            >>> model.vertices(torch.zeros(5, 1, model.n_identity), torch.zeros(2, model.n_expression)).shape
            torch.Size([5, 2, 9375, 3])
        """
        result = self.mean.flatten()
        for kind, coefficients in (("identity", identity), ("expression", expression)):
            if coefficients is not None:
                basis = getattr(self, kind)
                if coefficients.shape[-1] != len(basis):
                    raise ValueError(
                        f"MorphableModel.vertices: {self.name} has {len(basis)} {kind} components, "
                        f"got coefficients of shape {tuple(coefficients.shape)}"
                    )
                result = result + coefficients @ basis.flatten(1)
        return result.unflatten(-1, (-1, 3))

    def to(self, device: torch.device | str) -> "MorphableModel":
        """The same model with its tensors on another device."""
        moved = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in moved.items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that differ when a number or a text of the model does."""
        hashed = hashlib.sha256()
        for field in fields(self):
            value = getattr(self, field.name)
            is_tensor = isinstance(value, Tensor)
            hashed.update(value.cpu().contiguous().numpy().tobytes() if is_tensor else repr(value).encode())
        return hashed.hexdigest()[:16]

    def save(self, path: str | Path) -> None:
        """Write the model as a safetensors file, whole or not at all.

        Args:
            path: File to write, normally ending in `.safetensors`; one that exists is replaced.
        """
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        texts = {name: getattr(self, name) for name in ("name", "licence", "source")}
        texts["expression_names"] = json.dumps(self.expression_names)
        storage.write(Path(path), {k: v for k, v in tensors.items() if isinstance(v, Tensor)}, texts)

    @classmethod
    def load(cls, path: str | Path) -> "MorphableModel":
        """Read a model that `save` wrote, or one of others: see `facemodels.morphable.converters`.

        Nothing in the file is executed; of pickles only arrays are rebuilt.

        Args:
            path: File or folder; what it is shows in its content, not in its name.

        Returns:
            The model, on the CPU.

        Raises:
            InputError: There is no such file, it is damaged, or it is no morphable model that we know.
        """
        path = Path(path)
        if not storage.is_safetensors(path):
            from facemodels.morphable.converters import from_file

            return from_file(path)
        tensors, texts = storage.read(path)
        try:
            names = tuple(json.loads(texts.pop("expression_names")))
            fields_of_file: dict[str, Any] = {**tensors, **texts, "expression_names": names}
            return cls(**fields_of_file)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"MorphableModel.load: {path} is no complete morphable model: {error}") from error

    @classmethod
    def procedural(cls) -> "MorphableModel":
        """The built-in model: a head made by code alone, so there is nothing to download.

        It has 9375 vertices, 157 identity and 28 named expression components (the numbers of the paper) and is made
        once, in about a second.

        Example:
            >>> model = MorphableModel.procedural()
            >>> model.n_vertices, model.n_identity, model.n_expression
            (9375, 157, 28)
        """
        return _procedural()


@cache
def _procedural() -> MorphableModel:
    from facemodels.morphable.procedural import build_model

    return build_model()
