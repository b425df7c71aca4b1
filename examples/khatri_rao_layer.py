"""A structured layer: a 256 x 64 weight matrix that is the Khatri-Rao product of two 16 x 64 ones.

Output (i, j) of such a layer is a sum over features of a[i] b[j] x, as for an image whose rows and columns vary
separately. It has an eighth of the weights, and the gradients of `khatri_rao` are analytic.
"""

import torch

import multilinear as ml


class KhatriRaoLinear(torch.nn.Module):
    """`y = khatri_rao([a, b]) @ x`, with `a` and `b` of shapes (rows, features) and (columns, features)."""

    def __init__(self, features: int, rows: int, columns: int):
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(rows, features))
        self.b = torch.nn.Parameter(torch.randn(columns, features) / features**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return x @ ml.khatri_rao([self.a, self.b]).T


def main() -> float:
    torch.manual_seed(0)
    truth = KhatriRaoLinear(64, 16, 16)
    x = torch.randn(500, 64)
    target = truth(x).detach()
    layer = KhatriRaoLinear(64, 16, 16)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        loss = torch.nn.functional.mse_loss(layer(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    explained = 1 - (loss / target.var()).item()
    weights = sum(p.numel() for p in layer.parameters())
    print(f"{weights} weights instead of {64 * 256} explain {explained:.3f} of the variance")
    return explained


if __name__ == "__main__":
    main()
