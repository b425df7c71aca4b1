"""The named codes of a batch of faces: what the encoder returns and the decoder takes."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from facemodels.errors import InputError
from facemodels.files import read_tensors, write_tensors
from facemodels.networks.encoder import Context

FACTORS = ("background", "mask", "light", "pose", "identity", "expression")
"""The six codes of the paper's eq. 6."""

_FORMAT = "facemodels.Codes/1"


@dataclass(frozen=True)
class Codes:
    """Codes of n faces (the paper's eq. 6), and the context of the pictures they came from.

    Attributes:
        background: Code of what lies around the face, (n, 128).
        mask: Code of where the face is, (n, 128).
        light: Nine spherical-harmonic coefficients, (n, 9), or nine per colour, (n, 27).
        pose: Rotation matrix from face to camera, row by row, (n, 9); not exactly orthogonal.
        identity: (n, 80).
        expression: (n, 15).
        context: What the mask decoder needs besides its code; it stays with the picture.
        background_context: What the background decoder needs besides its code; it stays with the picture whose
            background is kept. Of a network with `cut_background` it is that of the picture without the face.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> from facemodels.autoencoder import NeuroTensorialAutoencoder
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
        >>> codes = model.encode(torch.rand(2, 3, 64, 64))
        >>> swapped = codes.replace(expression=codes.expression.flip(0))
        >>> half = codes[:1].interpolate(codes[1:], "identity", 0.5)
        >>> half.identity.shape
        torch.Size([1, 80])
    """

    background: Float[Tensor, "n k_background"]
    mask: Float[Tensor, "n k_mask"]
    light: Float[Tensor, "n k_light"]
    pose: Float[Tensor, "n 9"]
    identity: Float[Tensor, "n k_identity"]
    expression: Float[Tensor, "n k_expression"]
    context: Context
    background_context: Context

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, index: Any) -> "Codes":
        """Codes of some of the faces; a single number keeps the dimension of faces."""
        if isinstance(index, int):
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        parts = {name: getattr(self, name)[index] for name in (*FACTORS, "context")}
        same = self.background_context is self.context
        return Codes(**parts, background_context=parts["context"] if same else self.background_context[index])

    def replace(self, **codes: Tensor) -> "Codes":
        """The same codes with some of them exchanged.

        Raises:
            ValueError: A name is not one of `FACTORS`, or a code has another shape.
        """
        for name, code in codes.items():
            check_factor("Codes.replace", name)
            expected = getattr(self, name).shape
            if code.shape != expected:
                raise ValueError(
                    f"Codes.replace: {name} has shape {tuple(expected)}, got {tuple(code.shape)};"
                    " encode as many faces on both sides, or repeat one with codes.expand(n)"
                )
        return dataclasses.replace(self, **codes)

    def interpolate(self, other: "Codes", factors: str | Sequence[str], amount: float) -> "Codes":
        """Move some codes on the straight line to another face's; `amount` 0 keeps them, 1 takes the other's.

        Raises:
            ValueError: A name is not one of `FACTORS`, or the numbers of faces differ.
        """
        names = [factors] if isinstance(factors, str) else factors
        for name in names:
            check_factor("Codes.interpolate", name)
        return self.replace(**{name: torch.lerp(getattr(self, name), getattr(other, name), amount) for name in names})

    def expand(self, count: int) -> "Codes":
        """One face's codes repeated `count` times.

        Raises:
            ValueError: There is more than one face.
        """
        if len(self) != 1:
            raise ValueError(f"Codes.expand: needs the codes of one face, got {len(self)}; take one with codes[k]")
        return self[torch.zeros(count, dtype=torch.long, device=self.identity.device)]

    @staticmethod
    def cat(parts: Iterable["Codes"]) -> "Codes":
        """Codes of several batches one behind the other."""
        parts = list(parts)
        context = Context.cat([part.context for part in parts])
        same = all(part.background_context is part.context for part in parts)
        return Codes(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in FACTORS},
            context=context,
            background_context=context if same else Context.cat([part.background_context for part in parts]),
        )

    def to_tensors(self) -> dict[str, Tensor]:
        """All tensors by name: the six codes, `context.indices.0`, `context.skips.0` and so on, outermost level first.

        Those of `background_context` are left out where it is `context` itself.
        """
        tensors = {name: getattr(self, name) for name in FACTORS}
        contexts = {"context": self.context}
        if self.background_context is not self.context:
            contexts["background_context"] = self.background_context
        for name, context in contexts.items():
            for part in ("indices", "skips"):
                levels = getattr(context, part)
                tensors |= {f"{name}.{part}.{level}": tensor for level, tensor in enumerate(levels)}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Codes":
        """The inverse of `to_tensors`.

        Raises:
            KeyError: A code is missing.
        """

        def context(name: str) -> Context:
            return Context(*(_levels(tensors, f"{name}.{part}") for part in ("indices", "skips")))

        own = context("context")
        apart = "background_context.indices.0" in tensors
        behind = context("background_context") if apart else own
        return cls(**{name: tensors[name] for name in FACTORS}, context=own, background_context=behind)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the codes as a safetensors file, whole or not at all.

        They show what the people look like: keep and delete them as you do the photos.

        Args:
            path: File to write, normally ending in `.safetensors`; one that exists is replaced.

        Raises:
            InputError: There is no such folder, or the disk is full or cannot be written to.

        Example:
            >>> import tempfile
            >>> from facemodels.config import NetworkConfig
            >>> from facemodels.autoencoder import NeuroTensorialAutoencoder
            >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
            >>> codes = model.encode(torch.rand(2, 3, 64, 64))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     codes.save(f"{folder}/codes.safetensors")
            ...     again = Codes.load(f"{folder}/codes.safetensors")
            >>> torch.equal(model.decode(again).image, model.decode(codes).image)
            True
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise InputError(f"Codes.save: there is no folder {path.parent}; make it first")
        write_tensors(path, {name: _short(tensor) for name, tensor in self.to_tensors().items()}, {"format": _FORMAT})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Codes":
        """Read codes that `save` wrote, on the CPU.

        Raises:
            InputError: There is no such file, it is damaged, or it holds something else.
        """
        tensors, texts = read_tensors(Path(path))
        if texts.get("format") != _FORMAT:
            raise InputError(f"{path} is a safetensors file, but holds no codes; Codes.save writes them")
        return cls.from_tensors(
            {name: tensor if tensor.is_floating_point() else tensor.long() for name, tensor in tensors.items()}
        )


def _levels(tensors: Mapping[str, Tensor], name: str) -> tuple[Tensor, ...]:
    return tuple(tensors[key] for key in takewhile(tensors.__contains__, (f"{name}.{level}" for level in count())))


def _short(tensor: Tensor) -> Tensor:
    """Indices in half their size; pictures are not that large."""
    return tensor if tensor.is_floating_point() else tensor.to(torch.int32)


def check_factor(caller: str, name: str) -> None:
    """Refuse a name that is no code.

    Raises:
        ValueError: `name` is not one of `FACTORS`.
    """
    if name not in FACTORS:
        raise ValueError(f"{caller}: there is no code {name!r}; choose one of {', '.join(FACTORS)}")
