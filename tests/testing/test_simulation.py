"""Whatever happens in the sea, nothing false is told, and in the end everybody knows the same."""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from holdfast.testing import world
from holdfast.testing.history import Line, Violation
from holdfast.testing.simulate import ENOUGH, Tally, conclude
from holdfast.testing.virtual import expecting_an_end

TESTING = Path(world.__file__).parent
SIMULATE = [sys.executable, "-m", "holdfast.testing.simulate"]
#: What the sea must not have of its own: it would prove something else.
OURS = {"Hub", "Link", "Replica", "Outbox", "Reader", "Room", "Roster", "Heartbeat", "Backoff", "Codec", "Cursor",
        "Client", "Store", "SqliteStore", "PostgresStore", "PostgresSession", "Feed", "People", "Hints", "Whereabouts",
        "Told", "Hands", "Connection", "AsyncConnection", "NativeConnection", "WebSocketProtocol"}  # fmt: skip


def simulate(*options: str, seconds: float) -> str:
    done = subprocess.run([*SIMULATE, *options], capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("nodes", "seconds"), [("1", "22"), ("2", "12"), ("3", "11")])
def test_for_45_seconds_of_misfortune_nothing_is_wrong(nodes: str, seconds: str) -> None:
    said = simulate("--seeds", "1000000", "--for", seconds, "--jobs", "1", "--nodes", nodes, seconds=120)
    assert "0 wrong in" in said


@pytest.mark.long
@pytest.mark.parametrize(("nodes", "seconds"), [("1", "150"), ("2", "75"), ("3", "75")])
def test_for_five_minutes_of_misfortune_nothing_is_wrong(nodes: str, seconds: str) -> None:
    options = ("--seeds", "1000000", "--first", "1000000", "--for", seconds, "--jobs", "2", "--nodes", nodes)
    assert "0 wrong in" in simulate(*options, seconds=420)


@pytest.mark.parametrize("nodes", ["1", pytest.param("3", marks=pytest.mark.long)])
def test_the_same_seed_is_the_same_run(nodes: str) -> None:
    def traces() -> list[str]:
        seeds = ("1", "2")
        said = [simulate("--seed", seed, "--nodes", nodes, seconds=60).splitlines()[0] for seed in seeds]
        return [line.split(" in ")[0] for line in said]  # which says the trace, and how long it was

    first = traces()
    assert first == traces()
    assert len(set(first)) == 2


def test_the_sea_has_nothing_of_its_own_where_holdfast_has_something() -> None:
    for path in TESTING.glob("*.py"):
        if path.name == "client.py":  # which users hold, and not the sea
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                assert node.name not in OURS, f"{path.name} defines {node.name}"
                names = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not names & OURS, f"{path.name} derives {node.name} from {names}"


@pytest.mark.parametrize(("nodes", "store"), [(1, "holdfast.store.sqlite"), (2, "holdfast.store.postgres")])
def test_what_runs_in_the_sea_is_what_users_run(nodes: int, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    async def look(self: world.World) -> None:
        for server in self.servers:
            server.start()
        visitor = self.arrive()
        await asyncio.sleep(40)
        assert visitor.client is not None
        for hub in (server.hub for server in self.servers):
            assert hub is not None
            everybody = (hub, hub.opened.store, visitor.client, visitor.client._road, *hub.opened.hands.connections)
            seen.update(type(each).__module__ for each in everybody)
        await visitor.leave()
        for server in self.servers:
            await server.stop()

    monkeypatch.setattr(world.World, "run", look)
    world.run(1, world.Plan(nodes=nodes))
    assert seen == {
        "holdfast.server.hub",
        store,
        "holdfast.client.client",
        "holdfast.client.websocket",
        "holdfast.server.native",
    }


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
