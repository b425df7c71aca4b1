"""Kronecker-factored curvature: a natural-gradient step for a linear layer without the large matrix.

The Fisher matrix of a layer with weights W (outputs x inputs) is approximated by G ⊗ A, the covariances of the output
gradients and of the inputs (Martens and Grosse, ICML 2015). Its inverse times vec(W) is two small products along the
modes of W: `multi_mode_dot(W, [G⁻¹, A⁻¹])`.
"""

import torch

import multilinear as ml

INPUTS, OUTPUTS, SAMPLES = 20, 5, 1000


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    scales = torch.logspace(0, 2, INPUTS, dtype=torch.float64)  # badly scaled inputs
    x = torch.randn(SAMPLES, INPUTS, dtype=torch.float64) * scales
    truth = torch.randn(OUTPUTS, INPUTS, dtype=torch.float64)
    y = x @ truth.T

    weight = torch.zeros(OUTPUTS, INPUTS, dtype=torch.float64)
    residual = x @ weight.T - y
    gradient = residual.T @ x / SAMPLES
    inputs, outputs = x.T @ x / SAMPLES, torch.eye(OUTPUTS, dtype=torch.float64)  # least squares: G is the identity

    step = ml.multi_mode_dot(gradient, [torch.linalg.inv(outputs), torch.linalg.inv(inputs)])
    fisher = ml.kronecker([outputs, inputs])  # 100 x 100: only to compare
    explicit = ml.unvec(torch.linalg.solve(fisher, ml.vec(gradient)), (OUTPUTS, INPUTS))
    difference = (step - explicit).abs().max().item()

    plain = gradient / torch.linalg.matrix_norm(inputs, 2)  # the longest stable gradient step
    losses = [(x @ (weight - s).T - y).square().mean().item() / y.square().mean().item() for s in (plain, step)]
    print(f"two mode products against the explicit inverse: difference {difference:.0e}")
    print(f"loss left after one step: gradient {losses[0]:.2f}, Kronecker-factored {losses[1]:.0e}")
    return losses[0], losses[1]


if __name__ == "__main__":
    main()
