"""A database whose files are put back in place from an older copy: who has seen more of it is not deceived."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from databases import Cluster, create
from holdfast.core.agenda import Agenda
from holdfast.core.effects import Effects
from holdfast.core.room import Room
from holdfast.errors import HoldfastError
from holdfast.protocol.codec import Codec
from holdfast.protocol.cursor import Position
from holdfast.store import postgres_feed
from holdfast.store.postgres import PostgresStore, renew_epoch
from holdfast.store.postgres_database import Moved
from store.conftest import POSTGRES_NOTES, Deaf, Kept, OpenStore, take_note, until


@pytest.fixture
async def nodes(cluster: Cluster) -> AsyncIterator[list[Kept]]:
    """Three nodes on a database that can be ended."""
    dsn = create(cluster.dsn("postgres"), "restored")
    nodes = [Kept(PostgresStore(dsn, Codec(), migrations=[POSTGRES_NOTES]), dsn) for _ in range(3)]
    for node in nodes:
        node.looks = False  # there is not always a database to look into
        await node.store.open(node)
    yield nodes
    for node in nodes:
        await node.store.close()


def copy(cluster: Cluster) -> Path:
    cluster.stop(signal.SIGINT)
    try:
        return cluster.copy()
    finally:
        cluster.start()


def put_back(cluster: Cluster, copy: Path) -> None:
    cluster.kill()
    cluster.put_back(copy)
    cluster.start()


def expected(nodes: list[Kept]) -> list[float]:
    """Return by when the feeds of nodes are to have another word from the database."""
    return [node.store._feed._silence.when() for node in nodes]


async def have_looked(nodes: list[Kept]) -> None:
    """Wait until all nodes have asked for news twice, so once from now on."""
    for _ in range(2):
        before = expected(nodes)
        await until(lambda: all(now != then for now, then in zip(expected(nodes), before, strict=True)))  # noqa: B023


def have_moved(nodes: list[Kept]) -> list[bool]:
    """Return which nodes have begun anew; where everything is slow, the database was also away, and back."""
    return [any(turn.startswith("moved") for turn in node.turns) for node in nodes]


async def fall_asleep(nodes: list[Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have their feeds ask once more, and then for a long time not."""
    monkeypatch.setattr(postgres_feed, "AWAY_SECONDS", 60.0)
    for node in nodes:
        node.store._feed._poll = 60.0
    now = asyncio.get_running_loop().time()
    await until(lambda: all(when > now + 30.0 for when in expected(nodes)))


async def write(node: Kept, text: str) -> str:
    """Write until it is acknowledged; return the position of what was published."""
    while True:
        with suppress(HoldfastError):
            outcome = await node.commit(take_note, text)
            return f"{outcome.epoch}:{outcome.positions[0][1]}"
        await asyncio.sleep(0.02)


async def test_no_position_is_given_twice_and_all_nodes_agree(cluster: Cluster, nodes: list[Kept]) -> None:
    before = nodes[0].store.epoch
    given = [await write(nodes[0], "kept")]
    older = await asyncio.to_thread(copy, cluster)
    given += [await write(node, f"lost {number}") for number, node in enumerate(nodes)]
    await until(lambda: all(len(node.said) == 4 for node in nodes))
    await have_looked(nodes)
    has_ended = asyncio.Event()

    async def go_on(writer: int) -> list[str]:
        numbers = itertools.takewhile(lambda _: not has_ended.is_set(), itertools.count())
        return [await write(nodes[writer], f"{writer}-{number}") for number in numbers]

    writers = [asyncio.create_task(go_on(number)) for number in range(3)]
    await asyncio.sleep(0.2)
    await asyncio.to_thread(put_back, cluster, older)
    await until(lambda: all(have_moved(nodes)))
    await asyncio.sleep(0.5)
    has_ended.set()
    given += [position for positions in await asyncio.gather(*writers) for position in positions]
    assert len(given) == len(set(given))
    assert {node.store.epoch for node in nodes} == {nodes[0].store.epoch}
    assert nodes[0].store.epoch != before


@pytest.mark.long
async def test_it_is_noticed_again_when_the_same_copy_is_put_back_again(cluster: Cluster, nodes: list[Kept]) -> None:
    await write(nodes[0], "kept")
    older = await asyncio.to_thread(copy, cluster)
    epochs = [nodes[0].store.epoch]
    for _ in range(2):
        await write(nodes[0], "lost")
        await have_looked(nodes)
        await asyncio.to_thread(put_back, cluster, older)
        await until(lambda: nodes[0].store._database.home is not None and nodes[0].store.epoch not in epochs)
        epochs.append(nodes[0].store.epoch)


