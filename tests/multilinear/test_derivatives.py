"""Every operator through every way that torch differentiates, against the same transform of its einsum definition."""

import pytest
import torch

from multilinear.testing.cases import CASES
from multilinear.testing.derivatives import CHECKS

EAGER = [name for name, check in CHECKS.items() if check.group != "compile"]
COMPILED = [name for name, check in CHECKS.items() if check.group == "compile"]
COSTLY = ("compile_inductor", "compile_hessian")  # seconds each
SAMPLES = ("face_splitting", "mttkrp", "multilinear_loss", "cp_to_tensor")
COMPLEX = [name for name, check in CHECKS.items() if check.complex]


@pytest.mark.parametrize("operator", CASES)
class TestDerivatives:
    @pytest.mark.parametrize("check", EAGER)
    def test_float64(self, operator, check):
        assert CHECKS[check].run(CASES[operator], dtype=torch.float64) < 1e-12

    @pytest.mark.parametrize("check", COMPLEX)
    def test_complex128(self, operator, check):
        assert CHECKS[check].run(CASES[operator], dtype=torch.complex128) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "operator"),
    [(check, operator) for check in COMPILED for operator in (SAMPLES if check in COSTLY else CASES)],
)
def test_compiled(check, operator):
    assert CHECKS[check].run(CASES[operator], dtype=torch.float64) < 1e-12
