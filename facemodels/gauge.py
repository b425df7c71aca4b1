"""The gauge of the identity code: which of all equal networks a finished one is.

A network sees identity codes through linear maps only: its cores, the layers behind the product of codes, and the
layer to the morphable model's coefficients. Exchange the code z for A z, with any invertible A, and every such map W
for W A^-1, and nothing that the network decodes changes. Training leaves A to chance, and so may one direction in which
all faces differ hide all others from a distance or a cosine. `whiten_identity` chooses the A that makes codes white.

Nor does anything decoded change if the identity code gives up a linear function of the expression code that the
decoders add again. `separate_identity` chooses the function that predicts the identity code from the expression code
over many faces. Of what the two codes both told, an exchanged expression then takes its share along, and an exchanged
identity leaves it: both show more of what was asked and less of what was not.
"""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.autoencoder import NeuroTensorialAutoencoder
from facemodels.codes import Codes
from multilinear import mode_dot
from multilinear.nn import CPCore, Multilinear, TuckerCore

RIDGE = 0.3
"""Guard of the prediction, as a share of the mean variance of expression codes: their weakest directions, which tell of
the person more than of the expression, take no part."""


def prediction(
    source: Float[Tensor, "n p"], target: Float[Tensor, "n q"], ridge: float = RIDGE
) -> Float[Tensor, "q p"]:
    """The matrix A of the ridge regression target ~ A source + constant, in float64.

    Example:
        >>> source = torch.tensor([[0.0], [1.0], [2.0]])
        >>> prediction(source, 3 * source + 1, ridge=0.0)
        tensor([[3.]], dtype=torch.float64)
    """
    source, target = ((codes - codes.mean(0)).double() for codes in (source, target))
    gram = source.T @ source
    guard = ridge * gram.diagonal().mean().clamp_min(1e-12)
    return torch.linalg.solve(gram + guard * torch.eye(len(gram)).to(gram), source.T @ target).T


@torch.no_grad()
def separate_identity(
    model: NeuroTensorialAutoencoder, codes: Codes, ridge: float = RIDGE
) -> Float[Tensor, "n k_identity"]:
    """Change a network, in place, to the equal one whose identity codes do not follow from its expression codes.

    What is decoded from a picture stays what it was, up to rounding; swaps of expression and of identity change. Codes
    that were saved before belong to the network as it was.

    Args:
        model: The network.
        codes: Its codes of many faces.
        ridge: See `RIDGE`; must be positive unless the expression codes vary in every direction.

    Returns:
        The identity codes of these faces as they are now.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5)).eval()
        >>> images = torch.rand(200, 3, 64, 64)
        >>> codes = model.encode(images)
        >>> identity = separate_identity(model, codes)
        >>> model.config.residual_identity
        True
        >>> torch.allclose(model.encode(images).identity, identity, atol=1e-4)
        True
    """
    change = prediction(codes.expression, codes.identity, ridge)
    _give(model, -change)
    return codes.identity - codes.expression @ change.T.to(codes.expression)


@torch.no_grad()
def join_identity(model: NeuroTensorialAutoencoder) -> None:
    """Take `separate_identity` back: change a network, in place, to the equal one that training knows."""
    if model.config.residual_identity:
        _give(model, model.identity_of_expression.weight.double())
        del model.identity_of_expression
        model.config = dataclasses.replace(model.config, residual_identity=False)


def _give(model: NeuroTensorialAutoencoder, change: Float[Tensor, "k_identity k_expression"]) -> None:
    """Add `change` times the expression code to the identity code, and subtract it before decoding."""
    identity, expression = model.heads["identity"], model.heads["expression"]
    assert isinstance(identity, nn.Linear) and isinstance(expression, nn.Linear)
    if not model.config.residual_identity:
        model.config = dataclasses.replace(model.config, residual_identity=True)
        added = nn.Linear(model.config.expression, model.config.identity, bias=False)
        model.identity_of_expression = added.to(identity.weight)
        added.weight.zero_()
    for own, other in ((identity.weight, expression.weight), (identity.bias, expression.bias)):
        own.copy_(own.double() + change @ other.double())
    added = model.identity_of_expression.weight
    added.copy_(added.double() - change)


def whitening(codes: Float[Tensor, "n k"]) -> Float[Tensor, "k k"]:
    """The symmetric A = (C + c I)^(-1/2) of codes with covariance C, c the mean of their variances.

    Directions of more than the mean variance come out alike; those of less are noise for the most part, and are not
    blown up.
    """
    centred = (codes - codes.mean(0)).double()
    variance, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
    variance = variance.clamp_min(0)
    scale = (variance + variance.mean().clamp_min(1e-12)).rsqrt()
    return (axes * scale) @ axes.T


@torch.no_grad()
def whiten_identity(model: NeuroTensorialAutoencoder, codes: Float[Tensor, "n k_identity"]) -> None:
    """Change a network, in place, to the equal one whose identity codes are white.

    Everything decoded from a picture stays what it was, up to rounding; swaps and straight lines between codes, too.
    Optimizer states and codes that were saved before belong to the network as it was.

    Args:
        model: The network.
        codes: Its identity codes of many faces.

    Example:
        >>> from facemodels.config import NetworkConfig
        >>> model = NeuroTensorialAutoencoder(NetworkConfig(channels=(4, 4, 4), frontal_rank=2, vertices=5)).eval()
        >>> images = torch.rand(200, 3, 64, 64)
        >>> before = model.decode(model.encode(images[:2])).image
        >>> whiten_identity(model, model.encode(images).identity)
        >>> torch.allclose(model.decode(model.encode(images[:2])).image, before, atol=1e-3)
        True
    """
    change = whitening(codes)
    back = torch.linalg.inv(change)
    head = model.heads["identity"]
    assert isinstance(head, nn.Linear)
    head.weight.copy_(change @ head.weight.double())
    head.bias.copy_(change @ head.bias.double())
    if model.config.residual_identity:
        model.identity_of_expression.weight.copy_(change @ model.identity_of_expression.weight.double())
    fit = model.identity_coefficients
    fit.weight.copy_(fit.weight.double() @ back)
    for decoder in (model.normals, model.albedo):
        weight = decoder.head.weight
        by_identity = weight.double().unflatten(1, (-1, model.config.identity))
        weight.copy_((by_identity @ back).flatten(1))
    if model.config.cores:
        for core in (model.shape_core, model.frontal_core):
            _change_last_input(core, back)


def _change_last_input(core: Multilinear, back: Float[Tensor, "k k"]) -> None:
    """Put `back` between a core and its last input."""
    mode = len(core.in_features)
    if isinstance(core.core, CPCore):
        factor = core.factors[mode]
    elif isinstance(core.core, TuckerCore) and mode in core.factored_modes:
        factor = core.factors[core.factored_modes.index(mode)]
    else:
        core.weight.copy_(mode_dot(core.weight, back.T.to(core.weight), mode))
        return
    factor.copy_(back.T @ factor.double())
