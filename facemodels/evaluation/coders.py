"""What turns pictures into codes: our network, code by code, and anything it is compared with."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import datasets
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder, check_images
from facemodels.codes import FACTORS, Codes, check_factor
from facemodels.evaluation.measures import batches
from facemodels.progress import progress_bar

Array = Float[np.ndarray, "n features"]


class Coder(Protocol):
    """Anything that turns aligned pictures in [0, 1] into one vector each; labels never reach it."""

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        """The codes of images."""
        ...


@dataclass(frozen=True)
class NamedCode:
    """One code of our network as a `Coder` of its own.

    Args:
        model: A trained network.
        name: One of `facemodels.codes.FACTORS`.

    Raises:
        ValueError: There is no code of that name.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5))
        >>> NamedCode(model, "expression").encode(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 15])
    """

    model: NeuroTensorialAutoencoder
    name: str

    def __post_init__(self) -> None:
        check_factor("NamedCode", self.name)

    def encode(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features"]:
        """The code of images in [0, 1]."""
        return getattr(_look(self.model, images, [self.name]), self.name)


def named_codes(model: NeuroTensorialAutoencoder) -> dict[str, Coder]:
    """Every code of our network by its name."""
    return {name: NamedCode(model, name) for name in FACTORS}


@torch.no_grad()
def encode_pictures(
    coders: Mapping[str, Coder],
    pictures: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"],
    *,
    progress: bool = False,
) -> dict[str, Array]:
    """The codes of pictures by every coder, in batches; the codes of one network are taken from one look.

    Args:
        coders: By any names.
        pictures: As bytes, or in [0, 1].
        progress: Show a progress bar.

    Raises:
        ValueError: A coder gives no row of numbers for each picture.

    Example:
        >>> class Brightness:
        ...     def encode(self, images):
        ...         return images.mean((2, 3))
        >>> encode_pictures({"colours": Brightness()}, torch.full((2, 3, 4, 4), 255, dtype=torch.uint8))["colours"]
        array([[1., 1., 1.],
               [1., 1., 1.]], dtype=float32)
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in coders}
    names: dict[int, set[str]] = {}
    for coder in coders.values():
        if isinstance(coder, NamedCode):
            names.setdefault(id(coder.model), set()).add(coder.name)
    for rows in progress_bar(list(batches(len(pictures))), "encode", unit="batch", disable=not progress):
        images = as_floats(pictures[rows])
        looks: dict[int, Codes] = {}
        for name, coder in coders.items():
            if isinstance(coder, NamedCode):
                model = coder.model
                look = looks.get(id(model)) or looks.setdefault(id(model), _look(model, images, names[id(model)]))
                codes = getattr(look, coder.name)
            else:
                codes = coder.encode(images)
            if codes.ndim != 2 or len(codes) != len(images):
                raise ValueError(
                    f"encode_pictures: the coder {name!r} must give codes of shape ({len(images)}, features),"
                    f" got {tuple(codes.shape)}; flatten them"
                )
            parts[name].append(codes.float().cpu().numpy())
    return {name: np.concatenate(codes) for name, codes in parts.items()}


def pictures_of(rows: datasets.Dataset) -> UInt8[Tensor, "n 3 h w"]:
    """The pictures of rows of a prepared set, and nothing else of them: 10,000 take 130 MB."""
    return torch.cat(list(picture_batches(rows)))


def as_floats(pictures: UInt8[Tensor, "n 3 h w"] | Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Pictures in [0, 1]."""
    return pictures if pictures.is_floating_point() else pictures.float() / 255


def picture_batches(rows: datasets.Dataset) -> Iterator[UInt8[Tensor, "some 3 h w"]]:
    """The same batch by batch, each as it is read, for sets of any size."""
    images = rows.select_columns(["image"])
    for part in batches(len(images)):
        stack = np.stack([np.asarray(row["image"]) for row in images.select(range(part.start, part.stop))])  # type: ignore[call-overload]
        yield torch.from_numpy(stack).movedim(3, 1).contiguous()


def _look(model: NeuroTensorialAutoencoder, images: Tensor, names: Collection[str]) -> Codes:
    """Codes of which those of these names count; all but the background's come from one pass of the encoder."""
    images = images.to(model.encoder.head.weight.device)
    check_images("encode", images, model.config.size)
    return model.encode(images) if "background" in names else model.perceive(images)
