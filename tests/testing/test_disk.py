"""What was synced is there after the power was gone; of the rest, whatever the dice say, and never a broken file."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator

import pytest

from holdfast.testing.disk import Disk

PATH = "/nowhere/sea.db"  # nothing of it is on a real disk


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk(random.Random(1)) as disk:
        yield disk


def connect(synchronous: str = "FULL") -> sqlite3.Connection:
    connection = sqlite3.connect(PATH, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    return connection


def count(connection: sqlite3.Connection) -> int:
    ((number,),) = connection.execute("SELECT count(*) FROM t").fetchall()
    return int(number)


def test_what_was_committed_survives_and_what_was_not_does_not(disk: Disk) -> None:
    connection = connect()
    for number in range(50):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t SELECT randomblob(2000) FROM t")
        disk.lose_power()
        connection = connect()
        assert count(connection) == number + 1
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_without_a_sync_a_commit_may_be_lost(disk: Disk) -> None:
    losses = 0
    for _ in range(20):
        connection = connect("OFF")
        before = count(connection)
        connection.execute("INSERT INTO t VALUES (1)")
        disk.lose_power()
        losses += count(connect()) == before
    assert losses > 0


def test_a_process_that_is_killed_loses_nothing(disk: Disk) -> None:
    connection = connect("OFF")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("BEGIN IMMEDIATE")
    disk.abandon()
    again = connect()
    again.execute("INSERT INTO t VALUES (2)")  # what the dead one had locked is free
    assert count(again) == 2
    with pytest.raises(sqlite3.OperationalError):
        connection.executescript("INSERT INTO t VALUES (3); COMMIT")


def test_readers_beside_a_writer_see_each_its_moment(disk: Disk) -> None:
    writer, reader = connect(), connect()
    reader.execute("BEGIN")
    assert count(reader) == 0
    for number in range(2000):  # with checkpoints
        writer.execute("INSERT INTO t VALUES (?)", (number,))
    assert count(reader) == 0
    reader.execute("COMMIT")
    assert count(reader) == 2000


def test_a_full_disk_and_one_that_does_not_sync_say_so(disk: Disk) -> None:
    connection = connect()
    disk.is_full = True
    with pytest.raises(sqlite3.OperationalError, match="full"):
        connection.execute("INSERT INTO t SELECT randomblob(100000)")
    disk.is_full, disk.fails_to_sync = False, True
    with pytest.raises(sqlite3.OperationalError, match="I/O"):
        connection.execute("INSERT INTO t VALUES (1)")
    disk.fails_to_sync = False
    connection.execute("INSERT INTO t VALUES (2)")
    assert connection.execute("SELECT x FROM t").fetchall() == [(2,)]


def test_what_could_not_be_synced_may_be_there_after_all(disk: Disk) -> None:
    """So whoever was told that it failed must not have been told that it did not happen."""
    found = 0
    for _ in range(30):
        connection = connect()
        before = count(connection)
        disk.fails_to_sync = True
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("INSERT INTO t VALUES (1)")
        disk.fails_to_sync = False
        disk.abandon()  # killed, with what was written in the kernel's hands
        found += count(connect()) > before
    assert found > 0


def test_what_could_not_be_synced_is_not_by_the_next_sync(disk: Disk) -> None:
    connect().execute("INSERT INTO t VALUES (1)")
    (file, *_) = disk.files.values()
    lost = 0
    for number in range(20):
        file.write(len(file.now), bytes([number]) * 512)
        disk.fails_to_sync = True
        file.fail_to_sync(disk.dice)
        disk.fails_to_sync = False
        file.sync()
        lost += not file.synced.endswith(bytes([number]) * 512)
    assert 0 < lost < 20


def test_a_commit_that_follows_one_that_could_not_be_synced_does_not_need_what_that_one_wrote(disk: Disk) -> None:
    """Nobody may trust a sync that comes after one that failed: SQLite writes all that it commits then anew."""
    for number in range(100):
        connection = connect()
        connection.execute(f"PRAGMA wal_autocheckpoint = {number % 4}")  # also right where it begins anew
        before = count(connection)
        disk.fails_to_sync = True
        for _ in range(number % 3 + 1):
            with pytest.raises(sqlite3.OperationalError):
                connection.execute("INSERT INTO t VALUES (randomblob(9000))")
        disk.fails_to_sync = False
        connection.execute("INSERT INTO t VALUES (randomblob(200))")
        disk.lose_power()
        connection = connect()
        assert count(connection) == before + 1
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_is_what_was_on_the_disk(disk: Disk) -> None:
    connection = connect()
    connection.execute("INSERT INTO t VALUES (1)")
    backup = disk.copy()
    connection.execute("INSERT INTO t VALUES (2)")
    disk.restore(backup)
    assert count(connect()) == 1


def test_when_it_is_unmounted_files_are_where_they_were_before() -> None:
    with Disk(random.Random(1)):
        connect().execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(PATH).execute("SELECT * FROM t")
