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
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()
import multilinear
seconds = time.process_time() - start
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps([seconds, sorted(new)]))
"""


def test_import_is_light():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    seconds, modules = json.loads(run.stdout)
    assert seconds < 1
    assert not set(FORBIDDEN) & set(modules), modules
