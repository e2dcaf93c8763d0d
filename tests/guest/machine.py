"""A real Linux initiator: Debian's kernel and tools in a QEMU guest (TCG: no KVM is needed).

It is booted once to the point where everything is loaded and iscsid runs, and its state is saved; a test resumes
that state in a fraction of a second, with a namespace of its own (network.py), and what it does to its disk is
thrown away.

Its image is in a cache directory with a name made of the versions of kernel, tools and these files:
built (half a minute) and booted (a quarter of one) by whoever comes first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import io
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.guest.network import GUEST, TAPS, Network

_HERE = Path(__file__).parent
_SCRIPTS = _HERE / "scripts"
_MEMORY_MIB = 512
_JOB_BYTES = 1 << 20  # of the disk that carries a test's files into the guest
_BUILD_SECONDS = 600.0
_BOOT_SECONDS = 300.0
# Not at the start of a line: what is printed before may lack its end.
_READY = re.compile(rb"GUEST_READY\r?\n")
_MARK_OR_EXIT = re.compile(rb"GUEST_MARK:(\S+)\r?\n|GUEST_EXIT:(\d+)\r?\n")


class GuestFailed(Exception):
    """The guest could not be built, booted or resumed, or a script took too long; carries what was printed."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a script printed, and its exit status."""

    output: str
    status: int


def _kernel_version() -> str:
    """The package of Debian's current kernel, e.g. linux-image-6.1.0-56-amd64. Raises GuestFailed."""
    found = subprocess.run(
        ["apt-cache", "depends", "linux-image-amd64"], capture_output=True, text=True, timeout=180, check=False
    )
    package = re.search(r"Depends: (linux-image-\d\S*)", found.stdout)
    if package is None:
        raise GuestFailed(f"apt-cache knows no linux-image-amd64: apt-get update\n{found.stderr}")
    return package[1]


@functools.cache
def image() -> Path:
    """The directory with kernel, disk and saved state; built when it is not there. Raises GuestFailed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "blockyard-guest"
    digest = hashlib.sha256(_kernel_version().encode())
    for path in (_HERE / "build.sh", Path(__file__), _HERE / "network.py"):
        digest.update(path.read_bytes())
    directory = cache / digest.hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several test runs one builds
        if not directory.exists():
            _make(directory)
        os.utime(directory)
        _remove_old(cache, directory)
    return directory


def _make(directory: Path) -> None:
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=directory.parent))
    try:
        with (partial / "build.log").open("w+") as log:
            command = [str(_HERE / "build.sh"), str(partial)]
            try:
                subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_BUILD_SECONDS, check=True
                )
            except subprocess.SubprocessError as error:
                log.seek(0)
                raise GuestFailed(f"{error}\n{log.read()[-5000:]}") from None
        with Network() as network:
            _save_state(partial, network)
        partial.rename(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _remove_old(cache: Path, current: Path) -> None:
    """Images of earlier versions, unless they were used within a week (by another checkout)."""
    for path in cache.iterdir():
        if path.is_dir() and path != current and path.stat().st_mtime < time.time() - 7 * 86400:
            shutil.rmtree(path, ignore_errors=True)


def _qemu(directory: Path, root_disk: str, job: Path, control: Path) -> list[str]:
    addresses = ",".join(f"eth{number}={address}/24" for number, address in enumerate(GUEST))
    command = [
        "qemu-system-x86_64", "-machine", "pc-i440fx-7.2", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-erms,-smap",
        "-m", str(_MEMORY_MIB), "-nographic", "-no-reboot", "-nodefaults", "-monitor", "none",
        "-serial", "stdio", "-serial", f"unix:{control}/serial,server=on,wait=off",
        "-qmp", f"unix:{control}/qmp,server=on,wait=off",
        "-drive", f"file={root_disk}", "-drive", f"file={job},if=virtio,format=raw",
        "-kernel", str(directory / "vmlinux"), "-initrd", str(directory / "initrd.img"),
        "-append", "console=ttyS0 quiet loglevel=3 panic=-1 net.ifnames=0 random.trust_cpu=on mitigations=off "
        "init_on_alloc=0 hardened_usercopy=off lsm=capability "
        f"addresses={addresses}",
    ]  # fmt: skip
    # With event_idx, QEMU before 9.1 may wait for receive buffers for ever that the guest has long made available: it looks
    # twice, but asks to be told from the first look on ("virtio-net: Fix network stall at the host side waiting for kick").
    for number, tap in enumerate(TAPS):
        command += ["-netdev", f"tap,id=n{number},ifname={tap},script=no,downscript=no"]
        command += ["-device", f"virtio-net-pci,event_idx=off,netdev=n{number},romfile=,mac=52:54:00:00:00:0{number}"]
    return command


def _save_state(directory: Path, network: Network) -> None:
    ready = directory / "ready.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", "root.img", "-F", "raw", str(ready)], check=True, timeout=180
    )
    with tempfile.TemporaryDirectory(prefix="by-") as name:
        control = Path(name)
        job = _job(control, {})
        command = _qemu(directory, f"{ready},if=virtio,format=qcow2,cache=unsafe", job, control)
        with _started(command, network) as process:
            console = _Console(process, time.monotonic() + _BOOT_SECONDS)
            console.read_until(_READY)
            monitor = _Monitor(control / "qmp")
            monitor("stop")
            monitor("migrate-set-parameters", **{"max-bandwidth": 10**10})
            # By a name that it has when all of it is there: "completed" says only that QEMU has handed it over.
            monitor("migrate", uri=f"exec:cat > {directory}/part && mv {directory}/part {directory}/state")
            end = time.monotonic() + _BOOT_SECONDS
            while not (directory / "state").exists():
                status = monitor("query-migrate").get("status")
                if status in {"failed", "cancelled"} or time.monotonic() > end:
                    raise GuestFailed(f"the guest's state could not be saved: {status}")
                time.sleep(0.05)


def _job(directory: Path, files: Mapping[str, bytes]) -> Path:
    """The disk that carries `files` into the guest: a tar archive, of one size always."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    if buffer.tell() > _JOB_BYTES:
        raise GuestFailed(f"the test's files have {buffer.tell()} bytes; {_JOB_BYTES} is the most")
    path = directory / "job.tar"
    path.write_bytes(buffer.getvalue().ljust(_JOB_BYTES, b"\0"))
    return path