@pytest.mark.long
async def test_who_writes_first_after_it_is_told_so_before_the_news_are_asked_for(
    cluster: Cluster, nodes: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    await write(nodes[0], "kept")
    older = await asyncio.to_thread(copy, cluster)
    await write(nodes[0], "lost")
    await fall_asleep(nodes, monkeypatch)
    await asyncio.to_thread(put_back, cluster, older)
    with pytest.raises(Moved):
        await nodes[0].store.write(take_note, "lost")
    assert not any(have_moved(nodes))
    for node in nodes:
        node.store._feed._wanted.set()
    await until(lambda: all(have_moved(nodes)))


@pytest.mark.long
async def test_who_has_written_notices_also_when_others_have_written_more_since(
    cluster: Cluster, nodes: list[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [await write(nodes[0], "kept")]
    older = await asyncio.to_thread(copy, cluster)
    given += [await write(nodes[0], "lost"), await write(nodes[0], "lost too")]
    await fall_asleep(nodes, monkeypatch)

    def put_back_and_go_on() -> None:
        put_back(cluster, older)
        cluster.execute("SELECT pg_switch_wal() FROM pg_create_restore_point('further than it was')")

    await asyncio.to_thread(put_back_and_go_on)
    with pytest.raises(Moved):
        await nodes[0].store.write(take_note, "lost")
    nodes[0].store._feed._wanted.set()
    await until(lambda: have_moved(nodes)[0])
    given += [await write(nodes[0], "lost"), await write(nodes[0], "lost too")]
    assert len(given) == len(set(given))


async def test_a_crash_is_no_restore(cluster: Cluster, nodes: list[Kept]) -> None:
    epoch = nodes[0].store.epoch
    for number in range(5):
        given = [await write(nodes[number % 3], f"{number}-{each}") for each in range(20)]
        await asyncio.to_thread(cluster.stop, signal.SIGQUIT)
        await asyncio.to_thread(cluster.start)
        assert await write(nodes[0], f"after {number}") == f"{epoch}:{int(given[-1].split(':')[1]) + 1}"
    assert not any(have_moved(nodes))


@pytest.mark.long
async def test_a_node_that_starts_afresh_cannot_know_but_who_is_ahead_is_told_so(
    cluster: Cluster, nodes: list[Kept]
) -> None:
    epoch = nodes[0].store.epoch
    await write(nodes[0], "kept")
    older = await asyncio.to_thread(copy, cluster)
    assert await write(nodes[0], "lost") == f"{epoch}:2"
    for node in nodes:
        await node.store.close()
    await asyncio.to_thread(put_back, cluster, older)
    fresh = PostgresStore(nodes[0].dsn, Codec(), migrations=[POSTGRES_NOTES])
    await fresh.open(Deaf())
    assert fresh.epoch == epoch
    span = await fresh.span("lobby")
    room = Room("lobby", fresh.epoch, span.head, Effects(Codec()), Agenda())
    assert room.refusal(Position(epoch, 1), span) is None
    assert room.refusal(Position(epoch, 2), span) == "ahead"
    renew_epoch(nodes[0].dsn)
    await fresh.close()
    await fresh.open(Deaf())
    assert fresh.epoch != epoch
    await fresh.close()


@pytest.fixture
def kind() -> str:
    return "postgres"


async def test_rooms_that_stand_behind_what_was_told_of_them_are_noticed(open_store: OpenStore) -> None:
    """As after a restore of the data alone, while everybody is connected: no file, and no place, is another."""
    nodes = [await open_store() for _ in range(2)]
    for number in range(5):
        await nodes[0].store.write(take_note, f"before {number}")
    await until(lambda: all(len(node.said) == 5 for node in nodes))
    epoch = nodes[0].store.epoch
    with psycopg.connect(nodes[0].dsn) as restore:
        restore.execute('DELETE FROM holdfast_log WHERE "offset" > 2')
        restore.execute("UPDATE holdfast_room SET head = 2")
    await nodes[0].store.write(take_note, "after")
    await until(lambda: all(have_moved(nodes)))
    assert len({node.store.epoch for node in nodes} | {epoch}) == 2


async def test_after_a_restore_into_another_cluster_what_is_written_is_told(open_store: OpenStore) -> None:
    """Ids of transactions that were restored are of the future there."""
    kept = await open_store()
    await kept.store.write(take_note, "before")
    await kept.store.close()
    with psycopg.connect(kept.dsn) as restored:
        restored.execute("UPDATE holdfast_log SET xid = '999999999'")
        restored.execute("UPDATE holdfast_meta SET value = 'elsewhere' WHERE key = 'home'")
    nodes = [await open_store() for _ in range(2)]
    assert nodes[0].store.epoch == nodes[1].store.epoch != kept.store.epoch
    await nodes[0].store.write(take_note, "after")
    await until(lambda: all([record.offset for record in node.said] == [2] for node in nodes))
