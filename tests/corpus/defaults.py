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
    "control_frames_per_second": "test_more_than_20_control_frames_a_second_are_too_many",
    "messages_per_second": "test_a_burst_of_100_messages_passes_and_a_flood_does_not",
    "message_burst": "test_a_burst_of_100_messages_passes_and_a_flood_does_not",
    "messages_waiting": "test_messages_wait_in_a_bounded_queue_while_one_is_handled",
    "bytes_waiting": "test_messages_wait_in_a_bounded_queue_while_one_is_handled",
    "rooms_per_connection": "test_CVE_2026_56811_joins_have_an_end",
    "connections": "test_who_comes_when_all_places_are_taken_is_told_when_to_come_back",
    "streams": "test_who_comes_when_all_places_are_taken_is_told_when_to_come_back",
    "auth_seconds": "test_three_hundred_who_are_nobody_and_say_nothing_are_all_ended_in_time",
    "auth_bytes": "test_nobody_is_listened_to_for_more_than_4_kib",
    "request_seconds": "test_a_thousand_slow_handshakes_are_all_ended_in_time",
    "head_bytes": "test_CVE_2025_67725_a_head_without_end_is_not_kept",
    "close_seconds": "test_who_does_not_answer_a_close_frame_is_cut_off_after_a_second",
    "body_bytes": "test_a_body_is_at_most_64_kib",
    "stream_rooms": "test_a_stream_carries_at_most_32_rooms",
    "poll_seconds": "test_a_poll_is_answered_and_a_stream_commented_on_in_time",
    "stream_heartbeat": "test_a_poll_is_answered_and_a_stream_commented_on_in_time",
    "log_records": "test_what_a_log_forgets_by_default",
    "log_seconds": "test_what_a_log_forgets_by_default",
    "verdict_seconds": "test_what_a_log_forgets_by_default",
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
