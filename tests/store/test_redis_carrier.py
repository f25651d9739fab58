"""What is called out goes by Redis while there is one, and by NOTIFY while there is none."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
from collections.abc import AsyncIterator

import psycopg
import pytest

from databases import Redis
from holdfast.store.postgres_database import Database
from holdfast.store.postgres_hints import RETRY_SECONDS
from holdfast.store.redis_carrier import RedisCarrier
from store.conftest import Caller, Kept, OpenStore, until


@pytest.fixture
async def served(shared: Database, redis: Redis) -> AsyncIterator[tuple[Caller, Caller]]:
    one, two = (Caller(shared, RedisCarrier(redis.url)) for _ in range(2))
    for node in (one, two):
        node.hints.open()
    await until(lambda: one.rooms == two.rooms == [[], []])
    yield one, two
    for node in (one, two):
        await node.hints.close()


async def say_until_heard(speaker: Caller, listener: Caller, word: str) -> None:
    """Say it again and again: one that is said just as a carrier goes may be lost."""
    async with asyncio.timeout(10):
        while word not in listener.words:
            speaker.hints.say(word)
            await asyncio.sleep(0.05)


def ask(redis: Redis, *commands: str) -> bytes:
    with socket.create_connection(("127.0.0.1", redis.port), 2) as link, link.makefile("rb") as answer:
        link.sendall("\r\n".join([*commands, "QUIT", ""]).encode())
        return answer.read()


def published(redis: Redis) -> int:
    found = re.search(rb"cmdstat_publish:calls=(\d+)", ask(redis, "INFO commandstats"))
    return 0 if found is None else int(found[1])


async def test_what_goes_by_redis_does_not_go_by_notify(served: tuple[Caller, Caller], redis: Redis) -> None:
    one, two = served
    for number in range(20):
        one.hints.say(number)
        await until(lambda: len(two.words) > number)  # noqa: B023 - it is awaited here
    assert two.words == list(range(20))
    assert published(redis) == 20


async def open_three(open_store: OpenStore, redis: Redis) -> list[Kept]:
    """Two nodes that were given Redis, and know that both were, and one that was not."""
    nodes = [await open_store(carrier=RedisCarrier(redis.url)) for _ in range(2)]
    await until(lambda: all(reaches_all(node) for node in nodes))
    nodes.append(await open_store())
    await until(lambda: not any(reaches_all(node) for node in nodes[:2]))
    await all_listen(nodes)
    return nodes


async def all_listen(nodes: list[Kept]) -> None:
    """Wait until each of them hears each other one: what is said before that is not for it."""
    async with asyncio.timeout(10):
        for speaker in nodes:
            while not all("hear" in node.words for node in nodes if node is not speaker):
                speaker.store.others.say("hear")
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)  # whatever is on its way has come by then
            for node in nodes:
                node.words.clear()


def reaches_all(node: Kept) -> bool:
    hints = node.store._hints
    (reach,) = hints._reach.values()
    return bool(hints.others) and reach.is_all(hints.others, asyncio.get_running_loop().time())


@pytest.mark.parametrize("kind", ["postgres"])
async def test_a_node_that_was_not_given_redis_hears_and_is_heard_and_nobody_hears_anything_twice(
    open_store: OpenStore, redis: Redis
) -> None:
    nodes = await open_three(open_store, redis)
    for number in range(20):
        for node in range(3):
            nodes[node].store.others.say([node, number])
        await asyncio.sleep(0.01)
    await until(lambda: all(len(node.words) >= 40 for node in nodes))
    await asyncio.sleep(0.3)  # whatever comes twice has come by then
    for place, node in enumerate(nodes):
        for other in {0, 1, 2} - {place}:
            assert [word for word in node.words if word[0] == other] == [[other, number] for number in range(20)]
        assert len(node.words) == 40


@pytest.mark.parametrize("kind", ["postgres"])
async def test_where_all_were_given_redis_nothing_goes_by_notify(open_store: OpenStore, redis: Redis) -> None:
    nodes = [await open_store(carrier=RedisCarrier(redis.url)) for _ in range(2)]
    await until(lambda: all(reaches_all(node) for node in nodes))
    with psycopg.connect(nodes[0].dsn, autocommit=True) as listener:
        listener.execute(f'LISTEN "{nodes[0].store._hints.channel}"'.encode())
        for number in range(20):
            nodes[0].store.others.say(number)
        await until(lambda: nodes[1].words == list(range(20)))
        listener.execute("SELECT 1")
        assert not list(listener.notifies(timeout=0))


async def test_a_password_that_is_wrong_is_said_once_and_when_it_is_right_that_is_said(
    shared: Database, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def said(what: str) -> int:
        return sum(f"RedisCarrier {what}" in record.getMessage() for record in caplog.records)

    ask(redis, "CONFIG SET requirepass secret")
    node = Caller(shared, RedisCarrier(redis.url.replace("//", "//:guess@")))
    node.hints.open()
    try:
        await until(lambda: said("cannot be listened to") == 1)
        await asyncio.sleep(4 * RETRY_SECONDS)
        assert said("cannot be listened to") == 1
        ask(redis, "AUTH secret", "CONFIG SET requirepass guess")
        await until(lambda: said("can be listened to again") == 1)
    finally:
        await node.hints.close()


async def test_nonsense_from_somebody_else_deafens_nobody(served: tuple[Caller, Caller], redis: Redis) -> None:
    one, two = served
    with socket.create_connection(("127.0.0.1", redis.port), 2) as link:
        channel = one.hints.channel.encode()
        link.sendall(b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$2\r\n\xff\xfe\r\n" % (len(channel), channel))
        assert link.recv(100).startswith(b":2")
    await say_until_heard(one, two, "sense")


async def test_while_there_is_no_redis_calls_go_by_notify_and_by_redis_when_it_is_back(
    served: tuple[Caller, Caller], redis: Redis
) -> None:
    one, two = served
    await say_until_heard(one, two, "before")
    redis.kill()
    await say_until_heard(one, two, "without")
    await say_until_heard(two, one, "without")
    await asyncio.to_thread(redis.start)
    async with asyncio.timeout(20):
        while not published(redis):
            one.hints.say("?")
            await asyncio.sleep(0.05)
    await say_until_heard(one, two, "after")


async def test_a_redis_that_stands_still_holds_nobody_up_for_long(served: tuple[Caller, Caller], redis: Redis) -> None:
    one, two = served
    redis.process.send_signal(signal.SIGSTOP)
    try:
        await say_until_heard(one, two, "frozen")
    finally:
        redis.process.send_signal(signal.SIGCONT)
    await say_until_heard(two, one, "thawed")
