"""The bench that measures what things cost finds, in servers of today, all that it counts."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from databases import Cluster

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import scale


@pytest.fixture
def bench(cluster: Cluster) -> Iterator[scale.Bench]:
    """Two servers; for them and for all else there are other cores, as where it measures."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {scale.CORES[-1]})
    try:
        with scale.serving(cluster, "scale", 2) as bench:
            yield bench
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.long
async def test_a_quick_look_at_two_servers_finds_everything_that_is_counted(bench: scale.Bench) -> None:
    here, there = bench.nodes
    assert os.sched_getaffinity(here.server.pid) == {scale.CORES[0]}
    assert os.sched_getaffinity(0) == {scale.CORES[-1]}
    members = scale.Members(there.server.port)
    await members.join(["far-0", "far-1"])
    window = await bench.over(here.run(rate=50, rooms=2, seconds=1, name="far"), 2.0)
    assert (window.nodes[0]["published"], window.nodes[1]["records"], len(members.late)) == (50, 50, 50)
    one, other = ({name for name, much in node.items() if much} for node in window.nodes)
    assert one >= {"cpu", "batches", "heads", "calls", *scale.ROLES}
    assert other >= {"cpu", "asks", "looks", "heard", "asker"}
    await members.echo(50, 1)
    await members.leave()
    costs: scale.Costs = {}
    scale.leases(bench.dsn, costs)
    scale.waits(bench.dsn, costs)
    assert all(costs.values()), costs
