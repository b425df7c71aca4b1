"""A decomposition of TensorLy, unchanged, on the operators of `multilinear`.

Needs TensorLy (extra `bench`).
"""

import tensorly as tl
import torch
from tensorly.decomposition import parafac

import multilinear as ml
import multilinear.interop.tensorly


def main() -> float:
    torch.manual_seed(0)
    tensor = ml.cp_to_tensor([torch.rand(size, 3, dtype=torch.float64) for size in (10, 12, 8)])
    with tl.backend_context("pytorch"), tl.tenalg.backend_context("multilinear"):
        found = parafac(tensor, rank=3, random_state=0, n_iter_max=500, tol=1e-12)
        error = float(tl.norm(tl.cp_to_tensor(found) - tensor) / tl.norm(tensor))
    print(f"relative error of TensorLy's CP decomposition: {error:.1e}")
    return error


if __name__ == "__main__":
    main()
