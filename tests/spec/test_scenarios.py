"""
One machine in two languages: both do exactly what `spec/scenarios` says.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.core import link, outbox, reader
from holdfast.core.link import Link
from holdfast.core.replica import Replica
from holdfast.errors import Malformed
from holdfast.protocol import messages
from holdfast.protocol.codec import Codec
from holdfast.protocol.messages import Event
from holdfast.server.mount import CLIENT

ROOT = Path(__file__).parents[2]
NODE = shutil.which("node")
INPUTS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        link.Start, link.Authorized, link.Opened, link.Welcomed, link.Heard, link.Advised, link.Lost, link.Nudged,
        link.Paused, link.Unpaused, link.Stop, link.Free, link.Moved,
    )
}  # fmt: skip
OUTBOX_INPUTS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (outbox.Put, outbox.Ready, outbox.Broken, outbox.Answered, outbox.Withdrawn, outbox.Stop)
}


def scenarios(machine: str) -> list[Any]:
    return [
        pytest.param(scenario, id=scenario["name"])
        for scenario in json.loads((ROOT / "spec" / "scenarios" / f"{machine}.json").read_text())["scenarios"]
    ]


def without_nothing(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (0, None, "")}


@pytest.mark.parametrize("scenario", scenarios("link"))
def test_the_link_in_python(scenario: Any) -> None:
    machine = Link(**scenario["options"])
    for step in scenario["steps"]:
        dice = step.get("dice", 0.5)
        if "tick" in step:
            effects = machine.tick(step["at"], dice)
        else:
            fields = dict(step["input"])
            effects = machine.receive(INPUTS[fields.pop("type")](**fields), step["at"], dice)
        told = [{"type": type(effect).__name__.lower(), **msgspec.to_builtins(effect)} for effect in effects]
        status = msgspec.to_builtins(machine.status)
        status["retryAt"] = status.pop("retry_at")
        assert told == step.get("effects", []), step
        assert without_nothing(status) == step["status"], step
        assert machine.deadline() == step.get("deadline"), step


@pytest.mark.parametrize("scenario", scenarios("replica"))
def test_the_replica_in_python(scenario: Any) -> None:
    replica = Replica("lobby", **scenario["options"])
    codec = Codec()
    for step in scenario["steps"]:
        match step["do"]:
            case "join":
                assert said(replica.join()) == step["says"]
            case "hold":
                replica.hold()
            case "restart":
                assert said(replica.restart(step["cursor"])) == step["says"]
            case _:
                text = json.dumps({**step["message"], "room": "lobby"})
                message = codec.decode_server(text)
                if step.get("fails"):
                    with pytest.raises(Malformed):
                        replica.receive(message)  # type: ignore[arg-type]
                    continue
                outcome = replica.receive(message)  # type: ignore[arg-type]
                assert [flat(item) for item in outcome.items] == step.get("items", []), step
                assert (said(outcome.ask) if outcome.ask else None) == step.get("asks"), step
        assert step["then"] == {
            "cursor": replica.cursor,
            "users": sorted(replica.users),
            "typing": sorted(replica.typing),
            "size": replica.size,
        }, step


@pytest.mark.parametrize("scenario", scenarios("outbox"))
def test_the_outbox_in_python(scenario: Any) -> None:
    machine = outbox.Outbox()
    for step in scenario["steps"]:
        if "tick" in step:
            effects = machine.tick(step["at"])
        elif "puts" in step:
            puts = [outbox.Put(str(number), None) for number in range(step["puts"])]
            effects = [effect for put in puts for effect in machine.receive(put, step["at"])]
        else:
            fields = dict(step["input"])
            effects = machine.receive(OUTBOX_INPUTS[fields.pop("type")](**fields), step["at"])
        told = [{"type": type(effect).__name__.lower(), **msgspec.to_builtins(effect)} for effect in effects]
        assert [{name: value for name, value in one.items() if value is not None} for one in told] == step.get(
            "effects", []
        ), step
        assert len(machine) == step["size"], step
        assert machine.deadline() == step.get("deadline"), step


READER_INPUTS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind
    for kind in (
        messages.Join, messages.Leave, messages.Sync, messages.Error, reader.Again, reader.Barred, reader.Broken,
    )
}  # fmt: skip


@pytest.mark.parametrize("scenario", scenarios("reader"))
def test_the_reader_in_python(scenario: Any) -> None:
    machine, codec = reader.Reader(), Codec()
    for step in scenario["steps"]:
        if "tick" in step:
            effects = machine.tick(step["at"])
        elif step["input"]["type"] == "answer":
            heard = tuple(codec.decode_server(json.dumps(message)) for message in step["input"]["messages"])
            answer = reader.Answer(heard, step["input"]["cursor"])
            if step.get("fails"):
                with pytest.raises(Malformed):
                    machine.receive(answer, step["at"])
                continue
            effects = machine.receive(answer, step["at"])
        else:
            fields = dict(step["input"])
            effects = machine.receive(READER_INPUTS[fields.pop("type")](**fields), step["at"])
        assert [as_told(effect) for effect in effects] == step.get("effects", []), step
        assert machine.how.value == step["how"], step
        assert machine.deadline() == step.get("deadline"), step


def as_told(effect: reader.ReaderEffect) -> Any:
    match effect:
        case reader.GiveUp():
            return {"type": "give_up"}
        case reader.Tell(Event(room, type, data, id)):
            return {
                "type": "tell",
                "message": {"type": type, "room": room, **({} if id is None else {"id": id}), **data},
            }
        case reader.Tell(message):
            return {"type": "tell", "message": json.loads(msgspec.json.encode(message))}
        case _:
            return json.loads(msgspec.json.encode({"type": "ask", **msgspec.to_builtins(effect)}))


def said(message: Any) -> Any:
    fields = msgspec.to_builtins(message)
    return {name: value for name, value in fields.items() if value is not None and name != "room"}


def flat(item: Any) -> Any:
    if isinstance(item, Event):
        data = json.loads(msgspec.json.encode(item.data))
        return {"type": item.type, **({} if item.id is None else {"id": item.id}), **data}
    return msgspec.to_builtins(item)


@pytest.mark.skipif(NODE is None, reason="there is no node")
@pytest.mark.parametrize("machine", ["link", "outbox", "reader", "replica"])
@pytest.mark.parametrize("as_it_is", ["written", "served"])
def test_the_same_in_javascript(machine: str, as_it_is: str, tmp_path: Path) -> None:
    assert NODE is not None
    folder = ROOT / "src" / "holdfast" / "browser"
    if as_it_is == "served":
        shutil.copy(folder / "package.json", tmp_path)
        folder = tmp_path
        for name, module in CLIENT.items():
            (folder / name).write_bytes(module)
    command = [NODE, str(ROOT / "tests" / "spec" / "scenarios.mjs"), machine, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["passed", str(len(scenarios(machine)))]


def test_the_modules_that_are_served_are_small() -> None:
    sizes = {name: len(gzip.compress(module, 9)) for name, module in CLIENT.items()}
    assert sizes["holdfast.js"] <= 8_800
    assert sizes["holdfast-http.js"] <= 4_120  # loaded only where there is no way for a WebSocket
    assert not any(b"/**" in module for module in CLIENT.values())
