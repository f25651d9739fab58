"""
Each limit, its default, and the test that it is enforced.

`docs/limits.md` is this table; `python -m tests.corpus.defaults` writes it anew.
"""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

from holdfast import Limits

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "limits.md"

#: Each limit of `Limits`: how the names of the tests begin that its default is enforced.
TESTS = {
    "message_bytes": "test_CVE_2026_44545_the_limit_on_a_message_holds_by_default",
    "message_fragments": "test_a_message_may_come_in_64_fragments_and_not_in_more",
    "control_frames_per_second": "test_twenty_control_frames_pass_in_a_second",
    "messages_per_second": "test_a_hundred_messages_pass_at_once_and_fifty_more_each_second",
    "message_burst": "test_a_hundred_messages_pass_at_once_and_fifty_more_each_second",
    "messages_waiting": "test_128_messages_wait_while_one_is_handled_and_no_more",
    "bytes_waiting": "test_messages_wait_that_are_512_kib_together_and_not_a_byte_more",
    "rooms_per_connection": "test_CVE_2026_56811_joins_have_an_end",
    "connections": "test_ten_thousand_websockets_have_a_place_and_no_more",
    "streams": "test_five_thousand_streams_and_held_polls_have_a_place_and_no_more",
    "auth_seconds": "test_who_it_is_is_to_be_said_within_ten_seconds",
    "auth_bytes": "test_nobody_is_listened_to_for_more_than_4_kib",
    "request_seconds": "test_a_head_and_a_body_are_to_come_within_ten_seconds_each",
    "head_bytes": "test_a_head_of_16_kib_is_waited_for_and_not_a_byte_more",
    "close_seconds": "test_a_close_frame_is_to_be_answered_within_a_second",
    "body_bytes": "test_a_body_is_at_most_64_kib",
    "stream_rooms": "test_a_stream_carries_at_most_32_rooms",
    "poll_seconds": "test_a_poll_is_held_for_thirty_seconds_and_a_stream_commented_on_after_fifteen",
    "stream_heartbeat": "test_a_poll_is_held_for_thirty_seconds_and_a_stream_commented_on_after_fifteen",
    "log_records": "test_ten_thousand_publications_are_kept_and_no_more",
    "log_seconds": "test_publications_are_kept_for_a_week_and_no_longer",
    "verdict_seconds": "test_an_answer_is_remembered_for_a_day_and_no_longer",
    "news_seconds": "test_without_hints",
    "drain_seconds": "test_a_crowd_is_given_no_more_time_to_move_than_the_server_has",
}


def test_of(limit: str) -> tuple[Path, str]:
    """Return where the test of a limit's default is, and its name."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        if found := re.search(rf"def ({TESTS[limit]}\w*)\(", path.read_text()):
            return path.relative_to(ROOT), found[1]
    raise LookupError(f"there is no test {TESTS[limit]}")


def reasons() -> dict[str, str]:
    """Return what is written below each limit."""
    ((*_, limits),) = (ast.parse(inspect.getsource(Limits)).body,)
    assert isinstance(limits, ast.ClassDef)
    pairs = zip(limits.body, limits.body[1:], strict=False)
    return {
        field.target.id: " ".join(inspect.cleandoc(said.value.value).split())
        for field, said in pairs
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(said, ast.Expr)
        and isinstance(said.value, ast.Constant)
        and isinstance(said.value.value, str)
    }


def document() -> str:
    """Return the table, as a page of the documentation."""
    lines = [
        "# Limits",
        "",
        "Every limit of a server, with its default, which is enforced unless you say otherwise:",
        "`Hub(limits=Limits(…))`. Bytes and seconds. What a client can run into is told to it when it connects",
        "([PROTOCOL.md](../PROTOCOL.md)). Each test is [seen to fail](simulation.md#would-it-see-a-mistake)",
        "where its default is a thousand times as much: `python tests/planted/run.py --only server/limits.py`.",
        "",
        "`head_bytes`, `request_seconds` for a head, and how many files may be open are the server's, not a Hub's:",
        "`holdfast serve` has the defaults whatever a Hub says, and under another server they are for that one to say.",
        "",
        "In each, what is just within the limit passes, and a little more does not: of bytes and numbers one, of",
        "rates one more in 1.01 s, of seconds a hundredth. For that the real server runs in [virtual",
        "time](testing.md), also with all of its 10,000 WebSockets and 5,000 streams. What the log keeps for days",
        "is asked for a second before and a second after, by a wall clock that is set by hand. `news_seconds` is a",
        "pause, measured to a tenth between two looks at a real PostgreSQL; of `drain_seconds` there is what",
        "clients are told when a server begins to end.",
        "",
        "| | default | | tested by |",
        "|---|--:|---|---|",
    ]  # fmt: skip
    defaults = Limits()
    for name, why in reasons().items():
        path, _ = test_of(name)
        lines.append(f"| `{name}` | {getattr(defaults, name):,g} | {why} | [{path.stem}](../{path}) |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
