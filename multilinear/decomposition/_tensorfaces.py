"""TensorFaces: a multilinear model of labelled images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from multilinear.decomposition._codes import Projector, anchor
from multilinear.decomposition._hooi import tucker
from multilinear.decomposition._hosvd import hosvd
from multilinear.decomposition._iterations import Progress, check_data, check_positive, without_autocast
from multilinear.maps import multilinear_map
from multilinear.matricization import unfold


@dataclass(frozen=True, eq=False)
class TensorFaces:
    """A multilinear model of images: one code for every labelled cause, multiplied together by a core.

    Attributes:
        core: Tensor `(pixels, R_1, ..., R_M)`, one mode for every cause; with `basis`, its first mode is components.
        factors: For every cause the codes of its levels, `(levels, R_m)`, with orthonormal columns.
        levels: For every cause its label values, in the order of the rows of its factor.
        basis: Orthonormal eigenimages `(pixels, components)`, or None if the core holds pixels.
        shape: Shape of an image.
        error: Relative error on the images it was made of.
    """

    core: Float[Tensor, "..."]
    factors: dict[str, Tensor]
    levels: dict[str, Tensor]
    basis: Tensor | None
    shape: tuple[int, ...]
    error: float
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.factors))

    @without_autocast
    def transform(
        self, images: Float[Tensor, "n ..."], *, max_iterations: int = 50
    ) -> "dict[str, Float[Tensor, 'n _']]":
        """Codes of images, also of unseen ones: multilinear projection, refined by alternating least squares.

        A code is known up to a factor that another takes. All but the first cause's are as long in the direction of the
        mean of their levels as that mean is, so that any may be exchanged for a level's; the first takes the scale.

        Args:
            images: Images of shape `(n, *shape)`.
            max_iterations: Most sweeps of the refinement.

        Returns:
            For every cause a matrix of codes `(n, R_m)`; an all-zero image has codes of zeros.
        """
        data = self._flat("transform", images)
        codes = self._projector.project(data if self.basis is None else data @ self.basis, rounds=max_iterations)
        codes = anchor(codes, [factor.mean(0) for factor in self.factors.values()])
        return dict(zip(self.names, codes, strict=True))

    @without_autocast
    def inverse_transform(self, codes: Mapping[str, Float[Tensor, "..."]]) -> Float[Tensor, "n ..."]:
        """Images from codes, one for every cause: matrices `(n, R_m)`, or a vector that holds for all images.

        Take the codes of an image and exchange one for another image's, or for a row of the factors, to edit it.
        """
        if set(codes) != set(self.names):
            raise ValueError(
                f"TensorFaces.inverse_transform: codes must hold {list(self.names)}, got {list(codes)}; take those of "
                f"transform, or rows of the factors"
            )
        pixels = multilinear_map(self.core, [codes[name] for name in self.names])
        if self.basis is not None:
            pixels = pixels @ self.basis.mT
        return pixels.reshape(*pixels.shape[:-1], *self.shape)

    @without_autocast
    def predict(self, images: Float[Tensor, "n ..."]) -> "dict[str, Shaped[Tensor, 'n']]":
        """For every cause the label of the level whose code makes the smallest angle with the image's.

        Directions in which the core is zero but for rounding do not count: no image tells anything about them.
        """
        found = {}
        for mode, (name, code) in enumerate(self.transform(images).items(), start=1):
            energy = torch.linalg.vector_norm(unfold(self.core, mode), dim=1)
            known = energy > torch.finfo(energy.dtype).eps ** 0.5 * energy.max()
            rows = torch.nn.functional.normalize(self.factors[name][:, known], dim=1)
            found[name] = self.levels[name][(code[:, known] @ rows.mT).argmax(1)]
        return found

    @cached_property
    def _projector(self) -> Projector:
        return Projector(self.core)

    def _flat(self, method: str, images: Tensor) -> Tensor:
        images = check_data(f"TensorFaces.{method}", "images", images, 1) if len(images) else images
        if tuple(images.shape[1:]) != self.shape:
            raise ValueError(
                f"TensorFaces.{method}: images must have shape (n, {', '.join(map(str, self.shape))}), got "
                f"{tuple(images.shape)}; the model was made of such images"
            )
        if not torch.isfinite(images).all():
            raise ValueError(f"TensorFaces.{method}: images hold NaN or infinity; mend or leave them out first")
        return images.reshape(len(images), math.prod(self.shape)).to(self.core)


@without_autocast
def tensorfaces(
    images: Float[Tensor, "n ..."],
    labels: Mapping[str, Shaped[Any, "n"]],
    *,
    ranks: Mapping[str, int] | None = None,
    components: int | None = None,
    max_iterations: int = 0,
    progress: Progress | None = None,
) -> TensorFaces:
    """TensorFaces: M-mode SVD of labelled images, people x views x lights x expressions x pixels.

    The images are not centred: the first direction of every cause is its mean, and causes multiply. Every combination
    of levels must occur; where one occurs several times its images are averaged. For unlabelled images, see
    `KhatriRaoFactorization`.

    Args:
        images: Tensor `(n, ...)`, float32 or float64; for the decomposition an image is a vector.
        labels: For every cause, by name, one value for each image: a tensor, array or list of integers.
        ranks: Numbers of directions kept, by name; by default all of every cause.
        components: Number of eigenimages kept; by default the core holds pixels.
        max_iterations: Most sweeps that improve the truncated model (`tucker`); 0 leaves it with `hosvd`.
        progress: Called with a `Sweep` after each of them.

    Returns:
        The model, which encodes unseen images, decodes codes and names the nearest levels.

    Raises:
        TypeError: The images are no torch tensor of float32 or float64, or the labels no mapping.
        ValueError: A label has another length, combinations are missing, a rank exceeds the levels, a rank's name is
            unknown, or the images hold NaN or infinity.

    Example:
        >>> import torch
        >>> from multilinear.decomposition import tensorfaces
        >>> person, light = torch.cartesian_prod(torch.arange(3), torch.arange(2)).T
        >>> images = torch.rand(3, 16)[person] * torch.rand(2, 16)[light]
        >>> model = tensorfaces(images, {"person": person, "light": light})
        >>> codes = model.transform(images)
        >>> torch.allclose(model.inverse_transform(codes), images, atol=1e-3)
        True
        >>> torch.equal(model.predict(images)["person"], person)
        True

    Reference:
        Vasilescu and Terzopoulos, "Multilinear Analysis of Image Ensembles: TensorFaces", ECCV 2002; "Multilinear
        Projection for Appearance-Based Recognition in the Tensor Framework", ICCV 2007 (unseen images).
    """
    images = check_data("tensorfaces", "images", images, 2)
    levels, places = _read_labels(images, labels)
    wanted = _read_ranks(levels, ranks)
    if components is not None:
        check_positive("tensorfaces", "components", components)
    if isinstance(max_iterations, bool) or not isinstance(max_iterations, int) or max_iterations < 0:
        raise ValueError(f"tensorfaces: max_iterations must be a number of sweeps, 0 or more, got {max_iterations!r}")
    tensor = _arrange(images, levels, places)
    every = [*wanted, components]
    model = tucker(tensor, every, max_iterations=max_iterations, progress=progress) if max_iterations else None
    model = model or hosvd(tensor, every)
    *factors, basis = model.factors
    assert all(factor is not None for factor in factors)
    by_name = {name: factor for name, factor in zip(levels, factors, strict=True) if factor is not None}
    core = model.core.movedim(-1, 0).contiguous()
    return TensorFaces(core, by_name, levels, basis, tuple(images.shape[1:]), model.error)


def _read_labels(images: Tensor, labels: object) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The levels of every cause, and the level of every image."""
    if not isinstance(labels, Mapping) or not labels:
        raise TypeError(
            f"tensorfaces: labels must be a mapping from names to one value for each image, got "
            f"{type(labels).__name__}; such as {{'person': [0, 0, 1, 1], 'light': [0, 1, 0, 1]}}"
        )
    levels, places = {}, []
    for name, values in labels.items():
        column = torch.as_tensor(values, device=images.device)
        if tuple(column.shape) != (len(images),) or column.is_floating_point() or column.is_complex():
            raise ValueError(
                f"tensorfaces: labels[{name!r}] must hold one integer for each of the {len(images)} images, got shape "
                f"{tuple(column.shape)} of {column.dtype}"
            )
        levels[name], place = torch.unique(column, return_inverse=True)
        places.append(place)
    return levels, places


