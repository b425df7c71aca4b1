"""The examples of `multilinear` in other fields run, are short, and do what they say."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = [
    "cp_regression",
    "khatri_rao_layer",
    "kronecker_curvature",
    "polynomial_features",
    "split_core",
    "tensor_fusion",
    "tensorly_backend",
    "wrong_gradient",
]


def run(name):
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]()


@pytest.mark.parametrize("name", NAMES)
def test_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


def test_tensor_fusion():
    concatenation, multilinear = run("tensor_fusion")
    assert concatenation < 0.6 < 0.85 < multilinear


def test_tensorly_backend():
    pytest.importorskip("tensorly")
    assert run("tensorly_backend") < 1e-3


def test_khatri_rao_layer():
    assert run("khatri_rao_layer") > 0.9


def test_cp_regression():
    ridge, cp = run("cp_regression")
    assert ridge > 0.5 and cp < 0.05


def test_polynomial_features():
    first, second, third = run("polynomial_features")
    assert first > 0.2 and second > 0.1 and third < 1e-10


@pytest.mark.slow
def test_split_core():
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    errors = set()
    for launcher in ([], torchrun):
        command = [sys.executable, *launcher, str(EXAMPLES / "split_core.py")]
        done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = re.findall(r"process (\d): (\d+) of 1000 rows; error of all (\d\.\d+e-\d+)", done.stdout)
        processes = 2 if launcher else 1
        assert sorted(line[:2] for line in lines) == [(str(i), str(1000 // processes)) for i in range(processes)]
        errors |= {float(error) for *_, error in lines}
    assert max(errors) < 0.01 and max(errors) == pytest.approx(min(errors), rel=1e-2)


def test_kronecker_curvature():
    gradient, factored = run("kronecker_curvature")
    assert gradient > 0.1 and factored < 1e-10


def test_wrong_gradient(capsys):
    message = run("wrong_gradient")
    assert "with respect to element (0, 0) of argument 1" in message
    assert "the analytic result disagrees with all others" in message
    assert "smallest wrong case: a = [[1.0]], b = [[1.0]]" in capsys.readouterr().out
