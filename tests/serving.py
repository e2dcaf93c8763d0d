"""A real `blockyard serve` process: started, awaited by sd_notify, stopped by SIGTERM and checked.

The tests (through the fixture `target`) and the benchmarks both start the target here, so that there is one way.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import itertools
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

IQN = "iqn.2024-01.test.blockyard:disk"
# Of a machine that has other things to do; who is late is found out by the stacks that ServeFailed carries.
_START_SECONDS = 120.0
_STOP_SECONDS = 120.0
_STACK_SECONDS = 10.0
# Below the ephemeral range, so that no client is given one by chance; each of several test processes has its own share.
_PORTS = range(20000, 30000)
_SHARES = 50


class ServeFailed(Exception):
    """The process did not get ready, or did not stop as it should; carries its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on, and that is not given again soon: whoever gets it has yet to bind it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in itertools.islice(_share(), len(_PORTS) // _SHARES):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            return port
    raise OSError(f"no port of this process's share of {_PORTS} is free on {host}")


@functools.cache
def _share() -> Iterator[int]:
    """Ports of this process alone, in turn: a lock of its own says which, as long as it lives."""
    for number in range(_SHARES):
        with contextlib.suppress(OSError):
            lock = os.open(f"{tempfile.gettempdir()}/blockyard-ports-{number}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise
            ports = _PORTS[number::_SHARES]
            return itertools.cycle(random.sample(ports, len(ports)))
    raise OSError("all shares of ports are taken by other processes")


def children(pid: int) -> list[int]:
    """Process ids of the children of all threads of `pid`; empty when it has ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii").split())
    return found


def descendants(pid: int) -> list[int]:
    """`pid` and every process below it."""
    return [pid, *(process for child in children(pid) for process in descendants(child))]


def workers_of(pid: int) -> list[int]:
    """Process ids of the workers that the control process `pid` has now."""
    return [child for child in children(pid) if _is_worker(child)]


def show_stacks(pid: int) -> None:
    """A process that does not get on, and its workers, end, and leave the stacks of all threads in the log.

    They have PYTHONFAULTHANDLER in their environment for it.
    """
    for process in reversed([pid, *workers_of(pid)]):
        with contextlib.suppress(ProcessLookupError):
            end = os.pidfd_open(process)
            os.kill(process, signal.SIGABRT)
            select.select([end], [], [], _STACK_SECONDS)
            os.close(end)


def _is_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"blockyard.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False


class Serving:
    """`blockyard serve` on its own portal(s).

    `volumes` are the PATH or IQN=PATH arguments; or the configuration file `config` says all but the portals, and those too
    where `portals` is empty. `prefix` is put before the command (`ip netns exec NAME`); `log` gets what it logs, and a
    file beside it, with the suffix .out, what it prints. Raises ServeFailed when it does not get ready.
    """

    def __init__(
        self,
        volumes: Sequence[str | Path],
        *,
        state: Path,
        log: Path,
        options: Sequence[str] = (),
        config: Path | None = None,
        portals: Sequence[str] | None = None,
        target: str = IQN,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        self.portals = [f"127.0.0.1:{free_port()}"] if portals is None else list(portals)
        self.target = target
        self.log = log
        self._environment = environment or {}
        self.command = [*prefix, sys.executable, "-m", "blockyard", "serve", *map(str, volumes), *options]
        self.command += [word for portal in self.portals for word in ("--portal", portal)]
        self.command += ["--state", str(state), *(["--config", str(config)] if config else ["--target", target])]
        self.process: subprocess.Popen[bytes] = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with (
            tempfile.TemporaryDirectory(prefix="by-") as directory,  # a path short enough for a socket (unix(7))
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
            self.log.with_suffix(".out").open("ab") as output,
            self.log.open("ab") as log,
        ):
            address = f"{directory}/notify"
            notify.bind(address)
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                env=os.environ | self._environment | {"NOTIFY_SOCKET": address, "PYTHONFAULTHANDLER": "1"},
                start_new_session=True,  # a Ctrl-C at the test's terminal is not meant for it
            )
            try:
                self._await_ready(process, notify)
            except BaseException:
                _kill(process)
                raise
        return process

    def _await_ready(self, process: subprocess.Popen[bytes], notify: socket.socket) -> None:
        end = time.monotonic() + _START_SECONDS
        pidfd = os.pidfd_open(process.pid)
        try:
            while (left := end - time.monotonic()) > 0:
                readable, _, _ = select.select([notify.fileno(), pidfd], [], [], left)
                if notify.fileno() in readable and b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
                if pidfd in readable:
                    raise ServeFailed(f"`serve` ended with status {process.wait()} before it was ready\n{self.tail()}")
        finally:
            os.close(pidfd)
        show_stacks(process.pid)
        raise ServeFailed(f"`serve` was not ready within {_START_SECONDS:.0f} s\n{self.tail()}")

    @property
    def pid(self) -> int:
        """Of the control process."""
        return self.process.pid

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that live now."""
        return workers_of(self.pid)

    def url(self, lun: int = 0, *, portal: int = 0, target: str | None = None) -> str:
        """`iscsi://…` of a LUN, as libiscsi and QEMU write it."""
        return f"iscsi://{self.portals[portal]}/{target or self.target}/{lun}"

    def tail(self, size: int = 20000) -> str:
        """The end of the log."""
        text = self.log.read_bytes()[-size:].decode(errors="replace") if self.log.exists() else ""
        return f"----- {' '.join(self.command)}\n{text}-----"

    def stop(self) -> None:
        """SIGTERM, then wait. Raises ServeFailed when it takes too long or the exit status is not 0."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            show_stacks(self.pid)
            self.kill()
            raise ServeFailed(f"`serve` did not stop within {_STOP_SECONDS:.0f} s of SIGTERM\n{self.tail()}") from None
        if status:
            raise ServeFailed(f"`serve` stopped with status {status}\n{self.tail()}")

    def restart(self) -> None:
        """Stop (see stop) if it runs, and start again with the same command line, state and log."""
        if self.process.poll() is None:
            self.stop()
        self.process = self._start()

    def kill(self) -> None:
        """End it and its workers at once; does nothing when it has ended."""
        _kill(self.process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        ends: list[int] = []
        for pid in reversed(descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                ends.append(os.pidfd_open(pid))
                os.kill(pid, signal.SIGKILL)
        process.wait()
        for end in ends:  # workers are no children of ours: what they had open is closed when they are gone
            select.select([end], [], [], _STOP_SECONDS)
            os.close(end)
