"""What must never be is seen if it is: else all that `attacked` says would mean nothing."""

from __future__ import annotations

import pytest

from corpus.target import Strict, Target

PLANTED = {
    "a long turn": "the loop was kept for 1",
    "a task": "tasks",
    "a timer": "print",
    "a socket": "sockets",
    "a file": "files",
    "a thread": "threads",
    "memory": "it took",
    "a failure": "Traceback",
    "an error in the log": "ERROR",
}


@pytest.mark.parametrize(("what", "said"), PLANTED.items(), ids=PLANTED)
def test_what_is_planted_is_found(either: Target, what: str, said: str) -> None:
    try:
        with pytest.raises(AssertionError, match=said), either.attacked(patience=0.2):
            either.plant(what)
    finally:
        either.plant("nothing")
    with either.attacked():
        pass


def test_people_listeners_and_rooms_that_stay_are_found(either: Target) -> None:
    for path, said in (("/events?rooms=attic", "listeners"), ("/poll?room=attic", "listeners")):
        with either.raw() as peer, pytest.raises(AssertionError, match=said), either.attacked(patience=0.2):
            peer.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    with pytest.raises(AssertionError, match="users") as found, either.attacked(patience=0.2):
        guest = either.guest("attic")
    assert {"connections", "rooms"} <= set(found.value.args[0].replace("'", " ").split())
    guest.close()


def test_it_is_found_too_where_everybody_has_to_say_who_they_are(strict: Strict) -> None:
    for what in ("a long turn", "a task", "a failure"):
        try:
            with pytest.raises(AssertionError), strict.attacked(patience=0.2):
                strict.plant(what)
        finally:
            strict.plant("nothing")
