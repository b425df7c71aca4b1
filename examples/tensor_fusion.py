"""Multimodal fusion: a prediction that depends on words, voice and face together, not on any of them alone.

Each sample has three feature vectors and a label that multiplies one hidden direction of each. A layer on the
concatenated features cannot express this; a multilinear layer with a CP core does with few weights (low-rank fusion,
Liu et al., ACL 2018).
"""

import torch

import multilinear as ml

SIZES = (12, 8, 10)  # features of words, voice, face


def make_data(samples: int, directions: list[torch.Tensor]) -> tuple[list[torch.Tensor], torch.Tensor]:
    features = [torch.randn(samples, size) for size in SIZES]
    signs = [torch.sign(z @ direction) for z, direction in zip(features, directions, strict=True)]
    return features, signs[0] * signs[1] * signs[2]


def accuracy(model, features: list[torch.Tensor], label: torch.Tensor) -> float:
    return (torch.sign(model(*features).squeeze(-1)) == label).float().mean().item()


def train(model, features: list[torch.Tensor], label: torch.Tensor, steps: int = 300) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(steps):
        loss = torch.nn.functional.soft_margin_loss(model(*features).squeeze(-1), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


class Concatenation(torch.nn.Module):
    """The rival: one linear layer on all features."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(sum(SIZES), 1)

    def forward(self, *features: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.linear(torch.cat(features, dim=-1))


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    directions = [torch.randn(size) for size in SIZES]
    training, test = make_data(4000, directions), make_data(2000, directions)
    linear, fused = Concatenation(), ml.nn.Multilinear(SIZES, 1, core=ml.nn.CPCore(rank=4))
    for model in (linear, fused):
        train(model, *training)
    results = accuracy(linear, *test), accuracy(fused, *test)
    print(f"accuracy: concatenation {results[0]:.2f}, multilinear {results[1]:.2f}")
    print(f"weights: {sum(p.numel() for p in fused.parameters())}, a full core would have {12 * 8 * 10}")
    return results


if __name__ == "__main__":
    main()
