"""The list of mutants fits the code: what each replaces is there, and the result is still Python."""

import ast

import pytest
from mutants import MUTANTS, ROOT

CASES = [(name, *change) for name, changes in MUTANTS.items() for change in changes]


@pytest.mark.parametrize(("name", "old", "new"), CASES, ids=range(len(CASES)))
def test_mutant_can_be_made(name, old, new):
    source = (ROOT / "multilinear" / name).read_text()
    assert old in source
    ast.parse(source.replace(old, new, 1))
