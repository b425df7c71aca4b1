"""TensorLy on our operators: its own installed tests, and a decomposition of its that runs unchanged."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import assert_close, random_tensors

import multilinear as ml

tl = pytest.importorskip("tensorly")
from tensorly.decomposition import parafac  # noqa: E402

import multilinear.interop.tensorly as interop  # noqa: E402

TESTS = [
    "tenalg",
    "tests/test_cp_tensor.py",
    "tests/test_tucker_tensor.py",
    "decomposition/tests/test_cp.py",
    "decomposition/tests/test_tucker.py",
]
PLUGINS = {
    "as_backend": """
import tensorly as tl
import multilinear.interop.tensorly
tl.tenalg.set_backend("multilinear")
""",
    "swapped_in": """
import multilinear.interop.tensorly as ours
from tensorly.tenalg.core_tenalg import CoreTenalgBackend
for name, function in ours.OURS.items():
    CoreTenalgBackend.register_method(name, function)
""",
}


@pytest.fixture(params=["numpy", "pytorch"])
def backend(request):
    with tl.backend_context(request.param), tl.tenalg.backend_context("multilinear"):
        yield request.param


@pytest.mark.slow
@pytest.mark.parametrize(("way", "library"), [("as_backend", "numpy"), ("swapped_in", "pytorch")])
def test_tensorly_s_own_tests_pass(way, library, tmp_path):
    (tmp_path / "run_on_multilinear.py").write_text(PLUGINS[way])
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    root = Path(tl.__file__).parent
    python_path = os.pathsep.join([str(tmp_path), str(Path(ml.__file__).parent.parent)])
    options = ["-q", "-p", "run_on_multilinear", "-p", "no:cacheprovider", "-c", str(tmp_path / "pytest.ini")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *(str(root / test) for test in TESTS)],
        env={**os.environ, "TENSORLY_BACKEND": library, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0 and " failed" not in run.stdout, run.stdout[-3000:]


def test_backend_is_ours(backend):
    assert tl.tenalg.get_backend() == "multilinear"
    assert tl.tenalg.current_backend().khatri_rao is interop.khatri_rao


def test_decomposition_runs_unchanged(backend):
    factors = [tl.tensor(f.numpy()) for f in random_tensors([(5, 2), (6, 2), (4, 2)])]
    x = tl.cp_to_tensor((None, factors))
    found = parafac(x, rank=2, random_state=0, n_iter_max=200, tol=1e-12)
    assert float(tl.norm(tl.cp_to_tensor(found) - x) / tl.norm(x)) < 1e-4


class TestFunctions:
    def test_same_as_core(self, backend):
        core = tl.tenalg.load_backend("core")
        x, a, b, c, w = (tl.tensor(t.numpy()) for t in random_tensors([(2, 3, 4), (2, 5), (3, 5), (4, 5), (5,)]))
        assert_close(interop.khatri_rao([a, b, c], w, skip_matrix=1), core.khatri_rao([a, b, c], w, skip_matrix=1))
        assert_close(interop.khatri_rao([a, b], w, skip_matrix=0), core.khatri_rao([a, b], w, skip_matrix=0))  # without
        mask = tl.tensor(np.arange(6.0))
        assert_close(interop.khatri_rao([a, b], mask=mask), core.khatri_rao([a, b], mask=mask))
        assert_close(interop.kronecker([a, b, c], 0, reverse=True), core.kronecker([a, b, c], 0, reverse=True))
        assert_close(interop.outer([a, w]), core.outer([a, w]))
        assert_close(interop.mode_dot(x, a, 0, transpose=True), core.mode_dot(x, a, 0, transpose=True))
        matrices = [a, b, c]
        for skip in (None, 1):
            ours = interop.multi_mode_dot(x, matrices, skip=skip, transpose=True)
            assert_close(ours, core.multi_mode_dot(x, matrices, skip=skip, transpose=True))
        assert_close(
            interop.unfolding_dot_khatri_rao(x, (w, matrices), 1), core.unfolding_dot_khatri_rao(x, (w, matrices), 1)
        )

    def test_a_mode_twice(self, backend):
        x, a, v = (tl.tensor(t.numpy()) for t in random_tensors([(2, 3), (4, 2), (4,)]))
        assert_close(
            interop.multi_mode_dot(x, [a, v], [0, 0]), tl.tenalg.load_backend("core").multi_mode_dot(x, [a, v], [0, 0])
        )

    def test_vectors_drop_their_modes(self, backend):
        core = tl.tenalg.load_backend("core")
        x, u, b, v, c = (tl.tensor(t.numpy()) for t in random_tensors([(2, 3, 4), (2,), (5, 3), (5,), (6, 4)]))
        for operands, modes in (([u, b, v], [0, 1, 1]), ([b, c, v, u], [1, 2, 1, 0])):  # the order of modes counts
            for skip in (None, len(operands) - 1):
                expected = core.multi_mode_dot(x, operands, modes, skip=skip)
                assert_close(interop.multi_mode_dot(x, operands, modes, skip=skip), expected)
        assert_close(interop.multi_mode_dot(x, [c, u], [2, 0], skip=0), core.mode_dot(x, c, 2))

    def test_vectors_warn_as_in_tensorly(self, backend):
        with pytest.warns(UserWarning, match="vectors are taken as matrices with one column"):
            assert interop.khatri_rao([tl.tensor([1.0, 2.0]), tl.tensor([3.0, 4.0])]).shape == (4, 1)

    def test_complex_factors_are_conjugated_as_in_tensorly(self):
        x, a, b = random_tensors([(2, 3), (2, 2), (3, 2)], dtype=torch.complex128)
        with tl.backend_context("pytorch"):
            assert_close(interop.unfolding_dot_khatri_rao(x, (None, [a, b]), 0), x @ b.conj())

    def test_complex_weights_and_matrices_are_conjugated_as_in_tensorly(self):
        x, a, b, c, w = random_tensors([(2, 3, 4), (2, 5), (3, 5), (4, 5), (5,)], dtype=torch.complex128)
        with tl.backend_context("pytorch"):
            core = tl.tenalg.load_backend("core")
            expected = core.unfolding_dot_khatri_rao(x, (w, [a, b, c]), 1)
            assert_close(interop.unfolding_dot_khatri_rao(x, (w, [a, b, c]), 1), expected)
            assert_close(interop.mode_dot(x, b, 1, transpose=True), core.mode_dot(x, b, 1, transpose=True))
            ours = interop.multi_mode_dot(x, [a, b, c], transpose=True)
            assert_close(ours, core.multi_mode_dot(x, [a, b, c], transpose=True))

    def test_order_2_applies_the_weights(self, backend):  # TensorLy's core drops them
        x, a, b, w = (tl.tensor(t.numpy()) for t in random_tensors([(2, 3), (2, 4), (3, 4), (4,)]))
        assert_close(interop.unfolding_dot_khatri_rao(x, (w, [a, b]), 0), tl.dot(x, b) * w)

    def test_gradients_flow(self):
        with tl.backend_context("pytorch"), tl.tenalg.backend_context("multilinear"):
            x, a, b = random_tensors([(3, 4), (3, 2), (4, 2)], requires_grad=True)
            loss = tl.norm(tl.tenalg.unfolding_dot_khatri_rao(x, (None, [a, b]), 0))
            (gradient,) = torch.autograd.grad(loss, b)
            assert gradient.abs().sum() > 0
