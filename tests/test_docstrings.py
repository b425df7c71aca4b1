"""Every example in a docstring runs, and prints what it says."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SLOW = {"facemodels.data.synthetic", "facemodels.reconstruction"}


def modules_with_examples():
    files = [file for package in ("multilinear", "facemodels") for file in (ROOT / package).rglob("*.py")]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files if ">>> " in file.read_text()}
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in sorted(names)]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(
        importlib.import_module(name.removesuffix(".__init__")), optionflags=doctest.ELLIPSIS
    )
    assert tried and not failed
