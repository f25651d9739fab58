"""
Look for input that something cannot read and does not refuse, for as long as is wished.

    python -m tests.corpus.fuzz --seconds 600                 all of them, one after the other
    python -m tests.corpus.fuzz --seconds 600 --only cursors

With atheris (`pip install atheris`), what is tried is what leads to where nothing led before; without it, Hypothesis
tries what `test_fuzz.py` does. What was found is in `--folder`, as `crash-…`, and Hypothesis prints it.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve()
for folder in (HERE.parents[1], HERE.parents[2] / "src"):
    sys.path.insert(0, str(folder))

SEEDS = [
    b'{"type":"join","room":"lobby","since":"k3f9:43"}',
    b'{"type":"say","room":"lobby","ref":1,"key":"k","a":[{"b":null}]}',
    b'{"type":"joined","room":"lobby","cursor":"k:1","recovered":true,"users":[],"roomSize":0}',
    b'{"type":"presence","room":"lobby","users":[{"userId":"u","name":"U"}],"roomSize":1}',
    b'{"listId":"list-todo","title":"x","position":0,"name":"x","assignee_id":null}',
    b"k3f9:43",
    b"k3f9:a%2F=1;b=43",
    b"localhost:3000",
    b"[::1]:3000",
    b"app.example",
    b"token=a.b.c&since=2026-11-26T07:00:00.000000%2B01:00&cursor=k:1",
    b"2026-11-26T07:00:00Z",
    b"GET /poll?rooms=a,b&wait=0&cursor=k:a=1 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\r\n",
    b"GET /events?rooms=a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: k:1\r\nAuthorization: Bearer a.b.c\r\n\r\n",
    b'POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n{"type":"auth"}',
    b"POST /send HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\na: b\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: holdfast.1\r\n\r\n",
    b'\x81\x98\0\0\0\0{"type":"join","room":"a"}',
    b'\x01\x83\0\0\0\0{"t\x89\x80\0\0\0\0\x80\x8a\0\0\0\0ype":"ping"}',
    b"\x81\xfe\0\x7e\0\0\0\0" + b" " * 126 + b"\x82\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
]


def main() -> int:
    """Do what the command line says; 1 if something was found."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seconds", type=float, default=60.0, help="for each of them (default: 60)")
    asked.add_argument("--only", action="append", help="one of them; repeatable")
    asked.add_argument(
        "--folder", type=Path, default=Path("fuzz"), help="for what is learned, and found (default: fuzz/)"
    )
    asked.add_argument("--target", help=argparse.SUPPRESS)  # in a process of its own: atheris does not return
    options = asked.parse_args()
    if options.target is not None:
        return atheris_run(options.target, options.seconds, options.folder / options.target)
    from corpus.inputs import TARGETS

    guided = importlib.util.find_spec("atheris") is not None
    print(f"by {'atheris' if guided else 'Hypothesis'}, {options.seconds:g} s each", flush=True)
    status = 0
    for name in options.only or TARGETS:
        print(f"── {name}", flush=True)
        if guided:
            command = [sys.executable, "-m", "tests.corpus.fuzz", "--target", name, "--folder", str(options.folder)]
            done = subprocess.run([*command, "--seconds", str(options.seconds)], cwd=HERE.parents[2], check=False)
            status |= done.returncode != 0
        else:
            status |= hypothesis_run(name, options.seconds)
    return status


def atheris_run(name: str, seconds: float, folder: Path) -> int:
    """Have atheris find the way into every branch."""
    import atheris

    with atheris.instrument_imports(include=["holdfast", "corpus.inputs", "websockets", "uvicorn.protocols", "h11"]):
        from corpus.inputs import TARGETS
    target = TARGETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS):
        (folder / f"seed-{number}").write_bytes(seed)
    atheris.Setup(
        [
            name,
            str(folder),
            f"-max_total_time={seconds:.0f}",
            "-max_len=4096",
            f"-artifact_prefix={folder}/",
            "-print_final_stats=1",
            "-timeout=30",
        ],
        target,
    )
    atheris.Fuzz()
    return 0


def hypothesis_run(name: str, seconds: float) -> int:
    """Have Hypothesis try, in rounds of some hundreds: one that was begun is finished."""
    from hypothesis import HealthCheck, given, settings

    from corpus.inputs import TARGETS
    from corpus.test_fuzz import inputs, larges

    tried = 0

    @settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(data=inputs | larges)
    def look(data: bytes) -> None:
        nonlocal tried
        tried += 1
        TARGETS[name](data)

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            look()
        except Exception as found:
            print(f"{name}: {found!r}")
            return 1
    print(f"{tried} inputs, each read or refused", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
