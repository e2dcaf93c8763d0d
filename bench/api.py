"""What the API costs the data path: `python -m bench.api`.

A disk is read and written at depth 32 while nobody asks the API anything, and while somebody makes 200 requests a second and
has a stream open, in turns; the order turns with each round. What counts are the medians of the rounds' ratios. Who asks is
on the same machine, and is a loop over a socket that costs little itself.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.serving import Serving, free_port

from bench.clients import WORKS, drive
from bench.processes import cpu_seconds
from bench.run import backing_file
from bench.targets import IQN, Target

_WORKS = {"r4k-d32": "4 KiB random reads, depth 32", "w4k-d32": "4 KiB random writes, depth 32"}
_PATHS = ("/status", "/volumes", "/targets", "/sessions", "/me", "/events?last=20", "/jobs", "/pools")
_LEAST = 0.95


class Served(Target):
    """A disk, with the API beside it."""

    name = "blockyard-api"

    def start(self) -> int:
        self.console = free_port()
        self._serving = Serving(
            [self.file], state=self.directory / "state", log=self.log,
            options=["--workers", "1", "--console", f"127.0.0.1:{self.console}"], portals=[f"127.0.0.1:{self.port}"], target=IQN,
        )  # fmt: skip
        return self._serving.pid

    def stop(self) -> None:
        self._serving.kill()

    def ask(self, path: str) -> socket.socket:
        """A connection on which a request was sent, by the unix socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(str(self.directory / "state" / "api.sock"))
        sock.sendall(_request(path))
        return sock


def _request(path: str) -> bytes:
    return f"GET /api/v1{path} HTTP/1.1\r\nHost: local\r\n\r\n".encode()


@contextlib.contextmanager
def _asked(target: Served, rate: int) -> Iterator[list[float]]:
    """Requests are made at this rate, and a stream is open, while this lasts; how long each request has taken. 0: none."""
    over, taken = threading.Event(), list[float]()

    def requests() -> None:
        with contextlib.closing(target.ask("/me")) as sock:
            sock.recv(1 << 16)
            due = time.monotonic()
            for path in itertools.cycle(_PATHS):
                due += 1 / rate
                if over.wait(max(0.0, due - time.monotonic())):
                    return
                began = time.monotonic()
                sock.sendall(_request(path))
                _answer(sock)
                taken.append(time.monotonic() - began)

    def watch() -> None:
        with contextlib.closing(target.ask("/stream")) as sock:
            while not over.is_set():
                sock.recv(1 << 16)

    threads = [threading.Thread(target=requests), threading.Thread(target=watch)] if rate else []
    for thread in threads:
        thread.start()
    try:
        yield taken
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _answer(sock: socket.socket) -> None:
    """Take one whole answer."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += sock.recv(1 << 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (default: 3)")
    parser.add_argument("--rate", type=int, default=200, help="requests a second (default: 200)")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="for the data (default: /dev/shm)")  # noqa: S108
    options = parser.parse_args(arguments)
    backing = Path(tempfile.mkdtemp(prefix="blockyard-bench-", dir=options.directory))
    directory = Path(tempfile.mkdtemp(prefix="blockyard-bench-"))
    target = Served(backing_file(backing / "disk.img"), directory)
    try:
        print(
            f"{options.rounds} rounds of {options.seconds} s, {options.rate} requests a second and a stream", flush=True
        )
        for work, title in _WORKS.items():
            _measure(work, title, target, options)
    finally:
        target.stop()
        shutil.rmtree(backing, ignore_errors=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _measure(name: str, title: str, target: Served, options: argparse.Namespace) -> None:
    work = WORKS[name]
    ratios, taken, costs = [], [], []
    for number in range(options.rounds):
        rates: dict[bool, float] = {}
        for asked in (False, True) if number % 2 else (True, False):
            with _asked(target, options.rate if asked else 0) as times:
                before = cpu_seconds([target.root])
                outcome = drive(
                    target, work, seconds=options.seconds, sessions=1, directory=options.directory, client=work.client
                )
                used = cpu_seconds([target.root]) - before
            rates[asked] = outcome.operations / outcome.seconds
            if asked:
                taken += times
                costs.append(used / max(1, len(times)) * 1e6)
        ratios.append(rates[True] / rates[False])
    ratio = statistics.median(ratios)
    verdict = "reached" if ratio >= _LEAST else "MISSED"
    print(
        f"{title}: {ratio:.3f} of what it is alone ({min(ratios):.3f} to {max(ratios):.3f}); least {_LEAST}: {verdict}. "
        f"A request took {statistics.median(taken) * 1e3:.1f} ms, and control {statistics.median(costs):.0f} µs of CPU",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
