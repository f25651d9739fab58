"""The package has what it says it has, and each side is loaded without the other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import holdfast


def test_every_public_name_is_there() -> None:
    assert [name for name in holdfast.__all__ if not hasattr(holdfast, name)] == []
    assert set(holdfast.__all__) <= set(dir(holdfast))


def test_a_type_checker_is_told_of_the_same_names_as_python() -> None:
    program = ast.parse(Path(holdfast.__file__).read_text())
    (told,) = [node for node in program.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in told.body if isinstance(node, ast.ImportFrom)]
    assert {name.name: node.module for node in imports for name in node.names} == holdfast._HOMES


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'holdfast' has no attribute 'Hbu'"):
        holdfast.Hbu  # type: ignore[attr-defined]  # noqa: B018 - to ask is the test


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("import holdfast", {"asyncio", "msgspec", "holdfast.client", "holdfast.server"}),
        ("from holdfast import connect", {"starlette", "sqlite3", "httpx2", "holdfast.server", "holdfast.store"}),
        ("from holdfast import Hub", {"httpx2", "uvicorn", "psycopg", "redis", "holdfast.client", "holdfast.board"}),
    ],
)
def test_what_is_not_used_is_not_loaded(statement: str, without: set[str]) -> None:
    program = f"import sys; {statement}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert without & set(loaded) == set()