def _read_ranks(levels: Mapping[str, Tensor], ranks: Mapping[str, int] | None) -> list[int]:
    ranks = {} if ranks is None else dict(ranks)
    unknown = [name for name in ranks if name not in levels]
    if unknown:
        raise ValueError(f"tensorfaces: ranks names {unknown}, but the labels are {list(levels)}")
    for name, rank in ranks.items():
        check_positive("tensorfaces", f"ranks[{name!r}]", rank)
        if rank > len(levels[name]):
            raise ValueError(
                f"tensorfaces: rank {rank} of {name!r} is larger than its {len(levels[name])} levels; choose at most "
                f"{len(levels[name])}"
            )
    return [ranks.get(name, len(values)) for name, values in levels.items()]


def _arrange(images: Tensor, levels: Mapping[str, Tensor], places: list[Tensor]) -> Tensor:
    """The images as a tensor `(levels of the first cause, ..., pixels)`, means where a combination occurs again."""
    sizes = [len(values) for values in levels.values()]
    cell = torch.zeros_like(places[0])
    for place, size in zip(places, sizes, strict=True):
        cell = cell * size + place
    counts = torch.bincount(cell, minlength=math.prod(sizes))
    if (counts == 0).any():
        missing = int((counts == 0).sum())
        first = torch.unravel_index((counts == 0).int().argmax(), sizes)
        values = {name: levels[name][place].item() for name, place in zip(levels, first, strict=True)}
        raise ValueError(
            f"tensorfaces: every combination of levels must occur, but {missing} of {len(counts)} are missing, the "
            f"first {values}; leave out the levels that are not complete, or use KhatriRaoFactorization, which needs "
            f"no labels"
        )
    flat = images.reshape(len(images), -1)
    if len(images) == len(counts):
        tensor = flat[cell.argsort()]
    else:
        tensor = torch.zeros(len(counts), flat.shape[1], dtype=flat.dtype, device=flat.device)
        tensor = tensor.index_add_(0, cell, flat) / counts.unsqueeze(1)
    return tensor.reshape(*sizes, -1)
