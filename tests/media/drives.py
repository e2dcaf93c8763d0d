"""A host with a tape drive and commands for it; no transport between them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from blockyard.media.cartridge import create
from blockyard.media.drive import TapeDrive
from blockyard.media.generations import GENERATIONS
from blockyard.media.models import DRIVES
from blockyard.scsi.primary import Identity
from blockyard.scsi.sense import SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.task import Result, Status
from tests.scsi.host import NAME, Host

IDENTITY = Identity(UUID("0badcafe-1111-4222-8333-444455556666"), "vault/drive-1")


class Told(NamedTuple):
    """What sense data tells: key, ASC and ASCQ, FILEMARK, EOM and ILI, INFORMATION as a signed number."""

    key: int
    asc: int
    stream: int
    information: int | None


def told(result: Result) -> Told:
    sense = result.sense
    assert result.status == Status.CHECK_CONDITION
    assert sense[0] & 0x7F == 0x70
    information = int.from_bytes(sense[3:7], "big", signed=True) if sense[0] & 0x80 else None
    return Told(sense[2] & 0x0F, int.from_bytes(sense[12:14], "big"), sense[2] & 0xE0, information)


def read(length: int, *, fixed: bool = False, sili: bool = False) -> bytes:
    return bytes([0x08, sili << 1 | fixed]) + length.to_bytes(3, "big") + b"\0"


def write(length: int, *, fixed: bool = False) -> bytes:
    return bytes([0x0A, fixed]) + length.to_bytes(3, "big") + b"\0"


def filemarks(count: int, *, immed: bool = False) -> bytes:
    return bytes([0x10, immed]) + count.to_bytes(3, "big") + b"\0"


def space(code: int, count: int = 0) -> bytes:
    return bytes([0x11, code]) + count.to_bytes(3, "big", signed=True) + b"\0"


def locate_16(identifier: int, *, kind: int = 0, partition: int | None = None) -> bytes:
    cp = partition is not None
    return struct.pack(">BBxBQ4x", 0x92, kind << 3 | cp << 1, partition or 0, identifier)


REWIND = bytes([0x01, 0, 0, 0, 0, 0])
LOAD, UNLOAD = bytes([0x1B, 0, 0, 0, 1, 0]), bytes([0x1B, 0, 0, 0, 0, 0])
ERASE = bytes([0x19, 1, 0, 0, 0, 0])


class TapeHost(Host):
    """The initiator of a drive alone."""

    @property
    def drive(self) -> TapeDrive:
        assert isinstance(self.unit, TapeDrive)
        return self.unit

    def good(self, cdb: bytes, data: bytes = b"") -> bytes:
        result = self.send(cdb, data)
        assert result.status == Status.GOOD, result
        return bytes(result.data)

    def fails(self, cdb: bytes, data: bytes = b"") -> Told:
        return told(self.send(cdb, data))

    def put(self, data: bytes) -> None:
        self.good(write(len(data)), data)

    def position(self) -> tuple[int, int, int]:
        """Partition, object and file number."""
        partition, position, file = struct.unpack_from(">IQQ", self.good(bytes([0x34, 6]) + bytes(8)), 4)
        return partition, position, file

    def ready(self) -> None:
        """Take the unit attentions that wait."""
        while (result := self.send(bytes(6))).status != Status.GOOD and told(result).key == SenseKey.UNIT_ATTENTION:
            pass


def drive(*, model: str = "blockyard") -> TapeDrive:
    return TapeDrive(IDENTITY, None, model=DRIVES[model], serial="0BADCAFE01")


def host(unit: TapeDrive) -> TapeHost:
    made = TapeHost(Target(NAME, {0: unit}))
    made.ready()
    return made


def loaded(directory: Path, *, capacity: int = 64 << 20, worm: bool = False, generation: str = "LTO-8") -> TapeHost:
    """A host of a drive with an empty cartridge in it."""
    create(directory, "A00001L8", GENERATIONS[generation], capacity=capacity, worm=worm)
    unit = drive()
    unit.insert(directory / "A00001L8")
    return host(unit)
