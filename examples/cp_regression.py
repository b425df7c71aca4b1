"""Tensor regression: a response that depends linearly on a picture, learnt from fewer pictures than it has pixels.

The coefficients form a picture of rank 2, so `cp_to_tensor` needs 2 * (24 + 24) numbers where ridge regression has 576
(Zhou, Li and Zhu, "Tensor regression with applications in neuroimaging data analysis", JASA 2013).
"""

import torch

import multilinear as ml

SIZE, SAMPLES, NOISE = 24, 300, 0.1


def cross() -> torch.Tensor:
    """The true coefficients: a cross, whose rank is 2."""
    picture = torch.zeros(SIZE, SIZE)
    picture[10:14, 4:20] = 1
    picture[4:20, 10:14] = 1
    return picture


def error(estimate: torch.Tensor) -> float:
    return (torch.linalg.norm(estimate - cross()) / torch.linalg.norm(cross())).item()


def main() -> tuple[float, float]:
    torch.manual_seed(0)
    pictures = torch.randn(SAMPLES, SIZE, SIZE)
    response = ml.multi_mode_dot(ml.unfold(pictures, 0), [ml.vec(cross())], modes=[1]) + NOISE * torch.randn(SAMPLES)

    rows = ml.unfold(pictures, 0)
    ridge = rows.T @ torch.linalg.solve(rows @ rows.T + torch.eye(SAMPLES), response)

    factors = [torch.randn(SIZE, 2).mul(0.3).requires_grad_() for _ in range(2)]
    optimizer = torch.optim.LBFGS(factors, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (rows @ ml.vec(ml.cp_to_tensor(factors)) - response).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    errors = error(ml.unvec(ridge, (SIZE, SIZE))), error(ml.cp_to_tensor(factors).detach())
    print(f"relative error of the coefficients: ridge {errors[0]:.2f}, rank-2 CP {errors[1]:.3f}")
    return errors


if __name__ == "__main__":
    main()
