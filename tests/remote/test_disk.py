"""Another target's logical unit as a layer: tgtd's and our own."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.targets import Istgt

from blockyard.block import keeper
from blockyard.block.building import open_stack, tree
from blockyard.block.layers import Opening
from tests.block.disks import SECTOR
from tests.block.nbd.test_lost import opened, reads, writes
from tests.block.usage import PART, check, use, use_by_many
from tests.conftest import TargetFactory, need, run
from tests.initiator.conftest import Tgtd
from tests.serving import Serving
from tests.waiting import eventually

Events = queue.Queue[tuple[str, str]]


@pytest.fixture
def tgtd(tmp_path: Path) -> Iterator[Tgtd]:
    target = Tgtd(tmp_path)
    yield target
    target.stop()


@pytest.fixture
def events() -> Events:
    return queue.Queue()


def opening(events: Events) -> Opening:
    return Opening(notify=lambda severity, what, text: events.put((severity, what)))


def test_a_disk_of_tgtd(tgtd: Tgtd) -> None:
    device = open_stack(f"iscsi({tgtd.url()})")
    assert device.size == 64 << 20
    model = use(device, 1, rounds=40)
    check(device, model)
    assert tree(device)["health"] == "ok"
    device.close()
    assert tgtd.image.read_bytes()[:PART] == model


def test_a_disk_of_istgt(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("xb") as file:
        file.truncate(64 << 20)
    target = Istgt(image, tmp_path)
    try:
        device = open_stack(f"iscsi({target.url})")
        model = use(device, 1, rounds=40)
        check(device, model)
        device.close()
    finally:
        target.stop()
    assert image.read_bytes()[:PART] == model


@pytest.mark.parametrize("block_size", [512, 4096])
def test_a_thin_disk_of_our_own(block_size: int, target: TargetFactory, tmp_path: Path) -> None:
    serving = target("disk.img", size="64M", options=["--block-size", str(block_size)])
    device = open_stack(f"iscsi({serving.url()}, connections=2)")
    assert device.granularity
    model = use(device, 1, rounds=40)  # also less than a block
    check(device, model)
    device.discard(0, 4 << 20)
    device.flush()
    assert not any(part.mapped for part in device.runs(0, 4 << 20))
    device.close()
    assert (tmp_path / "disk.img").stat().st_blocks * 512 < PART


def test_many_threads(tgtd: Tgtd) -> None:
    device = open_stack(f"iscsi({tgtd.url()})")
    use_by_many(device)
    device.close()


def test_chap_by_a_secret_or_a_file(tgtd: Tgtd, tmp_path: Path) -> None:
    secret = b"a secret of 16 b"
    url = tgtd.require_chap("vm", secret, "target", b"another secret!!").replace("iscsi://", "iscsi://vm@")
    known = Opening(secret={"chap": secret}.__getitem__)
    device = open_stack(f"iscsi({url}, chap=[MD5], secret=chap)", known)
    device.close()
    path = tmp_path / "secret"
    path.write_bytes(secret + b"\n")
    path.chmod(0o644)
    with pytest.raises(OSError, match="chmod 600"):
        open_stack(f"iscsi({url}, chap=[MD5], secret_file={path})")
    path.chmod(0o600)
    open_stack(f"iscsi({url}, chap=[MD5], secret_file={path})").close()
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"another secret!!")
    theirs.chmod(0o600)
    mutual = f"iscsi({url}, chap=[MD5], secret_file={path}, target_user=target, target_secret_file={theirs})"
    open_stack(mutual).close()
    theirs.write_bytes(b"one more secret!")
    with pytest.raises(OSError, match="does not prove who it is"):
        open_stack(mutual)
    path.write_bytes(b"not the secret of anyone")
    with pytest.raises(OSError, match="authentication"):
        open_stack(f"iscsi({url}, chap=[MD5], secret_file={path})")
    with pytest.raises(ValueError, match="secret"):
        open_stack(f"iscsi({url})")


def test_a_target_that_is_killed(target: TargetFactory, events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = target("disk.img", size="16M")
    monkeypatch.setattr(keeper, "PATIENCE", 120.0)
    device = open_stack(f"iscsi({serving.url()}, timeout=120)", opening(events))
    model, chance = bytearray(PART), random.Random(3)
    for _ in range(30):
        length = chance.choice((1, 8, 100)) * SECTOR
        at = chance.randrange((PART - length) // SECTOR) * SECTOR
        data = chance.randbytes(length)
        device.pwritev([data], at)
        model[at : at + length] = data
    serving.kill()
    serving.restart()
    assert events.get(timeout=120) == ("error", "server-lost")
    assert events.get(timeout=120) == ("info", "server-back")
    found = bytearray(PART)
    device.preadv([memoryview(found)], 0)
    assert found == model
    device.close()


def test_a_target_that_hangs_and_one_that_is_gone(target: TargetFactory, events: Events) -> None:
    serving = target("disk.img", size="16M")
    device = opened(f"iscsi({serving.url()}, timeout=1)", events)
    eventually(lambda: writes(device, b"a"))
    buffer = memoryview(bytearray(SECTOR))
    stopped = [serving.process.pid, *serving.workers]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="cannot be reached") as refused:
                device.preadv([buffer], 0)
            assert refused.value.errno == errno.ENOTCONN
        assert tree(device)["health"] == "failed"
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert events.get(timeout=120) == ("error", "server-lost")
    assert events.get(timeout=120) == ("info", "server-back")
    eventually(lambda: reads(device) == b"a" * SECTOR)
    with contextlib.suppress(OSError):
        device.close()


def test_another_disk_in_its_place_is_not_taken(
    target: TargetFactory, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PATIENCE", 0.5)
    serving = target("disk.img", size="16M")
    device = open_stack(f"iscsi({serving.url()}, timeout=120)", opening(events))
    serving.kill()
    (tmp_path / "disk.img").rename(tmp_path / "old.img")
    serving.restart()
    eventually(lambda: "another disk is there now" in str(device.report()["text"]))
    with pytest.raises(OSError, match="cannot be reached"):
        device.preadv([memoryview(bytearray(SECTOR))], 0)
    device.close()


def qemu_io(serving: Serving, *commands: str) -> None:
    words = [word for command in commands for word in ("-c", command)]
    output = run([need("qemu-io", "qemu-utils qemu-block-extra"), "-f", "raw", *words, serving.url()]).stdout
    assert "Pattern verification failed" not in output, output


def test_qemu_uses_a_disk_of_tgtd_through_us(tgtd: Tgtd, target: TargetFactory) -> None:
    serving = target(f"stack:iscsi({tgtd.url()})", size=None)
    qemu_io(serving, "write -P 0x11 0 1M", "write -P 0x22 5M 64k", "write -z 512k 64k", "flush", "read -P 0x11 0 512k")
    qemu_io(serving, "read -P 0 512k 64k", "read -P 0x22 5M 64k")
    serving.stop()
    assert tgtd.image.read_bytes()[5 << 20 : (5 << 20) + 65536] == b"\x22" * 65536
