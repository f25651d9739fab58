"""
What is left of a file when the power goes?

A file system in memory, for SQLite (https://www.sqlite.org/vfs.html), that has what was synced,
and of the rest whatever the dice say: all, nothing, or a part, torn in the middle of a page. It can
be full, and a sync can fail. While a `Disk` is mounted, all SQLite files of this process are on it.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import random
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, ClassVar, Self

from holdfast.testing.mishap import Felt, unfelt
from holdfast.testing.turns import Ended, wait

OK, BUSY, NOTFOUND, FULL, CANTOPEN = 0, 5, 12, 13, 14
IOERR, IOERR_SHORT_READ, IOERR_FSYNC = 10, 522, 1034
NONE, SHARED, RESERVED, PENDING, EXCLUSIVE = range(5)
SECTOR, POWERSAFE_OVERWRITE = 512, 0x1000
_SHM_UNLOCK, _SHM_SHARED = 1, 4


@dataclass(eq=False)
class File:
    """A file: what is seen of it now, and what would be left of it."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(
        default_factory=list
    )  # where what was written; None: cut off there
    locks: dict[int, int] = field(default_factory=dict)  # by handle
    shared: list[Any] = field(default_factory=list)  # the regions of its shared memory
    shared_locks: list[dict[int, bool]] = field(default_factory=lambda: [{} for _ in range(8)])

    def write(self, offset: int, data: bytes) -> None:
        """Write, but not to the disk."""
        _put(self.now, offset, data)
        self.unsynced.append((offset, data))

    def truncate(self, size: int) -> None:
        """Cut it off, but not on the disk."""
        del self.now[size:]
        self.unsynced.append((size, None))

    def sync(self) -> None:
        """Have on the disk what was written."""
        for offset, data in self.unsynced:
            _put(self.synced, offset, data)
        self.unsynced.clear()

    def fail_to_sync(self, dice: random.Random) -> None:
        """
        Have some sectors on the disk, and forget that the others are not: the next sync will not try them again.

        So it is on Linux, where what could not be written is kept, but not as something that has to be
        (https://wiki.postgresql.org/wiki/Fsync_Errors).
        """
        for offset, data in self.unsynced:
            if data is None:
                if dice.random() < 0.5:
                    _put(self.synced, offset, None)
                continue
            for start in range(0, len(data), SECTOR):
                if dice.random() < 0.5:
                    _put(self.synced, offset + start, data[start : start + SECTOR])
        self.unsynced.clear()

    def lose(self, dice: random.Random) -> bool:
        """Have what is left after the power was gone: of what was not synced, some sectors. Was anything lost?"""
        self.fail_to_sync(dice)
        before, self.now = self.now, bytearray(self.synced)
        return before != self.now


