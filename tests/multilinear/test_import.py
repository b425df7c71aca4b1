"""`import multilinear` brings in its five dependencies and nothing heavier."""

import json
import subprocess
import sys

FORBIDDEN = [
    "scipy",
    "hypothesis",
    "triton",
    "pytest",
    "tensorly",
    "matplotlib",
    "facemodels",
    "accelerate",
    "datasets",
]

SCRIPT = """
import json, sys
import torch
before = set(sys.modules)
import multilinear
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(new)))
"""


def test_import_is_light():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    modules = json.loads(run.stdout)
    assert not set(FORBIDDEN) & set(modules), modules
