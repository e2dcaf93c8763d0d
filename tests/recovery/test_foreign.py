"""Other people's initiators behind the proxy: at level 0 their sessions come back, and the data is right."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
from pathlib import Path

import pytest

from blockyard.iscsi.pdu import NopIn, NopOut
from tests.conftest import TargetFactory, need, run
from tests.guest.conftest import Guest, guest, network  # noqa: F401  (fixtures)
from tests.guest.network import HOST, Network
from tests.recovery.proxy import Act, Proxy, Seen, Way, harmful, once
from tests.serving import IQN, Serving

PATTERNS = ("-c", "write -P 0xa1 0 64k", "-c", "write -P 0xb2 1M 1M", "-c", "flush", "-c", "read -P 0xa1 0 64k", "-c",
            "read -P 0xb2 1M 1M", "-c", "read -P 0 64k 64k")  # fmt: skip


def address(serving: Serving) -> tuple[str, int]:
    host, port = serving.portals[0].rsplit(":", 1)
    return host, int(port)


def qemu_io(proxy: Proxy) -> None:
    """QEMU's block layer over libiscsi, with header digests."""
    where = f"driver=iscsi,transport=tcp,portal=127.0.0.1:{proxy.port},target={IQN},lun=0,header-digest=crc32c"
    output = run([need("qemu-io", "qemu-utils qemu-block-extra"), *PATTERNS, "--image-opts", where]).stdout
    assert "verification failed" not in output, output
    assert output.count("ops; ") == 5, output


@pytest.fixture
def serving(target: TargetFactory) -> Serving:
    return target("disk.img", size="16M")


def undisturbed(serving: Serving) -> list[Seen]:
    """The PDUs of a run without harm, and without pings, which come only where a machine takes its time."""
    for _ in range(20):
        with Proxy(address(serving), lambda seen: Act.PASS, digests=(True, False)) as proxy:
            qemu_io(proxy)
        if not any(isinstance(each.pdu, NopIn | NopOut) for each in proxy.seen):
            return proxy.seen
    pytest.fail("there is no run without pings")


def test_qemu_comes_back_after_every_kind_of_harm(serving: Serving, tmp_path: Path) -> None:
    seen = undisturbed(serving)
    reading = [each.place for each in seen if each.place.way is Way.TO_INITIATOR]
    writing = [each.place for each in seen if each.place.way is Way.TO_TARGET]
    for act in (Act.CUT, Act.TRUNCATE, Act.DAMAGE_HEADER, Act.DAMAGE_HEADER_DIGEST):
        for place in (*writing[8:-1:5], *reading[8:-1:5]):
            with Proxy(address(serving), once(place, act), digests=(True, False)) as proxy:
                qemu_io(proxy)
            assert proxy.harmed
            assert proxy.accepted > 1
    content = (tmp_path / "disk.img").read_bytes()
    assert content[: 64 << 10] == b"\xa1" * (64 << 10)
    assert content[1 << 20 : 2 << 20] == b"\xb2" * (1 << 20)


def listen_inside(network: Network) -> socket.socket:  # noqa: F811
    """A socket that listens in the guest's network; what it accepts can be carried on from here."""
    made: list[socket.socket] = []

    def make() -> None:  # a thread has a namespace of its own (setns(2))
        fd = os.open(f"/run/netns/{network.name}", os.O_RDONLY)
        if ctypes.CDLL(None, use_errno=True).setns(fd, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(fd)
        made.append(socket.create_server((HOST[0], 3260)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join(120)
    return made[0]


class Harm:
    """One act after the other, with so many PDUs in between, once it has begun."""

    ACTS = (
        (Way.TO_TARGET, Act.CUT), (Way.TO_INITIATOR, Act.DAMAGE_DATA), (Way.TO_TARGET, Act.DAMAGE_DATA),
        (Way.TO_INITIATOR, Act.TRUNCATE), (Way.TO_TARGET, Act.DAMAGE_HEADER), (Way.TO_INITIATOR, Act.DAMAGE_HEADER),
    )  # fmt: skip

    def __init__(self, pause: int) -> None:
        self.active = False
        self._pause = pause
        self._passed = 0
        self._left = list(self.ACTS)

    def __call__(self, seen: Seen) -> Act:
        self._passed += self.active
        if not self._left or self._passed < self._pause:
            return Act.PASS
        way, act = self._left[0]
        if seen.place.way is not way or not harmful(seen, act):
            return Act.PASS
        self._left.pop(0)
        self._passed = 0
        return act


def test_linux_comes_back_after_every_kind_of_harm(serving: Serving, network: Network, guest: Guest) -> None:  # noqa: F811
    harm = Harm(pause=60)

    def begin() -> None:
        harm.active = True

    def end() -> None:
        harm.active = False

    def loaded() -> str:
        return "enough" if len(proxy.harmed) == len(Harm.ACTS) else "more"

    server = listen_inside(network)
    with Proxy(address(serving), harm, digests=(True, True), server=server) as proxy:
        guest("harm.sh", marks={"begin": begin, "loaded": loaded, "end": end})
    assert [act for _, act in proxy.harmed] == [act for _, act in Harm.ACTS]
    assert proxy.accepted >= 5
