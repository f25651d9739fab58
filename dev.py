"""
Set everything up, then run the board or the tests.

    python3 dev.py run [options of `holdfast board`]     the board, on http://localhost:3000
    python3 dev.py test [options of pytest]              every check but the long tests
    python3 dev.py test --long [options of pytest]       the long tests: real default times, minutes of them
    python3 dev.py lock                                  pin the dependencies anew (needs uv)
    python3 dev.py types                                 declare the browser module's types anew (needs npm)

Needs nothing but Python 3.11 and pip (or uv): what is installed goes into `.venv`, pinned
and hashed, and is installed again only when the pins change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
RUN = HERE / "requirements" / "run.txt"
TEST = HERE / "requirements" / "test.txt"
TYPESCRIPT = "typescript@7.0.2"
DECLARATIONS = ["--noEmit", "false", "--declaration", "--emitDeclarationOnly", "--rootDir", "src/holdfast"]


def main() -> None:
    """Do what the first argument says."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever has an older one is told so
        sys.exit(f"holdfast needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    match sys.argv[1:]:
        case ["run", *options]:
            install(RUN)
            os.execv(PYTHON, [str(PYTHON), "-m", "holdfast", "board", *options])
        case ["test", "--long", *options]:
            sys.exit(test_long(options))
        case ["test", *options]:
            sys.exit(test(options))
        case ["lock"]:
            lock()
        case ["types"]:
            types()
        case ["--help" | "-h"]:
            print(__doc__)
        case _:
            sys.exit(__doc__)


# Setting up.


def install(requirements: Path) -> None:
    """Have the project and what it needs in the venv; does nothing if it is there already."""
    if any(_is_installed(those) for those in {requirements, TEST}):  # what the tests need has everything
        return
    if not PYTHON.exists() or not _runs(PYTHON):
        say("making .venv")
        # Without pip, for Debian has it only in python3-venv; ours can install into it from outside.
        step([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)])
    say(f"installing {requirements.relative_to(HERE)}")
    step([*installer(), "--require-hashes", "-r", str(requirements)])
    step([*installer(), "--no-deps", "--no-build-isolation", "-e", str(HERE)])
    _stamp(requirements).write_text(_wanted(requirements))  # last: one that was interrupted is done again


def installer() -> list[str]:
    """Return the command that installs into the venv: uv where there is one, else pip."""
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", str(PYTHON), "--no-python-downloads"]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        sys.exit("setting up needs pip (Debian: apt install python3-pip) or uv")
    return [sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "--quiet",
            "--disable-pip-version-check", "--no-input"]  # fmt: skip


def lock() -> None:
    """Pin and hash what `pyproject.toml` asks for."""
    uv = shutil.which("uv") or sys.exit("pinning needs uv (pip install uv)")
    compile = [uv, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--python-version", "3.11",
               "--no-header", "--upgrade", "--extra", "postgres", "--extra", "redis", "pyproject.toml"]  # fmt: skip
    step([*compile, "--group", "build", "-o", str(RUN)])
    step([*compile, "--group", "build", "--group", "test", "-c", str(RUN), "-o", str(TEST)])


def types() -> None:
    """Write `holdfast.d.ts`: the types of the browser's module, for those who write TypeScript."""
    install(TEST)
    compiler = tsc() or sys.exit(1)
    folder = VENV / "types"
    step([*map(str, compiler), *DECLARATIONS, "--outDir", str(folder)])
    shutil.copy(folder / "browser" / "holdfast.d.ts", HERE / "src" / "holdfast" / "browser")


# Checking.


def test(options: Sequence[str]) -> int:
    """Run every check but the long tests; pytest's summary is the last line."""
    install(TEST)
    checks: dict[str, Sequence[str | Path]] = {
        "ruff check": [PYTHON, "-m", "ruff", "check", "."],
        "ruff format": [PYTHON, "-m", "ruff", "format", "--check", "."],
        "mypy": [PYTHON, "-m", "mypy"],
    }
    typescript = tsc()
    if typescript is not None:
        checks["tsc"] = typescript
    started = {name: start(command) for name, command in checks.items()}  # at once: each uses one core
    failed = [name for name, check in started.items() if not passes(name, check)]
    if failed:
        say(f"FAILED: {', '.join(failed)}")
    status = pytest(["-m", "not long", *options], at_once=6)
    return status or bool(failed)


def test_long(options: Sequence[str]) -> int:
    """Run only the long tests."""
    install(TEST)
    return pytest(["-m", "long", *options], at_once=2)


def pytest(options: Sequence[str], at_once: int) -> int:
    """Run the tests, some at once, for many of them wait for real time to pass; the long ones are heavy, too."""
    environment = {**os.environ}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of servers are started, each to compile everything anew
    browser = CHROMIUM.have()
    if browser is not None:
        environment["HOLDFAST_CHROMIUM"] = browser
    for program in PROGRAMS:
        program.have()
    ask_what_is_allowed()
    sys.stdout.flush()
    command: list[str | Path] = [PYTHON, "-m", "pytest", "-q", "-n", str(at_once), "--dist", "worksteal", *options]
    return subprocess.run(command, cwd=HERE, env=environment, check=False).returncode


