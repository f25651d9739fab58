"""What does not work is said once, and not each time that it is tried."""

from __future__ import annotations

import pytest

from holdfast.store.trouble import Trouble


def test_it_is_said_when_it_begins_when_its_reason_is_another_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble = Trouble("no bread (%s)", "there is bread")
    trouble.ends()
    for reason in ("no flour", "no flour", "no oven", "no oven\n", ""):
        trouble.begins(OSError(reason))
    for _ in range(2):
        trouble.ends()
    trouble.begins(OSError("no flour"))
    assert caplog.messages == [
        "no bread (no flour)",
        "no bread (no oven)",
        "no bread (OSError)",
        "there is bread",
        "no bread (no flour)",
    ]
