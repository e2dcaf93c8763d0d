"""What an access right means to a logical unit: read-only nexuses, and sessions whose writes nobody else sees."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.block.overlay import Budget, OverlayDevice
from blockyard.scsi.device_server import AbsentUnit
from blockyard.scsi.lun import encode_lun
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import LunMap, Target
from blockyard.scsi.task import Result, Status
from blockyard.scsi.unit import Identity, LogicalUnit
from blockyard.scsi.virtual import VirtualLunMap, VirtualUnit
from tests.scsi.host import NAME, UUID_1, Host, inquiry, mode_sense_6, read_16, write_16

BLOCKS = 256
BASE = bytes(n % 251 for n in range(BLOCKS * 512))
WP = 0x80


class _NoThreads:
    def submit(self, job: Callable[[], Result], done: Callable[[Result], None]) -> None:
        done(job())


@pytest.fixture
def target() -> Target:
    devices = [MemoryDevice(len(BASE)) for _ in range(2)]
    for device in devices:
        device.pwritev([BASE], 0)
    units = {lun: LogicalUnit(device, identity=Identity(UUID_1, f"disk-{lun}")) for lun, device in enumerate(devices)}
    return Target(NAME, units)


def ready(host: Host) -> Host:
    host.nexus.take_attention()
    return host


def virtual(target: Target, directory: Path | None = None, *, limit: int = 1 << 20) -> VirtualLunMap:
    def cover(device: Device) -> Device:
        return OverlayDevice(device, directory=directory, budget=Budget(limit))

    return VirtualLunMap(target.luns, cover, _NoThreads())


# ---- read only


def test_a_read_only_nexus_reads_and_does_not_write(target: Target) -> None:
    reader, writer = ready(Host(target, read_only=True)), ready(Host(target, initiator="iqn.test:writer"))
    assert reader.read(0, 8) == BASE[: 8 * 512]
    reader.fail(write_16(0, 1), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(512))
    writer.write(0, b"w" * 512)
    assert reader.read(0, 1) == b"w" * 512
    assert reader.ok(mode_sense_6(0x3F))[2] & WP
    assert not writer.ok(mode_sense_6(0x3F))[2] & WP
    assert reader.nexus.gate is None  # its reads take the short cut


REFUSED = {
    "MODE SELECT (6)": "151000000400",
    "START STOP UNIT": "1b0000000000",
    "RESERVE (6)": "160000000000",
    "UNMAP": "42000000000000000800",
    "PERSISTENT RESERVE OUT: RESERVE": "5f010300000000001800",
    "WRITE SAME (16)": "93080000000000000000000000010000",
    "COMPARE AND WRITE": "89000000000000000000000000010000",
}
PERMITTED = {
    "TEST UNIT READY": "000000000000",
    "READ CAPACITY (10)": "25000000000000000000",
    "SYNCHRONIZE CACHE (10)": "35000000000000000000",
    "START STOP UNIT with START": "1b0000000100",
    "PERSISTENT RESERVE IN: READ KEYS": "5e000000000000000800",
}


@pytest.mark.parametrize("cdb", REFUSED.values(), ids=REFUSED)
def test_a_read_only_nexus_changes_nothing_for_others(cdb: str, target: Target) -> None:
    host = ready(Host(target, read_only=True))
    host.fail(bytes.fromhex(cdb), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, bytes(4096))


@pytest.mark.parametrize("cdb", PERMITTED.values(), ids=PERMITTED)
def test_a_read_only_nexus_may_do_what_is_harmless(cdb: str, target: Target) -> None:
    ready(Host(target, read_only=True)).ok(bytes.fromhex(cdb))


# ---- virtual write


def test_virtual_writers_see_what_they_have_written_and_nobody_else_does(target: Target) -> None:
    one, other = (ready(Host(target, initiator=f"iqn.test:{n}", luns=virtual(target))) for n in range(2))
    real = ready(Host(target))
    one.write(8, b"1" * 4096)
    other.write(8, b"2" * 512)
    assert one.read(8, 8) == b"1" * 4096
    assert other.read(8, 8) == b"2" * 512 + BASE[9 * 512 : 16 * 512]
    assert real.read(0, BLOCKS) == BASE
    real.write(0, b"r" * 512)
    assert one.read(0, 1) == b"r" * 512  # what nobody has written there shows through


def test_a_covered_unit_looks_like_its_base(target: Target) -> None:
    one, real = ready(Host(target, luns=virtual(target))), ready(Host(target))
    assert isinstance(one.unit, VirtualUnit)
    for cdb in (
        inquiry(),
        inquiry(0x80),
        inquiry(0x83),
        inquiry(0xB0),
        inquiry(0xB2),
        bytes.fromhex("9e10" + "00" * 11 + "20"),
    ):
        assert one.ok(cdb) == real.ok(cdb)


def test_everything_is_gone_with_the_session(target: Target, tmp_path: Path) -> None:
    luns = virtual(target, tmp_path)
    host = ready(Host(target, luns=luns))
    host.write(0, b"x" * 4096)
    assert list(tmp_path.iterdir()) == []
    host.unit.detach(host.nexus)
    luns.close()
    assert target.luns.units[0].nexuses == ()
    again = ready(Host(target, luns=virtual(target)))
    assert again.read(0, 8) == BASE[:4096]
    host.fail(read_16(0, 8), SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)  # one that was late finds nothing


def test_only_units_that_are_used_are_covered(target: Target) -> None:
    luns = virtual(target)
    assert luns.inventory() == target.luns.inventory() == [encode_lun(0), encode_lun(1)]
    assert luns.unit(encode_lun(1)) is luns.unit(encode_lun(1)) is luns.units[1]
    assert isinstance(luns.unit(encode_lun(7)), AbsentUnit)


def test_a_reset_of_the_target_concerns_what_was_used(target: Target) -> None:
    luns = virtual(target)
    assert list(luns.resettable()) == []
    used = luns.unit(encode_lun(1))
    assert list(luns.resettable()) == [used]
    assert list(target.luns.resettable()) == list(target.luns.units.values())


def test_a_unit_that_cannot_be_covered_is_not_there(target: Target, tmp_path: Path) -> None:
    host = Host(target, luns=virtual(target, tmp_path / "nowhere"))
    assert isinstance(host.unit, AbsentUnit)
    host.fail(read_16(0, 1), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_UNIT_NOT_SUPPORTED)


def test_a_full_overlay_is_out_of_space(target: Target) -> None:
    host = ready(Host(target, luns=virtual(target, limit=8192)))
    host.write(0, bytes(8192))
    host.fail(write_16(16, 8), SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT, bytes(4096))
    host.ok(bytes.fromhex("93080000000000000000000000080000"), bytes(512))  # WRITE SAME with UNMAP gives some back
    host.write(16, bytes(4096))


def register(host: Host, key: int) -> None:
    host.ok(bytes.fromhex("5f000000000000001800"), bytes(8) + key.to_bytes(8, "big") + bytes(8))


def reserve(host: Host, key: int, kind: int) -> None:
    host.ok(bytes([0x5F, 1, kind, 0, 0, 0, 0, 0, 24, 0]), key.to_bytes(8, "big") + bytes(16))


def test_reservations_of_the_base_hold_and_those_of_the_overlay_bind_nobody(target: Target) -> None:
    writer = ready(Host(target, luns=virtual(target)))
    real = ready(Host(target, initiator="iqn.test:real"))
    register(writer, 1)
    reserve(writer, 1, 3)  # exclusive access
    real.write(0, b"r" * 512)
    register(real, 2)
    reserve(real, 2, 1)  # write exclusive
    assert writer.send(write_16(0, 1), bytes(512)).status == Status.RESERVATION_CONFLICT
    assert writer.read(0, 1) == b"r" * 512
    real.ok(bytes([0x5F, 2, 1, 0, 0, 0, 0, 0, 24, 0]), (2).to_bytes(8, "big") + bytes(16))
    writer.write(0, bytes(512))


def test_a_reset_of_the_overlay_leaves_the_base_alone(target: Target) -> None:
    writer, real = ready(Host(target, luns=virtual(target))), ready(Host(target, initiator="iqn.test:real"))
    real.ok(bytes.fromhex("160000000000"))
    writer.unit.reset()
    assert real.nexus.gate is None
    assert ready(writer).send(read_16(0, 1)).status == Status.RESERVATION_CONFLICT


def test_a_covered_unit_grows_with_its_base(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    create(path, 1 << 20)
    unit = LogicalUnit(device := FileDevice(path), identity=Identity(UUID_1, "disk"))
    target = Target(NAME, {0: unit})
    writer = ready(Host(target, luns=virtual(target)))
    os.truncate(path, 2 << 20)
    device.refresh()
    unit.capacity_changed()
    writer.fail(read_16(4000, 8), SenseKey.UNIT_ATTENTION, Asc.CAPACITY_DATA_HAS_CHANGED)
    writer.write(4000, b"x" * 4096)
    assert writer.read(4000, 96) == b"x" * 4096 + bytes(88 * 512)
    device.close()


def test_news_of_the_target_reach_virtual_writers(target: Target) -> None:
    writer, other = ready(Host(target, luns=virtual(target))), ready(Host(target, luns=LunMap(target.luns.units)))
    target.luns.luns_changed()
    attention = writer.nexus.take_attention()
    assert attention is not None
    assert attention.asc == Asc.REPORTED_LUNS_DATA_HAS_CHANGED
    assert other.nexus.take_attention() is None
