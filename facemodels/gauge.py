"""The gauge of the identity code: which of all equal networks a finished one is.

A network sees identity codes through linear maps only: its cores, the layers behind the product of codes, and the
layer to the morphable model's coefficients. Exchange the code z for A z, with any invertible A, and every such map W
for W A^-1, and nothing that the network decodes changes. Training leaves A to chance, and so may one direction in which
all faces differ hide all others from a distance or a cosine. `whiten_identity` chooses the A that makes codes white.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.autoencoder import NeuroTensorialAutoencoder
from multilinear import mode_dot
from multilinear.nn import CPCore, Multilinear, TuckerCore


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
