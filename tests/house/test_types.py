"""
A gap cannot be overlooked: what a client tells has a closed set of types, in Python and in TypeScript.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dev import DECLARATIONS

ROOT = Path(__file__).parents[2]
BROWSER = ROOT / "src" / "holdfast" / "browser"
TSC = ROOT / ".venv" / "node" / "node_modules" / ".bin" / "tsc"

APPLICATION = """
from typing import assert_never
import holdfast

async def follow(room: holdfast.Room) -> None:
    async for item in room:
        match item:
            case holdfast.Resumed():
                print("nothing is missing")
            case holdfast.Snapshot(data, cursor):
                print(data, cursor)
            case holdfast.Event(type, id=id):
                print(type, id)
            {gap}
            case _:
                assert_never(item)
"""
TYPESCRIPT = """
import { connect, type Message } from "holdfast";
const client = connect("/ws", { token: async () => "a.b.c" });
const room = client.join("board-1", { snapshot: async () => ({ data: [], cursor: "e:1" }) });
const off: () => void = room.on("event", (event: Message) => console.log(event.type, event.id));
room.on("resync", ({ reason, cursor }) => console.log(reason.length, cursor.length));
room.on("presence", (users) => users.map(({ name }) => name.length));
client.on("status", ({ state, retryAt }) => state === "waiting" && retryAt!.toFixed());
// @ts-expect-error: rooms tell no such thing
room.on("gap", () => {});
// @ts-expect-error: a resync has no number
room.on("resync", ({ number }) => number);
// @ts-expect-error: no such state
client.on("status", ({ state }) => state === "reconnecting");
// @ts-expect-error: a snapshot says where it was taken
client.join("board-2", { snapshot: async () => [] });
off();
"""

needs_tsc = pytest.mark.skipif(not TSC.exists(), reason="there is no tsc (dev.py test installs it where there is npm)")


@pytest.mark.long
def test_a_match_without_the_gap_is_no_whole_match(tmp_path: Path) -> None:
    (tmp_path / "whole.py").write_text(APPLICATION.format(gap="case holdfast.Resync(): print('start afresh')"))
    (tmp_path / "gapless.py").write_text(APPLICATION.format(gap=""))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        "whole.py",
        "gapless.py",
    ]
    environment = {**os.environ, "MYPYPATH": str(ROOT / "src")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    *errors, summary = done.stdout.splitlines()
    assert summary == "Found 1 error in 1 file (checked 2 source files)", done.stdout + done.stderr
    assert errors[0].startswith("gapless.py:")
    assert '"assert_never" has incompatible type "Resync"' in errors[0]


@needs_tsc
def test_the_declarations_are_those_of_the_module(tmp_path: Path) -> None:
    command = [str(TSC), "--project", "tsconfig.json", *DECLARATIONS, "--outDir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    made = (tmp_path / "browser" / "holdfast.d.ts").read_text()
    assert made == (BROWSER / "holdfast.d.ts").read_text(), "python3 dev.py types"


@needs_tsc
def test_an_application_in_typescript_is_checked(tmp_path: Path) -> None:
    (tmp_path / "application.ts").write_text(TYPESCRIPT)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "holdfast").symlink_to(BROWSER)
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"]
    command = [str(TSC), *options, "application.ts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
