"""A host with an optical drive, images for it, and commands; no transport between them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from blockyard.optical.disc import Disc
from blockyard.optical.drive import Image, OpticalDrive
from blockyard.scsi.durable import Durable
from blockyard.scsi.primary import Identity
from blockyard.scsi.sense import SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.task import Status
from tests.conftest import need, run
from tests.scsi.host import NAME, Host, parse_sense

IDENTITY = Identity(UUID("0badcafe-1111-4222-8333-444455556666"), "dvd")
LOAD, EJECT = bytes([0x1B, 0, 0, 0, 3, 0]), bytes([0x1B, 0, 0, 0, 2, 0])
MEDIA = 1 << 4  # NOTIFICATION CLASS REQUEST


class DriveHost(Host):
    """The initiator of a drive."""

    @property
    def drive(self) -> OpticalDrive:
        assert isinstance(self.unit, OpticalDrive)
        return self.unit

    def ready(self) -> DriveHost:
        """Take the unit attentions and events that wait."""
        while (result := self.send(bytes(6))).status != Status.GOOD:
            if parse_sense(result.sense).key != SenseKey.UNIT_ATTENTION:
                break
        for _ in range(4):
            self.ok(event_status(0xFE))
        return self

    def event(self) -> tuple[int, int]:
        """Code and status of the next media event."""
        data = self.ok(event_status(MEDIA))
        assert data[:4] == bytes([0, 6, 4, 0x5E])
        return data[4], data[5]


def drive(image: Path | None = None, kind: str = "auto", *, state: Path | None = None) -> OpticalDrive:
    durable = None if state is None else Durable(state, IDENTITY.uuid)
    return OpticalDrive(IDENTITY, durable, image=None if image is None else Image(str(image), kind))


def host(unit: OpticalDrive, initiator: str = "iqn.test:host") -> DriveHost:
    return DriveHost(Target(NAME, {0: unit}), initiator=initiator).ready()


def insert(unit: OpticalDrive, path: Path, kind: str = "auto") -> None:
    unit.insert(Disc(path, kind), Image(str(path), kind))


def blank(path: Path, blocks: int) -> Path:
    """An image of so many blocks, without anything in them."""
    with path.open("wb") as file:
        file.truncate(2048 * blocks)
    return path


def iso(path: Path, source: Path, *options: str) -> Path:
    """An image of a directory, by genisoimage."""
    need("genisoimage", "genisoimage")
    run(["genisoimage", "-quiet", "-R", "-J", *options, "-o", path, source])
    return path


def directory(path: Path, names: Sequence[str], size: int = 100_000) -> Path:
    """A directory with files that differ."""
    path.mkdir()
    for number, name in enumerate(names):
        (path / name).write_bytes(bytes((number * 7 + at) % 251 for at in range(251)) * (size // 251))
    return path


# ---- CDBs


def event_status(classes: int, length: int = 8, *, polled: bool = True) -> bytes:
    return struct.pack(">BBxxBxxHx", 0x4A, polled, classes, length)


def get_configuration(rt: int = 0, feature: int = 0, length: int = 4096) -> bytes:
    return struct.pack(">BBHxxxHx", 0x46, rt, feature, length)


def read_toc(form: int, number: int = 0, *, msf: bool = False, length: int = 4096, control: int = 0) -> bytes:
    return struct.pack(">BBBxxxBHB", 0x43, msf << 1, form, number, length, control)


def read_disc_information(kind: int = 0) -> bytes:
    return struct.pack(">BB5xHx", 0x51, kind, 4096)


def read_track_information(kind: int, address: int) -> bytes:
    return struct.pack(">BBIxHx", 0x52, kind, address, 4096)


def read_disc_structure(kind: int, form: int, layer: int = 0) -> bytes:
    return struct.pack(">BBIBBHxx", 0xAD, kind, 0, layer, form, 8192)


def read_cd(lba: int, count: int, parts: int = 0x10, *, sector_type: int = 0, sub_channel: int = 0) -> bytes:
    return struct.pack(">BBI", 0xBE, sector_type << 2, lba) + count.to_bytes(3, "big") + bytes([parts, sub_channel, 0])


def prevent(code: int) -> bytes:
    return bytes([0x1E, 0, 0, 0, code, 0])


def get_performance(kind: int = 0, data_type: int = 0x10, number: int = 1) -> bytes:
    return struct.pack(">BBIxxHBx", 0xAC, data_type, 0, number, kind)
