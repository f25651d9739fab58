"""
What was commanded, and not been answered yet?

Commands are kept in their order, and sent in it whenever there is a way: after a link that
broke, first again those whose answers are missing (their keys make that harmless), then
the others. Each is settled exactly once, and honestly: done, rejected, not sent, or unknown.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from msgspec import Struct

#: Commands that wait. Whoever has given so many without an answer does not mean them any more.
COMMANDS = 1_000
#: Commands under way at once: enough to fill a link, few enough for the server's queue.
UNDER_WAY = 16
#: Commands at once after a pause; then they keep to the rate that the server has named.
BURST = 20
#: A server remembers keys for 24 hours; after so long an answer can no longer be had by asking again.
MEMORY_SECONDS = 23 * 3600.0


class Result(Enum):
    """What a command came to."""

    DONE = "done"
    REJECTED = "rejected"
    NOT_SENT = "not sent"
    UNKNOWN = "unknown"


# What has happened.


class Put(Struct, frozen=True):
    """A command was given; `key` is its name for ever."""

    key: str
    command: Any


class Ready(Struct, frozen=True):
    """There is a way, on which `rate` commands a second are welcome."""

    rate: float


class Broken(Struct, frozen=True):
    """The way is gone."""


class Answered(Struct, frozen=True):
    """The server has answered. `passing`: not what it came to, but why it did not come to anything just now."""

    key: str
    ok: bool
    value: Any = None
    passing: bool = False


class Withdrawn(Struct, frozen=True):
    """Nobody waits for this one any more: it is not sent, unless it was."""

    key: str


class Stop(Struct, frozen=True):
    """There will be no way any more."""


OutboxInput = Put | Ready | Broken | Answered | Withdrawn | Stop

# What is to be done.


class Send(Struct, frozen=True):
    """Send this command."""

    key: str
    command: Any


class Settle(Struct, frozen=True):
    """Tell who gave this command what it came to."""

    key: str
    result: Result
    value: Any = None


OutboxEffect = Send | Settle


class _Entry:
    __slots__ = ("command", "first_sent", "times", "under_way")

    def __init__(self, command: Any) -> None:
        self.command = command
        self.first_sent: float | None = None
        self.times = 0  # that it was sent
        self.under_way = False


class Outbox:
    """The commands of one client for one room. Times in seconds."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}  # in their order
        self._rate: float | None = None  # None: there is no way
        self._under_way = 0
        self._busy_until = 0.0  # at the rate, what was sent so far takes until then
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._entries)

    def receive(self, input: OutboxInput, now: float) -> list[OutboxEffect]:
        """Take in what happened."""
        self._now = now
        settled: list[OutboxEffect] = []
        match input:
            case Put(key, command):
                if len(self._entries) >= COMMANDS:
                    return [Settle(key, Result.NOT_SENT)]
                self._entries[key] = _Entry(command)
            case Ready(rate):
                self._rate = rate
            case Broken():
                self._rate = None
                self._under_way = 0
                for entry in self._entries.values():
                    entry.under_way = False
            case Answered(key, ok, value, passing):
                settled = self._answered(key, ok, value, passing)
            case Withdrawn(key):
                settled = self._give_up(key)
            case Stop():
                self._rate = None
                settled = [effect for key in tuple(self._entries) for effect in self._give_up(key)]
        return settled + self._send()

    def tick(self, now: float) -> list[OutboxEffect]:
        """Take in that time has passed."""
        self._now = now
        settled: list[OutboxEffect] = []
        for key, entry in tuple(self._entries.items()):
            if entry.first_sent is not None and now >= entry.first_sent + MEMORY_SECONDS:
                settled += self._settle(key, Result.UNKNOWN)
        return settled + self._send()

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        times = [entry.first_sent + MEMORY_SECONDS for entry in self._entries.values() if entry.first_sent is not None]
        if self._rate is not None and self._under_way < min(UNDER_WAY, len(self._entries)):
            times.append(self._busy_until - BURST / self._rate)
        return min(times, default=None)

    def _answered(self, key: str, ok: bool, value: Any, passing: bool) -> list[OutboxEffect]:
        entry = self._entries.get(key)
        if not ok and passing and entry is not None and entry.times > 1:
            return self._settle(key, Result.UNKNOWN)  # an earlier copy may still be on its way, and fare better
        return self._settle(key, Result.DONE if ok else Result.REJECTED, value)

    def _settle(self, key: str, result: Result, value: Any = None) -> list[OutboxEffect]:
        entry = self._entries.pop(key, None)
        if entry is None:
            return []
        self._under_way -= entry.under_way
        return [Settle(key, result, value)]

    def _give_up(self, key: str) -> list[OutboxEffect]:
        entry = self._entries.get(key)
        was_sent = entry is not None and entry.first_sent is not None
        return self._settle(key, Result.UNKNOWN if was_sent else Result.NOT_SENT)

    def _send(self) -> list[OutboxEffect]:
        """Send what may be sent now."""
        sent: list[OutboxEffect] = []
        if self._rate is None:
            return sent
        for key, entry in self._entries.items():
            if self._under_way >= UNDER_WAY or self._busy_until - BURST / self._rate > self._now:
                break
            if not entry.under_way:
                entry.under_way = True
                entry.times += 1
                entry.first_sent = self._now if entry.first_sent is None else entry.first_sent
                self._under_way += 1
                self._busy_until = max(self._busy_until, self._now) + 1 / self._rate
                sent.append(Send(key, entry.command))
        return sent
