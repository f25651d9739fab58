"""What goes wrong counts once it has done something to somebody; a fault that does nothing fails the run."""

from __future__ import annotations

import ast
import asyncio
import inspect
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from holdfast.testing import misfortune, outage, world
from holdfast.testing.disk import Disk
from holdfast.testing.endpoint import Socket, Wire
from holdfast.testing.mishap import Felt, Mishap
from holdfast.testing.network import Network, SeaLoop, Weather
from holdfast.testing.simulate import ENOUGH, Tally, conclude
from holdfast.testing.turns import Turns
from holdfast.testing.virtual import Process, VirtualLoop, bury, seeded
from holdfast.testing.world import Plan, World


class Felts:
    """How often something was felt."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def felt() -> Felts:
    return Felts()


def test_one_that_is_felt_again_and_again_counts_once() -> None:
    counts: Counter[str] = Counter()
    mishap = Mishap("disk full", counts)
    assert not counts
    for _ in range(3):
        mishap.felt()
    assert counts == {"disk full": 1}


# What makes each of them what it is.


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect("/nowhere/felt.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return connection


@pytest.mark.parametrize("fail", [Disk.fill, Disk.fail_syncs])
def test_a_bad_disk_is_felt_by_whoever_writes(fail: Callable[[Disk, Felt], None], felt: Felts) -> None:
    with Disk(random.Random(1)) as disk:
        connection = connect()
        fail(disk, felt)
        connection.execute("SELECT * FROM t").fetchall()
        assert felt.count == 0
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("INSERT INTO t VALUES (randomblob(9000))")
        assert felt.count
        disk.recover()
        connection.execute("INSERT INTO t VALUES (1)")


def test_power_that_goes_is_felt_where_something_was_not_synced(felt: Felts) -> None:
    with Disk(random.Random(1)) as disk:
        connect().execute("INSERT INTO t VALUES (1)")
        disk.lose_power(felt)
        assert felt.count == 0
        (file, *_) = disk.files.values()
        file.write(len(file.now), b"." * 100_000)
        disk.lose_power(felt)
        assert felt.count == 1


def test_power_can_go_in_the_middle_of_a_commit(felt: Felts) -> None:
    loop, process = SeaLoop(), Process("server")
    with Disk(random.Random(1)) as disk:
        connection = connect()
        disk.delay = (1.0, 1.0)
        turns = process.run(Turns, loop)

        async def go() -> None:
            turns.submit(connection.execute, "INSERT INTO t VALUES (randomblob(9000))")
            await asyncio.sleep(0.5)
            process.kill()
            disk.lose_power(felt)

        loop.run_until_complete(go())
        assert felt.count == 1
        turns.end()
        assert connect().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    loop.close()


def test_a_backup_is_felt_if_it_is_another_state(felt: Felts) -> None:
    with Disk(random.Random(1)) as disk:
        connection = connect()
        connection.execute("INSERT INTO t VALUES (1)")
        disk.restore(disk.copy(), felt)
        assert felt.count == 0
        backup = disk.copy()
        connect().execute("INSERT INTO t VALUES (1)")
        disk.restore(backup, felt)
        assert felt.count == 1


class Ear(asyncio.Protocol):
    """Hears what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.end = transport


@pytest.fixture
def ends() -> Iterator[tuple[SeaLoop, Wire, Ear, Ear]]:
    loop = SeaLoop()
    network = Network(loop, random.Random(1), Weather((0.01, 0.02)))

    async def opened() -> tuple[Ear, Ear]:
        far = Ear()
        await loop.create_server(lambda: far, sock=Socket(("server", 80)))
        _, near = await loop.create_connection(Ear, "server", 80)
        await asyncio.sleep(1)
        return near, far

    near, far = loop.run_until_complete(opened())
    (wire,) = network.wires
    yield loop, wire, near, far
    loop.close()


def test_silence_is_felt_where_something_is_said(ends: tuple[SeaLoop, Wire, Ear, Ear], felt: Felts) -> None:
    loop, wire, near, _ = ends
    wire.fall_silent(felt)
    loop.run_until_complete(asyncio.sleep(9))
    assert felt.count == 0
    near.end.write(b"hello")
    assert felt.count > 0


def test_silence_one_way_is_felt_where_the_one_is_not_heard_and_the_other_is(
    ends: tuple[SeaLoop, Wire, Ear, Ear], felt: Felts
) -> None:
    loop, wire, near, far = ends
    wire.ends[0].fall_silent(vanished_here=felt)
    far.end.write(b"heard, but nothing of the other was missed yet")
    loop.run_until_complete(asyncio.sleep(1))
    near.end.write(b"lost")
    loop.run_until_complete(asyncio.sleep(1))
    assert felt.count == 0
    far.end.write(b"heard")
    loop.run_until_complete(asyncio.sleep(1))
    assert felt.count == 1