@contextlib.contextmanager
def _started(command: list[str], network: Network) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*network.prefix, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class _Console:
    """What the guest prints. Raises GuestFailed when the time is over or QEMU ends."""

    def __init__(self, process: subprocess.Popen[bytes], end: float) -> None:
        self._process = process
        self._end = end
        self._seen = 0
        self.buffer = b""

    def read_until(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """The first match of `pattern` after the last one that was returned."""
        assert self._process.stdout is not None
        while True:
            if found := pattern.search(self.buffer, self._seen):
                self._seen = found.end()
                return found
            if not select.select([self._process.stdout], [], [], max(0.0, self._end - time.monotonic()))[0]:
                raise GuestFailed(f"the time is over; the guest printed:\n{self.text}")
            if not (data := os.read(self._process.stdout.fileno(), 65536)):
                raise GuestFailed(f"QEMU ended; it printed:\n{self.text}")
            self.buffer += data

    @property
    def text(self) -> str:
        return self.buffer.replace(b"\r\n", b"\n").decode(errors="replace")


class _Monitor:
    """QEMU's machine protocol."""

    def __init__(self, path: Path) -> None:
        self._file = _connect(path).makefile("rw", encoding="utf-8")
        self._file.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> dict[str, Any]:
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        for line in self._file:
            answer = json.loads(line)
            if "error" in answer:
                raise GuestFailed(f"QEMU: {command}: {answer['error']}")
            if "return" in answer:
                result: dict[str, Any] = answer["return"]
                return result
        raise GuestFailed(f"QEMU ended during {command}")


def _connect(path: Path) -> socket.socket:
    end = time.monotonic() + 120
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            if time.monotonic() > end:
                raise GuestFailed(f"QEMU does not listen on {path}") from None
            time.sleep(0.01)
        else:
            return sock


def run_script(
    name: str,
    network: Network,
    *,
    seconds: float,
    variables: Mapping[str, str] | None = None,
    marks: Mapping[str, Callable[[], object]] | None = None,
) -> Result:
    """Resume the guest in `network`, run scripts/`name` there, and return what it printed and its status.

    Before it come scripts/library.sh and `variables`. Where the script says `mark NAME` it waits until the function
    `marks[NAME]` has been called here; a text that this returns is its $answer. Raises GuestFailed, when `seconds` are over too.
    """
    directory = image()
    settings = "".join(f"{key}='{value}'\n" for key, value in (variables or {}).items())
    files = {
        "main.sh": b"exec 2>&1\n. ./variables.sh\n. ./library.sh\n" + (_SCRIPTS / name).read_bytes(),
        "variables.sh": settings.encode(),
        "library.sh": (_SCRIPTS / "library.sh").read_bytes(),
    }
    with tempfile.TemporaryDirectory(prefix="by-") as temporary:
        control = Path(temporary)
        disk = f"{directory}/ready.qcow2,if=virtio,format=qcow2,snapshot=on,cache=unsafe"
        command = [*_qemu(directory, disk, _job(control, files), control), "-incoming", f"exec:cat {directory}/state"]
        with _started(command, network) as process:
            console = _Console(process, time.monotonic() + seconds)
            try:
                _resume(_Monitor(control / "qmp"), process)
                with _connect(control / "serial") as serial:
                    serial.sendall(b"\n")
                    while True:
                        found = console.read_until(_MARK_OR_EXIT)
                        if found[1] is None:
                            return Result(console.text, int(found[2]))
                        answer = (marks or {})[found[1].decode()]()
                        serial.sendall(f"{answer if isinstance(answer, str) else ''}\n".encode())
            except GuestFailed:
                raise
            except BaseException as error:
                error.add_note(f"the guest had printed:\n{console.text}")
                raise


def _resume(monitor: _Monitor, process: subprocess.Popen[bytes]) -> None:
    """Wait until the state is loaded, and set the machine going: it was saved standing still."""
    end = time.monotonic() + 120
    while (status := monitor("query-status")["status"]) != "running":
        if process.poll() is not None or time.monotonic() > end:
            raise GuestFailed(f"the guest does not resume: {status}")
        if status in {"paused", "postmigrate"}:
            monitor("cont")
        time.sleep(0.01)
