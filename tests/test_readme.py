"""What the README says is run."""

import doctest
import re
import tomllib
from pathlib import Path
from types import FunctionType

import pytest

import multilinear
from facemodels import cli

README = Path(__file__).parent.parent / "README.md"
NAMES = README.parent / "docs" / "names.md"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")  # torch's own, in forward mode
@pytest.mark.parametrize("page", [README, NAMES], ids=lambda page: page.name)
def test_examples(page):
    failed, tried = doctest.testfile(str(page), module_relative=False)
    assert tried >= 6 and failed == 0


def test_every_operator_and_decomposition_has_its_line_among_the_names():
    rooms = multilinear, multilinear.decomposition
    functions = [name for room in rooms for name, value in vars(room).items() if isinstance(value, FunctionType)]
    text = NAMES.read_text()
    assert len(functions) >= 24 and not [name for name in functions if not re.search(rf"`[^`]*\b{name}\b", text)]


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


def test_the_source_distribution_holds_what_the_readme_shows():
    settings = tomllib.loads(README.with_name("pyproject.toml").read_text())
    held = {*settings["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "LICENSE"}  # the licence comes along
    shown = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert {target.split("/")[0] for target in shown if not target.startswith("http")} <= held
