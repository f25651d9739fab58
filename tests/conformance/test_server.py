"""
The server's class, under the Autobahn cases: none failed, none passed with a deviation.

What is left out, and why, is in `docs/conformance.md`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
import uvloop
from kosoku._kosoku import CaseResult

from conformance.driving import COMPRESSION, ROOMY, SIZES, WORDS, deviations, drive_server, echo_server, informational
from holdfast import Limits

#: kosoku leaves the files open that it takes compressible messages from.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*kosoku:pytest.PytestUnraisableExceptionWarning")

#: Messages of more than 64 KiB, or of more than 64 fragments.
TOO_BIG = (
    {f"9.{kind}.{size}" for kind in (1, 2) for size in range(2, 7)}
    | {f"9.{kind}.{size}" for kind in (3, 4) for size in range(1, 10)}
    | {f"9.{kind}.{size}" for kind in (5, 6) for size in range(1, 7)}
)

Loop = Callable[[], asyncio.AbstractEventLoop]

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


def results(loop: Loop, cases: Sequence[str], limits: Limits) -> list[CaseResult]:
    async def drive() -> list[CaseResult]:
        async with echo_server(limits) as url:
            return await drive_server(url, cases)

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(drive())


@pytest.mark.long
@LOOPS
def test_every_case_about_words_is_passed_without_a_deviation_at_the_default_limits(loop: Loop) -> None:
    done = results(loop, WORDS, Limits())
    assert deviations(done) == {}
    assert informational(done) == ["7.1.6", "7.13.1", "7.13.2"]
    assert len(done) == 247


@pytest.mark.long
@LOOPS
def test_every_case_about_sizes_is_passed_where_it_may_be_so_big(loop: Loop) -> None:
    done = results(loop, SIZES, ROOMY)
    assert deviations(done) == {}
    assert len(done) == 54


@pytest.mark.long
def test_what_is_bigger_than_the_default_limits_is_refused_as_such_and_everything_else_is_passed() -> None:
    done = results(asyncio.new_event_loop, SIZES, Limits())
    assert set(deviations(done)) == TOO_BIG
    assert {result.remote_close_code for result in done if result.case_id in TOO_BIG} == {1009}


def test_compression_is_not_negotiated_so_its_cases_are_not_run() -> None:
    done = results(asyncio.new_event_loop, COMPRESSION, Limits())
    assert set(deviations(done).values()) == {"UNIMPLEMENTED / OK"}
    assert len(deviations(done)) == len(done) == 216
