"""Named expressions as directions of a network's expression code, found by showing it rendered faces.

A network's own coefficients are no help: the code change of least length that moves one coefficient and no other
leaves the codes of faces by far. So faces of the built-in head are drawn with and without each expression, and what
changes in their codes is the direction; this needs no names in the network's morphable model either.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.data.factors import sample_factors
from facemodels.data.synthetic import draw
from facemodels.morphable.procedural import EMOTIONS, EXPRESSIONS, emotion_coefficients, limit_expression

_SEED, _PERSONS = 11, 3
_FULL = 2.0  # standard deviations of a component at full strength
_AHEAD = 0.3  # share of a drawn pose that is kept: expressions are told best from in front
_AGREEMENT = 0.5  # mean cosine between persons from which on the network tells an expression
_GAIN = 4.0  # by how much at most a small change of the code is made larger


@dataclass(frozen=True)
class NamedExpressions:
    """What to add to an expression code so that a face smiles, opens its mouth, and so on.

    Attributes:
        names: The emotions, then the single actions, as far as the network tells them.
        directions: What to add for the full expression, shape `(names, k_expression)`.
        untold: Expressions that change the codes of different persons in different ways, if at all.
    """

    names: tuple[str, ...]
    directions: Float[Tensor, "names k_expression"]
    untold: tuple[str, ...] = ()

    def add(self, code: Float[Tensor, "n k_expression"], amounts: Mapping[str, float]) -> Float[Tensor, "n k"]:
        """An expression code with some expressions added; 1 is a full one, negative amounts take it away.

        Raises:
            ValueError: There is no such expression.

        Example:
            >>> named = NamedExpressions(("smile", "jaw open"), torch.eye(2))
            >>> named.add(torch.zeros(1, 2), {"smile": 0.5})
            tensor([[0.5000, 0.0000]])
        """
        unknown = sorted(set(amounts) - set(self.names))
        if unknown:
            raise ValueError(
                f"NamedExpressions.add: there is no expression {unknown[0]!r}; choose among {', '.join(self.names)}"
            )
        strength = torch.tensor([float(amounts.get(name, 0.0)) for name in self.names])
        return code + (strength @ self.directions).to(code)


@torch.no_grad()
def name_expressions(model: NeuroTensorialAutoencoder) -> NamedExpressions:
    """Find the directions of a network's expression code that belong to named expressions.

    The change of the code from neutral to each expression is averaged over persons. Small changes are made larger, up
    to the usual one and at most four times, so that every direction can be seen. Expressions on whose change the
    persons do not agree are left out. It takes a few seconds, mostly for drawing the faces, which is done once.

    Args:
        model: A trained network, on photos or on rendered faces.

    Returns:
        The directions, on the CPU.
    """
    names, pictures = reference_faces(model.config.size)
    device = next(model.parameters()).device
    code = torch.cat([model.encode(batch.to(device)).expression for batch in pictures.flatten(0, 1).split(32)])
    change = (code.unflatten(0, pictures.shape[:2])[1:] - code[: pictures.shape[1]]).cpu()
    unit = F.normalize(change, dim=-1)
    persons = change.shape[1]
    agreement = ((unit @ unit.mT).sum((1, 2)) - unit.square().sum((1, 2))) / (persons * (persons - 1))
    mean = change.mean(1)
    length = mean.norm(dim=1).clamp_min(1e-9)
    gain = (length.square().mean().sqrt() / length).clamp(1.0, _GAIN)
    told = agreement >= _AGREEMENT
    return NamedExpressions(
        tuple(name for name, kept in zip(names, told, strict=True) if kept),
        (gain[:, None] * mean)[told],
        tuple(name for name, kept in zip(names, told, strict=True) if not kept),
    )


@cache
def reference_faces(size: int) -> tuple[tuple[str, ...], Float[Tensor, "expressions persons 3 size size"]]:
    """Rendered faces: first neutral, then with each of the named expressions, which are returned, too.

    Left and right go together.
    """
    expressions = {name: emotion_coefficients(name) for name in EMOTIONS if name != "neutral"}
    for place, component in enumerate(EXPRESSIONS):
        name = component.removesuffix("_left").removesuffix("_right").replace("_", " ")
        expressions.setdefault(name, np.zeros(len(EXPRESSIONS)))[place] = _FULL
    drawn = [sample_factors(_SEED, number, images_per_person=1, size=size) for number in range(_PERSONS)]
    persons = [replace(person, angles=_AHEAD * person.angles) for person in drawn]
    coefficients = [np.zeros(len(EXPRESSIONS)), *map(limit_expression, expressions.values())]
    faces = [replace(person, expression=wanted) for wanted in coefficients for person in persons]
    pictures, _ = draw(faces)
    return tuple(expressions), pictures.unflatten(0, (len(coefficients), _PERSONS))
