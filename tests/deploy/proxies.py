"""The proxies before several servers, set up as `deploy/` says."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

from peers import Server, free_port

DEPLOY = Path(__file__).parents[2] / "deploy"

#: Writes down how a proxy is to be set up, in a folder, and returns the command that starts it.
SetUp = Callable[[Path, Sequence[Server], int], list[str]]


def with_ports(text: str, servers: Sequence[Server], port: int) -> str:
    for number, server in enumerate(servers, 3001):
        assert f"127.0.0.1:{number}" in text
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{server.port}")
    assert "8080" in text
    return text.replace("8080", str(port))


def nginx(folder: Path, servers: Sequence[Server], port: int) -> list[str]:
    (folder / "holdfast.conf").write_text(with_ports((DEPLOY / "nginx.conf").read_text(), servers, port))
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {folder}/pid; error_log {folder}/error.log;\n"
        "events { worker_connections 16384; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"include {folder}/holdfast.conf; }}\n"
    )
    return ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]


def caddy(folder: Path, servers: Sequence[Server], port: int) -> list[str]:
    text = with_ports((DEPLOY / "Caddyfile").read_text(), servers, port)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n\tgrace_period 1s\n}\n\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile"]


@contextmanager
def running(proxy: SetUp, folder: Path, servers: Sequence[Server]) -> Iterator[str]:
    """Have a proxy before servers; return its address."""
    port = free_port()
    command = proxy(folder, servers, port)
    with (folder / "proxy.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                if httpx2.get(f"http://127.0.0.1:{port}/healthz", verify=False).status_code == 200:
                    break
            except httpx2.HTTPError:
                pass
            assert time.monotonic() < deadline, (folder / "proxy.log").read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
