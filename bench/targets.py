"""The targets that are measured side by side, each exporting a file of its own as LUN 0 on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.serving import Serving, descendants, free_port

IQN = "iqn.2024-01.test.bench:disk"
_HOST = "127.0.0.1"
_START_SECONDS = 15.0


class MissingTool(Exception):
    """A program that is needed is not installed; says how to get it."""


def require(tool: str, package: str) -> str:
    """The path of a program. Raises MissingTool."""
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/sbin")
    if path is None:
        raise MissingTool(f"{tool} is not installed: apt-get install {package}")
    return path


class Target(ABC):
    """A running target. `name` labels it in the results."""

    name: str
    peer = True  # somebody else's target that a user could choose: the ratios are to the best of these

    def __init__(self, file: Path, directory: Path) -> None:
        self.file = file
        self.directory = directory
        self.log = directory / f"{self.name}.log"
        self.port = free_port(_HOST)
        self._ends = contextlib.ExitStack()
        with contextlib.ExitStack() as failed:
            failed.callback(self.stop)  # also when a signal comes before it is ready
            self.root = self.start()
            failed.pop_all()

    @abstractmethod
    def start(self) -> int:
        """Start serving `file`; return the root process's id once clients can connect. What ends it goes into `_ends`."""

    def stop(self) -> None:
        """End every process of it; does nothing the second time."""
        self._ends.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Of LUN 0, as libiscsi and QEMU write it."""
        return f"iscsi://{_HOST}:{self.port}/{IQN}/{self.lun}"

    lun = 0

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return _HOST, self.port

    @property
    def pids(self) -> list[int]:
        """All its processes, helpers too: their CPU time is what the target costs."""
        return descendants(self.root)

    @property
    def data_pids(self) -> list[int]:
        """The processes that hold the sessions: their memory is what the sessions cost."""
        return self.pids

    def _launch(self, command: list[str], ready: Callable[[], bool]) -> int:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory
            )
        self._ends.callback(process.wait)
        self._ends.callback(process.kill)  # SIGKILL: tgt may ignore SIGTERM while a target is bound
        end = time.monotonic() + _START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start: see {self.log}\n{self.log.read_text(errors='replace')}")
            time.sleep(0.02)
        return process.pid

    def _listening(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(self.address, timeout=1):
            return True
        return False


class Blockyard(Target):
    """Ours: one worker, everything on that is on by default."""

    name = "blockyard"
    peer = False
    options: tuple[str, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        return {}

    def start(self) -> int:
        self._serving = Serving(
            [self.file],
            state=self.directory / f"{self.name}-state",
            log=self.log,
            options=["--workers", "1", *self.options],
            portals=[f"{_HOST}:{self.port}"],
            target=IQN,
            environment=self.environment,
        )
        self._ends.enter_context(self._serving)
        return self._serving.pid

    @property
    def data_pids(self) -> list[int]:
        return self._serving.workers


class BlockyardBefore(Blockyard):
    """Ours as it was: the code of the checkout that BLOCKYARD_BEFORE names."""

    name = "blockyard-before"

    @property
    def environment(self) -> dict[str, str]:
        checkout = os.environ.get("BLOCKYARD_BEFORE")
        if not checkout or not Path(checkout, "src", "blockyard").is_dir():
            raise MissingTool("blockyard-before is measured from a checkout: name it in BLOCKYARD_BEFORE")
        return {"PYTHONPATH": str(Path(checkout, "src").resolve())}


class BlockyardPolling(Blockyard):
    """Ours with --poll: spins for a bounded time before it sleeps."""

    name = "blockyard-poll"
    options = ("--poll",)


class Tgt(Target):
    """tgt with its defaults."""

    name = "tgt"
    lun = 1  # LUN 0 is its controller
    parameters: tuple[tuple[str, str], ...] = ()

    def start(self) -> int:
        tgtd, self._tgtadm = require("tgtd", "tgt"), require("tgtadm", "tgt")
        self._control = str(random.randrange(1000, 30000))
        self._ends.callback(self._remove_sockets)
        root = self._launch(
            [tgtd, "-f", "-C", self._control, "--iscsi", f"portal={_HOST}:{self.port}"],
            lambda: self._admin("--mode", "system", "--op", "show") == 0,
        )
        self._checked("--mode", "target", "--op", "new", "--tid", "1", "-T", IQN)
        for name, value in self.parameters:
            self._checked("--mode", "target", "--op", "update", "--tid", "1", "--name", name, "--value", value)
        lun = ["--tid", "1", "--lun", str(self.lun), "--backing-store", str(self.file)]
        self._checked("--mode", "logicalunit", "--op", "new", *lun)
        self._checked("--mode", "target", "--op", "bind", "--tid", "1", "-I", "ALL")
        return root

    def _remove_sockets(self) -> None:
        for path in Path("/var/run/tgtd").glob(f"socket.{self._control}*"):
            path.unlink()

    def _admin(self, *words: str) -> int:
        command = [self._tgtadm, "-C", self._control, "--lld", "iscsi", *words]
        with self.log.open("ab") as log:
            return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=10).returncode

    def _checked(self, *words: str) -> None:
        if self._admin(*words):
            raise RuntimeError(f"tgtadm {' '.join(words)} failed: see {self.log}")


class TgtTuned(Tgt):
    """tgt allowed larger PDUs, which doubles its large writes: beside the default, for fairness."""

    name = "tgt-tuned"
    parameters = (("MaxRecvDataSegmentLength", "262144"), ("FirstBurstLength", "262144"))


class TgtDigest(Tgt):
    """tgt allowed digests, which it refuses by default."""

    name = "tgt-digest"
    parameters = (("HeaderDigest", "CRC32C,None"), ("DataDigest", "CRC32C,None"))


class Istgt(Target):
    """istgt with the values of its sample configuration, without authentication."""

    name = "istgt"

    def start(self) -> int:
        istgt = require("istgt", "istgt")
        configuration = self.directory / f"{self.name}.conf"
        (self.directory / "auth.conf").write_text("", encoding="ascii")
        size = self.file.stat().st_size >> 20
        configuration.write_text(
            f"""[Global]
  NodeBase "{IQN.partition(":")[0]}"
  PidFile {self.directory}/istgt.pid
  AuthFile {self.directory}/auth.conf
  MediaDirectory {self.directory}
  LogFacility "local7"
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod None
  MaxSessions 128
  MaxConnections 4
  MaxR2T 32
  MaxOutstandingR2T 16
  DefaultTime2Wait 2
  DefaultTime2Retain 60
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
  InitialR2T Yes
  ImmediateData Yes
  DataPDUInOrder Yes
  DataSequenceInOrder Yes
  ErrorRecoveryLevel 0
