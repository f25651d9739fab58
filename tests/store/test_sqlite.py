"""One file, one process: what was acknowledged is in it after any end, and it knows whether it is itself or a copy."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import StoreError
from holdfast.protocol.codec import Codec
from holdfast.store import retention
from holdfast.store.sqlite import SqliteStore
from store.conftest import NOTES, Deaf, Kept, OpenStore, take_note


@pytest.fixture
def kind() -> str:
    return "sqlite"


SRC = Path(__file__).parents[2] / "src"

#: Writes notes from many tasks at once, and says of each when it is acknowledged.
WRITER = """
import asyncio, os, sys
from holdfast.protocol.codec import Codec
from holdfast.store.sqlite import SqliteStore

class Deaf:
    def news(self, records):
        pass

def take_note(tx, text):
    tx.execute("INSERT INTO note (text) VALUES (?)", (text,))
    tx.publish("lobby", "noted", {"text": text})

async def main():
    store = SqliteStore(sys.argv[1], Codec(), migrations=[sys.argv[2]])
    await store.open(Deaf())
    print("open", store.epoch, flush=True)

    async def write(writer):
        number = 0
        while True:
            text = f"{writer}-{number}"
            await store.write(take_note, text)
            os.write(1, f"ack {text}\\n".encode())
            number += 1

    await asyncio.gather(*(write(writer) for writer in range(int(sys.argv[3]))))
    await asyncio.sleep(60)

