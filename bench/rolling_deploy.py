"""
One server of three leaves while 3,000 people are connected: what is lost, what fails, and how late does anything come?

    .venv/bin/python bench/rolling_deploy.py [--clients 3000] [--boards 50] [--writes 20]

Three boards on a PostgreSQL of its own, behind nginx as `deploy/` sets it up (Debian: apt install postgresql nginx).
One is told to end (SIGTERM) and started again. 30 of the clients are the library's, the others do as little as the
protocol allows, so that they do not measure themselves: all run in this process, beside the servers.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from crowd import allow_files  # noqa: E402
from databases import Cluster, binaries, create  # noqa: E402
from deploy.proxies import nginx, running  # noqa: E402
from deploy.rolling import rolling_deploy  # noqa: E402
from peers import Server  # noqa: E402

REAL = 30


def main() -> None:
    """Measure, and say what it was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=3_000)
    parser.add_argument("--boards", type=int, default=50)
    parser.add_argument("--writes", type=float, default=20, help="a second")
    asked = parser.parse_args()
    programs = binaries() or sys.exit("there is no PostgreSQL (Debian: apt install postgresql)")
    allow_files()
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        database = create(held.enter_context(Cluster(programs)).dsn("postgres"), "board")
        servers = []
        for number in range(3):
            (folder / str(number)).mkdir()
            servers.append(held.enter_context(Server(folder / str(number), "board", "--store", database)))
        url = held.enter_context(running(nginx, folder, servers))
        report = asyncio.run(
            rolling_deploy(
                url,
                servers[:1],
                clients=REAL,
                light=asked.clients - REAL,
                boards=asked.boards,
                writes_per_second=asked.writes,
            )
        )
        print(report.summary(asked.clients))


if __name__ == "__main__":
    main()