[UnitControl]
  AuthMethod None
  Portal UC1 {_HOST}:{free_port(_HOST)}
  Netmask {_HOST}
[PortalGroup1]
  Portal DA1 {_HOST}:{self.port}
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
[LogicalUnit1]
  TargetName {IQN.partition(":")[2]}
  Mapping PortalGroup1 InitiatorGroup1
  AuthMethod None
  UseDigest Auto
  UnitType Disk
  LUN0 Storage {self.file} {size}MB
""",
            encoding="ascii",
        )
        return self._launch([istgt, "-D", "-c", str(configuration)], self._listening)


class Null(Target):
    """limit.c: what a user-space socket target can reach at most on this machine. Not a real target."""

    name = "null"
    peer = False
    options: tuple[str, ...] = ()

    def start(self) -> int:
        program = compile_c(Path(__file__).with_name("limit.c"), self.directory)
        return self._launch([str(program), *self.options, "-P", str(self.port), str(self.file)], self._listening)


class NullPolling(Null):
    """limit.c spinning."""

    name = "null-poll"
    options = ("-p",)


def compile_c(source: Path, directory: Path) -> Path:
    """Compile one C file into `directory`, unless it is there. Raises MissingTool, CalledProcessError."""
    program = directory / source.stem
    if not program.exists():
        machine = ["-msse4.2"] if os.uname().machine == "x86_64" else []  # its CRC32C instruction
        command = [require("cc", "gcc libc6-dev"), "-O2", *machine, "-pthread", "-o", str(program), str(source)]
        subprocess.run(command, check=True, timeout=60)
    return program


KINDS: dict[str, type[Target]] = {
    kind.name: kind
    for kind in (Blockyard, BlockyardBefore, BlockyardPolling, Tgt, TgtTuned, TgtDigest, Istgt, Null, NullPolling)
}