def _put(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class _Handle(Structure):
    _fields_: ClassVar = [("methods", c_void_p), ("number", c_int64)]


_FILE = POINTER(_Handle)
_METHODS: dict[str, tuple[Any, ...]] = {
    "close": (_FILE,),
    "read": (_FILE, c_void_p, c_int, c_int64),
    "write": (_FILE, c_void_p, c_int, c_int64),
    "truncate": (_FILE, c_int64),
    "sync": (_FILE, c_int),
    "file_size": (_FILE, POINTER(c_int64)),
    "lock": (_FILE, c_int),
    "unlock": (_FILE, c_int),
    "check_reserved_lock": (_FILE, POINTER(c_int)),
    "file_control": (_FILE, c_int, c_void_p),
    "sector_size": (_FILE,),
    "device_characteristics": (_FILE,),
    "shm_map": (_FILE, c_int, c_int, c_int, POINTER(c_void_p)),
    "shm_lock": (_FILE, c_int, c_int, c_int),
    "shm_barrier": (_FILE,),
    "shm_unmap": (_FILE, c_int),
}
_CALLS: dict[str, tuple[Any, ...]] = {
    "open": (c_void_p, c_char_p, _FILE, c_int, POINTER(c_int)),
    "delete": (c_void_p, c_char_p, c_int),
    "access": (c_void_p, c_char_p, c_int, POINTER(c_int)),
    "full_pathname": (c_void_p, c_char_p, c_int, POINTER(ctypes.c_char)),
    "dl_open": (c_void_p,),
    "dl_error": (c_void_p,),
    "dl_sym": (c_void_p,),
    "dl_close": (c_void_p,),
    "randomness": (c_void_p, c_int, POINTER(ctypes.c_char)),
    "sleep": (c_void_p, c_int),
    "current_time": (c_void_p, POINTER(ctypes.c_double)),
    "get_last_error": (c_void_p,),
    "current_time_int64": (c_void_p, POINTER(c_int64)),
}


class _IoMethods(Structure):
    _fields_: ClassVar = [("version", c_int), *((name, c_void_p) for name in _METHODS)]


class _Vfs(Structure):
    _fields_: ClassVar = [
        ("version", c_int), ("handle_size", c_int), ("longest", c_int), ("next", c_void_p), ("name", c_char_p),
        ("data", c_void_p), *((name, c_void_p) for name in _CALLS),
    ]  # fmt: skip


class Disk:
    """
    A disk on which SQLite's files are while it is mounted (`with disk:`), and that `dice` decide about.

    Attributes:
        is_full: Whether nothing more can be written.
        fails_to_sync: Whether a sync fails, of which nobody knows what it has written, and which the next does not
            make up for.
        delay: Seconds that a sync takes: between these two. A thread of the sea waits for so long; others do not.
    """

    def __init__(self, dice: random.Random) -> None:
        self.is_full = False
        self.fails_to_sync = False
        self.refused: Felt = unfelt  # called when there was no room for something
        self.not_synced: Felt = unfelt  # called when a sync has failed
        self.delay = (0.0, 0.0)
        self.writes = 0
        self.dice = dice
        self.files: dict[str, File] = {}

    def __enter__(self) -> Self:
        _system().mount(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _system().unmount()

    def abandon(self) -> None:
        """The process that had files open is gone: what it still does with them comes to nothing."""
        _system().abandon()
        for file in self.files.values():
            file.locks.clear()
            file.shared = []
            file.shared_locks = [{} for _ in range(8)]

    def fill(self, felt: Felt = unfelt) -> None:
        """Be full from now on."""
        self.is_full, self.refused = True, felt

    def fail_syncs(self, felt: Felt = unfelt) -> None:
        """Have no sync succeed from now on."""
        self.fails_to_sync, self.not_synced = True, felt

    def recover(self) -> None:
        """Be as good as new."""
        self.is_full = self.fails_to_sync = False

    def lose_power(self, felt: Felt = unfelt) -> None:
        """… and the machine is gone, too: what was not synced is lost, or not."""
        self.abandon()
        for file in self.files.values():
            if file.lose(self.dice):
                felt()

    def copy(self) -> dict[str, bytes]:
        """Return what is on the disk, as a backup has it."""
        return {name: bytes(file.synced) for name, file in self.files.items()}

    def restore(self, copy: dict[str, bytes], felt: Felt = unfelt) -> None:
        """Put back what a backup has; nobody may have a file open."""
        self.abandon()
        if copy != {name: bytes(file.now) for name, file in self.files.items()}:
            felt()
        self.files = {name: File(bytearray(content), bytearray(content)) for name, content in copy.items()}


class _System:
    """The file system, as SQLite calls it. There is one: connections may outlive the disk that their files were on."""

    def __init__(self) -> None:
        self._disk: Disk
        self._handles: dict[int, File] = {}
        self._regions: dict[int, list[Any]] = {}  # of shared memory, that a handle has the address of
        self._numbers = 0
        self._library = ctypes.CDLL(ctypes.util.find_library("sqlite3") or "libsqlite3.so.0")
        self._methods = _IoMethods(version=2)
        self._vfs = _Vfs(version=2, handle_size=ctypes.sizeof(_Handle), longest=512, name=b"holdfast-sea")
        for structure, calls in ((self._methods, _METHODS), (self._vfs, _CALLS)):
            for name, types in calls.items():
                function = getattr(self, f"_{name}", None)
                if function is not None:
                    called = CFUNCTYPE(c_int, *types)(function)
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(called))  # SQLite has its address, to the very end
                    setattr(structure, name, ctypes.cast(called, c_void_p))

    def mount(self, disk: Disk) -> None:
        """Have all files that are opened from now on on this disk."""
        self._disk = disk
        self._library.sqlite3_randomness(0, None)  # it asks for a seed again, and so knows nothing of what was before
        self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1)

    def unmount(self) -> None:
        """Have them where they were before."""
        self.abandon()
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def abandon(self) -> None:
        """Take no more notice of what is done with files that are open."""
        self._handles.clear()

    # What SQLite asks of a file system.

    def _open(self, vfs: Any, name: bytes | None, handle: Any, flags: int, out: Any) -> int:
        key = name.decode() if name else f"?{self._numbers}"
        file = self._disk.files.get(key)
        if file is None:
            file = File()
            if name:
                self._disk.files[key] = file
        self._numbers += 1
        handle.contents.number = self._numbers
        handle.contents.methods = ctypes.addressof(self._methods)
        self._handles[self._numbers] = file
        if out:
            out[0] = flags
        return OK

    def _delete(self, vfs: Any, name: bytes, sync: int) -> int:
        self._disk.files.pop(name.decode(), None)
        return OK

    def _access(self, vfs: Any, name: bytes, flags: int, out: Any) -> int:
        out[0] = int(name.decode() in self._disk.files)
        return OK

    def _full_pathname(self, vfs: Any, name: bytes, size: int, out: Any) -> int:
        ctypes.memmove(out, name + b"\0", len(name) + 1)
        return OK

    def _randomness(self, vfs: Any, size: int, out: Any) -> int:
        ctypes.memmove(out, self._disk.dice.randbytes(size), size)
        return size

    def _sleep(self, vfs: Any, microseconds: int) -> int:
        return microseconds

    def _current_time(self, vfs: Any, out: Any) -> int:
        out[0] = 2_460_000.5
        return OK

    def _current_time_int64(self, vfs: Any, out: Any) -> int:
        out[0] = 212_544_043_200_000
        return OK

    def _get_last_error(self, vfs: Any) -> int:
        return 0

    # … and of a file.

    def _file(self, handle: Any) -> File | None:
        return self._handles.get(handle.contents.number)

    def _close(self, handle: Any) -> int:
        number = handle.contents.number
        self._regions.pop(number, None)
        file = self._handles.pop(number, None)
        if file is not None:
            file.locks.pop(number, None)
        return OK

    def _read(self, handle: Any, out: Any, size: int, offset: int) -> int:
        file = self._file(handle)
        if file is None:
            return IOERR
        data = bytes(file.now[offset : offset + size])
        ctypes.memmove(out, data + bytes(size - len(data)), size)
        return OK if len(data) == size else IOERR_SHORT_READ

    def _write(self, handle: Any, data: Any, size: int, offset: int) -> int:
        file = self._file(handle)
        if file is None:
            return IOERR
        if self._disk.is_full and offset + size > len(file.now):
            self._disk.refused()
            return FULL
        self._disk.writes += 1
        file.write(offset, ctypes.string_at(data, size))
        return OK

    def _truncate(self, handle: Any, size: int) -> int:
        file = self._file(handle)
        if file is None:
            return IOERR
        file.truncate(size)
        return OK

    def _sync(self, handle: Any, flags: int) -> int:
        try:
            wait(self._disk.dice.uniform(*self._disk.delay))
        except Ended:  # nobody there to be told: SQLite has called
            return IOERR
        file = self._file(handle)
        if file is None:
            return IOERR
        if self._disk.fails_to_sync:
            file.fail_to_sync(self._disk.dice)
            self._disk.not_synced()
            return IOERR_FSYNC
        file.sync()
        return OK

    def _file_size(self, handle: Any, out: Any) -> int:
        file = self._file(handle)
        if file is None:
            return IOERR
        out[0] = len(file.now)
        return OK

    def _lock(self, handle: Any, level: int) -> int:
        file, number = self._file(handle), handle.contents.number
        if file is None:
            return IOERR
        others = [held for other, held in file.locks.items() if other != number]
        highest = max(others, default=NONE)
        if (
            (level == SHARED and highest >= PENDING)
            or (level == RESERVED and highest >= RESERVED)
            or (level == EXCLUSIVE and highest >= SHARED)
        ):
            return BUSY
        file.locks[number] = level
        return OK

    def _unlock(self, handle: Any, level: int) -> int:
        file = self._file(handle)
        if file is not None:
            file.locks[handle.contents.number] = level
        return OK

    def _check_reserved_lock(self, handle: Any, out: Any) -> int:
        file = self._file(handle)
        out[0] = int(file is not None and any(level >= RESERVED for level in file.locks.values()))
        return OK

    def _file_control(self, handle: Any, what: int, argument: Any) -> int:
        return NOTFOUND

    def _sector_size(self, handle: Any) -> int:
        return SECTOR

    def _device_characteristics(self, handle: Any) -> int:
        return POWERSAFE_OVERWRITE  # as SQLite takes every disk of Unix to be

    # … and of memory that connections share (https://www.sqlite.org/walformat.html).

    def _shm_map(self, handle: Any, region: int, size: int, extend: int, out: Any) -> int:
        file = self._file(handle)
        if file is None:
            return IOERR
        while extend and len(file.shared) <= region:
            file.shared.append(ctypes.create_string_buffer(size))
        if region < len(file.shared):
            out[0] = ctypes.addressof(file.shared[region])
            self._regions.setdefault(handle.contents.number, []).append(file.shared[region])
        else:
            out[0] = None
        return OK

    def _shm_lock(self, handle: Any, first: int, count: int, flags: int) -> int:
        file, number = self._file(handle), handle.contents.number
        if file is None:
            return IOERR
        slots = file.shared_locks[first : first + count]
        shared = bool(flags & _SHM_SHARED)
        if flags & _SHM_UNLOCK:
            for slot in slots:
                slot.pop(number, None)
            return OK
        if any(other != number and (not shared or not held) for slot in slots for other, held in slot.items()):
            return BUSY
        for slot in slots:
            slot[number] = shared
        return OK

    def _shm_barrier(self, handle: Any) -> int:
        return OK

    def _shm_unmap(self, handle: Any, delete: int) -> int:
        file, number = self._file(handle), handle.contents.number
        if file is not None:
            for slot in file.shared_locks:
                slot.pop(number, None)
            if delete:
                file.shared = []
        return OK


@cache
def _system() -> _System:
    return _System()
