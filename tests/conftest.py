"""What tests share: a running target, hard limits for clients, and tools that must be there."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from tests.ceph import PACKAGES, Ceph
from tests.serving import IQN, Serving, free_port

# Other processes may slow any test down. What examples there are must not be a matter of chance, save in a search (make soak).
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", _UNTIMED)
settings.register_profile("same", _UNTIMED, derandomize=True)
settings.load_profile("same")

# Hundreds of servers and commands are started: compiling all modules each time would be half of what that costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several run at a time, those with a guest begin: they are long, and would be what everybody waits for at the end."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: "guest" not in getattr(item, "fixturenames", ()))


def need(tool: str, package: str) -> str:
    """The path of a program; the test fails without it: nothing is skipped silently."""
    path = shutil.which(tool, path=_PATH)
    if path is None:
        pytest.fail(f"{tool} is not installed: apt-get install {package}", pytrace=False)
    return path


def run(
    command: Sequence[str | Path],
    *,
    seconds: float = 180,
    check: bool = True,
    stdin: bytes | None = None,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a client to its end and return what it printed (stdout and stderr together).

    It and its children are killed when `seconds` are over (some clients ignore SIGTERM), and the test fails; it fails
    also, when `check`, at an exit status other than 0.
    """
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PATH": _PATH, "LC_ALL": "C.UTF-8"} | (environment or {}),
        start_new_session=True,
    )
    shown = " ".join(str(word) for word in command)
    try:
        output = process.communicate(stdin, timeout=seconds)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        _kill_group(process)
        output = process.communicate()[0].decode(errors="replace")
        pytest.fail(f"not done within {seconds:.0f} s: {shown}\n{output[-20000:]}", pytrace=False)
    finally:
        _kill_group(process)
    if check and process.returncode:
        pytest.fail(f"exit status {process.returncode}: {shown}\n{output[-20000:]}", pytrace=False)
    return subprocess.CompletedProcess(command, process.returncode, output, "")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class TargetFactory(Protocol):
    """See the fixture `target`."""

    def __call__(
        self,
        *volumes: str | Path,
        size: str | None = "64M",
        options: Sequence[str] = (),
        config: str | None = None,
        portals: Sequence[str] | None = None,
        name: str = IQN,
        prefix: Sequence[str] = (),
        managed: bool = False,
    ) -> Serving: ...


@pytest.fixture
def target(tmp_path: Path) -> Iterator[TargetFactory]:
    """Starts `blockyard serve` on a free loopback port: `target("disk.img", size="1G")`.

    Volumes are files in the test's directory (or absolute paths, or IQN=PATH) that are created with `size`; without any there
    is one, disk.img. Or `config` is the text of a configuration file, with paths from the test's directory, that says all but
    the portals. One that is `managed` gets neither, and has a disk of its own. The state directory is state-0 in the test's,
    for a second target state-1. A target that still runs when the test is over is stopped by SIGTERM and must end with status
    0 within its time. The log is printed, which pytest shows for a test that failed.
    """
    servings: list[Serving] = []

    def start(
        *volumes: str | Path,
        size: str | None = "64M",
        options: Sequence[str] = (),
        config: str | None = None,
        portals: Sequence[str] | None = None,
        name: str = IQN,
        prefix: Sequence[str] = (),
        managed: bool = False,
    ) -> Serving:
        number = len(servings)
        file = None if config is None else tmp_path / f"serve-{number}.toml"
        if file is None and not managed:
            volumes, options = volumes or ("disk.img",), [*options, *(["--size", size] if size else [])]
        elif file is not None:
            file.write_text(config or "")
        serving = Serving(
            [_volume(tmp_path, volume) for volume in volumes],
            state=tmp_path / f"state-{number}",
            log=tmp_path / f"serve-{number}.log",
            options=options,
            config=file,
            portals=portals,
            target=name,
            prefix=prefix,
        )
        servings.append(serving)
        return serving

    with contextlib.ExitStack() as stack:
        stack.callback(_end, servings)
        yield start


def _volume(directory: Path, volume: str | Path) -> str:
    if str(volume).startswith("stack:"):
        return str(volume)
    name, equals, path = str(volume).rpartition("=")
    return f"{name}{equals}{directory / path}"


def _end(servings: list[Serving]) -> None:
    with contextlib.ExitStack() as stack:
        for serving in servings:
            stack.callback(_end_one, serving)


def _end_one(serving: Serving) -> None:
    try:
        if serving.process.poll() is None:
            serving.stop()
    finally:
        serving.kill()
        print(serving.tail())  # noqa: T201  (pytest shows it)


@pytest.fixture
def random_file(tmp_path: Path) -> Callable[[str, int], Path]:
    """Makes files of random bytes: `random_file("name", size)`."""

    def make(name: str, size: int) -> Path:
        path = tmp_path / name
        path.write_bytes(os.urandom(size))
        return path

    return make


@pytest.fixture(scope="session")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """A Ceph cluster with the pool `rbd`, for all tests of this process: each makes images of its own."""
    for program in ("monmaptool", "ceph-mon", "ceph-osd", "ceph", "rbd"):
        need(program, PACKAGES)
    with Ceph(tmp_path_factory.mktemp("ceph") / "cluster", free_port()) as cluster:
        yield cluster
