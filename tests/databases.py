"""
PostgreSQL, with standbys and poolers, and Redis for the tests, on private ports; and a database of its own for whoever
asks.
"""

from __future__ import annotations

import atexit
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import conninfo

from peers import free_port, process_state

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
fsync = off            # what is killed here are processes, and not the machine
max_connections = 200
authentication_timeout = 10s  # while it ends it waits as long for whoever came last and says nothing; by default 60 s
wal_retrieve_retry_interval = 100ms  # a standby that waits to try again is not promoted sooner
shared_buffers = 32MB
"""

POOLER = """
[databases]
* = host=127.0.0.1 port={to} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
; by default 15 s, for which it would not notice that the database is back
server_login_retry = 1
"""


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs, if it is installed."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def as_postgres() -> dict[str, Any]:
    """Return as whom PostgreSQL's programs are started: they refuse to run as root."""
    return {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}


@cache
def _fresh(bin: Path) -> Path:
    """Return a new cluster's files, to be copied: making them takes a second."""
    folder = _folder()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    command = [bin / "initdb", "-D", folder / "data", "-U", "postgres", "-A", "trust", "-N", "--locale=C.UTF-8"]
    subprocess.run(command, capture_output=True, check=True, cwd="/", **as_postgres())
    return folder / "data"


class Cluster:
    """A running PostgreSQL."""

    def __init__(self, bin: Path) -> None:
        self.bin = bin
        self._user = as_postgres()
        self.folder = _folder()
        self.data = self.folder / "data"
        self.port = free_port()
        self._is_ended = True  # as it was told to

    def __enter__(self) -> Self:
        self._make()
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS.format(folder=self.folder, port=self.port))
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        status, said = self.process.poll(), (self.folder / "log").read_text()
        self.stop(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert status is None or self._is_ended, f"PostgreSQL has ended by itself ({status}):\n{said[-4000:]}"

    def _make(self) -> None:
        subprocess.run(["cp", "-a", _fresh(self.bin), self.data], check=True)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [self.bin / program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **self._user)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        assert self._is_ended, "it still runs"
        self._is_ended = False
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data], stdout=log, stderr=log, cwd="/", **self._user
            )
        until = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.dsn("postgres")).close()
                return
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def stop(self, how: int) -> None:
        """End it: SIGINT for at once, SIGQUIT for without a last word."""
        self._is_ended = True
        self.process.send_signal(how)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            told = (self.folder / "log").read_text()[-4000:]
            raise AssertionError(f"PostgreSQL does not end:\n{self._processes()}\n{told}") from None

    def _processes(self) -> str:
        """Return in which state its processes are."""
        pid = self.process.pid
        command = ["ps", "-o", "pid,stat,wchan:20,etimes,args", "--pid", str(pid), "--ppid", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def kill(self) -> None:
        """kill -9, all of its processes at once; nobody is at its port any more."""
        self._is_ended = True
        os.kill(self.process.pid, signal.SIGSTOP)  # so that it starts no others, nor buries those it has
        while process_state(self.process.pid) != "T":
            time.sleep(0)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        # The list may leave somebody out as long as one of them ends.
        while alive := [pid for pid in map(int, children.read_text().split()) if process_state(pid) != "Z"]:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(30)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", self.port)) != 0

    def copy(self) -> Path:
        """Copy its files, while it is stopped."""
        copy = self.folder / "copy"
        subprocess.run(["cp", "-a", self.data, copy], check=True)
        return copy

    def put_back(self, copy: Path) -> None:
        """Put a copy of its files in their place, while it is stopped."""
        shutil.rmtree(self.data)
        subprocess.run(["cp", "-a", copy, self.data], check=True)

    def dsn(self, database: str) -> str:
        """Return how to connect to a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; return its rows."""
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()

    def wait_for_standby(self) -> None:
        """From now on nothing is committed before a standby has it."""
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")
        until = time.monotonic() + 30
        while self.execute("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)

    def wait_until_followed(self) -> None:
        """Wait until a standby has everything that is committed by now."""
        now = self.execute("SELECT pg_current_wal_flush_lsn()")[0][0]
        until = time.monotonic() + 30
        while self.execute(f"SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{now}'") == [(0,)]:
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)


class Standby(Cluster):
    """A copy of a primary that follows it, by way of some port, until it is promoted."""

    def __init__(self, primary: Cluster, port: int | None = None) -> None:
        super().__init__(primary.bin)
        self._from = primary.port if port is None else port

    def _make(self) -> None:
        source = f"host=127.0.0.1 port={self._from} user=postgres"
        self._run("pg_basebackup", "-D", self.data, "-d", source, "--write-recovery-conf", "--checkpoint=fast")

    def promote(self) -> None:
        """Be the primary from now on."""
        assert self.execute("SELECT pg_promote()") == [(True,)]


class Pooler:
    """PgBouncer before a PostgreSQL, in transaction mode: whoever connects has a session only while it is in one."""

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self.folder = _folder()
        (self.folder / "pgbouncer.ini").write_text(POOLER.format(to=to, port=self.port))

    @staticmethod
    def program() -> str | None:
        """Return where it is, if it is installed."""
        return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

    def __enter__(self) -> Self:
        program = self.program()
        assert program is not None
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [program, self.folder / "pgbouncer.ini"], stdout=log, stderr=log, cwd="/", **as_postgres()
            )
        until = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)


