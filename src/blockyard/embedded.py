"""A target in a Python program: for tests that need a disk, a tape or a drive on the network.

    with blockyard.Target("1G") as target:
        subprocess.run(["qemu-img", "info", target.url])

It lives in a thread of the process, listens on a port of its own, and leaves nothing behind. It serves what a server does, by the
same code: a worker's loop and inventory, without the processes around them. What has to survive is left to servers: reservations
and thresholds are forgotten with the target.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, TypeVar

from blockyard.block.actions import unwatched
from blockyard.block.device import Device
from blockyard.block.file import create
from blockyard.block.formats import RAW
from blockyard.block.size import Size, parse_size
from blockyard.initiator.url import TargetUrl
from blockyard.iscsi.access import Right, Rule
from blockyard.iscsi.directory import portal_of
from blockyard.iscsi.login import Found, Moved, TargetLogin
from blockyard.iscsi.names import parse_portal
from blockyard.iscsi.pdu import LoginStatus
from blockyard.scsi.unit import LogicalUnit
from blockyard.worker.admission import WorkerAdmission
from blockyard.worker.configuration import Drive, Library, PortalGroup, Settled, Volume
from blockyard.worker.configuration import Target as TargetConfiguration
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.layer_requests import action_options, layer_with
from blockyard.worker.loop import Loop
from blockyard.worker.opening import Opener, current
from blockyard.worker.pools import OpenPool

T = TypeVar("T")
Disk = Device | Path | str

_NAME = "iqn.2024-01.org.blockyard:test"
_GRACE = 10.0  # seconds that the loop has to end


class Target:
    """An iSCSI target with `disks` as LUN 0, 1, …; it serves until `close`, or as long as a `with` block lasts.

    A disk is a size ("1G": in memory), the path of a file or block device (made sparse when it is missing and `size` is given), a
    stack of layers ("stack:faults(memory(1G))"), or any Device of your own. `library` and `drives` are configurations of a tape
    library and of optical drives (worker/configuration.py); drives come after the disks, a library is a target by itself.

    `users` are CHAP names with their secrets, of 12 bytes at least; with any, nobody logs in without one of them. Raises OSError
    for what cannot be opened, ValueError for what makes no sense.
    """

    def __init__(
        self,
        *disks: Disk,
        size: str | int | None = None,
        format: str = RAW,
        block_size: int = 512,
        read_only: bool = False,
        name: str = _NAME,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Mapping[str, str] | None = None,
        drives: Sequence[Drive] = (),
        library: Library | None = None,
    ) -> None:
        if library is not None and (disks or drives):
            raise ValueError("a tape library is a target by itself: disks and drives need another one")
        if not (disks or drives or library):
            raise ValueError("there is nothing to serve: name a disk, for example Target('1G')")
        self.name = name
        self._directory = Path(tempfile.mkdtemp(prefix="blockyard-"))
        self._closed = False
        self._executor = ThreadExecutor()
        self._loop = Loop(self._executor)
        self._admission = WorkerAdmission(self._executor, lambda message: None)
        self._inventory = _Inventory(self._executor, self._admission)
        self._listening = socket.create_server((host, port), backlog=128)
        try:
            self.portal = portal_of(self._listening.getsockname()).written
            volumes = [
                self._volume(number, disk, size, format, block_size, read_only) for number, disk in enumerate(disks)
            ]
            settled = self._settled({each.name: each for each in volumes}, drives, library, users or {})
            self._admission.take_accounts(_accounts(users or {}))
            self._inventory.begin(settled)
        except BaseException:
            self._let_go()
            raise
        self._luns = settled.targets[name].luns
        self._listening.setblocking(False)
        self._loop.watch(self._listening.fileno(), lambda mask: self._accept())
        self._loop.on_tick = self._tick
        self._calls: list[Callable[[], None]] = []
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._loop.watch(self._alarm, lambda mask: self._called())
        self._thread = threading.Thread(target=self._loop.run, name=f"target {name}", daemon=True)
        self._thread.start()

    # ---- for whoever has it

    @property
    def url(self) -> str:
        """Of LUN 0, as QEMU and libiscsi write it."""
        return self.url_of(0)

    def url_of(self, lun: int) -> str:
        """Of any logical unit."""
        return str(TargetUrl(parse_portal(self.portal), self.name, lun))

    def device(self, lun: int = 0) -> Device:
        """What a logical unit of a disk keeps its bytes in: to look at it, or to change it behind its initiators' backs."""
        return current(self._unit(lun))

    def counters(self, lun: int = 0) -> dict[str, int]:
        """What a disk has done: read_ops, read_bytes, write_ops, write_bytes, other_ops, errors."""
        return self._call(self._unit(lun).counters.as_dict)

    def act(self, action: str, *, lun: int = 0, layer: str = "", **options: object) -> str:
        """Have a layer of a stack do something: `act("inject", operation="read", errno="EIO", count=1)` for one of faults.

        What there is: `blockyard layer kinds`. Raises LookupError or ValueError for what there is not, OSError for what fails.
        """
        able = layer_with(self.device(lun), layer, action)
        found = able.actions()[action]
        return found.run(action_options(found, options), unwatched)

    @property
    def initiators(self) -> list[str]:
        """The names of those who are logged in."""
        return self._call(lambda: sorted({session.initiator for session in self._sessions()}))

    def drop_connections(self) -> int:
        """Cut all connections at once, as a cable does; how many there were."""

        def cut() -> int:
            links = list(self._loop.links.values())
            for link in links:
                link.close("cut")
            return len(links)

        return self._call(cut)

    def close(self) -> None:
        """Cut what is connected, flush, and let go of everything. What was made for this target alone is removed."""
        if self._closed:
            return
        self._closed = True
        self._call(self._end)
        self._thread.join(_GRACE)
        self._loop.close()
        self._executor.close()
        os.close(self._alarm)
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- what connections ask (iscsi.connection.Service)

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        admission = self._admission
        return TargetLogin(
            self, portal, peer=peer, attach=attach, authenticator=admission.authenticator, ended=admission.ended
        )

    def find(self, name: str, portal: str) -> Found | Moved | LoginStatus:
        return self._inventory.targets.find(name, portal)

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        return self._inventory.targets.send_targets(name, portal)

    # ---- making it

    def _volume(
        self, number: int, disk: Disk, size: str | int | None, format: str, block_size: int, read_only: bool
    ) -> Volume:
        name = f"disk{number}"
        identity = str(uuid.uuid4())
        common: dict[str, Any] = {"uuid": identity, "block_size": block_size, "read_only": read_only}
        if isinstance(disk, Device):
            self._inventory.given[name] = disk
            return Volume(name, path=f"<{type(disk).__name__}>", size=Size(disk.size), **common)
        text = str(disk)
        if text.startswith("stack:"):
            return Volume(name, stack=text.removeprefix("stack:"), **common)
        if isinstance(disk, str) and _is_size(disk):
            return Volume(name, stack=f"memory({disk})", **common)
        if size is not None and not os.path.exists(text):
            create(text, size if isinstance(size, int) else parse_size(size))
        return Volume(name, path=os.path.abspath(text), format=format, **common)

    def _settled(
        self, volumes: dict[str, Volume], drives: Sequence[Drive], library: Library | None, users: Mapping[str, str]
    ) -> Settled:
        named = {drive.name: replace(drive, uuid=drive.uuid or str(uuid.uuid4())) for drive in drives}
        rules = (Rule(Right.FULL, users=tuple(users)),) if users else ()
        target = TargetConfiguration(
            self.name,
            luns=dict(enumerate([*volumes, *named])),
            access=rules,
            library="" if library is None else library.name,
        )
        return Settled(
            portal_groups={1: PortalGroup((self.portal,))},
            volumes=volumes,
            drives=named,
            libraries={} if library is None else {library.name: library},
            targets={target.name: target},
            relative_ports={target.name: {1: 1}},
            units_directory=str(self._directory),
        )

    # ---- in the loop's thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # who has gone again
            sock, peer = self._listening.accept()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._loop.add(sock, self, self.portal, portal_of(peer).written)

    def _tick(self, now: float) -> None:
        for node in list(self._inventory.targets.nodes.values()):
            node.tick(now)
        self._inventory.tokens.expire()

    def _end(self) -> None:
        for link in list(self._loop.links.values()):
            link.close("the target ends")
        self._loop.running = False

    def _sessions(self) -> Collection[Any]:
        return [session for node in self._inventory.targets.nodes.values() for session in node.sessions.values()]

    def _unit(self, lun: int) -> LogicalUnit:
        name = self._luns.get(lun, "")
        if name not in self._inventory.units:
            raise LookupError(f"LUN {lun} is no disk: there are {', '.join(map(str, self._luns))}")
        return self._inventory.units[name]

    def _call(self, function: Callable[[], T]) -> T:
        """The result of a function that the loop's thread calls."""
        done = threading.Event()
        found: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                found.append(function())
            except BaseException as error:  # it is whoever asked who is to see it
                failed.append(error)
            done.set()

        self._calls.append(run)
        os.eventfd_write(self._alarm, 1)
        if not done.wait(_GRACE):
            raise TimeoutError(f"the target {self.name} does not answer")
        if failed:
            raise failed[0]
        return found[0]

    def _called(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._alarm)
        while self._calls:
            self._calls.pop(0)()

    def _let_go(self) -> None:
        self._listening.close()
        self._inventory.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class _Inventory(Inventory):
    """One that has devices from elsewhere, too."""

    def __init__(self, executor: ThreadExecutor, admission: WorkerAdmission) -> None:
        super().__init__(executor, admission)
        self.given: dict[str, Device] = {}
        self.opener = _Opener(executor, self.given)


class _Opener(Opener):
    """Opens what is given under its name, and all else as usual."""

    def __init__(self, executor: ThreadExecutor, given: Mapping[str, Device]) -> None:
        super().__init__(executor)
        self._given = given

    def device(self, volume: Volume, pools: Mapping[str, OpenPool], keep: Path | None) -> Device:
        return self._given.get(volume.name) or super().device(volume, pools, keep)


def _is_size(text: str) -> bool:
    try:
        parse_size(text)
    except ValueError:
        return False
    return True


def _accounts(users: Mapping[str, str]) -> Message:
    rows = [
        {"name": name, "secret": base64.b64encode(secret.encode()).decode(), "target_name": "", "target_secret": None}
        for name, secret in users.items()
    ]
    return {"users": rows, "groups": {}, "final": True}
