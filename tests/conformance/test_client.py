"""
The Python client, under the Autobahn cases: none failed, none passed with a deviation.

What is left out, and why, is in `docs/conformance.md`.
"""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect

from conformance.driving import CLIENT_FRAGMENTS, ROOMY, SIZES, WORDS, deviations, drive_client, informational
from holdfast.client.websocket import dial

#: kosoku leaves the files open that it takes compressible messages from.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*kosoku:pytest.PytestUnraisableExceptionWarning")

#: These want a client to offer `client_no_context_takeover`, which websockets does not.
NOT_OFFERED = ["13.2.*", "13.5.*", "13.6.*"]


def dial_as_the_client(url: str) -> connect:
    return dial(url, None)


async def test_every_case_about_words_is_passed_without_a_deviation() -> None:
    done = await drive_client(dial_as_the_client, WORDS)
    assert deviations(done) == {}
    assert informational(done) == ["7.1.6", "7.13.1", "7.13.2"]
    assert len(done) == 247


async def test_the_smallest_cases_about_compression_are_passed_without_a_deviation() -> None:
    cases = ["12.1.1", "12.2.1", "13.1.1", "13.3.1", "13.4.1", "13.7.1"]
    done = await drive_client(dial_as_the_client, cases)
    assert deviations(done) == {}
    assert [result.case_id for result in done] == cases


async def test_a_way_to_compress_that_is_not_offered_is_not_negotiated_so_its_cases_are_not_run() -> None:
    done = await drive_client(dial_as_the_client, NOT_OFFERED)
    assert set(deviations(done).values()) == {"UNIMPLEMENTED / OK"}
    assert len(deviations(done)) == len(done) == 3 * 18


@pytest.mark.long
async def test_every_case_about_sizes_is_passed_where_a_message_may_have_so_many_fragments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CLIENT_FRAGMENTS, ROOMY.message_fragments)
    done = await drive_client(dial_as_the_client, SIZES)
    assert deviations(done) == {}
    assert len(done) == 54


@pytest.mark.long
async def test_what_has_more_fragments_than_websockets_allows_is_refused_as_such_and_all_else_passed() -> None:
    done = await drive_client(dial_as_the_client, SIZES)
    assert set(deviations(done)) == {"9.3.1", "9.3.2", "9.4.1", "9.4.2"}
    assert {result.remote_close_code for result in done if result.case_id in deviations(done)} == {1009}


@pytest.mark.long
async def test_compressed_messages_of_up_to_8_kib_are_passed_without_a_deviation() -> None:
    kinds = [*(f"12.{kind}" for kind in (1, 2, 3, 4, 5)), *(f"13.{kind}" for kind in (1, 3, 4, 7))]
    done = await drive_client(dial_as_the_client, [f"{kind}.{size}" for kind in kinds for size in (1, 2, 3, 4, 5, 6)])
    assert deviations(done) == {}
    assert len(done) == 9 * 6
