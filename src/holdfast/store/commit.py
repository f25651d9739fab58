"""
How do changes that wait share one commit, and what happens to the others if one fails?

Each change has a savepoint: one that fails is undone alone. A failure can also end the
whole transaction (a full disk, an interrupt); then each change is run again in a
transaction of its own, so that the good ones succeed and the bad ones are told. What a
command under a key came to is committed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol, get_type_hints

import msgspec

from holdfast.errors import (
    ChangeFailed,
    HoldfastError,
    Invalid,
    OutcomeUnknown,
    Refused,
    StoreError,
    Unavailable,
    refusal_called,
)
from holdfast.store.held import Held
from holdfast.store.store import Once, Outcome, Record
from holdfast.store.transaction import OpenTransaction, Published

#: Why a change is refused for which there is no room.
DISK_IS_FULL = "the disk is full; nothing was changed; try again when there is room"
#: So often is a batch run again that others were in the way of: each time somebody got on.
ATTEMPTS = 30
#: So often of these, together.
TOGETHER = 3
#: So often is a change run again, alone, that may have failed through no fault of its own.
DOUBTS = 3


@dataclass(slots=True)
class Job:
    """One change that waits, and who is told of its outcome."""

    change: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    once: Once | None
    answer: Callable[[Outcome | BaseException], None]
    until: float  # it is not tried again after this …
    pause: float = 0.0  # … and was put aside for so long, for it had to wait for somebody


class Again(Exception):
    """Nothing of the batch has happened, through no fault of its changes; run it again, later than `clock`."""

    def __init__(self, clock: int = 0) -> None:
        super().__init__("the batch is to be run again")
        self.clock = clock


class Later(Exception):
    """Nothing of a change has happened, for somebody else holds what it needs, and does not come to an end just now."""


class _Without(Exception):
    """Nothing of the batch has happened: the changes at these places cannot be committed now; the others can be."""

    def __init__(self, places: Set[int], reason: Exception) -> None:
        super().__init__(str(reason))
        self.places = places


class Session(Protocol):
    """
    The connection through which changes are committed.

    Attributes:
        clock: The time of the newest commit that is known of, in microseconds since 1970.
    """

    clock: int

    @property
    def epoch(self) -> str:
        """That of the log which it writes."""

    def begin(self) -> None:
        """Begin a transaction; raises what everybody who waits is told if there can be none."""

    def open(self, clock: int, *, has_waited: bool) -> OpenTransaction:
        """
        Set a savepoint; return what a change acts through. From now on its time runs.

        One that has waited for somebody before waits only briefly.
        """

    def settle(self, error: Exception | None) -> Exception | None:
        """
        Keep what the change did, or after an error undo it; return the error that its caller is told.

        Raises what has ended the whole transaction.
        """

    def named(self, error: BaseException) -> Exception:
        """Return the error that the change's caller is told."""

    def is_doubtful(self, error: Exception) -> bool:
        """Whether a change may have failed only because others did the same meanwhile, where it could not see them."""

    def execute(self, sql: str, parameters: Sequence[object]) -> None:
        """Run a statement of the log's own."""

    def append(self, published: Sequence[tuple[Published, int]]) -> Sequence[int]:
        """Put publications, each with its time, into the logs; return their offsets. `Held`: not there, for now."""

    def commit(self, clock: int) -> None:
        """Commit. `Again`: nothing has happened; `OutcomeUnknown`: nobody can say."""

    def abandon(self) -> None:
        """Roll back what has not been committed."""


@dataclass(slots=True)
class _Done:
    """What became of one change."""

    outcome: Any  # an exception, or the result
    clock: int
    published: list[Published] = field(default_factory=list)
    positions: tuple[tuple[str, int], ...] = ()  # of what was published, by this change or by the one it repeats
    once: Once | None = None  # under which it is to be remembered
    repeats: _Done | None = None  # in the same batch

    def is_in(self, rooms: Collection[str]) -> bool:
        """Whether it publishes there, or repeats what does."""
        return any(each.room in rooms for each in self.published) or (
            self.repeats is not None and self.repeats.is_in(rooms)
        )


