"""Which of several conditions a command ends with (SAM-5, status precedence; SPC-5, order of checks)."""

from __future__ import annotations

import struct

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc
from blockyard.scsi.task import Attribute, Result, Status, Task
from blockyard.scsi.taskset import TaskSet
from tests.scsi.host import Host, parse_sense, ready_host, start_stop, target
from tests.scsi.test_taskset import Pool

BAD = struct.pack(">BBIxHx", 0x28, 0x00, 1 << 31, 1)  # beyond the medium

# From the first to the last: what it is, and what a command ends with because of it
ORDER: list[tuple[str, Status | Asc]] = [
    ("ACA of another nexus", Status.BUSY),
    ("unit attention", Asc.CAPACITY_DATA_HAS_CHANGED),
    ("reservation", Status.RESERVATION_CONFLICT),
    ("reserved bit", Asc.INVALID_FIELD_IN_CDB),
    ("stopped", Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED),
    ("beyond the medium", Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
]


def _send(host: Host, cdb: bytes, attribute: int = Attribute.SIMPLE) -> Result:
    """A command that ends at once, or does not matter."""
    task = Task(host.nexus, cdb.ljust(16, b"\0"), attribute=attribute, read_length=512)
    result = host.unit.begin(task)
    assert host.unit.tasks is not None
    host.unit.tasks.end(task, result)
    return result or Result()


@pytest.mark.parametrize("first", range(len(ORDER)))
@pytest.mark.parametrize("second", range(len(ORDER)))
def test_precedence(first: int, second: int) -> None:
    if first > second:
        first, second = second, first
    over = target(MemoryDevice(1 << 20))
    host, other = ready_host(over), ready_host(over, initiator="iqn.test:other")
    names = {ORDER[first][0], ORDER[second][0]}
    if "stopped" in names:
        other.ok(start_stop(0))
    if "reservation" in names:
        other.ok(bytes([0x16, 0, 0, 0, 0, 0]))
    host.disk.tasks = TaskSet(host.disk, Pool())
    if "ACA of another nexus" in names:
        assert _send(other, BAD[:9] + b"\x04").status == Status.CHECK_CONDITION
    if "unit attention" in names:
        host.nexus.establish(Asc.CAPACITY_DATA_HAS_CHANGED)
    cdb = bytearray(BAD if "beyond the medium" in names else struct.pack(">BBIxHx", 0x28, 0, 0, 1))
    if "reserved bit" in names:
        cdb[9] |= 0x01
    result = _send(host, bytes(cdb))
    expected = ORDER[first][1]
    if isinstance(expected, Status):
        assert result.status == expected
    else:
        assert parse_sense(result.sense).asc == expected