def start(command: Sequence[str | Path]) -> subprocess.Popen[str]:
    """Begin one check."""
    return subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def passes(name: str, check: subprocess.Popen[str]) -> bool:
    """Wait for one check, and print what it says only if it fails."""
    say(name)
    told, _ = check.communicate()
    if check.returncode:
        print(told, flush=True)
    return check.returncode == 0


def tsc() -> list[str | Path] | None:
    """Return the command that checks the browser's modules, if there is node."""
    folder = VENV / "node"
    compiler = folder / "node_modules" / ".bin" / "tsc"
    npm = shutil.which("npm")
    if npm is None:
        say("NOT RUN: tsc on the browser's modules, for there is no npm (Debian: apt install npm)")
        return None
    stamp = folder / TYPESCRIPT
    if not stamp.exists():
        say(f"installing {TYPESCRIPT}")
        done = subprocess.run(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, TYPESCRIPT],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            say(f"NOT RUN: tsc on the browser's modules, for npm cannot install it:\n{done.stderr.strip()[-400:]}")
            return None
        stamp.touch()
    return [compiler, "--project", "tsconfig.json"]


@dataclass(frozen=True)
class Program:
    """A program of Debian's, which some tests need."""

    package: str
    tests: str
    names: tuple[str, ...]  # what it may be called
    given: str = ""  # the variable that says where it is, or where its server is

    def found(self) -> str | None:
        """Return where it is."""
        folders = [os.environ.get("PATH", ""), *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]
        looked_for = (shutil.which(name, path=os.pathsep.join(folders)) for name in self.names)
        return os.environ.get(self.given) or next(filter(None, looked_for), None)

    def have(self) -> str | None:
        """Return where it is; install it where that is possible, else say what is not run without it."""
        found = self.found()
        if found is None and apt(self.package, f"for the tests {self.tests}"):
            found = self.found()
        if found is None:
            say(f"NOT RUN: the tests {self.tests}, for there is no {self.package} (Debian: apt install {self.package})")
        return found


CHROMIUM = Program(
    "chromium", "in a browser", ("chromium", "chromium-browser", "google-chrome"), given="HOLDFAST_CHROMIUM"
)
PROGRAMS = (
    Program("postgresql", "on PostgreSQL", ("postgres",), given="HOLDFAST_POSTGRES"),
    Program("redis-server", "with Redis", ("redis-server",)),
    Program("pgbouncer", "with a pooler before PostgreSQL", ("pgbouncer",)),
    Program("nginx", "of deploy/ with nginx", ("nginx",)),
    Program("caddy", "of deploy/ with Caddy", ("caddy",)),
    Program("iproute2", "on networks that break", ("ip",)),
    Program("nftables", "on networks that break", ("nft",)),
    Program("strace", "on a disk that does not sync", ("strace",)),
    Program("openssl", "over TLS", ("openssl",)),
    Program("faketime", "under a wall clock that jumps", ("faketime",)),
)


def ask_what_is_allowed() -> None:
    """Say which tests are not run, since this user may not do what they do (root may)."""
    asked = subprocess.run(
        [PYTHON, "-m", "real.allowed"], cwd=HERE / "tests", capture_output=True, text=True, check=False
    )
    for why in [*asked.stdout.splitlines(), *asked.stderr.splitlines()[-1:]]:
        say(f"NOT RUN: {why}")


def apt(package: str, why: str) -> bool:
    """Install a package of Debian's, if that is possible here; return whether it was."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    say(f"installing {package} {why}")
    return _apt_get("install", "-y", "--no-install-recommends", package) or (
        _apt_get("update") and _apt_get("install", "-y", "--no-install-recommends", package)  # its lists were old
    )


def _apt_get(*arguments: str) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "-q", *arguments], capture_output=True, check=False, env=environment)
    return done.returncode == 0


# Saying and doing.


def say(what: str) -> None:
    """Say what is going on."""
    print(f"dev.py: {what}", flush=True)


def step(command: Sequence[str]) -> None:
    """Do one step of setting up, or stop and say why it cannot be done."""
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dev.py: this failed:\n  {' '.join(command)}\n{done.stdout}{done.stderr}")


def _is_installed(requirements: Path) -> bool:
    stamp = _stamp(requirements)
    return stamp.exists() and stamp.read_text() == _wanted(requirements)


def _stamp(requirements: Path) -> Path:
    return VENV / f"{requirements.stem}.stamp"


def _wanted(requirements: Path) -> str:
    """Return what changes whenever it has to be installed again."""
    content = [requirements.read_bytes(), (HERE / "pyproject.toml").read_bytes(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(content)).hexdigest()


def _runs(python: Path) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
