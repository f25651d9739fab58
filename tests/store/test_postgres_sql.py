"""Placeholders are told from what looks like one, and several statements from one that only seems to be."""

from __future__ import annotations

import pytest

from holdfast.store.postgres_sql import controls, holds_several, to_postgres


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ? + ?", "SELECT %s + %s"),
        ("SELECT 5 % 2", "SELECT 5 %% 2"),
        ("SELECT '?' || ? || 'it''s ? 5%'", "SELECT '?' || %s || 'it''s ? 5%%'"),
        ('SELECT "a?" FROM t -- why?\nWHERE x = ?', 'SELECT "a?" FROM t -- why?\nWHERE x = %s'),
        ("SELECT /* ? */ $$ ? $$, $a$ ? $$ $a$, ?", "SELECT /* ? */ $$ ? $$, $a$ ? $$ $a$, %s"),
    ],
)
def test_placeholders_are_question_marks_where_they_are_placeholders(sql: str, expected: str) -> None:
    assert to_postgres(sql) == expected


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1; COMMIT", "SELECT ';';SELECT 2", r"SELECT E'\''; COMMIT; SELECT '1'", "SELECT 1 -- ;\n; SELECT 2"],
)
def test_several_statements_are_told(sql: str) -> None:
    assert holds_several(sql)


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1", "SELECT 1;", "SELECT ';'", 'SELECT 1 AS ";"', "SELECT $$;$$", "SELECT 1 -- ;", "SELECT /* ; */ 1"],
)
def test_one_that_only_looks_like_several_is_one(sql: str) -> None:
    assert not holds_several(sql)


@pytest.mark.parametrize("sql", ["COMMIT", " begin", "/* */ ROLLBACK", "-- x\nSAVEPOINT a", "PREPARE TRANSACTION 'x'"])
def test_what_controls_the_transaction_is_told(sql: str) -> None:
    assert controls(sql)
    assert not controls("SELECT 'COMMIT'")
