"""Imports run one way only: the packages' rooms, and who may import whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Rooms of facemodels from the top down; a module imports from its own room and from lower ones.
FACEMODELS_ROOMS = (
    ("cli", "__main__", "app"),
    ("demo",),
    ("sheets", "training", "evaluation", "video", "reconstruction", "export"),
    ("pasting", "editing", "baselines", "expressions"),
    ("losses",),
    ("data",),
    ("autoencoder", "codes", "gauge"),
    ("pretrained", "model_card"),
    ("networks", "fitting"),
    ("rendering",),
    ("morphable",),
    ("batch", "config", "errors", "figures", "files", "mesh", "movies", "parallel", "precision", "progress"),
)
# `multilinear` likewise; oracles and the verification kit are for tests and users, never for the library itself.
MULTILINEAR_ROOMS = (
    ("optim",),
    ("nn", "decomposition", "interop", "distributed"),
    ("maps", "cp", "tucker", "contractions", "products"),
    ("matricization", "autograd"),
    ("kernels",),
)
ORACLES = ("testing", "appendix", "reference")
ALLOWED_BESIDES = {"_arrays", "_checks"}  # helpers of every room


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names a module imports, also inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: write imports in full"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def room_of(path: Path, package: str) -> str:
    return path.relative_to(ROOT / package).parts[0].removesuffix(".py")


def rank(room: str, rooms: tuple[tuple[str, ...], ...]) -> int | None:
    return next((number for number, names in enumerate(rooms) if room in names), None)


def upward(package: str, rooms: tuple[tuple[str, ...], ...], path: Path) -> list[str]:
    own = rank(room_of(path, package), rooms)
    if own is None:
        return []
    wrong = []
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == package and len(parts) > 1:
            other = rank(parts[1], rooms)
            if other is not None and other < own:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}, which stands above it")
    return wrong


@pytest.mark.parametrize("path", modules("facemodels"), ids=lambda path: str(path.relative_to(ROOT)))
def test_facemodels_imports_run_down(path):
    assert not upward("facemodels", FACEMODELS_ROOMS, path)


@pytest.mark.parametrize("path", modules("multilinear"), ids=lambda path: str(path.relative_to(ROOT)))
def test_multilinear_imports_run_down(path):
    assert not upward("multilinear", MULTILINEAR_ROOMS, path)


@pytest.mark.parametrize("path", modules("multilinear"), ids=lambda path: str(path.relative_to(ROOT)))
def test_multilinear_stands_alone(path):
    room = room_of(path, "multilinear")
    allowed = {"torch", "numpy", "array_api_compat", "jaxtyping", "multilinear"}
    extra = {"testing": {"hypothesis", "pytest", "scipy"}, "appendix": {"scipy"}, "interop": {"tensorly"}}
    third_party = {name.split(".")[0] for name in imported(path)} - _standard_library()
    assert third_party <= allowed | extra.get(room, set()) | ({"triton"} if room == "kernels" else set())


@pytest.mark.parametrize("path", modules("multilinear"), ids=lambda path: str(path.relative_to(ROOT)))
def test_library_never_imports_its_oracles(path):
    if room_of(path, "multilinear") in ORACLES:
        return
    assert not {name for name in imported(path) if name.split(".")[:2] in [["multilinear", name] for name in ORACLES]}


def test_every_module_has_a_room():
    for package, rooms in (("facemodels", FACEMODELS_ROOMS), ("multilinear", MULTILINEAR_ROOMS)):
        known = {name for names in rooms for name in names} | {"__init__", *ORACLES, *ALLOWED_BESIDES}
        strangers = {room_of(path, package) for path in modules(package)} - known
        assert not strangers, f"{package}: give {sorted(strangers)} a place in this file"


def test_a_wrong_arrow_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "facemodels" / "rendering").mkdir(parents=True)
    wrong = tmp_path / "facemodels" / "rendering" / "camera.py"
    wrong.write_text("def f():\n    from facemodels.training import train\n")
    assert upward("facemodels", FACEMODELS_ROOMS, wrong)


def _standard_library() -> set[str]:
    import sys

    return set(sys.stdlib_module_names)
