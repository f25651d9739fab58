"""What goes wrong, for how long, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from links import DOWN, UP, Link


@dataclass(frozen=True)
class Fault:
    """
    Attributes:
        name: In the table.
        means: What happens, in words.
        seconds: Until it is healed.
        strike: What it does to the link of each listener that it strikes; None: it strikes the server.
        dead: Whether the connections that were struck are dead, so that whoever sees them sees ghosts.
        every: Seconds between two publications.
        padding: Bytes that each carries, of noise.
    """

    name: str
    means: str
    seconds: float
    strike: Callable[[Link], None] | None = None
    dead: bool = True
    every: float = 0.2
    padding: int = 0

    @property
    def strikes_server(self) -> bool:
        """Whether it strikes everybody at once."""
        return self.strike is None

    @property
    def leaves_ghosts(self) -> bool:
        """Whether somebody may be shown who is not there."""
        return self.dead or self.strikes_server


FAULTS = [
    Fault(
        "reset",
        "Both sides get a RST. For 5 s whoever connects gets one, too.",
        5,
        Link.reset,
    ),
    Fault(
        "half-open, both silent",
        "Nothing passes in either direction for 60 s, and nobody is told: a tunnel. Connections that were open before "
        "stay silent for ever.",
        60,
        lambda link: link.lose(UP, DOWN),
    ),
    Fault(
        "half-open, client knows",
        "The client gets a RST, the server is not told; new connections work at once: from WiFi to a phone's network.",
        0,
        Link.abandon,
    ),
    Fault(
        "one way: client hears nothing",
        "From the server nothing arrives for 60 s; what the client says does.",
        60,
        lambda link: link.lose(DOWN),
    ),
    Fault(
        "one way: server hears nothing",
        "From the client nothing arrives for 60 s; what the server says does.",
        60,
        lambda link: link.lose(UP),
    ),
    Fault(
        "slow reader",
        "For 60 s, 20 kB/s reach the client, in a room of 400 kB/s: 20 messages a second, of 20 kB of noise each.",
        60,
        lambda link: link.slow(20_000),
        dead=False,
        every=0.05,
        padding=20_000,
    ),
    Fault("kill -9", "The server's processes get SIGKILL, and are started again after 5 s on the same port.", 5),
    Fault("SIGSTOP", "The server's processes stand still for 60 s; then SIGCONT.", 60, dead=False),
]
SLUGS = ("reset", "half-open", "roaming", "deaf", "mute", "slow", "kill", "stop")
BY_SLUG = dict(zip(SLUGS, FAULTS, strict=True))
BY_NAME = {fault.name: fault for fault in FAULTS}