def whichever(clusters: Sequence[Cluster], database: str) -> str:
    """Return how to connect to a database in that of some clusters that is the primary then."""
    hosts, ports = (",".join(those) for those in zip(*(("127.0.0.1", str(one.port)) for one in clusters), strict=True))
    return f"postgresql://postgres@/{database}?host={hosts}&port={ports}&target_session_attrs=read-write"


def by_way_of(dsn: str, port: int) -> str:
    """Return how to connect to the same database by another port."""
    return conninfo.make_conninfo(dsn, host="127.0.0.1", port=port)


def port_of(dsn: str) -> int:
    """Return the port that a connection string leads to."""
    return int(conninfo.conninfo_to_dict(dsn)["port"])


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="holdfast-pg-"))
    if as_postgres():
        os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
    return folder


class Redis:
    """A running Redis, which keeps nothing."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="holdfast-redis-"))
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._is_ended = True

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        assert self._is_ended, "it still runs"
        self._is_ended = False
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder)]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(["redis-server", *options], stdout=log, stderr=log)
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until, (self.folder / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        self._is_ended = True
        self.process.kill()
        self.process.wait()


def create(dsn: str, name: str) -> str:
    """Make a database in the cluster that `dsn` leads to; return how to connect to it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        # Copying files takes half as long as writing all of them to a log; before version 15 there was nothing else.
        how = " STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""
        connection.execute(f'CREATE DATABASE "{name}"{how}'.encode())
    return conninfo.make_conninfo(dsn, dbname=name)


def drop(dsn: str, name: str) -> None:
    """Delete a database, whoever still uses it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'.encode())


class Databases:
    """Databases in a server, each lent to one test after another: to empty one is quicker than to make another."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._made: list[str] = []
        self._free: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            drop(self._dsn, name)

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Lend an empty database: how to connect to it."""
        if not self._free:
            self._made.append(f"holdfast_{secrets.token_hex(8)}")
            self._free.append(create(self._dsn, self._made[-1]))
        dsn = self._free.pop()
        yield dsn
        _empty(dsn)
        self._free.append(dsn)


def _empty(dsn: str) -> None:
    """Make a database as it was when it was made, whoever still uses it."""
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(dsn, autocommit=True, options="-c client_min_messages=error") as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}".encode())
        schemas = connection.execute(
            "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
        ).fetchall()
        for (schema,) in schemas:
            connection.execute(f'DROP SCHEMA "{schema}" CASCADE'.encode())
        connection.execute("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" RESET ALL'.encode())
