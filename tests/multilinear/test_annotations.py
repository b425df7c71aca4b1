"""The shapes written in the signatures are true: the examples of the docstrings run with the annotations checked."""

import subprocess
import sys

import pytest

pytest.importorskip("beartype")

SCRIPT = """
import doctest, importlib, sys
import jaxtyping
NAMES = ["matricization", "products", "contractions", "maps", "cp", "tucker", "nn"]
MODULES = [f"multilinear.{name}" for name in NAMES]
jaxtyping.install_import_hook(MODULES, "beartype.beartype")
import multilinear as ml, torch
try:  # the hook is at work
    ml.khatri_rao([torch.ones(2)])
    sys.exit("no annotation was checked")
except jaxtyping.TypeCheckError:
    pass
results = [doctest.testmod(importlib.import_module(name)) for name in MODULES]
assert sum(result.attempted for result in results) > 30
sys.exit(sum(result.failed for result in results))
"""


def test_annotations_hold_in_every_example():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
