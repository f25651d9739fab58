"""The laws of the house: imports go down only, what decides knows no clock, and every module has a test of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast

ROOT = Path(__file__).parents[2]
HOLDFAST = ROOT / "src" / "holdfast"
MODULES = sorted(HOLDFAST.rglob("*.py"))

#: From which parts of the house a part may import, beside its own.
MAY_IMPORT = {
    "errors": set[str](),
    "protocol": {"errors"},
    "core": {"errors", "protocol"},
    "store": {"errors", "protocol", "core"},
    "web": {"errors"},
    "server": {"errors", "protocol", "core", "store", "web"},
    "client": {"errors", "protocol", "core"},
    "holdfast": {"errors", "protocol", "core", "store", "server", "client"},
    "board": {"holdfast", "web"},
}
#: Parts that may import everything: nobody imports them.
ON_TOP = {"testing", "cli", "__main__"}

PURE = {"protocol", "core"}
#: What has a clock, dice, threads or sockets in it.
IMPURE = {"asyncio", "time", "random", "secrets", "socket", "os", "threading", "logging"}


def part(module: str) -> str:
    """Return the part of the house that a module is in: `holdfast.core.room` is in `core`."""
    return module.split(".")[1] if "." in module else module


def imports(source: str) -> Iterator[str]:
    """Name every module that is imported anywhere in it; what comes from `holdfast` itself, by its name there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and node.module == "holdfast":
            for alias in node.names:
                is_module = (HOLDFAST / alias.name).is_dir() or (HOLDFAST / f"{alias.name}.py").exists()
                yield f"holdfast.{alias.name}" if is_module else "holdfast"
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def broken_laws(module: str, source: str) -> list[str]:
    """Return what a module may not do, and does."""
    mine = part(module)
    broken = []
    for name in imports(source):
        top = name.split(".")[0]
        if not top:
            broken.append(f"{name} is relative")
        elif top == "holdfast" and mine not in ON_TOP and part(name) not in MAY_IMPORT[mine] | {mine}:
            broken.append(f"{mine} imports {part(name)}")
        elif top in IMPURE and mine in PURE:
            broken.append(f"{mine} imports {top}")
    if mine in PURE and any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(ast.parse(source))):
        broken.append(f"{mine} waits")
    if not ast.get_docstring(ast.parse(source)):
        broken.append("there is no docstring")
    return broken


def name(path: Path) -> str:
    return ".".join(path.relative_to(HOLDFAST.parent).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_keeps_the_laws(path: Path) -> None:
    if path.stat().st_size or path.name != "__init__.py":
        assert broken_laws(name(path), path.read_text()) == []


def test_every_part_of_the_house_has_its_law() -> None:
    assert {part(name(path)) for path in MODULES} <= {*MAY_IMPORT, *ON_TOP}


def test_the_board_uses_what_every_application_can_use() -> None:
    for path in (HOLDFAST / "board").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "holdfast":
                assert {alias.name for alias in node.names} - {"__version__", "board"} <= set(holdfast.__all__)


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if part(name(path)) in {"protocol", "core", "store"} and path.name != "__init__.py"],
    ids=name,
)
def test_every_module_that_decides_or_remembers_has_a_test_module(path: Path) -> None:
    test = ROOT / "tests" / path.relative_to(HOLDFAST).parent / f"test_{path.name}"
    assert "def test_" in test.read_text()


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("holdfast.protocol.codec", '"""."""\nfrom holdfast.core.room import Room', "protocol imports core"),
        ("holdfast.core.room", '"""."""\nimport holdfast.store.sqlite', "core imports store"),
        ("holdfast.core.room", '"""."""\nfrom holdfast import Hub', "core imports holdfast"),
        ("holdfast.core.room", '"""."""\nfrom holdfast import store', "core imports store"),
        ("holdfast.store.sqlite", '"""."""\nfrom holdfast.server.hub import Hub', "store imports server"),
        ("holdfast.client.client", '"""."""\nfrom holdfast.server import hub', "client imports server"),
        ("holdfast.server.hub", '"""."""\nfrom holdfast.client.room import Room', "server imports client"),
        ("holdfast.server.hub", '"""."""\nfrom holdfast.board import app', "server imports board"),
        ("holdfast.board.app", '"""."""\nfrom holdfast.server.hub import Hub', "board imports server"),
        ("holdfast.board.app", '"""."""\nfrom holdfast.errors import NotFound', "board imports errors"),
        ("holdfast.web", '"""."""\nfrom holdfast.protocol.codec import Codec', "web imports protocol"),
        ("holdfast.errors", '"""."""\nimport holdfast', "errors imports holdfast"),
        ("holdfast.core.room", '"""."""\nfrom . import hub', ". is relative"),
        ("holdfast.core.room", '"""."""\nimport time', "core imports time"),
        ("holdfast.core.room", '"""."""\nfrom os.path import join', "core imports os"),
        ("holdfast.core.room", '"""."""\ndef later():\n    from asyncio import sleep', "core imports asyncio"),
        ("holdfast.core.room", '"""."""\nif TYPE_CHECKING:\n    import logging', "core imports logging"),
        ("holdfast.core.room", '"""."""\nasync def wait(): ...', "core waits"),
        ("holdfast.core.room", "import msgspec", "there is no docstring"),
    ],
)
def test_a_law_that_is_broken_is_noticed(module: str, source: str, broken: str) -> None:
    assert broken_laws(module, source) == [broken]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("holdfast.server.hub", '"""."""\nimport asyncio\nfrom holdfast.store.store import Store\nimport holdfast.web'),
        ("holdfast.board.app", '"""."""\nfrom holdfast import Hub, web\nfrom holdfast.board import changes'),
        ("holdfast.cli", '"""."""\nfrom holdfast.server import runner\nfrom holdfast.board.app import create_app'),
        ("holdfast.core.room", '"""."""\nfrom timeless import time\nfrom holdfast.core import hub'),
    ],
)
def test_what_is_allowed_is_not_complained_of(module: str, source: str) -> None:
    assert broken_laws(module, source) == []
