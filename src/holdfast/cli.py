"""The commands: `holdfast board`, `serve`, `watch`, `bench`, `store`."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import msgspec

from holdfast import Limits, __version__
from holdfast.board.app import create_app
from holdfast.client import watch as client_watch
from holdfast.errors import HoldfastError
from holdfast.server import runner
from holdfast.store import upkeep
from holdfast.store.choice import is_shared

P = ParamSpec("P")
T = TypeVar("T")


class _Finite(click.FloatRange):
    """A number, and neither `nan` nor `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


_seconds = _Finite(min=0, min_open=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="holdfast")
def main() -> None:
    """Real-time rooms for Python that survive disconnects."""


def _listen_options(command: Any) -> Any:
    for option in (
        click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info"),
        click.option("--speed/--no-speed", default=True, help="Use uvloop and httptools where they are installed."),
        click.option(
            "--workers",
            type=click.IntRange(1, 64),
            default=1,
            help="Processes that serve; more than one need PostgreSQL.",
        ),
        click.option("--port", type=click.IntRange(0, 65535), default=3000, help="0 means any free one."),
        click.option("--host", default="localhost", help="Listen on this name or address; 0.0.0.0 means every one."),
    ):
        command = option(command)
    return command


@main.command()
@_listen_options
@click.option("--data", default="taskboard.db", help="The file that everything is kept in; memory: keeps nothing.")
@click.option(
    "--store",
    envvar="HOLDFAST_STORE",
    help="Keep it in a PostgreSQL database instead, that several servers may share: postgresql://user@host/name.",
)
@click.option("--listen", help="The way to that database past a pooler in transaction mode, for LISTEN.")
@click.option(
    "--redis",
    envvar="HOLDFAST_REDIS",
    help="A Redis by which those servers hint to each other that there is news: redis://host. Nothing is kept there.",
)
@click.option("--heartbeat-interval", type=_seconds, default=30.0, help="Ping every connection as often. Seconds.")
@click.option(
    "--heartbeat-timeout", type=_seconds, default=10.0, help="Silent for so long after a ping: gone. Seconds."
)
@click.option(
    "--presence-grace",
    type=_Finite(min=0),
    default=5.0,
    help="Still show somebody for so long after their link broke. Seconds.",
)
@click.option("--require-login", is_flag=True, help="No guests: sign in first.")
@click.option("--token-lifetime", type=_seconds, default=7 * 24 * 3600.0, help="How long a sign-in lasts. Seconds.")
@click.option("--origin", "origins", multiple=True, help="A page of another site that may use this server. Repeatable.")
def board(host: str, port: int, workers: int, speed: bool, log_level: str, **options: Any) -> None:
    """
    Serve the live task board.

    Open it in two windows, move a card, then stop the server, or pull the plug, and see what happens.
    """
    data, store = options.pop("data"), options.pop("store")
    if store is not None and not is_shared(store):
        raise click.ClickException(
            f"--store is a PostgreSQL database (postgresql://user@host/name); a file is --data {store}"
        )
    place = data if store is None else store
    if workers > 1 and not is_shared(place):
        raise click.ClickException(
            f"one process serves the file {place}; {workers} workers need a database that they can share: "
            "--store postgresql://user@host/name"
        )
    try:
        app = create_app(place, **options)
    except (HoldfastError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    _serve(app, host, port, workers, speed, log_level, "The board")


@main.command()
@click.argument("app")
@_listen_options
@click.option("--app-dir", default=".", help="Where the module is looked for first.")
def serve(app: str, app_dir: str, host: str, port: int, workers: int, speed: bool, log_level: str) -> None:
    """
    Serve an ASGI app, given as module:name, with every promise of its Hub.

    Any uvicorn serves it too, with `--ws holdfast.server.websocket:WebSocketProtocol`.
    """
    sys.path.insert(0, str(Path(app_dir).resolve()))
    _serve(app, host, port, workers, speed, log_level, app)


@main.command()
@click.argument("url")
@click.argument("room")
@click.option("--token", envvar="HOLDFAST_TOKEN", help="Who you are; without it, a guest.")
@click.option("--no-jitter", is_flag=True, help="Wait exactly 1, 2, 4, 8, 16, 30, 30 … seconds between attempts.")
def watch(url: str, room: str, token: str | None, no_jitter: bool) -> None:
    """
    Show what happens in a room, live, and what becomes of the link.

    \b
    holdfast watch http://localhost:3000 board-1
    """
    try:
        code = asyncio.run(client_watch.watch(url, room, token=token, jitter=not no_jitter, out=_print))
    except (HoldfastError, ValueError) as error:
        raise click.ClickException(_shown(str(error))) from None
    except KeyboardInterrupt:
        return
    if code is not None:
        raise SystemExit(1)


@main.command()
@click.argument("url")
@click.argument("room")
@click.option("--clients", type=click.IntRange(1), default=100, help="How many come.")
@click.option("--seconds", type=_seconds, default=10.0, help="How long they stay.")
@click.option(
    "--rate", type=_seconds, default=10.0, help="Publications, and commands, a second: of each client 40, or they wait."
)
@click.option("--token", envvar="HOLDFAST_TOKEN", help="Who they are; without it, guests.")
@click.option("--server-key", envvar="HOLDFAST_SERVER_KEY", help="With it, something is published (POST …/publish).")
@click.option("--command", help="A type that your application handles: commands of it are sent.")
@click.option("--data", default="{}", help="What is in those commands, a JSON object.")
def bench(url: str, room: str, data: str, **options: Any) -> None:
    """
    Measure a server of yours, with so many of our clients in a room.

    They are real: everybody in the room sees them, and what they publish and command. Each costs more than your server
    spends on it: with more than a few hundred, it is they who are measured. Times count from when something was due.

    \b
    holdfast bench http://localhost:8000/live/ws room --server-key … --command say --data '{"text": "hello"}'
    """
    from holdfast.client.bench import Bench, Plan  # and with it an HTTP client, which no other command needs

    try:
        given = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise click.ClickException(f"--data is a JSON object: {error}") from None
    runner.allow_files(2 * options["clients"] + 100)  # by HTTP a client has two; and what else is open
    try:
        all_is_well = asyncio.run(Bench(Plan(url, room, data=given, **options)).run(_print))
    except (HoldfastError, ValueError) as error:
        raise click.ClickException(_shown(str(error))) from None
    except KeyboardInterrupt:
        return
    if not all_is_well:
        raise SystemExit(1)


@main.group()
def store() -> None:
    """Look after the file that everything is kept in."""


@store.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("to", type=click.Path(path_type=Path))
def backup(data: Path, to: Path) -> None:
    """Copy DATA, as it is at one moment, also while it is served."""
    _keep(upkeep.back_up, data, to)
    click.echo(f"{data} is copied to {to}")


@store.command("new-epoch")
@click.argument("data")
def new_epoch(data: str) -> None:
    """
    Make every position that clients have in DATA (a file, or postgresql://…) void.

    To be done after a copy was restored in place: it may be older than what clients have seen. They are told to
    start afresh. (A file that was replaced, or that has gone back in time, is noticed without this.)
    """
    if is_shared(data):
        from holdfast.store.postgres import renew_epoch

        epoch = _keep(renew_epoch, data)
    else:
        epoch = _keep(upkeep.renew_epoch, Path(data))
    click.echo(f"{data} has the epoch {epoch} now")


def _keep(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        return work(*args, **kwargs)
    except HoldfastError as error:
        raise click.ClickException(str(error)) from None


def _print(line: str) -> None:
    click.echo(_shown(line))


def _shown(text: str) -> str:
    """Return what others may have said as one line, with nothing in it that a terminal obeys."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _serve(app: Any, host: str, port: int, workers: int, speed: bool, log_level: str, what: str) -> None:
    def listening(actual: int) -> None:
        click.echo(f"{what} is at http://{'localhost' if host in ('0.0.0.0', '::') else host}:{actual}", err=True)  # noqa: S104

    try:
        runner.serve(
            app,
            host=host,
            port=port,
            limits=Limits(),
            log_level=log_level,
            speed=speed,
            workers=workers,
            on_listening=listening,
        )
    except HoldfastError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