class Committer:
    """Commits batches of changes."""

    def __init__(self, session: Session, wall: Callable[[], float]) -> None:
        self._session = session
        self._wall = wall

    @property
    def clock(self) -> int:
        """The time of the newest commit, in microseconds since 1970."""
        return self._session.clock

    def commit(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        """Run the changes, commit, and return what became of each."""
        if not jobs:
            return []
        outcomes = self._until_nobody_is_first(jobs)
        if len(jobs) > 1:
            for place, outcome in enumerate(outcomes):
                if isinstance(outcome, Exception) and self._session.is_doubtful(outcome):
                    outcomes[place] = self.commit([jobs[place]])[0]
        return outcomes

    def _until_nobody_is_first(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        doubts = 0
        for attempt in range(ATTEMPTS):
            outcomes = self._attempt(jobs)
            if isinstance(outcomes, Again):
                self._session.clock = max(self._session.clock, outcomes.clock)
                reason = outcomes.__cause__ or outcomes
                if attempt >= TOGETHER and len(jobs) > 1:  # it may be one of them that others are always before
                    return self._each_alone(jobs)
            elif isinstance(outcomes, _Without):
                return self._without(jobs, outcomes)
            elif isinstance(outcomes, OutcomeUnknown):
                return [outcomes for _ in jobs]
            elif isinstance(outcomes, Exception):  # the transaction is gone, with changes that had succeeded in it
                return [outcomes] if len(jobs) == 1 else self._each_alone(jobs)
            elif len(jobs) == 1 and isinstance(outcomes[0], Exception) and self._session.is_doubtful(outcomes[0]):
                doubts += 1
                if doubts > DOUBTS:
                    return outcomes
            else:
                return outcomes
        return [Unavailable(f"not committed in {ATTEMPTS} attempts (the last time: {reason}); try again") for _ in jobs]

    def _each_alone(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        return [outcome for job in jobs for outcome in self.commit([job])]

    def _without(self, jobs: Sequence[Job], some: _Without) -> list[Outcome | BaseException]:
        """Leave some out, and run the others."""
        others = iter(self.commit([job for place, job in enumerate(jobs) if place not in some.places]))
        return [Later(str(some)) if place in some.places else next(others) for place in range(len(jobs))]

    def _attempt(self, jobs: Sequence[Job]) -> list[Outcome | BaseException] | Exception:
        """Run all of them in one transaction; when this returns, it is over. An error is that of all of them."""
        try:
            self._session.begin()
        except HoldfastError as error:
            return [error for _ in jobs]
        try:
            return self._together(jobs)
        except (Again, _Without, HoldfastError) as error:
            return error
        except Exception as error:
            named = self._session.named(error)
            if isinstance(named, Unavailable):
                return named
            failure = StoreError(f"the change could not be committed: {error}")
            failure.__cause__ = error
            return failure
        finally:
            self._session.abandon()

    def _together(self, jobs: Sequence[Job]) -> list[Outcome | BaseException]:
        batch: list[_Done] = []
        keyed: dict[tuple[str, str], list[_Done]] = {}  # by user and key
        clock = self._session.clock
        for job in jobs:
            clock = max(int(self._wall() * 1_000_000), clock + 1)
            earlier = () if job.once is None else keyed.get((job.once.user, job.once.key), ())
            done = self._run(job, clock, earlier)
            batch.append(done)
            if done.once is not None:
                keyed.setdefault((done.once.user, done.once.key), []).append(done)
        try:
            records = self._append(batch)
        except Held as held:
            raise _Without({place for place, done in enumerate(batch) if done.is_in(held.rooms)}, held) from held
        self._remember(batch)
        self._session.commit(clock)
        return [
            done.outcome
            if isinstance(done.outcome, BaseException)
            else Outcome(done.outcome, mine, done.positions, self._session.epoch)
            for done, mine in zip(batch, records, strict=True)
        ]

    def _run(self, job: Job, clock: int, earlier: Sequence[_Done]) -> _Done:
        """Run one change in its savepoint; raises what has ended the whole transaction."""
        transaction = self._session.open(clock, has_waited=job.pause > 0)
        try:
            done = self._decide(transaction, job, clock, earlier)
        except BaseException as raised:
            error = self._session.named(raised)
            is_final = isinstance(error, Refused) and error.is_final
            done = _Done(error, clock, once=job.once if is_final else None)
        finally:
            transaction.end()
        told = done.outcome if isinstance(done.outcome, Exception) else None
        after = self._session.settle(told)
        return done if after is told else _Done(after, clock)

    def _decide(self, transaction: OpenTransaction, job: Job, clock: int, earlier: Sequence[_Done]) -> _Done:
        once = job.once
        if once is not None:
            verdict = self._verdict(transaction, job, once, clock, earlier)
            if verdict is not None:
                return verdict
        result = job.change(transaction, *job.args, **job.kwargs)
        if once is not None:
            _encode(result)
        return _Done(result, clock, transaction.published, once=once)

    def _verdict(
        self, transaction: OpenTransaction, job: Job, once: Once, clock: int, earlier: Sequence[_Done]
    ) -> _Done | None:
        """Return what the first command under this key came to, if there was one: `earlier` in the batch, or before."""
        conflict = _Done(Invalid("this key was used for another command", field="key"), clock)
        for done in earlier:
            assert done.once is not None
            if done.once.fingerprint != once.fingerprint:
                return conflict
            if done.once.part == once.part:
                return _Done(done.outcome, clock, repeats=done)
        other = 'SELECT 1 AS one FROM holdfast_verdict WHERE "user" = ? AND key = ? AND fingerprint <> ?'
        if transaction.one(other, (once.user, once.key, once.fingerprint)) is not None:
            return conflict
        row = transaction.one(
            'SELECT refusal, answer, published FROM holdfast_verdict WHERE "user" = ? AND key = ? AND part = ?',
            (once.user, once.key, once.part),
        )
        if row is None:
            return None
        if row["refusal"] is not None:
            message, name = msgspec.json.decode(row["answer"], type=tuple[str, str | None])
            return _Done(refusal_called(row["refusal"])(message, field=name), clock)
        result = msgspec.json.decode(row["answer"], type=_result_type(job.change))
        positions = msgspec.json.decode(row["published"], type=tuple[tuple[str, int], ...])
        return _Done(result, clock, positions=positions)

    def _remember(self, batch: Sequence[_Done]) -> None:
        """Keep what was decided under a key; that which repeats a decision learns where that one has published."""
        for done in batch:
            if done.repeats is not None:
                done.positions = done.repeats.positions
            if done.once is None:
                continue
            if isinstance(done.outcome, Refused):
                refusal, answer = done.outcome.code, _encode([str(done.outcome.message), done.outcome.field])
            else:
                refusal, answer = None, _encode(done.outcome)
            self._session.execute(
                'INSERT INTO holdfast_verdict ("user", key, part, fingerprint, at, refusal, answer, published) '
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    done.once.user, done.once.key, done.once.part, done.once.fingerprint, done.clock,
                    refusal, answer, _encode(done.positions),
                ),
            )  # fmt: skip

    def _append(self, batch: Sequence[_Done]) -> list[tuple[Record, ...]]:
        """Put what was published into the logs: here, so that the order of offsets is the order of commits."""
        offsets = iter(self._session.append([(each, done.clock) for done in batch for each in done.published]))
        records = []
        for done in batch:
            mine = tuple(Record(each.room, next(offsets), each.type, each.body) for each in done.published)
            records.append(mine)
            if mine:
                done.positions = tuple((record.room, record.offset) for record in mine)
        return records


def _encode(answer: object) -> str:
    try:
        return msgspec.json.encode(answer).decode()
    except (TypeError, ValueError) as error:
        raise ChangeFailed(f"what is answered under a key must be JSON: {error}") from None


def _result_type(change: Callable[..., Any]) -> Any:
    """Return the type that a change says it returns, so that a remembered result has it again."""
    try:
        return get_type_hints(change).get("return", Any)
    except (NameError, TypeError):
        return Any  # it is named only for type checkers, or the change is no plain function
