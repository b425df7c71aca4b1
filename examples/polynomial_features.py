"""Polynomial features in one line: all products of the inputs, for a linear model that fits curves.

`face_splitting([x, x])` with a column of ones in x holds every monomial up to degree 2, and with three factors up to
degree 3. It works on numpy arrays as on torch tensors.
"""

import numpy as np

import multilinear as ml


def features(x: np.ndarray, degree: int) -> np.ndarray:
    """Every product of up to `degree` inputs, shape (samples, (inputs + 1) ** degree)."""
    with_one = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    return ml.face_splitting([with_one] * degree)


def test_error(degree: int) -> float:
    """Root mean square error of least squares on x0 x1 - 2 x2² x0 + x1, for samples it was not fitted to."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (400, 3))
    y = x[:, 0] * x[:, 1] - 2 * x[:, 2] ** 2 * x[:, 0] + x[:, 1]
    f = features(x, degree)
    weights, *_ = np.linalg.lstsq(f[:200], y[:200], rcond=None)
    return float(np.sqrt(np.mean((f[200:] @ weights - y[200:]) ** 2)))


def main() -> list[float]:
    errors = [test_error(degree) for degree in (1, 2, 3)]
    for degree, error in enumerate(errors, start=1):
        print(f"degree {degree}: {4**degree:2d} features, error {error:.1e}")
    return errors


if __name__ == "__main__":
    main()
