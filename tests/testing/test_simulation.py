"""Whatever happens in the sea, nothing false is told, and in the end everybody knows the same."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial, wraps
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from holdfast.client.client import Client
from holdfast.core import hub as core
from holdfast.core.link import Link
from holdfast.core.replica import Replica
from holdfast.core.room import Room
from holdfast.protocol.codec import Codec
from holdfast.server.native import NativeConnection
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite_session import SqliteSession
from holdfast.testing import world
from holdfast.testing.history import Line, Violation
from holdfast.testing.simulate import ENOUGH, Tally, conclude
from holdfast.testing.virtual import expecting_an_end

SIMULATE = [sys.executable, "-m", "holdfast.testing.simulate"]
#: What the sea has, in what users run: time, threads, network, database; an application; and who looks on.
OF_THE_WORLD = {
    "SeaLoop", "VirtualLoop", "_TimerHandle", "Process", "_new_task", "Inline", "TurnWorker", "Turns", "Endpoint",
    "InFile", "InOrder", "Cable", "AsyncCable", "Way", "ServerProcess", "_adding", "entries", "Visitor", "Copy",
    "Watch", "Nodes",
}  # fmt: skip
#: Some of what it must not have of its own: it would prove something else.
OF_USERS = (core.Hub, Room, Link, Replica, Codec, SqliteStore, SqliteSession, NativeConnection, Client)


def simulate(*options: str) -> str:
    done = subprocess.run([*SIMULATE, *options], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
#: Servers, seeds, faults in each, and how many of the kinds may be missing.
SLICES = [(1, 16, 20, 1), (3, 12, 26, 3), (2, 24, 20, 3)]


@pytest.mark.parametrize(
    ("nodes", "seeds", "faults", "unseen"), [*SLICES[:2], pytest.param(*SLICES[2], marks=pytest.mark.long)]
)
def test_in_a_slice_nothing_is_wrong_and_most_of_it_happens(nodes: int, seeds: int, faults: int, unseen: int) -> None:
    said = simulate(f"--seeds={seeds}", f"--faults={faults}", f"--nodes={nodes}", "--jobs=1")
    assert f"0 wrong in {seeds} seeds" in said
    never = said.partition("this never happened: ")[2]
    assert never.count(",") + bool(never) <= unseen, never


def test_what_is_said_of_the_slices_is_true() -> None:
    (_, one, _, few), (_, three, _, several), (_, two, _, missing) = SLICES
    said = " ".join(PAGE.read_text().split())
    assert f"are {one} runs with one server and {three} with three" in said
    assert f"no more than {['no', 'one'][few]} may be missing there" in said
    assert f"with several servers no more than {several}." in said
    assert f"are {two} with two servers (no more than {missing} missing)" in said


@pytest.mark.long
@pytest.mark.parametrize(("nodes", "faults"), [(1, 12), (3, 15)])
def test_in_enough_seeds_nothing_is_wrong_and_all_of_it_happens(nodes: int, faults: int) -> None:
    said = simulate(f"--seeds={ENOUGH}", "--first=1000000", f"--faults={faults}", f"--nodes={nodes}", "--jobs=2")
    assert said.splitlines()[-1].startswith(f"0 wrong in {ENOUGH} seeds")


@pytest.mark.parametrize("nodes", ["1", pytest.param("3", marks=pytest.mark.long)])
def test_the_same_seed_is_the_same_run(nodes: str) -> None:
    def traces() -> list[str]:
        seeds = ("1", "2")
        said = [simulate("--seed", seed, "--nodes", nodes, "--seconds=30").splitlines()[0] for seed in seeds]
        return [line.split(" in ")[0] for line in said]  # which says the trace, and how long it was

    first = traces()
    assert first == traces()
    assert len(set(first)) == 2


def of_the_sea(*held: object) -> set[str]:
    """Return the names of what the sea has made of all that is held by these."""
    found: set[str] = set()
    seen: dict[int, object] = {}
    left = list(held)
    while left:
        thing = left.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        made = thing if isinstance(thing, type | FunctionType) else type(thing)
        module = made.__globals__["__name__"] if isinstance(made, FunctionType) else made.__module__ or ""
        if module.startswith("holdfast.testing"):
            found.add(made.__qualname__.partition(".")[0])
        elif module.startswith("holdfast.") or not isinstance(thing, type | FunctionType | ModuleType):
            left += () if isinstance(thing, FunctionType) else gc.get_referents(thing)
    return found


def users_code() -> Iterator[object]:
    """Yield all classes and functions that users run, and whatever else they call."""
    for name, module in list(sys.modules.items()):
        if name.startswith("holdfast.") and not name.startswith("holdfast.testing"):
            yield from filter(callable, vars(module).values())


def look_into(nodes: int, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str], set[str]]:
    """Return the modules of what runs in the sea, what of it the sea has made, and what it has replaced."""
    modules: set[str] = set()
    own: set[str] = set()
    replaced: set[str] = set()

    async def look(self: world.World) -> None:
        for server in self.servers:
            server.start()
        visitor = self.arrive()
        await asyncio.sleep(40)
        assert visitor.client is not None
        replaced.update(of_the_sea(*users_code()))
        for hub in (server.hub for server in self.servers):
            assert hub is not None
            everybody = (hub, hub.opened.store, visitor.client, visitor.client._road, *hub.opened.hands.connections)
            modules.update(type(each).__module__ for each in everybody)
            own.update(of_the_sea(*everybody))
        await visitor.leave()
        for server in self.servers:
            await server.stop()

    monkeypatch.setattr(world.World, "run", look)
    world.run(1, world.Plan(nodes=nodes))
    return modules, own, replaced


@pytest.mark.parametrize(("nodes", "store"), [(1, "holdfast.store.sqlite"), (2, "holdfast.store.postgres")])
def test_what_runs_in_the_sea_is_what_users_run(nodes: int, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    modules, own, replaced = look_into(nodes, monkeypatch)
    assert modules == {
        "holdfast.server.hub",
        store,
        "holdfast.client.client",
        "holdfast.client.websocket",
        "holdfast.server.native",
    }
    assert own <= OF_THE_WORLD
    assert not replaced


@pytest.mark.parametrize("theirs", OF_USERS, ids=lambda theirs: theirs.__name__)
def test_what_the_sea_had_of_its_own_in_the_place_of_that_would_be_seen(
    theirs: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type("Own", (theirs,), {"__module__": world.__name__, "__slots__": ()})
    for name, module in list(sys.modules.items()):
        for known, value in list(vars(module).items()) if name.startswith("holdfast.") else ():
            if value is theirs:
                monkeypatch.setattr(module, known, own)
    _, found, replaced = look_into(1, monkeypatch)
    assert found - OF_THE_WORLD == replaced == {"Own"}


class Called:
    __module__ = world.__name__

    def __call__(self) -> None:
        raise NotImplementedError


OWN = world.World.arrive
FORMS: dict[str, object] = {
    "a function": OWN,
    "a part of one": partial(OWN),
    "one that looks like theirs": wraps(core.Hub.people)(FunctionType(OWN.__code__, OWN.__globals__)),
    "what can be called": Called(),
}


@pytest.mark.parametrize("own", FORMS.values(), ids=FORMS)
def test_a_function_that_the_sea_had_of_its_own_would_be_seen(own: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.core.replica.as_events", own, raising=False)
    _, _, replaced = look_into(1, monkeypatch)
    assert replaced


def test_a_method_that_the_sea_had_of_its_own_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.Hub, "people", OWN)
    _, found, replaced = look_into(1, monkeypatch)
    assert found - OF_THE_WORLD == replaced == {"World"}


def test_a_run_in_which_too_much_is_wrong_goes_on_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(self: Line, message: object) -> None:
        raise Violation("this is wrong")

    monkeypatch.setattr(Line, "said", said)
    monkeypatch.setattr(world, "TOO_MUCH", 3)
    report = world.run(1)
    assert report.virtual < 60
    assert any("this is wrong" in violation for violation in report.violations)
    assert len(report.violations) >= 3


def test_a_run_in_which_time_stands_still_for_ever_has_gone_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async def spin(self: world.World) -> None:
        await asyncio.sleep(5)
        while True:
            pass

    monkeypatch.setattr(world.World, "_play", spin)
    monkeypatch.setattr(world, "expecting_an_end", partial(expecting_an_end, seconds=0.1))
    (violation,) = world.run(1).violations
    assert violation.startswith("5.000: it could not go on")


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_run_in_which_something_never_happened_has_failed(nodes: int, capsys: pytest.CaptureFixture[str]) -> None:
    plan = world.Plan(nodes=nodes)
    faults, roads = dict.fromkeys(dict(world.faults_of(plan)), 1), dict.fromkeys(world.roads_of(plan), 1)
    tally = Tally(seeds=ENOUGH, faults=Counter(faults), reached=Counter(roads))
    conclude(tally, 1.0, plan)
    del tally.faults["power lost"], tally.reached["resync epoch"]
    with pytest.raises(SystemExit, match="1"):
        conclude(tally, 1.0, plan)
    assert "this never happened: power lost, resync epoch" in capsys.readouterr().out


def test_no_run_at_all_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        conclude(Tally(), 1.0, world.Plan())
    assert "FAILED: no seed was run" in capsys.readouterr().out
