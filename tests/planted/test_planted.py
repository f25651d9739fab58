"""Mistakes that are made on purpose can still be made, and are caught. All of them: `python tests/planted/run.py`."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from holdfast.testing.simulate import Plan, faults_of, roads_of
from planted.bugs import BUGS, SEA_OF_THREE, SEAS, Bug
from planted.run import MovedOn, copied, hunt, mistaken

ROOT = Path(__file__).parents[2]
HOLDFAST = ROOT / "src" / "holdfast"

#: What is said of a run of all of them.
CAUGHT = (r"(\d+) caught of", r"caught of (\d+)")
#: Some that are caught at once, by what catches the others.
QUICK = ("what a refused change has written stays", "a command is acknowledged before it is committed")


def named(name: str) -> Bug:
    (found,) = (bug for bug in BUGS if bug.name == name)
    return found


def test_each_mistake_can_still_be_made_at_one_place_and_is_a_program() -> None:
    for bug in BUGS:
        for file, source in mistaken(bug, HOLDFAST).items():
            assert source != (HOLDFAST / file).read_text(), bug.name
            if file.endswith(".py"):
                ast.parse(source)


def test_the_mistakes_are_many_of_every_part_and_each_has_its_own_name() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 30
    assert {bug.file.split("/")[0] for bug in BUGS} == {"protocol", "core", "store", "server", "client", "browser"}


def test_what_is_to_catch_a_mistake_is_there() -> None:
    for bug in BUGS:
        for path, _, test in (each.partition("::") for each in ([] if bug.by in SEAS else bug.by.split())):
            assert (ROOT / path).exists(), bug.name
            assert not test or f"def {test}(" in (ROOT / path).read_text(), bug.name


def test_each_sea_has_mistakes_to_catch() -> None:
    counts = Counter(bug.by for bug in BUGS if bug.by in SEAS)
    assert counts.keys() == SEAS.keys()
    assert min(counts.values()) >= 12


def test_what_is_said_of_how_many_there_are_is_true() -> None:
    document, readme = ((ROOT / name).read_text() for name in ("docs/simulation.md", "README.md"))
    counts, three = Counter(bug.by for bug in BUGS), Plan(nodes=3)
    for text, words, count in (
        (document, r"makes (\d+) mistakes", len(BUGS)),
        (document, r"the sea \((\d+) of them", sum(counts[sea] for sea in SEAS)),
        (document, r"; (\d+) of those with three\s+servers\)", counts[SEA_OF_THREE]),
        (document, r"Of the (\d+) faults and roads", len(dict(faults_of(Plan()))) + len(roads_of(Plan()))),
        (document, r"of the (\d+) with\s+several servers", len(dict(faults_of(three))) + len(roads_of(three))),
        (readme, r"(\d+) that were made on purpose", len(BUGS)),
        # Who makes another one runs all of them.
        *((text, words, len(BUGS)) for text in (document, readme) for words in CAUGHT),
    ):
        assert re.findall(words, text) == [str(count)], words


def test_what_must_hold_is_judged_somewhere_and_a_mistake_has_shown_it() -> None:
    document = ROOT / "docs" / "simulation.md"
    rows = re.findall(r"^\| I(\d+)\w?: [^|]+ \| ([^|]+) \|([^|]+)\|$", document.read_text(), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == sorted(int(number) for number, _, _ in rows)
    assert {int(number) for number, _, _ in rows} == set(range(1, 27))
    for number, judges, mistake in rows:
        judged_in = re.findall(r"\]\(([^)]+)\)", judges)
        assert judged_in, number
        assert all((document.parent / path).is_file() for path in judged_in), number
        if number == "25":  # of the sea itself: no mistake of the product would be one
            assert not mistake.strip()
        elif (by := named(mistake.strip()).by) not in SEAS:
            assert any(path.endswith(by.partition("::")[0]) for path in judged_in), number


def test_code_that_has_moved_on_is_said_to_have() -> None:
    bug = Bug("what is not there", "core/room.py", "that is not in it", "")
    with pytest.raises(MovedOn, match=r"core/room\.py has moved on"):
        mistaken(bug, HOLDFAST)
    with pytest.raises(MovedOn), copied(bug):
        pass


@pytest.mark.parametrize("name", QUICK)
def test_the_sea_catches(name: str) -> None:
    found = hunt(named(name), seeds=20, seconds=60)
    assert found.caught is not None
    assert found.caught.startswith("seed ")


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    same = Bug("nothing", "core/room.py", '"""\n\nfrom __future__', '"""\n\n\nfrom __future__')
    assert hunt(same, seeds=2, seconds=60).caught is None
