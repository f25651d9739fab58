"""What docs/scale.md says is what the model says, of the constants that were measured; and the model says it twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import scale_model as model  # noqa: E402
import scale_paper as paper  # noqa: E402

FOUND = json.loads((ROOT / "bench" / "scale.json").read_text())
COSTS = FOUND["costs"]


@pytest.mark.long
def test_the_document_is_what_the_model_prints() -> None:
    assert (ROOT / "docs" / "scale.md").read_text() == paper.document(FOUND)


def test_what_the_document_says_in_words_is_what_its_figures_say() -> None:
    for load in paper.LOADS:
        assert paper.fewest(COSTS, load, 10_000).servers == 1
        name, share = paper.fewest(COSTS, load, 100_000).nearest
        assert (name, share <= 1) == ("a server's core", True)
    for load in paper.LOADS[:2]:
        for servers in (100, 200, 300):
            assert paper.demand(COSTS, load, 1_000_000, servers).busy > paper.FULL, "more servers hear more"
        needs = paper.fewest(COSTS, load, 1_000_000)
        assert needs.cores > paper.FULL * paper.DATABASE_CORES > needs.database["committing"]
    for load, most in zip(paper.LOADS, ("asking", "asking", "presence"), strict=True):
        parts = paper.fewest(COSTS, load, 100_000).server
        assert max(parts, key=lambda name: parts[name]) == most


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    def play(seed: int) -> model.World:
        return paper.played(COSTS, paper.LOADS[0], paper.demand(COSTS, paper.LOADS[0], 20_000, 3), 1.0, seed)

    first, second, third = play(1), play(1), play(2)
    assert first.late == second.late
    assert first.used == second.used
    assert first.late != third.late


def test_every_publication_reaches_every_member() -> None:
    clock = model.Clock()
    world = model.World(COSTS, clock, model.Cores(clock, 4))
    for number, members in enumerate(({0: 3}, {0: 2, 1: 1}, {})):
        model.Node(world, f"server {number}", model.Cores(clock), dict(members))
    for number, node in enumerate(world.nodes * 100):
        clock.at(number / 300, lambda node=node, room=number % 2: node.publish(room))
    clock.run(2.0)
    assert sum(members for _, members in world.late) == 150 * 5 + 150
    assert world.count["published"] == 300
    assert 0 < world.count["batches"] <= 300


@pytest.mark.parametrize(("load", "people", "servers"), [(0, 30_000, 4), (1, 20_000, 6), (2, 40_000, 5)])
def test_what_is_summed_up_is_what_is_played(load: int, people: int, servers: int) -> None:
    needs = paper.demand(COSTS, paper.LOADS[load], people, servers)
    world = paper.played(COSTS, paper.LOADS[load], needs, 4.0)
    asks = sum(number for what, number in world.count.items() if what[0] == "asks") / 4.0
    publications = people * paper.LOADS[load].each
    assert asks == pytest.approx(needs.asks, rel=0.15)
    assert world.rate("published") == pytest.approx(publications, rel=0.15, abs=1.5)
    if publications > 10:  # of fewer, chance has too large a part
        assert world.rate("batches") == pytest.approx(needs.commits, rel=0.15)
        database = world.share("database") + model.database_rest(COSTS, 0) + needs.database["people"]
        assert database == pytest.approx(needs.cores, rel=0.15)
