"""Every entry has a test or a reason, every limit a test of its default, and the document says the same."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from corpus.entries import DOCUMENT, ENTRIES, HERE, LIMITS, Entry, document
from holdfast import Limits

TESTS = {
    name for path in HERE.parents[1].rglob("test_*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())
}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_every_entry_has_a_test_of_its_name_or_a_reason(entry: Entry) -> None:
    tests = [name for name in TESTS if re.match(rf"{entry.test}_(?!\d)", name)]
    assert bool(tests) is entry.applies
    assert len({other.id for other in ENTRIES}) == len(ENTRIES)


def test_every_test_of_such_a_name_is_in_the_table() -> None:
    known = {entry.test for entry in ENTRIES}
    for name in TESTS:
        found = re.match(r"test_(CVE_\d+_\d+|GHSA(_\w{4}){3}|JLSEC_\d+_\d+)_", name)
        assert found is None or f"test_{found[1]}" in known, name


@pytest.mark.parametrize("limit", [field.name for field in fields(Limits)])
def test_every_limit_has_a_test_of_its_default(limit: str) -> None:
    assert any(name.startswith(LIMITS[limit]) for name in TESTS)


def test_the_document_is_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "python -m tests.corpus.entries"
