"""A throw-away Ceph cluster: one monitor and one OSD that keeps everything in memory, up in some seconds.

The tests (through the fixture `ceph`) and the benchmark of RBD both start it here. Nothing of it touches what a machine has
of Ceph: each path is in a directory of its own, the port is a free one, and what it has started is ended by process id.
"""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

POOL = "rbd"
PACKAGES = "ceph-mon ceph-osd ceph-common"
_START_SECONDS = 180.0

_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = v2:{host}:{port}/0
public addr = {host}
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon data avail crit = 0
paxos propose interval = 0.05
paxos min wait = 0.02
osd objectstore = memstore
memstore device bytes = 1073741824
osd class dir = /usr/lib/x86_64-linux-gnu/rados-classes
plugin dir = /usr/lib/x86_64-linux-gnu/ceph
osd heartbeat grace = 3600
mon osd report timeout = 3600
run dir = {directory}
keyring = /dev/null
osd client watch timeout = 6
objecter tick interval = 0.5
mon data = {directory}/mon
osd data = {directory}/osd
[mon]
log file = {directory}/$name.log
admin socket = {directory}/$name.asok
pid file = {directory}/$name.pid
[osd]
log file = {directory}/$name.log
admin socket = {directory}/$name.asok
pid file = {directory}/$name.pid
"""


class CephFailed(Exception):
    """The cluster did not come up, or a command on it failed; says what was printed."""


class Ceph:
    """A running cluster with the pool `rbd`; `conf` is its configuration for clients."""

    def __init__(self, directory: Path, port: int, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        self.directory = directory
        self.conf = directory / "ceph.conf"
        self._prefix = list(prefix)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._images: Counter[str] = Counter()
        (directory / "osd").mkdir(parents=True)
        fsid = str(uuid.uuid4())
        self.conf.write_text(_CONFIGURATION.format(fsid=fsid, host=host, port=port, directory=directory))
        try:
            self._start(fsid, f"[v2:{host}:{port}]")
        except BaseException:
            self.close()
            raise

    def _start(self, fsid: str, address: str) -> None:
        monmap = self.directory / "monmap"
        self.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self.run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", "/dev/null")
        self._launch("ceph-mon", "a")
        osd = str(uuid.uuid4())
        number = self.ceph("osd", "new", osd).strip()
        self.run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", osd, "--monmap", monmap)
        self.osd = self._launch("ceph-osd", number)
        self.ceph("osd", "pool", "create", POOL, "8", "8")
        end = time.monotonic() + _START_SECONDS
        while "1 up" not in self.ceph("osd", "stat"):
            if time.monotonic() > end:
                raise CephFailed("the OSD did not come up")
            time.sleep(0.05)
        self.rbd("pool", "init", POOL)

    def _launch(self, program: str, name: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{program}.out").open("ab") as output:
            command = [*self._prefix, "setpriv", "--pdeathsig", "KILL", program, "-c", str(self.conf), "-i", name, "-f"]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._processes.append(process)
        return process

    def run(self, program: str, *words: str | Path, seconds: float = _START_SECONDS) -> str:
        """Run one of Ceph's programs on this cluster and return what it printed. Raises CephFailed."""
        command = [*self._prefix, program, "-c", str(self.conf), *map(str, words)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise CephFailed(f"not done within {seconds:.0f} s: {' '.join(command)}") from error
        if done.returncode:
            raise CephFailed(f"status {done.returncode}: {' '.join(command)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def ceph(self, *words: str | Path) -> str:
        return self.run("ceph", *words)

    def rbd(self, *words: str | Path) -> str:
        return self.run("rbd", *words)

    def image(self, name: str, size: str = "64M", *options: str) -> str:
        """Make an image; returns POOL/NAME, with a number where there has been one of that name: of a test that is run again."""
        self._images[name] += 1
        if self._images[name] > 1:
            name = f"{name}-{self._images[name]}"
        self.rbd("create", f"{POOL}/{name}", "--size", size, *options)
        return f"{POOL}/{name}"

    def stop_osd(self) -> None:
        """The OSD stands still, as if its machine did: connections stay, nothing is answered."""
        self.osd.send_signal(signal.SIGSTOP)
        while not all(map(_stopped, Path(f"/proc/{self.osd.pid}/task").iterdir())):
            time.sleep(0.001)  # a thread that runs on another processor goes on for a moment

    def continue_osd(self) -> None:
        self.osd.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Everything ends at once; there is nothing to keep."""
        for process in reversed(self._processes):
            process.kill()  # SIGKILL ends what is stopped, too
        for process in self._processes:
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _stopped(thread: Path) -> bool:
    try:
        return thread.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "TZ"  # proc(5): stopped, or ending
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended meanwhile