def test_a_reset_is_felt_by_both_when_they_are_told(ends: tuple[SeaLoop, Wire, Ear, Ear], felt: Felts) -> None:
    loop, wire, _, _ = ends
    wire.reset(felt)
    assert felt.count == 0
    loop.run_until_complete(asyncio.sleep(1))
    assert felt.count == 2
    wire.reset(felt)
    loop.run_until_complete(asyncio.sleep(1))
    assert felt.count == 2


@pytest.mark.parametrize("happen", [Process.stop, Process.kill])
def test_a_process_that_does_not_run_is_felt_when_something_of_it_was_to(
    happen: Callable[[Process, Felt], None], felt: Felts
) -> None:
    loop, process = VirtualLoop(), Process("one")
    process.run(loop.create_task, asyncio.sleep(5))
    loop.call_at(1.0, happen, process, felt)
    loop.run_until_complete(asyncio.sleep(4))
    assert felt.count == 0
    loop.run_until_complete(asyncio.sleep(4))
    assert felt.count == 1
    process.kill()
    bury(loop, [process])
    loop.close()


def test_a_clock_that_is_set_is_felt_by_whoever_reads_it(felt: Felts) -> None:
    loop, process = VirtualLoop(), Process("one")
    with seeded(1, loop):
        before = process.run(time.time)
        process.set_clock(3600.0, felt)
        time.time()
        assert felt.count == 0
        assert process.run(time.time) == before + 3600
        assert felt.count == 1
    loop.close()


@pytest.mark.parametrize("faults", [misfortune, outage])
def test_a_fault_does_not_say_itself_that_it_is_felt(faults: ModuleType) -> None:
    """It hands `felt` to what it happens to."""
    names = [node for node in ast.walk(ast.parse(inspect.getsource(faults))) if isinstance(node, ast.Call)]
    assert names
    assert not [call.lineno for call in names if isinstance(call.func, ast.Name) and call.func.id == "felt"]


# Faults that do nothing.

#: Seeds of each plan, until everything was tried.
SEEDS, PLANS = range(1, 9), {1: Plan(3, seconds=40, faults=60), 2: Plan(3, seconds=40, faults=60, nodes=2)}
NOTHING = {
    1: ("disk full", "sync fails", "clock set", "client stopped", "server stopped", "link silent one way", "power lost",
        "server restarted", "burst", "restored", "no websocket", "slow reader"),
    2: ("cut off", "cut off in silence", "commit lost", "hints lost", "database restarted", "database crashed",
        "database frozen", "failed over", "links flap", "hops", "rolled out"),
}  # fmt: skip


def nothing(world: World, felt: Felt) -> bool:
    """Happen, and do nothing."""
    return True


@pytest.fixture(scope="module")
def tallies() -> dict[int, Tally]:
    """What some runs come to in which half of the faults do nothing."""
    tallies = {}
    for nodes, plan in PLANS.items():
        planted = [(kind, nothing if kind in NOTHING[nodes] else happen) for kind, happen in world.faults_of(plan)]
        tallies[nodes] = Tally()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(world, "faults_of", lambda plan, planted=planted: planted)
            for seed in SEEDS:
                tallies[nodes].add(world.run(seed, plan))
                if all(tallies[nodes].tried[kind] for kind in NOTHING[nodes]):
                    break
    return tallies


@pytest.mark.long
def test_a_fault_that_does_nothing_never_happened(tallies: dict[int, Tally]) -> None:
    for nodes, kinds in NOTHING.items():
        tally = tallies[nodes]
        assert [kind for kind in kinds if not tally.tried[kind]] == []
        assert [kind for kind in kinds if tally.faults[kind]] == []
        assert set(kinds) <= set(tally.missing(PLANS[nodes]))


@pytest.mark.long
def test_and_those_that_do_something_did_happen(tallies: dict[int, Tally]) -> None:
    for nodes, tally in tallies.items():
        assert tally.failed == []
        real = tally.tried.total() - sum(tally.tried[kind] for kind in NOTHING[nodes])
        assert real / 2 < tally.faults.total() <= real


def test_many_runs_in_which_one_does_nothing_have_failed(
    tallies: dict[int, Tally], capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally(ENOUGH, 1.0, tallies[1].tried, tallies[1].faults, tallies[1].reached)
    with pytest.raises(SystemExit, match="1"):
        conclude(tally, 1.0, PLANS[1])
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("FAILED: this never happened: ")
    assert set(NOTHING[1]) <= set(last.removeprefix("FAILED: this never happened: ").split(", "))


def test_few_runs_say_that_they_are_no_proof_and_of_what(
    tallies: dict[int, Tally], capsys: pytest.CaptureFixture[str]
) -> None:
    conclude(tallies[1], 1.0, PLANS[1])
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"NOT PROOF: {tallies[1].seeds} of the {ENOUGH} seeds that it takes; this never happened: ")
    for kind in NOTHING[1]:
        assert kind in last
