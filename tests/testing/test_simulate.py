"""Whoever runs the sea is told what it needs, and a run with few clients is a run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from holdfast.testing import world
from holdfast.testing.mishap import Felt
from holdfast.testing.shared_log import Copy
from holdfast.testing.world import Plan, World, faults_of, run

WITHOUT_PSYCOPG = "import sys; sys.modules['psycopg'] = None; from holdfast.testing.simulate import main; main()"


def refused(*command: str) -> str:
    """Return what is said of a command that cannot be done, which is a sentence and no traceback."""
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert done.returncode
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("option", ["--clients=0", "--nodes=0", "--seconds=0", "--commands=0"])
def test_a_run_of_nothing_is_refused(option: str) -> None:
    name, _ = option.split("=")
    assert f"Invalid value for '{name}'" in refused("-m", "holdfast.testing.simulate", "--seeds=1", option)


@pytest.mark.parametrize("how", ["--seed=1", "--seeds=1"])
def test_several_servers_without_psycopg_are_refused_with_what_is_needed(how: str) -> None:
    assert "pip install 'holdfast[postgres]'" in refused("-c", WITHOUT_PSYCOPG, "--nodes=3", how)


@pytest.mark.parametrize(
    ("kind", "nodes"),
    [("client stopped", 1), ("client killed", 1), ("slow reader", 1), ("clock set", 1), ("links flap", 2), ("hops", 2)],
)
def test_where_nobody_is_there_nothing_befalls_anybody(kind: str, nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(clients=1, seconds=0.1, faults=1, nodes=nodes)
    happen = dict(faults_of(plan))[kind]
    happened: list[bool] = []

    def befall(world: World, felt: Felt) -> bool:
        assert world.visitors == []
        for server in world.servers:
            world.kill(server)
        happened.append(happen(world, felt))
        return happened[-1]

    monkeypatch.setattr(world, "faults_of", lambda plan: [(kind, befall)])
    report = run(1, plan)
    assert (happened, report.violations) == ([False], [])


def test_one_who_comes_late_does_what_they_are_there_for() -> None:
    report = run(1, Plan(clients=1, seconds=40, faults=1))
    assert report.violations == []
    assert report.reached["command done"] > 10


def test_a_log_that_has_begun_anew_since_files_were_put_back_is_not_renewed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = Plan(clients=2, seconds=10, faults=1, nodes=2)
    restore = dict(faults_of(plan))["restored"]
    renewed: list[float] = []

    def befall(world: World, felt: Felt) -> bool:
        assert world.nodes is not None
        log = world.nodes.shore.log
        go_back, renew = log.go_back, log.renew_epoch

        def going_back(copy: Copy, felt: Felt, *, is_promoted: bool) -> None:
            world.later(0.1, log.renew_epoch)  # by a server that has seen it
            go_back(copy, felt, is_promoted=is_promoted)

        def renewing() -> None:
            renewed.append(world.loop.time())
            renew()

        log.go_back, log.renew_epoch = going_back, renewing  # type: ignore[method-assign]
        world.kill(world.servers[0])  # which is why somebody has to look
        return restore(world, felt)

    monkeypatch.setattr(world, "faults_of", lambda plan: [("restored", befall)])
    report = run(1, plan)
    assert report.tried == {"restored": 1}
    assert (len(renewed), report.violations) == (1, [])
