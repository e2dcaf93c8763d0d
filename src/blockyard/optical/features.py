"""What a drive can do: features and profiles, GET CONFIGURATION (MMC-6, feature descriptors)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from blockyard.optical.kinds import BD, BD_RE, BLOCK, CD, DVD, KINDS, NO_PROFILE, Kind
from blockyard.scsi.sense import invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_ALL, _CURRENT, _ONE = 0, 1, 2  # RT
_HEADER = 8


class Feature(NamedTuple):
    """A feature: `current` says for which kinds of disc it is current; None: it is persistent, and always current."""

    code: int
    name: str
    version: int
    content: Callable[[OpticalDrive], bytes]
    current: tuple[Kind, ...] | None = None

    def encode(self, drive: OpticalDrive) -> bytes:
        """The feature descriptor: code, VERSION, PERSISTENT, CURRENT, ADDITIONAL LENGTH, content."""
        content = self.content(drive)
        flags = self.version << 2 | (self.current is None) << 1 | self.is_current(drive)
        return struct.pack(">HBB", self.code, flags, len(content)) + content

    def is_current(self, drive: OpticalDrive) -> bool:
        if self.current is None:
            return True
        disc = drive.disc
        return disc is not None and disc.kind in self.current


def _profiles(drive: OpticalDrive) -> bytes:
    """Those that the drive knows, the most capable first; CURRENTP of the one that it is in."""
    now = profile(drive)
    known = sorted((kind.profile for kind in KINDS.values()), reverse=True)
    return b"".join(struct.pack(">HBx", each, each == now) for each in known)


def _random_readable(drive: OpticalDrive) -> bytes:
    disc = drive.disc
    return struct.pack(">IHBx", BLOCK, disc.kind.blocking if disc is not None else 1, 0x01)  # PP: mode page 01h


def _bd_read(drive: OpticalDrive) -> bytes:
    """The classes and versions of BD-RE, BD-R and BD-ROM that are read: bit maps, here of BD-ROM class 0 version 1."""
    return bytes(4) + struct.pack(">12H", 0x0002, 0, 0, 0, 0, 0, 0, 0, 0x0002, 0, 0, 0)


def _random_writable(drive: OpticalDrive) -> bytes:
    disc = drive.disc
    last, blocking = (0, 1) if disc is None else (disc.blocks - 1, disc.kind.blocking)
    return struct.pack(">IIHBx", last, BLOCK, blocking, 0x01)  # PP


def _bd_write(drive: OpticalDrive) -> bytes:
    """The classes and versions of BD-RE and BD-R that are written: BD-RE class 0 version 1. SVNR: whatever is there before."""
    return b"\x01\0\0\0" + struct.pack(">8H", 0x0002, 0, 0, 0, 0, 0, 0, 0)


FEATURES = (
    Feature(0x0000, "Profile List", 0, _profiles),
    Feature(0x0001, "Core", 2, lambda drive: b"\0\0\0\x01\x03\0\0\0"),  # SCSI; DBE, INQ2
    Feature(0x0002, "Morphing", 1, lambda drive: b"\x02\0\0\0"),  # OCEVENT; no asynchronous events
    # a tray; LOAD, EJECT, LOCK: the lock holds when the drive starts only if somebody locks it
    Feature(0x0003, "Removable Medium", 2, lambda drive: b"\x39\0\0\0"),
    Feature(0x0010, "Random Readable", 0, _random_readable, tuple(KINDS.values())),
    Feature(0x001D, "Multi-Read", 0, lambda drive: b"", (CD,)),
    Feature(0x001E, "CD Read", 2, lambda drive: b"\0\0\0\0", (CD,)),  # no C2 pointers, no CD-TEXT
    Feature(0x001F, "DVD Read", 1, lambda drive: b"\x01\0\x01\0", (DVD,)),  # MULTI110, DVD-R DL
    Feature(0x0020, "Random Writable", 1, _random_writable, (BD_RE,)),
    Feature(0x0023, "Formattable", 1, lambda drive: bytes(8), (BD_RE,)),  # no spare areas, no certification
    Feature(0x0040, "BD Read", 1, _bd_read, (BD, BD_RE)),
    Feature(0x0041, "BD Write", 0, _bd_write, (BD_RE,)),
    Feature(0x0100, "Power Management", 0, lambda drive: b""),
    Feature(0x0105, "Timeout", 1, lambda drive: b"\0\0\0\0"),
    # SCS, MP2A, RBCB: SET CD SPEED, mode page 2Ah, READ BUFFER CAPACITY in blocks
    Feature(0x0107, "Real Time Streaming", 5, lambda drive: b"\x1c\0\0\0", tuple(KINDS.values())),
    Feature(0x0108, "Logical Unit Serial Number", 0, lambda drive: drive.serial.encode()),
)


def profile(drive: OpticalDrive) -> int:
    """The current profile."""
    disc = drive.disc
    return NO_PROFILE if disc is None else disc.kind.profile


def check_get_configuration(drive: OpticalDrive, task: Task) -> None:
    if task.fields["rt"] > _ONE:
        raise invalid_field(1, 1)


def get_configuration(drive: OpticalDrive, task: Task) -> Buffer:
    """GET CONFIGURATION (MMC-6)."""
    wanted, first = task.fields["rt"], task.fields["starting_feature"]
    chosen = [feature for feature in FEATURES if feature.code >= first]
    if wanted == _CURRENT:
        chosen = [feature for feature in chosen if feature.is_current(drive)]
    elif wanted == _ONE:
        chosen = [feature for feature in chosen if feature.code == first]
    data = b"".join(feature.encode(drive) for feature in chosen)
    return struct.pack(">IxxH", _HEADER - 4 + len(data), profile(drive)) + data
