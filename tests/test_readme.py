"""What the README says is run."""

import doctest
import re
from pathlib import Path

import pytest

from facemodels import cli

README = Path(__file__).parent.parent / "README.md"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # torch's own, in forward mode
def test_examples():
    failed, tried = doctest.testfile(str(README), module_relative=False)
    assert tried >= 6 and failed == 0


def test_commands_exist():
    named = set(re.findall(r"^facemodels (\w+)", README.read_text(), re.MULTILINE))
    known = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    assert named and named <= known


def test_make_targets_exist():
    named = set(re.findall(r"(?:^|`)make (\w+)", README.read_text(), re.MULTILINE))
    makefile = README.with_name("Makefile").read_text()
    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in named)


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert target.startswith("http") or (README.parent / target).exists(), target
