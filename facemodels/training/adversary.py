"""The discriminator's side of the adversarial game (section 3.6, after BEGAN)."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from facemodels.config import NetworkConfig, TrainingConfig
from facemodels.networks import Discriminator


class Adversary(nn.Module):
    """A discriminator and the balance k_t between what it makes of photos and of the network's pictures.

    It is small, so every process holds it whole and the gradients are averaged by `facemodels.parallel`.

    Args:
        network: Sizes of the network; the discriminator has the same.
        training: `gamma` and `balance_rate`.

    Attributes:
        k: k_t in [0, 1], starting at 0.
        convergence: BEGAN's measure L(x) + |gamma L(x) - L(x^)| of the last update; the lower the better.

    Reference:
        Berthelot, Schumm, Metz, "BEGAN: Boundary Equilibrium Generative Adversarial Networks", arXiv 1703.10717,
        section 3.4.
    """

    k: Tensor

    def __init__(self, network: NetworkConfig, training: TrainingConfig):
        super().__init__()
        self.discriminator = Discriminator(network.channels, network.intermediate, network.size)
        self.gamma, self.rate = training.gamma, training.balance_rate
        self.register_buffer("k", torch.zeros(()))
        self.convergence = float("nan")

    def error(self, images: Float[Tensor, "n 3 h w"]) -> Tensor:
        """L(v) = mean |v - D(v)|, with gradients for the pictures but none for the discriminator."""
        return F.l1_loss(held_still(self.discriminator, images), images)

    def loss(self, real: Float[Tensor, "n 3 h w"], fake: Float[Tensor, "n 3 h w"]) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminator minimises, L(x) - k_t L(x^), and its two parts by name, "real_error" and "fake_error".

        Args:
            real: Photos in [0, 1].
            fake: As many pictures of the network, detached.
        """
        both = torch.cat([real, fake])
        errors = (self.discriminator(both) - both).abs().flatten(1).mean(1)
        real_error, fake_error = errors[: len(real)].mean(), errors[len(real) :].mean()
        parts = {"real_error": real_error.detach(), "fake_error": fake_error.detach()}
        return real_error - self.k * fake_error, parts

    @torch.no_grad()
    def update(self, real: float, fake: float) -> None:
        """After the discriminator's step: k_(t+1) = k_t + lambda_k (gamma L(x) - L(x^)), kept in [0, 1].

        Args:
            real: L(x), the mean over all pictures of the step.
            fake: L(x^), likewise.
        """
        balance = self.gamma * real - fake
        self.k.add_(self.rate * balance).clamp_(0, 1)
        self.convergence = real + abs(balance)


def held_still(module: nn.Module, *inputs: Tensor) -> Any:
    """What a module makes of its inputs, with gradients for these and none for its weights."""
    weights = {name: value.detach() for name, value in module.named_parameters()}
    return torch.func.functional_call(module, weights, inputs)