asyncio.run(main())
"""


class Process:
    """A process that has a store open."""

    def __init__(self, path: Path, writers: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), NOTES, str(writers)],
            env={**os.environ, "PYTHONPATH": str(SRC)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout
        opened, self.epoch = self.out.readline().split()
        assert opened == "open"

    def kill(self) -> list[str]:
        """End it by `kill -9`; return what it had acknowledged and was not yet read."""
        self.process.send_signal(signal.SIGKILL)
        rest = self.out.read()
        self.process.wait(10)
        self.out.close()
        return [line.removeprefix("ack ") for line in rest.splitlines() if line.startswith("ack ")]

    def acknowledged(self, count: int) -> list[str]:
        return [self.out.readline().removeprefix("ack ").strip() for _ in range(count)]


# ── an end without warning ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("writes", [1, 100, 1500])
async def test_what_was_acknowledged_survives_kill_9_with_its_publication_and_nothing_else_does(
    tmp_path: Path, open_store: OpenStore, writes: int
) -> None:
    path = tmp_path / "notes.db"
    process = Process(path, writers=16)
    acknowledged = process.acknowledged(writes) + process.kill()
    kept = await open_store(path)
    notes, log = kept.notes(), kept.log("lobby")
    assert len(acknowledged) >= writes
    assert set(acknowledged) <= set(notes)
    assert [json.loads(body)["text"] for _, _, _, body in log] == notes
    assert [offset for _, offset, _, _ in log] == list(range(1, len(notes) + 1))
    assert (await kept.store.span("lobby")).head == len(notes)
    assert kept.store.epoch == process.epoch
    await kept.store.write(take_note, "after")
    assert kept.said[0].offset == len(notes) + 1


async def test_a_commit_is_on_the_disk_before_it_is_acknowledged(kept: Kept) -> None:
    """As far as SQLite can be asked: power cannot be cut in a test."""
    connection = kept.store._connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_in_memory_nothing_waits_for_the_disk(open_store: OpenStore) -> None:
    kept = await open_store("memory:")
    assert kept.store._connection.execute("PRAGMA synchronous").fetchone() == (0,)  # OFF


async def test_foreign_keys_are_enforced(open_store: OpenStore, tmp_path: Path) -> None:
    child = "CREATE TABLE child (note INTEGER REFERENCES note (id))"
    kept = await open_store(tmp_path / "family.db", migrations=[NOTES, child])
    with pytest.raises(sqlite3.IntegrityError):
        await kept.store.write(lambda tx: tx.execute("INSERT INTO child VALUES (7)"))


# ── one process ───────────────────────────────────────────────────────────────────────────────────


async def test_a_second_process_is_told_which_file_is_in_use_and_by_whom(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    process = Process(path)
    with pytest.raises(StoreError, match=rf"notes\.db is in use by process {process.process.pid};"):
        await SqliteStore(str(path), Codec()).open(Deaf())
    process.kill()
    await open_store(path)  # the dead hold no lock


async def test_the_same_process_cannot_open_a_file_twice_but_again(kept: Kept, open_store: OpenStore) -> None:
    with pytest.raises(StoreError, match=str(os.getpid())):
        await open_store()
    await kept.store.close()
    await open_store()


async def test_only_its_owner_can_read_it_for_the_signing_key_is_in_it(kept: Kept) -> None:
    await kept.store.write(take_note, "hello")
    files = [path for path in kept.path.parent.iterdir() if path.name.startswith(kept.path.name)]
    assert len(files) >= 3
    assert {path.stat().st_mode & 0o077 for path in files} == {0}


# ── what cannot be opened ─────────────────────────────────────────────────────────────────────────


async def cannot_open(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(StoreError, match=match):
        await SqliteStore(str(path), Codec(), **options).open(Deaf())


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    await cannot_open(tmp_path / "no such folder" / "notes.db", "no such folder/notes.db")
    folder = tmp_path / "folder"
    folder.mkdir()
    await cannot_open(folder, "cannot open .*folder")
    text = tmp_path / "text.db"
    text.write_text("this is no database, however long it may be; " * 100)
    await cannot_open(text, r"text\.db.*not a database")


async def test_after_it_could_not_be_opened_it_can_be_opened(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    await cannot_open(path, "migration 2 of app", migrations=[NOTES, "CREATE TABLE oops ("])
    kept = await open_store(path, migrations=[NOTES, "CREATE TABLE fine (id)"])
    await kept.store.write(take_note, "hello")


@pytest.mark.parametrize("path", ["notes.db", "memory:"])
async def test_a_store_that_was_closed_can_be_opened_again(tmp_path: Path, path: str) -> None:
    """An application that is started again in one process, as under test, has the same store object."""
    store = SqliteStore(path if path == "memory:" else str(tmp_path / path), Codec(), migrations=[NOTES])
    for number in range(3):
        await store.open(Deaf())
        async with asyncio.timeout(10):
            await store.write(take_note, str(number))
            notes = await store.read(lambda tx: [row["text"] for row in tx.all("SELECT text FROM note ORDER BY id")])
            await store.close()
        assert notes == ([str(number)] if path == "memory:" else [str(n) for n in range(number + 1)])


# ── migrations ────────────────────────────────────────────────────────────────────────────────────


async def test_each_migration_is_run_once_and_in_order(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    first = [NOTES, "INSERT INTO note (text) VALUES ('one'); INSERT INTO note (text) VALUES ('two');"]
    kept = await open_store(path, migrations=first)
    assert kept.notes() == ["one", "two"]
    await kept.store.close()
    kept = await open_store(path, migrations=[*first, "UPDATE note SET text = text || '!'"])
    assert kept.notes() == ["one!", "two!"]
    await kept.store.close()
    kept = await open_store(path, migrations=[*first, "UPDATE note SET text = text || '!'"])
    assert kept.notes() == ["one!", "two!"]


async def test_a_migration_that_fails_is_undone_whole_and_named(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    broken = "INSERT INTO note (text) VALUES ('half'); INSERT INTO nowhere VALUES (1);"
    await cannot_open(path, "migration 2 of app: no such table: nowhere", migrations=[NOTES, broken])
    kept = await open_store(path, migrations=[NOTES])
    assert kept.notes() == []


# ── itself, or a copy ─────────────────────────────────────────────────────────────────────────────


async def identity(open_store: OpenStore, path: Path) -> tuple[str, str]:
    kept = await open_store(path)
    await kept.store.write(lambda tx: tx.publish("lobby", "noted", {}))
    await kept.store.close()
    return kept.store.epoch, kept.store.secret


async def test_the_epoch_and_the_secret_survive_a_restart(tmp_path: Path, open_store: OpenStore) -> None:
    first = await identity(open_store, tmp_path / "notes.db")
    assert await identity(open_store, tmp_path / "notes.db") == first
    assert len(bytes.fromhex(first[1])) == 32
    assert first[0].isalnum()


async def test_two_files_have_nothing_in_common(tmp_path: Path, open_store: OpenStore) -> None:
    first = await identity(open_store, tmp_path / "one.db")
    second = await identity(open_store, tmp_path / "two.db")
    assert first[0] != second[0]
    assert first[1] != second[1]


async def test_a_copy_has_another_epoch_and_the_same_secret(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    epoch, secret = await identity(open_store, path)
    shutil.copy(path, tmp_path / "backup.db")
    assert await identity(open_store, path) == (epoch, secret)
    os.replace(tmp_path / "backup.db", path)  # a backup is put back: older than what clients have seen
    restored, still = await identity(open_store, path)
    assert (restored != epoch, still) == (True, secret)
    assert await identity(open_store, path) == (restored, secret)


@pytest.mark.parametrize("how", ["in place", "after deleting it"])
async def test_a_backup_that_is_put_back_has_another_epoch_also_where_the_inode_is_the_same(
    tmp_path: Path, open_store: OpenStore, how: str
) -> None:
    path, backup = tmp_path / "notes.db", tmp_path / "backup.db"
    await identity(open_store, path)
    shutil.copy(path, backup)
    epoch, _ = await identity(open_store, path)  # goes on, and clients see it
    if how == "after deleting it":
        path.unlink()  # ext4 gives the number to the next file
    shutil.copy(backup, path)
    restored, _ = await identity(open_store, path)
    assert restored != epoch
    assert (await identity(open_store, path))[0] == restored


async def test_a_backup_that_is_put_back_after_a_crash_has_another_epoch_too(
    tmp_path: Path, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "FORGET_EVERY", 0.01)
    path, backup = tmp_path / "notes.db", tmp_path / "backup.db"
    kept = await open_store(path)
    await kept.store.write(take_note, "before")
    with closing(sqlite3.connect(path)) as reader, closing(sqlite3.connect(backup)) as copy:
        reader.backup(copy)  # at night, while it runs
    await kept.store.write(take_note, "after")
    await asyncio.sleep(0.1)
    lock = path.with_name("notes.db.lock")
    left_behind = lock.read_bytes()
    await kept.store.close()
    lock.write_bytes(left_behind)  # as a crash would leave it
    shutil.copy(backup, path)
    assert (await open_store(path)).store.epoch != kept.store.epoch


async def test_what_stands_in_the_lock_file_harms_nothing(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    first = await identity(open_store, path)
    for nonsense in (b"", b"nonsense", b"\xff\xfe", b"1 2 3 4", b"1 -5", b"17", b"x" * 100_000):
        path.with_name("notes.db.lock").write_bytes(nonsense)
        assert await identity(open_store, path) == first


async def test_a_clock_that_jumps_back_makes_no_copy_of_it(tmp_path: Path, open_store: OpenStore) -> None:
    epochs = set()
    for wall in (2_000_000.0, 1_000.0, 3_000_000.0, 0.0):
        kept = await open_store(tmp_path / "notes.db", wall=lambda wall=wall: wall)
        await kept.store.write(take_note, str(wall))
        await kept.store.close()
        epochs.add(kept.store.epoch)
    assert len(epochs) == 1


async def test_a_file_that_was_deleted_begins_another_life(tmp_path: Path, open_store: OpenStore) -> None:
    path = tmp_path / "notes.db"
    epoch, secret = await identity(open_store, path)
    for file in tmp_path.glob("notes.db*"):
        file.unlink()
    again, other = await identity(open_store, path)
    assert (again != epoch, other != secret) == (True, True)


async def test_a_file_that_was_only_moved_is_itself(tmp_path: Path, open_store: OpenStore) -> None:
    first = await identity(open_store, tmp_path / "notes.db")
    os.rename(tmp_path / "notes.db", tmp_path / "moved.db")
    assert await identity(open_store, tmp_path / "moved.db") == first


# ── memory: ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def test_memory_is_a_store_like_any_other_and_leaves_nothing(temporary: Path, open_store: OpenStore) -> None:
    kept, other = await open_store("memory:"), await open_store("memory:")
    await kept.store.write(take_note, "hello")
    assert (kept.notes(), other.notes()) == (["hello"], [])
    assert kept.store.epoch != other.store.epoch
    await kept.store.close()
    await other.store.close()
    assert list(temporary.iterdir()) == []


async def test_memory_that_was_never_opened_leaves_nothing_either(temporary: Path) -> None:
    SqliteStore("memory:", Codec())
    assert list(temporary.iterdir()) == []


async def test_memory_that_could_not_be_opened_leaves_nothing_either(temporary: Path) -> None:
    await cannot_open(Path("memory:"), "migration 1", migrations=["nonsense"])
    assert list(temporary.iterdir()) == []


async def test_a_store_in_a_file_leaves_its_file_and_no_threads(kept: Kept, tmp_path: Path) -> None:
    await kept.store.write(take_note, "hello")
    await asyncio.gather(*(kept.store.read(lambda tx: tx.position("lobby")) for _ in range(5)))
    await kept.store.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.db", "notes.db.lock"]
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("holdfast")] == []
