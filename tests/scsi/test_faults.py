"""What initiators are told when the device below fails."""

from __future__ import annotations

import errno

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import (
    Host,
    compare_and_write,
    disk,
    read_10,
    start_stop,
    synchronize_cache_16,
    unmap,
    unmap_list,
    verify_16,
    write_10,
    write_same_16,
)

_READ = (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
_WRITE = (SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR)
_SPACE = (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)
_PROTECTED = (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)


def faulty(*faults: Fault) -> Host:
    return disk(FaultDevice(MemoryDevice(1 << 20), faults))


@pytest.mark.parametrize(
    ("cdb", "data", "operation", "number", "expected"),
    [
        (read_10(8, 8), b"", Operation.READ, errno.EIO, _READ),
        (read_10(8, 8, 0x08), b"", Operation.FLUSH, errno.EIO, _WRITE),
        (verify_16(8, 8, 0), b"", Operation.READ, errno.EIO, _READ),
        (verify_16(8, 8, 1), bytes(4096), Operation.READ, errno.EIO, _READ),
        (write_10(8, 8), bytes(4096), Operation.WRITE, errno.EIO, _WRITE),
        (write_10(8, 8), bytes(4096), Operation.WRITE, errno.ENOSPC, _SPACE),
        (write_10(8, 8), bytes(4096), Operation.WRITE, errno.EROFS, _PROTECTED),
        (write_10(8, 8), bytes(4000), Operation.READ, errno.EIO, _READ),
        (write_10(8, 8, 0x08), bytes(4096), Operation.FLUSH, errno.EIO, _WRITE),
        (write_10(8, 8, 0x08), bytes(4096), Operation.FLUSH, errno.ENOSPC, _SPACE),
        (compare_and_write(8, 1), bytes(1024), Operation.READ, errno.EIO, _READ),
        (compare_and_write(8, 1), bytes(1024), Operation.WRITE, errno.EIO, _WRITE),
        (synchronize_cache_16(), b"", Operation.FLUSH, errno.EIO, _WRITE),
        (start_stop(0), b"", Operation.FLUSH, errno.EIO, _WRITE),
        (unmap(24), unmap_list((8, 8)), Operation.DISCARD, errno.EIO, _WRITE),
        (write_same_16(8, 8, unmap=True), bytes(512), Operation.DISCARD, errno.EIO, _WRITE),
        (write_same_16(8, 8), bytes(512), Operation.DISCARD, errno.ENOSPC, _SPACE),
        (write_same_16(8, 8), b"x" * 512, Operation.WRITE, errno.ENOSPC, _SPACE),
        (bytes([0x2E, 0, 0, 0, 0, 8, 0, 0, 8, 0]), bytes(4096), Operation.READ, errno.EIO, _READ),
    ],
)
def test_sense(cdb: bytes, data: bytes, operation: Operation, number: int, expected: tuple[SenseKey, Asc]) -> None:
    fault = Fault(operation, offset=4096, length=4096, errno=number)
    host = faulty(fault)
    host.fail(cdb, *expected, data)
    assert fault.hits >= 1
    device = host.disk.device
    assert isinstance(device, FaultDevice)
    device.heal()
    host.ok(cdb, data)


def test_other_ranges_are_sound() -> None:
    host = faulty(Fault(Operation.READ, offset=4096, length=512, errno=errno.EIO))
    host.ok(read_10(0, 8))
    host.ok(read_10(9, 8))
    host.fail(read_10(7, 2), *_READ)


def test_a_failed_stop_does_not_stop() -> None:
    host = faulty(Fault(Operation.FLUSH, errno=errno.EIO, count=1))
    host.fail(start_stop(0), *_WRITE)
    host.ok(read_10(0, 1))


def test_failures_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    host = faulty(Fault(Operation.WRITE, errno=errno.ENOSPC))
    for _ in range(5):
        host.fail(write_10(0, 1), *_SPACE, bytes(512))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "disk: WRITE (10) of iqn.test:host" in caplog.text
    assert "No space left" in caplog.text
    assert host.unit.counters.errors == 5
