"""
The client's mind: is there a link, and if not, what is to be done about it?

A table of states, and nothing decided beside it. It knows no socket and no clock: what
happened and when comes in, what is to be done comes out. There is one of these for each
client, and whoever carries it out is the only one who dials.

A silent link is probed before it is given up, and what is given up is abandoned: nobody
waits for a dead socket to close. A timer that comes late says nothing about the peer (the
machine slept, the tab was throttled), so it probes too.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from holdfast.core.backoff import CEILINGS, FLOOR, Backoff, Delay
from holdfast.core.roads import Road, Roads
from holdfast.protocol.codes import CloseCode, may_return

#: For a token: what it is fetched from may have fallen silent, too. Somebody may have to type a password.
TOKEN_SECONDS = 60.0
#: From dialing to `connected`. One deadline for both: an upgrade that never says hello would hang.
GREETING_SECONDS = 10.0
#: An answer to a probe.
PROBE_SECONDS = 3.0
#: Until it is tried again to move; then twice as long each time.
MOVE_AGAIN_SECONDS = 2.0
#: A timer this late was not late by chance: the machine slept, or the tab was hidden.
LATE_SECONDS = 1.0


class State(Enum):
    """Where a link is."""

    IDLE = "idle"
    AUTHORIZING = "authorizing"  # a token is being fetched
    DIALING = "dialing"
    GREETING = "greeting"  # the socket is open, `connected` has not come
    LIVE = "live"
    PROBING = "probing"  # it was silent for too long, and has been asked
    MOVING = "moving"  # gone over to another socket, where `connected` has not come
    WAITING = "waiting"  # for the next attempt
    PAUSED = "paused"  # the page is hidden away
    CLOSED = "closed"  # for good


# What has happened.


class Start(Struct, frozen=True):
    """The application wants a link."""


class Authorized(Struct, frozen=True):
    """There is a token, or none is needed."""


class Opened(Struct, frozen=True):
    """The socket is open."""


class Welcomed(Struct, frozen=True):
    """`connected` has come: with how often the server pings, and how long it waits. Seconds."""

    interval: float
    timeout: float


class Heard(Struct, frozen=True):
    """Something has come."""


class Advised(Struct, frozen=True):
    """`goodbye`: come back after `after` + U(0, `spread`) seconds."""

    after: float
    spread: float


class Lost(Struct, frozen=True):
    """The link, or the attempt at one, is gone."""

    code: int = CloseCode.ABNORMAL
    reason: str = ""


class Nudged(Struct, frozen=True):
    """The network is back, the page is visible again, or somebody pressed "now"."""


class Paused(Struct, frozen=True):
    """The page is put away."""


class Unpaused(Struct, frozen=True):
    """… and taken out again."""


class Stop(Struct, frozen=True):
    """The application wants no link any more."""


class Free(Struct, frozen=True):
    """There is a way for a WebSocket after all."""


class Moved(Struct, frozen=True):
    """There is another socket, beside the one that was live, and it is the one now."""


class _TurnedAway(Struct, frozen=True):
    """Lost, with a code that says: stay away."""


class _Barred(Struct, frozen=True):
    """This road leads nowhere, and there is another."""


class _Silent(Struct, frozen=True):
    """The time is up in which something should have come."""


class _Rung(Struct, frozen=True):
    """The wait is over."""


LinkInput = (
    Start | Authorized | Opened | Welcomed | Heard | Advised | Lost | Nudged | Paused | Unpaused | Stop | Free | Moved
)  # fmt: skip

# What is to be done.


class Authorize(Struct, frozen=True):
    """Get a token, a `fresh` one if the last was refused; answer with `Authorized` or `Lost`."""

    fresh: bool


class Dial(Struct, frozen=True):
    """Take this road; answer with `Opened` or `Lost`. What comes from an earlier one is to be ignored."""

    road: Road


class Try(Struct, frozen=True):
    """See, beside what carries now, whether there is a way for a WebSocket; answer with `Free` if there is."""


class Move(Struct, frozen=True):
    """Dial beside what carries now; when that is open, let go of the old one, and answer with `Moved`."""


class Introduce(Struct, frozen=True):
    """Say who we are, and which session we held: the server cuts its dead twin, or says that it wants a token."""


class Rejoin(Struct, frozen=True):
    """The link is live: join every room again."""


class Probe(Struct, frozen=True):
    """Say `ping`."""


class Abandon(Struct, frozen=True):
    """Let go of the socket, with this code if it can still be said."""

    code: int


LinkEffect = Authorize | Dial | Try | Move | Introduce | Rejoin | Probe | Abandon

_ARRIVING = (State.DIALING, State.GREETING)
_OPEN = (*_ARRIVING, State.LIVE, State.PROBING, State.MOVING)
_ENDED = (State.WAITING, State.PAUSED, State.CLOSED)
_ACTIVE = (State.AUTHORIZING, *_OPEN, State.WAITING)

#: The life of a link. What is not in it changes nothing.
LIFE: dict[tuple[State, type], State] = {
    (State.IDLE, Start): State.AUTHORIZING,
    (State.AUTHORIZING, Authorized): State.DIALING,
    (State.AUTHORIZING, Lost): State.WAITING,
    (State.DIALING, Opened): State.GREETING,
    (State.GREETING, Welcomed): State.LIVE,
    (State.LIVE, Nudged): State.PROBING,
    (State.LIVE, _Silent): State.PROBING,
    (State.PROBING, Heard): State.LIVE,
    (State.WAITING, _Rung): State.AUTHORIZING,
    (State.WAITING, Nudged): State.AUTHORIZING,
    (State.PAUSED, Unpaused): State.AUTHORIZING,
    (State.LIVE, Free): State.AUTHORIZING,
    (State.PROBING, Free): State.AUTHORIZING,
    (State.LIVE, Moved): State.MOVING,
    (State.PROBING, Moved): State.MOVING,
    (State.MOVING, Welcomed): State.LIVE,
    (State.DIALING, _Barred): State.DIALING,
    (State.GREETING, _Barred): State.DIALING,
    **{(state, Lost): State.WAITING for state in _OPEN},
    **{(state, _Silent): State.WAITING for state in (*_ARRIVING, State.PROBING, State.MOVING)},
    **{(state, _TurnedAway): State.CLOSED for state in (State.AUTHORIZING, *_OPEN)},
    **{(state, Paused): State.PAUSED for state in _ACTIVE},
    **{(state, Stop): State.CLOSED for state in State if state is not State.CLOSED},
    (State.CLOSED, Start): State.AUTHORIZING,
}


class Status(Struct, frozen=True):
    """
    How a link is, for people and programs.

    While it waits: try number `attempt` comes at `retry_at` (the machine's clock), at most `ceiling` seconds
    after the loss. `code` and `reason` say why the last link ended; None: there was none yet. `road` is what
    carries, or is dialed, now or next.
    """

    state: State
    attempt: int = 0
    ceiling: float = 0.0
    delay: float = 0.0
    retry_at: float | None = None
    code: int | None = None
    reason: str = ""
    road: Road = Road.WEBSOCKET


class Link:
    """
    One client's link.

    Args:
        jitter: Draw each delay below its ceiling; without it, the delay is the ceiling.
        renewable: There is a way to a fresh token, so a refused one need not be the end. May change.
        fallback: Where there is no way for a WebSocket, plain HTTP is tried.
    """

    def __init__(self, *, jitter: bool = True, renewable: bool = False, fallback: bool = False) -> None:
        self.status = Status(State.IDLE)
        self._backoff = Backoff(jitter=jitter)
        self._roads = Roads(fallback=fallback)
        self.renewable = renewable
        self._refused = False  # the last token was; the next is asked for afresh
        self._alarm: float | None = None
        self._silence = 0.0  # how long the server may be silent; known from `connected`
        self._heard_at = 0.0
        self._dialed_at = float("-inf")
        self._advice: tuple[float, float] | None = None
        self._move_at: float | None = None  # to another server, while this one still carries
        self._again = MOVE_AGAIN_SECONDS

    @property
    def state(self) -> State:
        """Where it is."""
        return self.status.state

    def receive(self, input: LinkInput, now: float, dice: float) -> list[LinkEffect]:
        """Take in what happened; `dice` is uniform in [0, 1)."""
        match input:
            case Heard():
                self._heard_at = now
                if self.state is State.LIVE:
                    return []  # the alarm finds out by itself
            case Advised(after, spread):
                self._advice = (after, spread)
                self._plan_move(now, dice)
                return []
            case Welcomed(interval, timeout):
                self._silence = interval + timeout
                self._heard_at = now
            case Lost(code, _) if not may_return(code) and not self._may_ask_again(code):
                return self._step(_TurnedAway(), now, dice, input)
            case Lost(CloseCode.ABNORMAL, _) if self.state in _ARRIVING and self._roads.barred():
                return self._step(_Barred(), now, dice, input)
            case Free():
                # Of another road that is being dialed meanwhile it says nothing: that one will be live as what it is.
                if self._roads.road is Road.WEBSOCKET or self.state not in (State.LIVE, State.PROBING):
                    return []  # it has come to be known in the meantime
                self._roads.free()
            case Authorized() if self.state is State.AUTHORIZING and now < self._dialed_at + FLOOR:
                self._alarm = self._dialed_at + FLOOR  # whoever has hurried it, and how often
                return []
            case _:
                pass
        return self._step(input, now, dice, input if isinstance(input, Lost) else None)

    def tick(self, now: float, dice: float) -> list[LinkEffect]:
        """Take in that time has passed."""
        if self._roads.trial_at is not None and now >= self._roads.trial_at:
            self._roads.tried(now)
            return [Try()]
        if self._move_at is not None and now >= self._move_at:
            self._move_at = now + self._again
            self._again = min(2 * self._again, CEILINGS[-1])
            self._backoff.tried()
            return self._dial(Move(), now)
        if self._alarm is None or now < self._alarm:
            return []
        late = now - self._alarm > LATE_SECONDS
        match self.state:
            case State.WAITING:
                return self._step(_Rung(), now, dice, None)
            case State.AUTHORIZING if self._alarm == self._dialed_at + FLOOR:
                return self._step(Authorized(), now, dice, None)
            case State.AUTHORIZING:
                lost = Lost(CloseCode.ABNORMAL, "no token: it does not come")
                return self._step(lost, now, dice, lost)
            case State.LIVE if now < self._heard_at + self._silence:
                self._alarm = self._heard_at + self._silence
                return []
            case State.PROBING if late:
                self._alarm = now + PROBE_SECONDS
                return [Probe()]
            case State.DIALING | State.GREETING if self._roads.barred():
                return self._step(_Barred(), now, dice, None)
            case _:
                return self._step(_Silent(), now, dice, None)

    def deadline(self) -> float | None:
        """When `tick` is due next."""
        times = (self._alarm, self._roads.trial_at, self._move_at)
        return min((when for when in times if when is not None), default=None)

    def _may_ask_again(self, code: int) -> bool:
        """Whether a refused token is to be exchanged: once, if there is a function for it."""
        if code != CloseCode.UNAUTHORIZED or not self.renewable or self._refused:
            return False
        self._refused = True
        return True

    def _step(self, input: object, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        state = self.state
        after = LIFE.get((state, type(input)))
        if after is None:
            return []
        effects: list[LinkEffect] = []
        if state in _OPEN and after in (*_ENDED, State.AUTHORIZING, State.DIALING) and lost is None:
            effects.append(Abandon(CloseCode.GOING_AWAY if after is State.PAUSED else CloseCode.NORMAL))
        if after not in (State.LIVE, State.PROBING):
            self._roads.left()
            self._move_at = None
        enter = {
            State.AUTHORIZING: self._authorize,
            State.DIALING: self._set_out,
            State.GREETING: self._greet,
            State.LIVE: self._live,
            State.PROBING: self._probe,
            State.MOVING: self._go_over,
            State.WAITING: self._wait,
            State.PAUSED: self._pause,
            State.CLOSED: self._close,
        }[after]
        return effects + enter(state, now, dice, lost)

    # What it means to come into a state.

    def _authorize(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._alarm = now + TOKEN_SECONDS
        self._set(State.AUTHORIZING)
        return [Authorize(self._refused)]

    def _set_out(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._alarm = now + GREETING_SECONDS
        self._set(State.DIALING)
        return self._dial(Dial(self._roads.road), now)

    def _greet(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._set(State.GREETING)
        return [Introduce()]

    def _go_over(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._backoff.lost(now)  # the link that was; whoever is sent on from one to the next takes their time
        self._advice = None  # and what it said of itself
        self._alarm = now + GREETING_SECONDS
        self._set(State.MOVING)
        return [Introduce()]

    def _live(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._alarm = now + self._silence
        self.status = Status(State.LIVE, road=self._roads.road)
        if before is State.PROBING:
            return []
        self._backoff.welcomed(now)
        self._roads.welcomed(now)
        self._refused = False
        self._again = MOVE_AGAIN_SECONDS
        self._plan_move(now, dice)  # it may have been told to before it was welcomed
        return [Rejoin()]

    def _probe(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._alarm = now + PROBE_SECONDS
        self._set(State.PROBING)
        return [Probe()]

    def _wait(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._backoff.lost(now)
        delay: Delay = self._backoff.next(dice, self._advice)
        self._advice = None
        self._alarm = now + delay.delay
        lost = Lost(CloseCode.ABNORMAL, "the server fell silent") if lost is None else lost
        road = self._roads.road
        self.status = Status(
            State.WAITING, delay.attempt, delay.ceiling, delay.delay, self._alarm, lost.code, lost.reason, road
        )
        return []

    def _pause(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._alarm = None
        self._set(State.PAUSED)
        return []

    def _close(self, before: State, now: float, dice: float, lost: Lost | None) -> list[LinkEffect]:
        self._alarm = None
        code, reason = (None, "") if lost is None else (lost.code, lost.reason)
        self.status = Status(State.CLOSED, code=code, reason=reason, road=self._roads.road)
        return []

    def _plan_move(self, now: float, dice: float) -> None:
        """Plan to move if that is advised: once, however often it is told to."""
        carries = self.state in (State.LIVE, State.PROBING) and self._roads.road is Road.WEBSOCKET
        if carries and self._advice is not None and self._move_at is None:
            self._move_at = now + self._backoff.peek(dice, self._advice).delay

    def _dial(self, effect: Dial | Move, now: float) -> list[LinkEffect]:
        """Dial, by either: nobody does it twice within `FLOOR`. What was advised is heeded with it."""
        self._dialed_at = now
        self._advice = None
        return [effect]

    def _set(self, state: State) -> None:
        """Be in another state, but keep what is known of the attempts."""
        self.status = replace(self.status, state=state, retry_at=None, road=self._roads.road)
