"""Every entry has a test or a reason, every limit a test of its default, and the document says the same."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

import pytest

from corpus import defaults
from corpus.entries import DOCUMENT, ENTRIES, HERE, Entry, document
from holdfast import Limits

TESTS = {
    name for path in HERE.parents[1].rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())
}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_has_a_test_of_its_name_or_a_reason(entry: Entry) -> None:
    tests = [name for name in TESTS if re.match(rf"{entry.test}_(?!\d)", name)]
    assert bool(tests) is entry.applies
    assert len({other.id for other in ENTRIES}) == len(ENTRIES)


#: What says, of whatever is done inside of it, that nobody was kept waiting and nothing is left (`test_probe.py`).
PROBES = {"attacked", "unharmed", "refused"}
#: What sends it, to a server or to a client.
SENDERS = {"attacked", "refused", "lost_to"}


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.applies], ids=lambda entry: entry.id)
def test_in_every_test_of_an_entry_something_is_sent_and_it_is_asked_what_is_left(entry: Entry) -> None:
    for path in HERE.parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(f"{entry.test}_"):
                called = {getattr(call.func, "attr", getattr(call.func, "id", "")) for call in calls(node)}
                assert bool(called & SENDERS) is entry.is_sent, node.name
                assert called & PROBES or not entry.is_sent, node.name


def calls(node: ast.AST) -> list[ast.Call]:
    return [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]


def test_every_test_of_such_a_name_is_in_the_table() -> None:
    known = {entry.test for entry in ENTRIES}
    for name in TESTS:
        found = re.match(r"test_(CVE_\d+_\d+|GHSA(_\w{4}){3}|JLSEC_\d+_\d+)_", name)
        assert found is None or f"test_{found[1]}" in known, name


@pytest.mark.parametrize("limit", [field.name for field in fields(Limits)])
def test_every_limit_has_a_test_of_its_default(limit: str) -> None:
    assert any(name.startswith(defaults.TESTS[limit]) for name in TESTS)


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "python -m tests.corpus.entries"


def test_the_page_on_limits_names_all_of_them_and_their_defaults() -> None:
    assert set(defaults.reasons()) == {field.name for field in fields(Limits)}
    assert defaults.DOCUMENT.read_text() == defaults.document(), "python -m tests.corpus.defaults"
