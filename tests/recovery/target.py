"""A target on a thread of this process, reached by TCP: quick to start, and with the preferences that a test wants."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

from blockyard.block.memory import MemoryDevice
from blockyard.iscsi.login import Found
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.pdu import LoginStatus
from blockyard.worker.loop import Loop, Patience
from tests.wire import TARGET, Rig

PATIENCE = Patience(login=120.0, silence=120.0, stall=240.0, tick=0.05)  # nobody is dropped for being slow
BLOCKS = 2048


class _Rig(Rig):
    def __init__(self, device: MemoryDevice, preferences: Preferences) -> None:
        super().__init__(device)
        self._preferences = preferences

    def find(self, name: str, portal: str) -> Found | LoginStatus:
        return Found(self.node, 1, self._preferences) if name == TARGET else LoginStatus.NOT_FOUND


class ServedTarget:
    """`device` is what it serves as LUN 0, `address` where."""

    def __init__(self, preferences: Preferences) -> None:
        self.device = MemoryDevice(BLOCKS * 512)
        self.rig = _Rig(self.device, preferences)
        self.loop = Loop(self.rig.executor, patience=PATIENCE)
        self.loop.on_tick = self._tick
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.setblocking(False)
        self.address: tuple[str, int] = self._server.getsockname()
        self.loop.watch(self._server.fileno(), self._accept)
        self._wake = os.eventfd(0)
        self._tasks: list[Callable[[float], None]] = []
        self.loop.watch(self._wake, self._on_wake)
        self._thread = threading.Thread(target=self.loop.run, name="target")
        self._thread.start()

    def _accept(self, _: int) -> None:
        sock, peer = self._server.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        portal, other = (f"{host}:{port}" for host, port in (self.address, peer))
        self.loop.add(sock, self.rig, portal, other)

    def _tick(self, now: float) -> None:
        self.rig.node.tick(now)

    def _on_wake(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while self._tasks:
            self._tasks.pop()(0.0)

    def _stop(self, _: float) -> None:
        self.loop.running = False

    def drop(self, cid: int) -> None:
        """Close the connection with that CID of every session there is, from the loop's thread, and wait for it."""
        done = threading.Event()

        def close(_: float) -> None:
            for link in list(self.loop.links.values()):
                if link.connection.cid == cid:
                    link.close("dropped by the test")
            done.set()

        self._tasks.append(close)
        os.eventfd_write(self._wake, 1)
        assert done.wait(120)

    def close(self) -> None:
        self._tasks.append(self._stop)
        os.eventfd_write(self._wake, 1)
        self._thread.join(120)
        assert not self._thread.is_alive()
        self.loop.close()
        self._server.close()
        os.close(self._wake)
        self.rig.close()
