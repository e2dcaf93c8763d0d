"""A host without a transport: it makes tasks from CDBs and has a logical unit carry them out."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.cdb import Command
from blockyard.scsi.lun import encode_lun
from blockyard.scsi.nexus import Nexus, target_port
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import LunMap, Target
from blockyard.scsi.task import VARIABLE_LENGTH, Result, Status, Task
from blockyard.scsi.unit import Identity, LogicalUnit

UUID_1 = UUID("12345678-9abc-4def-8123-456789abcdef")
NAME = "iqn.2024-01.test:disk"
PORT = target_port(NAME, 1)


class Sense(NamedTuple):
    """Sense data taken apart; `pointer` is (in CDB, byte, bit or None)."""

    key: int
    asc: int
    information: int | None
    pointer: tuple[bool, int, int | None] | None
    descriptor: bool


def parse_sense(data: bytes) -> Sense:
    if data[0] & 0x7F == 0x70:
        assert len(data) == 18
        assert data[7] == 10
        information = int.from_bytes(data[3:7], "big") if data[0] & 0x80 else None
        return Sense(data[2], int.from_bytes(data[12:14], "big"), information, _pointer(data[15:18]), False)
    assert data[0] == 0x72
    assert data[7] == len(data) - 8
    information, pointer = None, None
    at = 8
    while at < len(data):
        kind, length = data[at], data[at + 1]
        if kind == 0:
            assert data[at + 2] == 0x80
            information = int.from_bytes(data[at + 4 : at + 12], "big")
        elif kind == 2:
            pointer = _pointer(data[at + 4 : at + 7])
        at += 2 + length
    assert at == len(data)
    return Sense(data[1], int.from_bytes(data[2:4], "big"), information, pointer, True)


def _pointer(data: bytes) -> tuple[bool, int, int | None] | None:
    if not data[0] & 0x80:
        return None
    return bool(data[0] & 0x40), int.from_bytes(data[1:3], "big"), data[0] & 7 if data[0] & 8 else None


class _Session:
    """By what the initiator of a nexus reaches other logical units of the target."""

    def __init__(self, nexus: Nexus) -> None:
        assert nexus.luns is not None
        self.luns = nexus.luns
        self._first = nexus

    def nexus(self, lun: int) -> Nexus:
        unit, first = self.luns.unit(lun), self._first
        assert isinstance(unit, LogicalUnit)
        for nexus in unit.nexuses:
            if nexus.it == first.it:
                return nexus
        made = Nexus(unit, first.initiator, first.target_port, self.luns, first.ports, read_only=first.read_only)
        unit.attach(made)
        return made


class Host:
    """One nexus to one LUN, through the target port of the portal group `tag`."""

    def __init__(
        self,
        target: Target,
        lun: int = 0,
        initiator: str = "iqn.test:host",
        tag: int = 1,
        *,
        luns: LunMap | None = None,
        read_only: bool = False,
    ) -> None:
        self.target = target
        seen = luns or target.luns
        self.unit = seen.unit(encode_lun(lun))
        port = target_port(NAME, tag)
        name = f"{initiator},i,0x00023d000000"
        self.nexus = Nexus(self.unit, name, port, seen, target.ports, read_only=read_only)
        self.nexus.reach = lambda: [_Session(self.nexus)]
        self.unit.attach(self.nexus)
        self.last: Task | None = None

    @property
    def disk(self) -> LogicalUnit:
        assert isinstance(self.unit, LogicalUnit)
        return self.unit

    def begin(self, cdb: bytes, data_out_length: int = 0) -> tuple[Task, Result | None]:
        task = Task(self.nexus, cdb.ljust(16, b"\0"), data_out_length=data_out_length, read_length=1 << 24)
        self.last = task
        return task, self.unit.begin(task)

    def send(self, cdb: bytes, data_out: bytes = b"") -> Result:
        """Carry out a command as a transport does: no more Data-Out than it asks for."""
        task, result = self.begin(cdb, len(data_out))
        if result is None:
            task.data_out = bytearray(data_out[: task.expected])
            result = self.unit.run(task)
            if task.effect is not None:
                task.effect()
            if task.overhaul is not None:
                task.overhaul.start()  # without a task set it goes to its end
        assert (result.status == Status.CHECK_CONDITION) == bool(result.sense)
        return result

    def ok(self, cdb: bytes, data_out: bytes = b"") -> bytes:
        """Carry out a command that must end well; returns its Data-In."""
        result = self.send(cdb, data_out)
        assert result.status == Status.GOOD, parse_sense(result.sense)
        return bytes(result.data)

    def fail(
        self,
        cdb: bytes,
        key: SenseKey,
        asc: Asc,
        data_out: bytes = b"",
        *,
        pointer: tuple[bool, int, int | None] | None = None,
    ) -> Sense:
        """Carry out a command that must end with this sense data."""
        result = self.send(cdb, data_out)
        assert result.status == Status.CHECK_CONDITION
        assert len(result.data) == 0
        sense = parse_sense(result.sense)
        assert (SenseKey(sense.key), Asc(sense.asc)) == (key, asc)
        if pointer is not None:
            assert sense.pointer == pointer
        return sense

    def invalid(self, cdb: bytes, byte: int, bit: int | None = None, data_out: bytes = b"") -> None:
        """Carry out a command that must end with INVALID FIELD IN CDB and this pointer."""
        self.fail(cdb, SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, data_out, pointer=(True, byte, bit))

    def read(self, lba: int, count: int) -> bytes:
        return self.ok(read_16(lba, count))

    def write(self, lba: int, data: bytes) -> None:
        self.ok(write_16(lba, len(data) // self.disk.block_size), data)


def disk(device: Device, *, ready: bool = True, **options: object) -> Host:
    """A host with a disk at LUN 0; the first unit attention is past when it is `ready`."""
    return ready_host(target(device, **options)) if ready else Host(target(device, **options))


def target(device: Device, **options: object) -> Target:
    unit = LogicalUnit(device, identity=Identity(UUID_1, "disk"), **options)  # type: ignore[arg-type]
    return Target(NAME, {0: unit})


def ready_host(over: Target, lun: int = 0, initiator: str = "iqn.test:host", tag: int = 1) -> Host:
    host = Host(over, lun, initiator, tag)
    host.fail(TEST_UNIT_READY, SenseKey.UNIT_ATTENTION, Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
    return host


def memory(size: int = 1 << 20, **options: object) -> Host:
    return disk(MemoryDevice(size), **options)  # type: ignore[arg-type]


def file_device(directory: Path, size: int = 1 << 20, *, read_only: bool = False) -> FileDevice:
    path = directory / "disk.img"
    create(path, size)
    return FileDevice(path, read_only=read_only)


# ---- CDBs


def cdb_of(command: Command) -> bytearray:
    """A CDB of the command with zeros in all of its fields."""
    cdb = bytearray(max(16, command.length))
    cdb[0] = command.opcode
    if command.opcode == VARIABLE_LENGTH:
        cdb[7:10] = bytes([32 - 8, 0, command.service_action or 0])
    else:
        cdb[1] = command.service_action or 0
    return cdb


TEST_UNIT_READY = bytes(6)


def inquiry(page: int | None = None, length: int = 255) -> bytes:
    return struct.pack(">BBBHx", 0x12, page is not None, page or 0, length)


def read_10(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIxHx", 0x28, flags, lba, count)


def write_10(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIxHx", 0x2A, flags, lba, count)


def read_16(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIxx", 0x88, flags, lba, count)


def write_16(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIxx", 0x8A, flags, lba, count)


def verify_16(lba: int, count: int, bytchk: int) -> bytes:
    return struct.pack(">BBQIxx", 0x8F, bytchk << 1, lba, count)


def write_same_16(lba: int, count: int, *, unmap: bool = False, ndob: bool = False) -> bytes:
    return struct.pack(">BBQIxx", 0x93, unmap << 3 | ndob, lba, count)


def compare_and_write(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQxxxBxx", 0x89, flags, lba, count)


def synchronize_cache_16(lba: int = 0, count: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">BBQIxx", 0x91, flags, lba, count)


def unmap(length: int) -> bytes:
    return struct.pack(">BxxxxxxHx", 0x42, length)


def unmap_list(*descriptors: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack(">QI4x", lba, count) for lba, count in descriptors)
    return struct.pack(">HH4x", 6 + len(body), len(body)) + body


def get_lba_status(lba: int, length: int = 8 + 16 * 64) -> bytes:
    return struct.pack(">BBQIxx", 0x9E, 0x12, lba, length)


def mode_sense_6(page: int, subpage: int = 0, *, control: int = 0, dbd: bool = False, length: int = 255) -> bytes:
    return bytes([0x1A, dbd << 3, control << 6 | page, subpage, length, 0])


def mode_sense_10(page: int, *, flags: int = 0, control: int = 0, length: int = 4096) -> bytes:
    return struct.pack(">BBBBxxxHx", 0x5A, flags, control << 6 | page, 0, length)


def mode_select_6(length: int, flags: int = 0x10) -> bytes:
    return bytes([0x15, flags, 0, 0, length, 0])


def mode_select_10(length: int, flags: int = 0x10) -> bytes:
    return struct.pack(">BBxxxxxHx", 0x55, flags, length)


def start_stop(flags: int, byte_1: int = 0) -> bytes:
    return bytes([0x1B, byte_1, 0, 0, flags, 0])


def report_luns(select: int = 0, length: int = 4096) -> bytes:
    return struct.pack(">BxBxxxIxx", 0xA0, select, length)


def request_sense(desc: bool = False, length: int = 255) -> bytes:
    return bytes([0x03, desc, 0, 0, length, 0])


def supported_opcodes(
    options: int = 0, opcode: int = 0, action: int = 0, *, rctd: bool = False, length: int = 65535
) -> bytes:
    return struct.pack(">BBBBHIxx", 0xA3, 0x0C, rctd << 7 | options, opcode, action, length)
