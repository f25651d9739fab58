"""One process serves a file, and leaves a note of how far it has come."""

from __future__ import annotations

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from holdfast.errors import StoreError
from holdfast.store.lock import Lock
from store.conftest import Kept, take_note


@pytest.fixture
def kind() -> str:
    return "sqlite"


def test_one_at_a_time_and_the_other_is_told_who(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(Lock().take(path)) as lock:
        lock.witness(5)
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()};"):
            Lock().take(path)
    Lock().take(path).close()


def test_what_was_witnessed_is_known_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(Lock().take(path)) as lock:
        assert lock.witnessed == 0
        lock.witness(1_700_000_000_000_000)
        lock.witness(42)
    with closing(Lock().take(path)) as lock:
        assert lock.witnessed == 42


@pytest.mark.parametrize("note", ["", "123", "123 x", "nonsense", "\xff\xfe", "1 -5", "1 ٣"])
def test_a_note_that_nobody_can_read_is_no_witness(tmp_path: Path, note: str) -> None:
    (tmp_path / "store.db.lock").write_text(note)
    with closing(Lock().take(tmp_path / "store.db")) as lock:
        assert lock.witnessed == 0


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot open .*No such file"):
        Lock().take(tmp_path / "nowhere" / "store.db")


def test_another_name_of_the_same_file_is_no_way_around_it(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    (tmp_path / "link.db").symlink_to("store.db")
    with closing(Lock().take(tmp_path / "store.db")), pytest.raises(StoreError, match="in use"):
        Lock().take(tmp_path / "link.db")


async def test_a_witness_that_cannot_be_written_holds_nobody_up(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, "pwrite", fails)
    for text in "abc":
        await kept.store.write(take_note, text)
    assert kept.notes() == ["a", "b", "c"]
    assert [record.offset for record in kept.said] == [1, 2, 3]
    assert len(caplog.records) == 1
    await kept.store.close()
