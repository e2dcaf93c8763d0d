"""A target in the test's own process, used by programs that are not ours."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

import blockyard
from blockyard.block.device import Device
from blockyard.block.memory import MemoryDevice
from blockyard.initiator.opening import open_session
from blockyard.iscsi.names import parse_portal
from blockyard.pytest_plugin import MakeTarget
from blockyard.worker.configuration import Drive, Library

pytest_plugins = ["pytester"]


def run(*command: str, fails: bool = False) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def qemu_io(url: str, *commands: str, fails: bool = False) -> str:
    return run("qemu-io", "-f", "raw", *(part for each in commands for part in ("-c", each)), url, fails=fails)


def test_a_disk_in_memory() -> None:
    with blockyard.Target("64M") as target:
        qemu_io(target.url, "write -P 7 1M 64k", "flush", "read -P 7 1M 64k", "read -P 0 2M 64k")
        data = bytearray(4)
        target.device().preadv([memoryview(data)], 1 << 20)
        assert data == b"\7\7\7\7"
        counters = target.counters()
    assert counters["write_bytes"] == 64 << 10
    assert counters["errors"] == 0


def test_it_is_found_by_discovery() -> None:
    with blockyard.Target("8M", "9M", name="iqn.2024-01.com.example:two") as target:
        listed = run("iscsi-ls", "-s", f"iscsi://{target.portal}")
        assert "iqn.2024-01.com.example:two" in listed
        assert "Lun:1" in listed
        assert "9437184" in run("iscsi-readcapacity16", target.url_of(1))


def test_a_file_is_made_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with blockyard.Target(path, size="16M") as target:
        qemu_io(target.url, "write -P 3 0 4k")
    assert path.stat().st_size == 16 << 20
    assert path.read_bytes()[:4] == b"\3\3\3\3"
    with blockyard.Target(str(path), read_only=True) as target:
        qemu_io(target.url, "write -P 4 0 4k", fails=True)
    assert path.read_bytes()[:4] == b"\3\3\3\3"


def test_faults_on_demand() -> None:
    with blockyard.Target("stack:faults(memory(16M))") as target:
        qemu_io(target.url, "write -P 9 0 64k")
        target.act("inject", operation="write", errno="EIO", offset="1M")
        assert "Input/output error" in qemu_io(target.url, "write 1M 4k", fails=True)
        target.act("heal")
        qemu_io(target.url, "write 1M 4k", "read -P 9 0 64k")
        with pytest.raises(LookupError, match="inject"):
            target.act("explode")


class Slow(MemoryDevice):
    """One of the test's own."""

    def __init__(self) -> None:
        super().__init__(16 << 20)
        self.writes: list[int] = []

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self.writes.append(offset)
        super().pwritev(buffers, offset)


def test_a_device_of_ones_own() -> None:
    device: Device = Slow()
    assert isinstance(device, Slow)
    with blockyard.Target(device) as target:
        qemu_io(target.url, "write -P 1 8k 4k")
        assert target.device() is device
    assert 8192 in device.writes


def test_users() -> None:
    with blockyard.Target("8M", users={"tester": "a secret of 18 b"}) as target:
        refused = run("iscsi-inq", target.url, fails=True)
        assert "uth" in refused
        inside = target.url.replace("iscsi://", "iscsi://tester%a secret of 18 b@")
        assert "DIRECT_ACCESS" in run("iscsi-inq", inside)


def test_cut_connections() -> None:
    name = "iqn.2024-01.com.example:host"
    with (
        blockyard.Target("8M") as target,
        open_session(parse_portal(target.portal), target.name, initiator_name=name),
    ):
        assert target.initiators == [name]
        assert target.drop_connections() == 1
        assert target.initiators == []


def test_a_drive_and_a_library(tmp_path: Path) -> None:
    image = tmp_path / "disc.iso"
    image.write_bytes(bytes(1 << 20))
    with blockyard.Target("8M", drives=[Drive("dvd", image=str(image))]) as target:
        assert "MMC" in run("iscsi-inq", target.url_of(1))
    with blockyard.Target(library=Library("vault", str(tmp_path / "tapes"))) as target:
        assert "MEDIA_CHANGER" in run("iscsi-inq", target.url)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((), {}, ValueError, "nothing to serve"),
        (("/nowhere/at/all.img",), {}, OSError, "nowhere"),
        (("stack:nonsense(1)",), {}, ValueError, "nonsense"),
        (("8M",), {"library": Library("v", "/tmp/v")}, ValueError, "by itself"),
        (("8M",), {"users": {"x": "short"}}, ValueError, "12"),
    ],
)
def test_what_makes_no_sense(arguments: tuple[str, ...], options: dict[str, object], error: type, says: str) -> None:
    before = {*threading.enumerate()}
    with pytest.raises(error, match=says):
        blockyard.Target(*arguments, **options)  # type: ignore[arg-type]
    assert {*threading.enumerate()} <= before


def test_nothing_is_left_behind() -> None:
    blockyard.Target("8M").close()
    gc.collect()
    threads, files = {*threading.enumerate()}, len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with blockyard.Target("8M") as target:
            qemu_io(target.url, "write 0 4k", "flush")
        target.close()  # a second time does nothing
    assert {*threading.enumerate()} <= threads
    assert len(os.listdir("/proc/self/fd")) <= files


def test_two_at_a_time(blockyard_target: MakeTarget) -> None:
    one, other = blockyard_target("8M"), blockyard_target("8M")
    assert one.url != other.url
    qemu_io(one.url, "write -P 1 0 4k")
    qemu_io(other.url, "read -P 0 0 4k")


def test_the_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import subprocess

        def test_it(blockyard_target):
            target = blockyard_target("8M")
            assert b"8388608" in subprocess.run(["iscsi-readcapacity16", target.url], capture_output=True).stdout
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
