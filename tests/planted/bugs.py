"""
What could have been done wrong?

Each of these is a mistake that somebody might make, small, and not seen by merely starting the program.
`tests/planted/run.py` makes one after the other, and sees that it is caught.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from corpus.defaults import TESTS, test_of
from holdfast import Limits

#: The simulation (`python -m holdfast.testing.simulate`): wherever it can see a mistake, it is what must catch it.
SEA = "sea"
#: The same with several servers, which share a database.
SEA_OF_THREE = "sea of three servers"
#: What each of these asks of it.
SEAS: dict[str, tuple[str, ...]] = {SEA: (), SEA_OF_THREE: ("--nodes", "3")}


@dataclass(frozen=True)
class Bug:
    """
    A mistake.

    Attributes:
        name: What goes wrong, as a sentence.
        file: In which module, below `src/holdfast`.
        old: What stands there, once.
        new: What would stand there instead.
        by: What must catch it: one of the seas, or tests (arguments of pytest).
        also: What else must be changed for it to be made: file, old, new.
    """

    name: str
    file: str
    old: str
    new: str
    by: str = SEA
    also: tuple[tuple[str, str, str], ...] = ()


def boundless(limit: str) -> Bug:
    """Return the mistake that a limit has a default which is as good as none; the test of that must catch it."""
    (line,) = re.findall(rf"^    {limit}: .+\n", inspect.getsource(Limits), re.MULTILINE)
    path, test = test_of(limit)
    much = line.replace("\n", " * 1000\n")
    return Bug(f"{limit} is a thousand times as much by default", "server/limits.py", line, much, f"{path}::{test}")


BUGS = (
    # The log, and what is committed.
    Bug(
        "the log is read from one too far",
        "store/log.py",
        """AND "offset" > ? ORDER BY""",
        """AND "offset" > ? + 1 ORDER BY""",
    ),
    Bug(
        "a page of the log leaves out what does not fit, and goes on behind it",
        "store/log.py",
        "        if records and size > CHUNK_BYTES:\n            break\n",
        "        if records and size > CHUNK_BYTES:\n            size -= len(body)\n            continue\n",
    ),
    Bug(
        "what a refused change has written stays",
        "store/sqlite_session.py",
        "            self._connection.execute(_UNDO)\n",
        "            pass\n",
    ),
    Bug(
        "how far the log has come is not committed with it, so each start takes it for a backup",
        "store/sqlite_session.py",
        """"INSERT OR REPLACE INTO holdfast_meta VALUES ('clock', ?)", (str(clock),)""",
        """"INSERT OR IGNORE INTO holdfast_meta VALUES ('clock', ?)", (str(clock),)""",
    ),
    Bug(
        "a server that starts takes what it finds in the log for what is on the disk",
        "store/sqlite_session.py",
        'return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]',
        "return True",
        "tests/store/test_sqlite_session.py",
    ),
    Bug(
        "a commit that could not be synced is said not to have happened, and is found after a crash",
        "store/sqlite_session.py",
        "raise OutcomeUnknown(\n",
        "raise StoreError(\n",
        "tests/store/test_sqlite_session.py",
    ),
    Bug(
        "a change is acknowledged, and told, whatever becomes of the commit",
        "store/commit.py",
        "        self._session.commit(clock)\n",
        "        try:\n            self._session.commit(clock)\n"
        "        except Exception:\n            self._session.clock = clock\n",
    ),
    Bug(
        "a change is acknowledged, and told, before it is committed: with the next one",
        "store/sqlite_session.py",
        "            self._connection.execute(_COMMIT)\n",
        "            self._connection.execute(_RELEASED)\n",
        also=(
            (
                "store/sqlite_session.py",
                "            self._connection.execute(_BEGIN)\n",
                "            self._connection.execute(_COMMIT if self._connection.in_transaction else _RELEASED)\n"
                "            self._connection.execute(_BEGIN)\n",
            ),
            (
                "store/sqlite_session.py",
                "        if self._connection.in_transaction:\n            self._connection.execute(_ROLLBACK)\n",
                "",
            ),
            ("store/sqlite_session.py", "_COMMIT = ", '_RELEASED = "SELECT 1 -- holdfast"\n_COMMIT = '),
        ),
    ),
    Bug(
        "what a change has published is dispatched before the commit",
        "store/commit.py",
        "        self._remember(batch)\n        self._session.commit(clock)\n",
        "        self._remember(batch)\n"
        "        early: Any = self._session\n"
        "        told = [\n"
        "            Outcome(done.outcome, mine, done.positions, self._session.epoch)\n"
        "            for done, mine in zip(batch, records, strict=True)\n"
        "            if mine\n"
        "        ]\n"
        "        if told:\n"
        "            early.news(told)\n"
        "        self._session.commit(clock)\n",
        also=(
            (
                "store/sqlite.py",
                "        self._writer.start(self._commit, lambda outcomes: listener.news(published(outcomes)))\n",
                "        self._committer._session.news = lambda outcomes: listener.news(published(outcomes))\n"
                "        self._writer.start(self._commit, lambda outcomes: None)\n",
            ),
        ),
    ),
    Bug(
        "what a command under a key came to is not remembered unless it was refused, so a retry takes effect again",
        "store/commit.py",
        "            if done.once is None:\n                continue\n",
        "            if done.once is None or not isinstance(done.outcome, Refused):\n                continue\n",
    ),
    Bug(
        "what a refused change has published is told all the same",
        "store/commit.py",
        "done = _Done(error, clock, once=job.once",
        "done = _Done(error, clock, transaction.published, once=job.once",
    ),
    Bug(
        "two commands under one key in one commit both take effect",
        "store/commit.py",
        "if done.once.part == once.part:\n",
        "if done.once is once:\n",
        "tests/store/test_commit.py",
    ),
    Bug(
        "that a command cannot be done just now is its answer for as long as its key is remembered",
        "store/commit.py",
        "is_final = isinstance(error, Refused) and error.is_final\n",
        "is_final = isinstance(error, Refused)\n",
        "tests/store/test_commit.py::test_that_it_cannot_be_done_just_now_is_not_remembered",
    ),
    Bug(
        "the log forgets nothing unless it is too old and too much at once",
        "store/retention.py",
        'return max(young, int(head["head"])',
        'return min(young, int(head["head"])',
    ),
    Bug(
        "the log keeps one publication less than it should",
        "store/retention.py",
        "- records + 1)\n",
        "- records + 2)\n",
        "tests/store/test_retention.py",
    ),
    Bug(
        "what commands came to is forgotten after a thousandth of the time",
        "store/retention.py",
        "_microseconds(now - retention.verdict_seconds)",
        "_microseconds(now - retention.verdict_seconds / 1000)",
        "tests/store/test_retention.py",
    ),
    Bug(
        "two processes may serve one file",
        "store/lock.py",
        "fcntl.LOCK_EX | fcntl.LOCK_NB",
        "fcntl.LOCK_SH | fcntl.LOCK_NB",
        "tests/store/test_lock.py",
    ),
    Bug(
        "what was witnessed is not read, so a backup that is put back is not noticed",
        "store/lock.py",
        "self.witnessed = int(clock) if clock.isascii() and clock.isdigit() else 0",
        "self.witnessed = int(clock) if clock.isalpha() else 0",
    ),
    Bug(
        "a commit is acknowledged before it is on the disk",
        "store/sqlite.py",
        "if self._in_memory else 'FULL'",
        "if self._in_memory else 'NORMAL'",
    ),
    Bug(
        "how far the log has come is witnessed only at the start",
        "store/sqlite.py",
        "        self._lock.witness(self._committer.clock)  # before anybody is told",
        "        # before anybody is told",
    ),
    Bug(
        "a log that has come exactly as far as was witnessed is taken for a backup",
        "store/sqlite.py",
        'self._lock.witnessed > int(meta.get("clock", 0))',
        'self._lock.witnessed >= int(meta.get("clock", 0))',
    ),
    Bug(
        "an answer that others wait for is given to the first of them only",
        "store/writer.py",
        "        for job, outcome in zip(jobs, outcomes, strict=True):\n",
        "        for job, outcome in zip(jobs[:1], outcomes[:1], strict=True):\n",
    ),
    Bug(
        "those who share a commit are given each other's answers",
        "store/writer.py",
        "        for job, outcome in zip(jobs, outcomes, strict=True):\n",
        "        for job, outcome in zip(jobs, reversed(outcomes), strict=True):\n",
    ),
    Bug(
        "a clock that is set back takes the log back in time",
        "store/commit.py",
        "            clock = max(int(self._wall() * 1_000_000), clock + 1)\n",
        "            clock = int(self._wall() * 1_000_000)\n",
    ),
    # The server's mind.
    Bug(
        "who catches up is live one step early",
        "core/room.py",
        "        if member.offset < self.head:\n            self._unsettled.append(member)\n",
        "        if member.offset < self.head - 1:\n            self._unsettled.append(member)\n",
    ),
    Bug(
        "who was sent a page is live, whatever there was meanwhile",
        "core/room.py",
        "                self._unsettled += members\n",
        "                for member in members:\n                    self._turn_live(member)\n",
    ),
    Bug(
        "who is set back because its transport is full goes on one too far",
        "core/room.py",
        "            self._set_back(member, self.head)\n\n    def resume",
        "            self._set_back(member, self.newest + 1)\n\n    def resume",
    ),
    Bug(
        "who could not be told of people because its transport was full is never told",
        "core/room.py",
        "                member.typing = self.attendance.typing() if member.typing is None else member.typing\n",
        "                member.typing = None\n",
    ),
    Bug(
        "who leaves in the middle of what they are sent is sent whatever comes afterwards",
        "core/room.py",
        "for queue in (self._early, self._unsettled):",
        "for queue in (self._early,):",
        "tests/core/test_room.py",
    ),
    Bug(
        "positions of another epoch are taken for our own",
        "core/room.py",
        '            return "epoch"\n',
        "            pass\n",
    ),
    Bug(
        "what is ready is looked up one too far",
        "core/ready.py",
        "skip = offset + 1 - self.first",
        "skip = offset + 2 - self.first",
    ),
    Bug(
        "what is ready is looked up one too early, and sent again",
        "core/ready.py",
        "return None if skip < 0 else chunk(islice(self._frames, skip, None))",
        "return None if skip < 0 else chunk(islice(self._frames, max(0, skip - 1), None))",
    ),
    Bug(
        "the ready frames forget the oldest, and not that it is gone",
        "core/ready.py",
        "            self.first += 1\n",
        "            self.first += 0\n",
    ),
    Bug(
        "one write carries whatever there is",
        "core/ready.py",
        "if taken and size > CHUNK_BYTES:",
        "if taken and size > READY_BYTES:",
    ),
    Bug(
        "what is forgotten of the ready frames is counted as if it were as large as what has come",
        "core/ready.py",
        "self._bytes -= len(self._frames.popleft().wire)",
        "self._bytes -= len((self._frames.popleft() and frame).wire)",
        "tests/core/test_ready.py",
    ),
    Bug(
        "a session that goes on elsewhere leaves its rooms first, for all to see",
        "core/hub.py",
        "self._forget(twin.connection, Ending.UNCLEAN)",
        "self._forget(twin.connection, Ending.CLEAN)",
    ),
    Bug(
        "the grace is counted in milliseconds",
        "core/hub.py",
        "            until = self._now + self._rules.presence_grace\n",
        "            until = self._now + 1000 * self._rules.presence_grace\n",
    ),
    Bug(
        "there is no grace: who breaks off has left",
        "core/hub.py",
        "grace = ending is Ending.UNCLEAN and",
        "grace = ending is Ending.MOVED and",
    ),
    Bug(
        "who was let go of before they said who they are is kept for ever",
        "core/hub.py",
        "        self._strangers.pop(connection, None)\n        session = self._sessions.pop(connection, None)\n",
        "        session = self._sessions.pop(connection, None)\n",
        "tests/core/test_hub_storm.py",
    ),
    Bug(
        "of several rooms that can be sent more only the first is",
        "core/hub.py",
        "            room.settle()\n            self._unsettle(room)\n",
        "            room.settle()\n            self._unsettled.clear()\n",
    ),
    Bug(
        "a person is counted once for each tab",
        "core/roster.py",
        "        return len(self._people)\n",
        "        return sum(len(person.sessions) for person in self._people.values())\n",
    ),
    Bug(
        "a person leaves with the first of their tabs",
        "core/roster.py",
        "        if person.sessions:\n            return None\n",
        "        if _Place.GRACE in person.sessions.values():\n            return None\n",
    ),
    Bug(
        "who has stopped typing without a word types for ever",
        "core/attendance.py",
        '        self._agenda.set(("typing", self._room, user.user_id), now + TYPING_LAPSE)\n',
        "",
    ),
    Bug(
        "after a busy second nobody is told who has gone",
        "core/attendance.py",
        "went = tuple(user for user in untold.values() if user.user_id not in self.roster)",
        "went: tuple[User, ...] = ()",
        "tests/core/test_attendance.py",
    ),
    Bug(
        "who has another tab types on at a server that is gone",
        "core/attendance.py",
        "        if self._typing.get(user_id, (None, None))[1] == session:\n            self.stop_typing(user_id)\n",
        "",
        "tests/core/test_attendance.py::"
        "test_who_typed_at_a_node_that_is_gone_types_no_more_whatever_tabs_they_have_elsewhere",
    ),
    Bug(
        "who is to start afresh in the middle of an answer is told how much of it there was",
        "core/room.py",
        "        member.sync_count = None\n        self.send_from(member, self.head)\n",
        "        self.send_from(member, self.head)\n",
        "tests/core/test_hub.py",
    ),
    # Who is alive.
    Bug(
        "who has answered once is never pinged again",
        "core/heartbeat.py",
        "self._agenda.set(seen.connection, max(beat.next_ping, running))",
        "self._agenda.cancel(seen.connection)",
    ),
    Bug(
        "who is pinged has half the time to answer",
        "core/heartbeat.py",
        "                beat.deadline = running + self._timeout\n                # The next",
        "                beat.deadline = running + self._timeout / 2\n                # The next",
    ),
    Bug(
        "a server that stood still judges by the time in which it did",
        "core/heartbeat.py",
        "            self._stalled += now - self._expected\n",
        "            pass\n",
        "tests/core/test_heartbeat.py",
    ),
    Bug(
        "a ping that waits behind other bytes is waited for no longer than any other",
        "core/heartbeat.py",
        "                known.mark, known.acknowledged = mark, acknowledged\n",
        "                known.mark, known.acknowledged = None, acknowledged\n",
    ),
    Bug(
        "what a ping waited behind is waited for at the next one, too",
        "core/heartbeat.py",
        "                beat.mark = None\n                beat.deadline",
        "                beat.deadline",
        "tests/core/test_heartbeat.py::test_a_new_ping_forgets_the_backlog_of_the_one_before",
    ),
    Bug(
        "who speaks while there is more to be read is judged before it is",
        "core/heartbeat.py",
        "        if seen.unread:\n            return []\n",
        "",
        "tests/core/test_heartbeat.py",
    ),
    # The client's mind.
    Bug(
        "a timer that comes late judges",
        "core/link.py",
        "            case State.PROBING if late:\n",
        "            case State.PROBING if late and now < 0:\n",
        "tests/spec",
    ),
    Bug(
        "a probe that is not answered is waited for for ever",
        "core/link.py",
        "State.WAITING for state in (*_ARRIVING, State.PROBING, State.MOVING)}",
        "State.WAITING for state in (*_ARRIVING, State.MOVING)}",
    ),
    Bug(
        "a socket that opens and says nothing is waited for for ever",
        "core/link.py",
        "        self._alarm = now + GREETING_SECONDS\n        self._set(State.DIALING)\n",
        "        self._alarm = None\n        self._set(State.DIALING)\n",
        "tests/core/test_link.py",
    ),
    Bug(
        "who is told to move, and told again, dials as often",
        "core/link.py",
        "if carries and self._advice is not None and self._move_at is None:",
        "if carries and self._advice is not None:",
        "tests/spec",
    ),
    Bug(
        "who is hurried dials as often",
        "core/link.py",
        "now < self._dialed_at + FLOOR:",
        "now < self._dialed_at:",
        "tests/core/test_link.py",
    ),
    Bug(
        "who is sent on from one server to the next never takes their time",
        "core/link.py",
        "        self._backoff.lost(now)  # the link that was",
        "        # the link that was",
        "tests/spec",
    ),
    Bug(
        "who promises more and sends nothing is asked for ever",
        "core/replica.py",
        "        if self._behind_at == self._position:\n",
        "        if self._behind_at == self._position is None:\n",
        "tests/spec",
    ),
    Bug(
        "when a WebSocket has carried and is barred again it is tried as late as ever",
        "core/roads.py",
        "self._failures = self._trials = 0",
        "self._failures = 0",
        "tests/spec",
    ),
    Bug(
        "the delay may be as short as the dice say",
        "core/backoff.py",
        "max(FLOOR, ceiling * dice) if self._jitter",
        "ceiling * dice if self._jitter",
        "tests/core/test_backoff.py",
    ),
    Bug(
        "the delays do not grow",
        "core/backoff.py",
        "        self._failures += 1\n",
        "        self._failures = 1\n",
        "tests/core/test_backoff.py",
    ),
    Bug(
        "a publication that comes twice is told twice",
        "core/replica.py",
        "position.offset <= self._position.offset:",
        "position.offset < self._position.offset:",
    ),
    Bug(
        "a slow application is never told what was left in the log",
        "core/replica.py",
        "return Outcome(items, self._ask().ask)",
        "return Outcome(items)",
    ),
    Bug(
        "a link that breaks while a snapshot is taken is one to resume",
        "core/replica.py",
        "        self._position = self._behind_at = None\n",
        "        self._behind_at = None\n",
    ),
    Bug(
        "a hole in what comes is passed over",
        "core/replica.py",
        "            return _NOTHING if self._syncing else self._ask_on()\n",
        "            pass\n",
        "tests/spec",
    ),
    Bug(
        "a snapshot that came to nothing is taken again at once",
        "core/replica.py",
        "        self._syncing = self._is_stuck = True\n",
        "        self._syncing = True\n",
        "tests/client/test_bad_answers.py",
    ),
    Bug(
        "a command whose answer was lost is not sent again",
        "core/outbox.py",
        "                    entry.under_way = False\n",
        "                    entry.under_way = entry.times > 0\n",
    ),
    Bug(
        "after a link that broke the newest commands go first",
        "core/outbox.py",
        "        for key, entry in self._entries.items():\n            if self._under_way",
        "        for key, entry in reversed(self._entries.items()):\n            if self._under_way",
    ),
    Bug(
        "a command that was sent is said not to have been",
        "core/outbox.py",
        "Result.UNKNOWN if was_sent else Result.NOT_SENT",
        "Result.NOT_SENT",
    ),
    Bug(
        "a room that starts afresh while it waits for what it missed asks for nothing any more",
        "core/replica.py",
        "            case messages.Resync(_, reason, cursor):\n                self._syncing = False\n",
        "            case messages.Resync(_, reason, cursor):\n",
        "tests/spec",
    ),
    Bug(
        "what a slow application has let pass while it was asked for is left there",
        "core/replica.py",
        "return self._ask_on() if self._is_behind(cursor) else _NOTHING",
        "return _NOTHING",
        "tests/spec",
    ),
    Bug(
        "of a command that was sent twice the refusal of one is taken for that of both",
        "core/outbox.py",
        "entry.times > 1:",
        "entry.times > 2:",
        "tests/spec",
    ),
    Bug(
        "who reads by HTTP goes on from the head, whatever was missed",
        "core/reader.py",
        "stands = since if recovered else decode_position(head, room)",
        "stands = decode_position(head, room)",
    ),
    Bug(
        "who polls asks from where it began, again and again",
        "core/reader.py",
        "                self._positions[message.room] = position\n",
        "",
    ),
    Bug(
        "a snapshot takes the place of a join that has yet to be answered",
        "core/reader.py",
        "self._wanted[room] = Join if still is Join else type(input)",
        "self._wanted[room] = type(input)",
        "tests/core/test_reader.py",
    ),
    Bug(
        "of two epochs, who stands in the present one is told of a gap",
        "core/reader.py",
        "elif position is not None and self._epoch != asked:",
        "elif position is not None and self._epoch == asked is None:",
        "tests/spec",
    ),
    Bug(
        "what has been moved is kept for ever",
        "core/agenda.py",
        "if self._dead > len(self._when) + 64:",
        "if len(self._heap) > len(self._when) + 64:",
        "tests/core/test_agenda.py",
    ),
    Bug(
        "who was pinged late together with others is so for good",
        "core/heartbeat.py",
        "beat.next_ping += self._interval * (1 + (running - beat.next_ping) // self._interval)",
        "beat.next_ping = running + self._interval",
        "tests/core/test_heartbeat.py",
    ),
    Bug(
        "whoever is told that they go on believes it, from wherever",
        "core/replica.py",
        "if message.recovered and position != self._position:",
        "if False:",
        "tests/spec",
    ),
    Bug(
        "a token is waited for for ever",
        "core/link.py",
        "        self._alarm = now + TOKEN_SECONDS\n",
        "        self._alarm = None\n",
        "tests/spec",
    ),
    Bug(
        "who polls is led on by nothing but gaps, without a pause",
        "core/reader.py",
        "reach = sum(max(stood[room], offset) for room, offset in self._offsets().items())",
        "reach = sum(stood.values())",
        "tests/spec",
    ),
    # The server's hands.
    Bug(
        "who is full in the middle of a delivery is not set back",
        "server/hands.py",
        "            if connection.full:\n",
        "            if connection.full and not frozenset(filled):\n",
    ),
    Bug(
        "the heartbeat goes on for connections that are gone",
        "server/hands.py",
        "            self._beat.receive(heartbeat.Ended(connection), self.now())\n",
        "",
    ),
    Bug(
        "those who listen by HTTP are not woken by news",
        "server/hands.py",
        "                follower.wake()\n",
        "                follower.kind\n",
    ),
    Bug(
        "who is put out of a room reads on in a stream in which it is not the first",
        "server/hands.py",
        "(room is None or room in stream.rooms)",
        "(room is None or room == stream.rooms[0])",
    ),
    Bug(
        "what comes while the store is asked is forgotten",
        "server/hands.py",
        "return Span(span.floor, max(span.head, newest))",
        "return span",
        "tests/server/test_follow.py::test_what_comes_while_the_store_is_asked_is_read_by_all_who_have_asked",
    ),
    Bug(
        "the first of those who ask for a room is taken for the last",
        "server/hands.py",
        "            if watchers > 1:\n                self._asked[room] = (watchers - 1, newest)\n",
        "",
        "tests/server/test_follow.py::test_what_comes_while_the_store_is_asked_is_read_by_all_who_have_asked",
    ),
    Bug(
        "who reads several rooms is told of the first",
        "server/follow.py",
        "        for name in self.rooms:\n            found = await",
        "        for name in self.rooms[:1]:\n            found = await",
    ),
    Bug(
        "who stands before a log that was trimmed is given what comes next, as if nothing was missing",
        "server/follow.py",
        "if not items or items[0].offset != offset + 1:",
        "if not items:",
        "tests/server/test_follow.py::test_whoever_stands_before_a_log_that_was_trimmed_is_told_of_the_gap",
    ),
    Bug(
        "who is put out while the store is asked is given what it has found",
        "server/follow.py",
        "        if self.ended is not None:\n            return []\n        if not items",
        "        if not items",
        "tests/server/test_follow.py::test_whoever_is_put_out_while_the_store_is_asked_is_given_nothing_more",
    ),
    Bug(
        "of two parts of one command in one batch the second is taken for the first",
        "store/commit.py",
        "if done.once.part == once.part:",
        "if done.once:",
        "tests/store/test_commit.py::test_two_parts_of_one_command_in_one_batch_are_two",
    ),
    Bug(
        "whoever asks on and on, and reads no answer, is read on and on",
        "server/requests.py",
        "            self.flow.pause_reading()  # the stock class reads on",
        "            pass  # the stock class reads on",
        "tests/corpus/test_http.py::test_requests_that_wait_for_their_turn_are_not_read",
    ),
    Bug(
        "a reader who stands in another epoch is not told",
        "server/follow.py",
        "refusal = None if since is None else room.refusal(since, span)",
        "refusal = None",
    ),
    Bug(
        "who is to read nothing more is told of it with the next heartbeat",
        "server/follow.py",
        "        self.ended = reason\n        self._news.set()\n",
        "        self.ended = reason\n",
        "tests/server/test_eventstream.py",
    ),
    Bug(
        "of a page an event stream carries all but the last",
        "server/eventstream.py",
        "for item in items)\n        elif",
        "for item in items[:-1] or items)\n        elif",
    ),
    Bug(
        "who may not read a room reads it by HTTP",
        "server/opened.py",
        'await self.check(identity.user, room, "read")\n',
        'await self.check(identity.user, room[:1], "read")\n',
    ),
    Bug(
        "a snapshot is said to be older by one publication than it is",
        "server/opened.py",
        "            position = str(transaction.position(room))\n",
        '            at = transaction.position(room)\n            position = f"{at.epoch}:{max(0, at.offset - 1)}"\n',
    ),
    Bug(
        "a poll is answered with the cursor at which it began",
        "server/polling.py",
        "        return await (_held(request, follow, seconds) if seconds else follow.take()), follow.cursor\n",
        "        before = follow.cursor\n"
        "        return await (_held(request, follow, seconds) if seconds else follow.take()), before\n",
        "tests/board/test_listening.py",
    ),
    Bug(
        "a transport that is full is written to all the same",
        "server/native.py",
        "        self.paused()\n",
        "        self.hands.now()\n",
    ),
    Bug(
        "a link that breaks is taken for one that was closed",
        "server/native.py",
        "            self._on_server.discard(self)\n        self.hands.lost(self, Ending.UNCLEAN)\n",
        "            self._on_server.discard(self)\n        self.hands.lost(self, Ending.CLEAN)\n",
    ),
    Bug(
        "who closes the page is shown for a while",
        "server/native.py",
        "self.hands.lost(self, Ending.CLEAN if clean else Ending.UNCLEAN)",
        "self.hands.lost(self, Ending.UNCLEAN)",
    ),
    Bug(
        "a command is acknowledged before it is committed",
        "server/conversation.py",
        "            result = await self.handle(request)\n",
        "            result = None\n            self._hands.spawn(self.handle(request))\n",
    ),
    Bug(
        "the key of a command is not passed on, so a retry takes effect again",
        "server/conversation.py",
        "message.data, user, session, message.key)",
        "message.data, user, session, None)",
    ),
    Bug(
        "a command whose outcome is unknown is said to have been refused",
        "server/conversation.py",
        "messages.Problem(str(error), error.code)",
        'messages.Problem(str(error), "invalid")',
        "tests/server/test_faults.py",
    ),
    Bug(
        "who comes back as a guest is another one",
        "server/gate.py",
        "return self._tokens.sign(identity.user, None, is_guest=True) if identity.is_guest else None",
        "return None",
    ),
    Bug(
        "while a server ends it lets in whoever comes",
        "server/door.py",
        "        if (closed := self.closed()) is not None:\n",
        "        if (closed := self.closed()) is not None and not places:\n",
        "tests/server/test_door.py",
    ),
    Bug(
        "who writes is turned away with a crowd that comes in",
        "server/gate.py",
        "self.door.refusal() if comes_in else self.door.closed()",
        "self.door.refusal()",
        "tests/server/test_admission.py",
    ),
    Bug(
        "of what comes at once those who are live are told the first",
        "server/hands.py",
        "self.tell(inputs.Published(room, self.items(items)))",
        "self.tell(inputs.Published(room, self.items(items[:1])))",
        SEA_OF_THREE,
    ),
    Bug(
        "a token that lets in once lets in for ever",
        "server/gate.py",
        "now + identity.expires - time.time()",
        "now + identity.expires",
        "tests/server/test_expiry.py",
    ),
    Bug(
        "who went on at another server stays in the rooms of the first",
        "server/opened.py",
        "        self.current.hands.tell(inputs.Taken(session, rooms))\n",
        "",
        SEA_OF_THREE,
    ),
    Bug(
        "when the log has begun anew a server goes on with what it knew of the old one",
        "server/opened.py",
        "        self.current = OpenHub(self._settings, self._store)\n        self.current.hands.draining",
        "        self.current.hands.draining",
        SEA_OF_THREE,
    ),
    Bug(
        "a server that the database answers again lets nobody in",
        "server/opened.py",
        "        self.current.hands.reopen()\n",
        "        pass\n",
        SEA_OF_THREE,
    ),
    Bug(
        "how fast a crowd may come is forgotten as soon as nobody has to wait",
        "core/admission.py",
        "self.rate * FASTER if now < self._calm_since + CALM_SECONDS else None",
        "self.rate * FASTER if now < self._calm_since else None",
        "tests/core/test_admission.py",
    ),
    Bug(
        "a retry that names its fields in another order is another command",
        "server/keyed.py",
        'msgspec.json.encode(says, order="deterministic")',
        "msgspec.json.encode(says)",
        "tests/server/test_keyed.py::test_a_retry_may_name_its_fields_in_another_order",
    ),
    Bug(
        "a key is one for all rooms",
        "server/conversation.py",
        "request.key, request.type, request.room, request.data",
        "request.key, request.type, request.data",
        "tests/server/test_keyed.py::test_one_key_for_two_messages_is_a_mistake",
    ),
    Bug(
        "a key is one for all commands",
        "server/conversation.py",
        "request.key, request.type, request.room, request.data",
        "request.key, request.room, request.data",
        "tests/server/test_keyed.py::test_one_key_for_two_messages_is_a_mistake",
    ),
    Bug(
        "what is small is looked at at once, whoever waits",
        "server/sips.py",
        "if self._transport in attention.waiting or not attention.is_left():",
        "if self._transport in attention.waiting:",
        "tests/server/test_sips.py",
    ),
    Bug(
        "two texts that come at once are taken for one",
        "protocol/strict.py",
        "0 < size < _LONG and data[0]",
        "0 < size and data[0]",
        "tests/protocol/test_strict.py",
    ),
    Bug(
        "a text that comes while another has begun is taken for one of its own",
        "protocol/strict.py",
        " and self.state is OPEN and self.current_size is None:",
        " and self.state is OPEN:",
        "tests/protocol/test_strict.py",
    ),
    Bug(
        "however many requests come, all are begun at once",
        "server/requests.py",
        "        await attention().when_left()\n",
        "",
        "tests/server/test_sips.py",
    ),
    Bug(
        "however many come by WebSocket, all are begun at once",
        "server/websocket.py",
        "        await attention().when_left()\n",
        "",
        "tests/server/test_sips.py",
    ),
    Bug(
        "who decides how many are let in does not see those who wait in line",
        "server/door.py",
        "        await self._hands.attention.turn()  # as who comes does in a crowd: how long is that for them?\n",
        "",
        "tests/server/test_admission.py",
    ),
    Bug(
        "of those who come at once, uvloop takes in one in a turn",
        "server/runner.py",
        "for _ in range(LISTENERS - 1)]",
        "for _ in range(0)]",
        "tests/server/test_runner.py",
    ),
    # The client's hands.
    Bug(
        "after a link that broke only the first room is joined again",
        "client/rooms.py",
        "        for room in self._rooms.values():\n            self._join(room)\n",
        "        for room in [*self._rooms.values()][:1]:\n            self._join(room)\n",
    ),
    Bug(
        "what comes from a socket that was given up is heard",
        "client/client.py",
        "            if source is not None and source is not self._road:\n                continue\n",
        "            if source is not None and source is not self._road and not isinstance(what, str):\n"
        "                continue\n",
        "tests/client/test_given_up.py",
    ),
    Bug(
        "who reads by HTTP asks for what follows the head, whatever they have",
        "client/http.py",
        '({} if ask.cursor is None else {"cursor": ask.cursor})',
        "{}",
    ),
    Bug(
        "what an event stream has said is told again with what follows",
        "client/http.py",
        "                    messages, answered = [], True\n",
        "                    answered = True\n",
    ),
    Bug(
        "what comes by HTTP is inflated, however large that is",
        "client/http.py",
        'if response.headers.get("content-encoding", "identity") != "identity":',
        'if response.headers.get("content-encoding") == "identity":',
        "tests/client/test_bad_answers.py",
    ),
    Bug(
        "an answer by HTTP is read to its end, wherever that is",
        "client/http.py",
        "        if len(whole) > most:\n",
        "        if len(whole) > 2 * most:\n",
        "tests/client/test_bad_answers.py",
    ),
    Bug(
        "a link that was dialled beside one that breaks stays open",
        "client/client.py",
        "for road in (self._road, self._spare):",
        "for road in (self._road,):",
        "tests/client/test_given_up.py",
    ),
    Bug(
        "a snapshot that was begun on a link that is gone is taken for one of the next",
        "client/rooms.py",
        "            if joined_on is room.joined_on:\n                try:\n",
        "            if self._rooms:\n                try:\n",
        "tests/client/test_reconnect.py::"
        "test_a_snapshot_that_was_begun_on_a_link_that_is_gone_is_for_nothing_on_the_next",
    ),
    Bug(
        "a room that was refused once is joined again ever more slowly, however often it was entered since",
        "client/rooms.py",
        "                room.backoff = Backoff()\n",
        "                pass\n",
        "tests/client/test_bad_answers.py::"
        "test_a_room_that_was_entered_is_joined_again_as_soon_as_after_its_first_refusal",
    ),
    Bug(
        "whoever leaves a room and joins it again takes the answer to the first time for their own",
        "client/rooms.py",
        "        if self._lefts[name]:\n",
        "        if not name and self._lefts:\n",
        "tests/client/test_client.py::"
        "test_what_is_answered_to_whoever_was_in_before_is_nothing_to_who_joins_again_at_once",
    ),
    Bug(
        "what was left on a link that is gone is never joined again",
        "client/rooms.py",
        "        self._lefts.clear()\n",
        "",
        "tests/client/test_left.py",
    ),
    Bug(
        "that somebody was put out is taken for the answer to their leave",
        "client/rooms.py",
        "if isinstance(message, messages.Left) and message.reason is UNSET:",
        "if isinstance(message, messages.Left):",
        "tests/client/test_left.py",
    ),
    Bug(
        "whoever was put out comes again before all is said of the first time",
        "client/rooms.py",
        "            self._part(room.name)\n            room.joined_on = self._road\n",
        "            room.joined_on = self._road\n",
        "tests/client/test_left.py",
    ),
    Bug(
        "a room that was refused for a moment, left, and entered again is not asked for any more",
        "client/rooms.py",
        "        room.joined_on = room.refused_on = None\n        room.fail(failure)\n",
        "        room.joined_on = None\n        room.fail(failure)\n",
        "tests/client/test_left.py",
    ),
    Bug(
        "who was about to ask again for a room that was left asks beside who joins it anew",
        "client/rooms.py",
        "if room.refused_on is room.joined_on is joined_on is self._road is not None:",
        "if room.joined_on is joined_on is self._road is not None:",
        "tests/client/test_left.py",
    ),
    Bug(
        "whoever leaves a room in which they are not any more is refused, and not told that they are out",
        "server/conversation.py",
        "            case Leave(room) if room in session.rooms:\n",
        "            case Leave(room):\n                self._must_be_in(connection, room)\n",
        "tests/client/test_left.py",
    ),
    Bug(
        "a room that is entered while nothing carries, or it is asked whether it does, is not joined",
        "client/rooms.py",
        "        self._rooms[room.name] = room\n        if self._road is not None:\n            self._join(room)\n",
        "        self._rooms[room.name] = room\n",
        "tests/client/test_client.py::test_a_room_that_is_joined_while_the_link_is_probed_is_joined",
    ),
    Bug(
        "a token function that fails too late ends a link that needed it no more",
        "client/client.py",
        "if asked == self._asked:",
        "if asked:",
        "tests/client/test_client.py::test_a_token_that_does_not_come_is_asked_for_again",
    ),
    # The words.
    Bug(
        "a server may have its clients say nothing",
        "protocol/messages.py",
        "Annotated[float, Meta(ge=SLOWEST_RATE)]",
        "float",
        "tests/protocol/test_codec.py",
    ),
    Bug(
        "a frame of 126 bytes has the head of a shorter one",
        "protocol/codec.py",
        "        if size < 126:\n",
        "        if size <= 126:\n",
    ),
    Bug(
        "the head of a frame of 64 KiB is that of a shorter one",
        "protocol/codec.py",
        "        elif size < 65536:\n",
        "        elif size < 131072:\n",
        "tests/protocol/test_codec.py",
    ),
    Bug(
        "a field that is called room names the room where that is called otherwise",
        "protocol/codec.py",
        '            fields.pop("room", None)\n            if self.room_key in fields:\n',
        "            if self.room_key in fields:\n",
        "tests/protocol/test_codec.py",
    ),
    Bug(
        "a payload may say what the protocol says",
        "protocol/codec.py",
        "        for key in self._reserved_keys.intersection(keys):\n",
        "        for key in self._reserved_keys.intersection(keys) - {'id'}:\n",
        "tests/protocol/test_codec.py",
    ),
    Bug(
        "of a cursor of several rooms the first is read",
        "protocol/cursor.py",
        "    for part in parts:\n",
        "    for part in parts[:1]:\n",
    ),
    Bug(
        "names of rooms are put into a cursor as they are",
        "protocol/cursor.py",
        "{quote(room, safe='')}={offset}",
        "{room}={offset}",
        "tests/protocol/test_cursor.py",
    ),
    Bug(
        "a cursor may be a forged number",
        "protocol/cursor.py",
        "and len(digits) <= 19) or int(digits) > MAX_OFFSET:",
        "and len(digits) <= 19):",
        "tests/protocol/test_cursor.py",
    ),
    Bug(
        "who was put out comes back",
        "protocol/codes.py",
        "return not 4000 <= code < 4100",
        "return not 4000 <= code < 4003",
    ),
    # The client's mind in JavaScript.
    Bug(
        "in a page, a timer that comes late judges",
        "browser/holdfast.js",
        '    if (this.state === "probing" && late) {\n',
        '    if (this.state === "probing" && late && now < 0) {\n',
        "tests/spec",
    ),
    Bug(
        "in a page, a probe that is not answered is waited for for ever",
        "browser/holdfast.js",
        '  "probing silent": "waiting",\n',
        "",
        "tests/spec",
    ),
    Bug(
        "in a page, the delay may be as short as the dice say",
        "browser/holdfast.js",
        "this.jitter ? Math.max(FLOOR, ceiling * dice) : ceiling",
        "this.jitter ? ceiling * dice : ceiling",
        "tests/spec",
    ),
    Bug(
        "in a page, who is told to move, and told again, dials as often",
        "browser/holdfast.js",
        "      this.#moveAt ??= now",
        "      this.#moveAt = now",
        "tests/spec",
    ),
    Bug(
        "in a page, a server that welcomes and dies is dialed again as if it had lived",
        "browser/holdfast.js",
        "if (this.#shortLived < 2) this.#failures = 0;",
        "this.#failures = 0;",
        "tests/spec",
    ),
    Bug(
        "in a page, a publication that comes twice is told twice",
        "browser/holdfast.js",
        "if (beyond !== 1) return",
        "if (beyond !== 1 && beyond !== 0) return",
        "tests/spec",
    ),
    Bug(
        "in a page, a hole in what comes is passed over",
        "browser/holdfast.js",
        "    if (beyond !== 1) return beyond > 0 && !this.#syncing ? this.#askOn() : { items: [] };\n",
        "    if (beyond <= 0) return { items: [] };\n",
        "tests/spec",
    ),
    Bug(
        "in a page, a link that breaks while a snapshot is taken is one to resume",
        "browser/holdfast.js",
        "    this.#position = this.#behindAt = null;\n",
        "    this.#behindAt = null;\n",
        "tests/spec",
    ),
    Bug(
        "in a page, who leaves goes on typing",
        "browser/holdfast.js",
        "      this.users.delete(user.userId);\n      this.typing.delete(user.userId);\n",
        "      this.users.delete(user.userId);\n",
        "tests/spec",
    ),
    Bug(
        "in a page, a command that was sent is said not to have been",
        "browser/holdfast.js",
        '=== null ? "not sent" : "unknown"',
        '=== null ? "not sent" : "not sent"',
        "tests/spec",
    ),
    Bug(
        "in a page, a command whose answer was lost is not sent again",
        "browser/holdfast.js",
        "        for (const entry of this.#entries.values()) entry.underWay = false;\n",
        "",
        "tests/spec",
    ),
    Bug(
        "in a page, a room that starts afresh while it waits for what it missed asks for nothing any more",
        "browser/holdfast.js",
        '      case "resync":\n        this.#syncing = false;\n',
        '      case "resync":\n',
        "tests/spec",
    ),
    Bug(
        "in a page, an answer that goes further than what came is the end of it",
        "browser/holdfast.js",
        "return this.#joined && this.#beyond(message.cursor) > 0 ? this.#askOn() : { items: [] };",
        "return { items: [] };",
        "tests/spec",
    ),
    Bug(
        "in a page, of a command that was sent twice the refusal of one is taken for that of both",
        "browser/holdfast.js",
        "?.times ?? 0) > 1)",
        "?.times ?? 0) > 2)",
        "tests/spec",
    ),
    Bug(
        "in a page, an event stream that is held back is waited for for ever",
        "browser/holdfast-http.js",
        'this.how === "stream" && this.#asked.size > 0 ? now + STREAM_SECONDS : null',
        "null",
        "tests/spec",
    ),
    Bug(
        "in a page, a character of which a half has come is taken for a whole one",
        "browser/holdfast-http.js",
        "yield decoder.decode(part.value, { stream: true });",
        "yield decoder.decode(part.value);",
        "tests/browser/test_fallback.py::test_what_comes_in_pieces_is_read_as_a_whole",
    ),
    Bug(
        "in a page, a snapshot that was begun on a link that is gone is taken for one of the next",
        "browser/holdfast.js",
        "        if (!isWanted()) return;\n",
        "",
        "tests/browser/test_bad_answers.py::"
        "test_a_snapshot_that_was_begun_on_a_link_that_is_gone_is_for_nothing_on_the_next",
    ),
    Bug(
        "in a page, a snapshot that came to nothing is taken again at once",
        "browser/holdfast.js",
        "    this.#syncing = this.stuck = true;\n",
        "    this.#syncing = true;\n",
        "tests/browser/test_bad_answers.py::test_a_snapshot_that_is_older_than_the_log_is_not_taken_again_and_again",
    ),
    Bug(
        "in a page, of two epochs, who stands in the present one is told of a gap",
        "browser/holdfast-http.js",
        "if (at?.epoch === epoch && epoch !== this.#epoch) this.#wanted",
        "if (!at && epoch !== this.#epoch) this.#wanted",
        "tests/spec",
    ),
    Bug(
        "in a page, commands that were not answered before a move are not asked again behind it",
        "browser/holdfast.js",
        '      for (const room of this.#rooms.values()) this.#tellOutbox(room, { type: "broken" });\n',
        "",
        "tests/browser/test_nodes.py::test_what_was_not_answered_before_a_move_is_asked_again_behind_it",
    ),
    Bug(
        "in a page, a clock that is set back stops everything until it is as late again",
        "browser/holdfast.js",
        "return (now += Math.max(0, wall - then) / 1000);",
        "return (now = wall / 1000);",
        "tests/browser/test_fallback.py::test_a_clock_that_is_set_back_by_an_hour_delays_nothing",
    ),
    Bug(
        "in a page, whoever leaves a room and joins it again takes the answer to the first time for their own",
        "browser/holdfast.js",
        "    if (lefts) {",
        "    if (lefts && !name) {",
        "tests/browser/test_left.py",
    ),
    Bug(
        "in a page, that somebody was put out is taken for the answer to their leave",
        "browser/holdfast.js",
        'if (message.type === "left" && !message.reason)',
        'if (message.type === "left")',
        "tests/browser/test_left.py",
    ),
    Bug(
        "in a page, what was left on a link that is gone is never joined again",
        "browser/holdfast.js",
        "    this.#lefts.clear();\n",
        "",
        "tests/browser/test_left.py",
    ),
    Bug(
        "in a page, what was left while it moved is forgotten when it has moved",
        "browser/holdfast.js",
        "        this.#everLive = true;\n        for (const room",
        "        this.#everLive = true;\n        this.#lefts.clear();\n        for (const room",
        "tests/browser/test_left.py",
    ),
    Bug(
        "a page that the browser keeps aside keeps its link",
        "browser/holdfast.js",
        'listen(window, "pagehide"',
        'listen(window, "pagehidden"',
        "tests/browser/test_hardships.py::test_a_page_that_the_browser_keeps_aside_has_no_link_until_it_is_shown_again",
    ),
    Bug(
        "in a page, whoever is told that they go on believes it, from wherever",
        "browser/holdfast.js",
        " || (message.recovered && message.cursor !== this.cursor)",
        "",
        "tests/spec",
    ),
    Bug(
        "in a page, a token that came too late ends a link that needed none",
        "browser/holdfast.js",
        "if (asked === this.#asked) this.#tell",
        "this.#tell",
        "tests/browser/test_fallback.py::test_a_token_that_does_not_come_is_asked_for_again",
    ),
    # Several servers, which share a database.
    Bug(
        "what others have committed is found, and not told",
        "store/postgres_feed.py",
        "            self._deliver(rows)\n            reached",
        "            reached",
        SEA_OF_THREE,
    ),
    Bug(
        "a feed has passed what it has yet to read",
        "store/postgres_feed.py",
        "        await self._catch_up(connection, behind)\n        self._since = up_to(snapshot, newest)\n",
        "        self._since = up_to(snapshot, newest)\n        await self._catch_up(connection, behind)\n",
        "tests/store/test_postgres_feed.py::test_what_was_found_and_could_not_be_read_is_found_again",
    ),
    Bug(
        "what is committed under ids that a crash has freed is taken for seen",
        "store/postgres_database.py",
        "    end = min(int(newest or 0) + 1, int(xmax))\n",
        "    end = int(xmax)\n",
        "tests/store/test_postgres_feed.py::test_what_is_committed_under_ids_that_a_crash_has_freed_is_heard_of",
    ),
    Bug(
        "nobody looks whether rooms stand behind what was told of them",
        "store/postgres_feed.py",
        "        if not doubtful:\n            return\n",
        "        if not doubtful or home:\n            return\n",
        "tests/store/test_postgres_restored.py::test_rooms_that_stand_behind_what_was_told_of_them_are_noticed",
    ),
    Bug(
        "a server that is cut off from the database serves on",
        "store/postgres_feed.py",
        "        self._is_away = True\n        self._database.fell_silent()\n        self._listener.away()\n",
        "        self._is_away = True\n        self._database.fell_silent()\n",
        SEA_OF_THREE,
    ),
    Bug(
        "a server that the database answers again does not know it",
        "store/postgres_feed.py",
        "            self._listener.back()\n",
        "",
        SEA_OF_THREE,
    ),
    Bug(
        "files of long ago are taken for the database that it was",
        "store/postgres_database.py",
        " or row[2] < reached:\n",
        ":\n",
        SEA_OF_THREE,
    ),
    Bug(
        "a writer does not see that what it has committed is gone",
        "store/postgres_session.py",
        "        if batch >= self._committed:\n",
        "        if batch >= 0:\n",
        "tests/store/test_postgres_restored.py::test_who_has_written_notices_also_when_others_have_written_more_since",
    ),
    Bug(
        "a commit whose answer was lost is taken for done",
        "store/postgres_session.py",
        "            if row[0] == self._batch:\n",
        "            if row[0] <= self._batch:\n",
        SEA_OF_THREE,
    ),
    Bug(
        "a commit whose answer was lost is made again, also if it was done",
        "store/postgres_session.py",
        "            if row[0] == self._batch:\n                return\n",
        "",
        "tests/store/test_postgres_session.py::test_a_commit_whose_answer_is_lost_is_known_all_the_same",
    ),
    Bug(
        "who has left is not struck out",
        "store/postgres_people.py",
        "            self._unwritten[room, session] = None\n        else:",
        "            self._departed.append((room, session))\n        else:",
        SEA_OF_THREE,
    ),
    Bug(
        "who is struck out is struck out wherever they went on",
        "store/postgres_people.py",
        "gone.session AND node = %s AND here",
        "gone.session AND (node = %s OR true) AND here",
        SEA_OF_THREE,
    ),
    Bug(
        "who went on elsewhere is not given up",
        "store/postgres_people.py",
        "        self._give_up(people)\n",
        "",
        SEA_OF_THREE,
    ),
    Bug(
        "whoever writes a session down last has it",
        "store/postgres_people.py",
        " WHERE people.held <= excluded.held\n",
        " WHERE true\n",
        "tests/store/test_postgres_claims.py::test_an_older_claim_that_is_written_down_again_takes_nothing_back",
    ),
    Bug(
        "an older claim that is written down again is believed",
        "store/postgres_people.py",
        "            if held < self._claims.held(session, mine.user_id):\n",
        "            if held < 0:\n",
        "tests/store/test_postgres_claims.py::test_an_older_claim_that_is_written_down_again_takes_nothing_back",
    ),
    Bug(
        "an older link takes a session from a newer one",
        "store/postgres_claims.py",
        "            if is_old:\n                continue\n",
        "",
        "tests/store/test_postgres_claims.py::test_of_links_that_are_counted_the_newest_holds_a_session_whenever_others_are_heard",
    ),
    Bug(
        "a session is taken over without its rooms",
        "store/postgres_claims.py",
        "                mine.append(room)\n",
        "                pass\n",
        SEA_OF_THREE,
    ),
    Bug(
        "whoever comes meets those whose server is gone",
        "store/postgres_people.py",
        "AND node <> %s AND node IN (SELECT id FROM holdfast_node WHERE until > now())\n",
        "AND node <> %s\n",
        "tests/store/test_postgres_lease.py::test_the_people_of_a_node_whose_lease_has_ended_are_met_by_nobody",
    ),
    Bug(
        "the people of a server that is gone stay",
        "store/whereabouts.py",
        "        dead = self.alive - alive\n",
        "        dead = alive - self.alive\n",
        SEA_OF_THREE,
    ),
    Bug(
        "a lease is renewed when it has ended",
        "store/postgres_lease.py",
        "RENEW_SECONDS = 4.0",
        "RENEW_SECONDS = 14.0",
        SEA_OF_THREE,
    ),
    Bug(
        "the people of a server that ends have left at once",
        "store/postgres_people.py",
        "await self._lease.end(connection, DOUBT_SECONDS)",
        "await self._lease.end(connection, 0)",
        "tests/store/test_postgres_lease.py::test_a_node_that_ends_leaves_its_people_a_grace_to_return_elsewhere",
    ),
    Bug(
        "after a crash of the database nobody is written down again",
        "store/postgres_people.py",
        "        if await self._lease.renew(connection, now):\n",
        "        if await self._lease.renew(connection, now) and not self._mine:\n",
        SEA_OF_THREE,
    ),
    Bug(
        "when the log has begun anew people are where they were",
        "store/postgres_people.py",
        "        self._mine.clear()\n        self._unwritten.clear()\n        self._claims.clear()\n",
        "        self._claims.clear()\n",
        SEA_OF_THREE,
    ),
    # The limits.
    *map(boundless, TESTS),
)
