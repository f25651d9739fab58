"""
The Python client, under the Autobahn cases: none failed, none passed with a deviation.

What is left out, and why, is in `docs/conformance.md`.
"""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect

from conformance.driving import (
    CLIENT_FRAGMENTS,
    COMPRESSION,
    ROOMY,
    SIZES,
    WORDS,
    deviations,
    drive_client,
    informational,
)
from holdfast.client.websocket import dial

#: kosoku leaves the files open that it takes compressible messages from.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in.*kosoku:pytest.PytestUnraisableExceptionWarning")


def dial_as_the_client(url: str) -> connect:
    return dial(url, None)


async def test_every_case_about_words_is_passed_without_a_deviation() -> None:
    done = await drive_client(dial_as_the_client, WORDS)
    assert deviations(done) == {}
    assert informational(done) == ["7.1.6", "7.13.1", "7.13.2"]
    assert len(done) == 247


async def test_compression_is_not_offered_so_its_cases_are_not_run() -> None:
    done = await drive_client(dial_as_the_client, COMPRESSION)
    assert set(deviations(done).values()) == {"UNIMPLEMENTED / OK"}
    assert len(deviations(done)) == len(done) == 216


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
