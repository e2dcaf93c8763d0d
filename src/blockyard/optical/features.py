"""What a drive can do: features and profiles, GET CONFIGURATION (MMC-6, feature descriptors)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from blockyard.optical.kinds import (
    BD,
    BD_R,
    BD_R_POW,
    BD_RE,
    BLOCK,
    CD,
    CD_R,
    CD_RW,
    CD_RW_FORMATTED,
    DVD_PLUS_R,
    DVD_PLUS_R_DL,
    DVD_PLUS_RW,
    DVD_PLUS_RW_DL,
    DVD_R,
    DVD_R_DL,
    DVD_RAM,
    DVD_RW,
    DVD_RW_RESTRICTED,
    EVERY_KIND,
    NO_PROFILE,
    Kind,
)
from blockyard.optical.recorder import BLOCK_TYPES
from blockyard.scsi.sense import invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_ALL, _CURRENT, _ONE = 0, 1, 2  # RT
_HEADER = 8
MOST_CUE_SHEET = 8 * 400  # bytes: 99 tracks with indexes and ISRC


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
    known = sorted({kind.profile for kind in EVERY_KIND}, reverse=True)
    return b"".join(struct.pack(">HBx", each, each == now) for each in known)


def _random_readable(drive: OpticalDrive) -> bytes:
    disc = drive.disc
    return struct.pack(">IHBx", BLOCK, disc.kind.blocking if disc is not None else 1, 0x01)  # PP: mode page 01h


def _bd_read(drive: OpticalDrive) -> bytes:
    """The classes and versions of BD-RE, BD-R and BD-ROM that are read: bit maps, here of class 0 version 1."""
    return bytes(4) + struct.pack(">12H", 0x0002, 0, 0, 0, 0x0002, 0, 0, 0, 0x0002, 0, 0, 0)


def _random_writable(drive: OpticalDrive) -> bytes:
    disc = drive.disc
    last, blocking = (0, 1) if disc is None else (max(disc.capacity - 1, 0), disc.kind.blocking)
    return struct.pack(">IIHBx", last, BLOCK, blocking, 0x01)  # PP


def _bd_write(drive: OpticalDrive) -> bytes:
    """The classes and versions of BD-RE and BD-R that are written: class 0 version 1. SVNR: whatever is there before."""
    return b"\x01\0\0\0" + struct.pack(">8H", 0x0002, 0, 0, 0, 0x0002, 0, 0, 0)


def _incremental(drive: OpticalDrive) -> bytes:
    """Data block types that are written, BUF, and the lengths of links: none, as there is no link to be seen."""
    return struct.pack(">HBBBxxx", sum(1 << kind for kind in BLOCK_TYPES), 0x01, 1, 0)


_CDS = (CD, CD_R, CD_RW, CD_RW_FORMATTED)
_DVDS = tuple(kind for kind in EVERY_KIND if kind.family == "dvd")
_BDS = (BD, BD_R, BD_R_POW, BD_RE)
_PLUS = (DVD_PLUS_RW, DVD_PLUS_R, DVD_PLUS_RW_DL, DVD_PLUS_R_DL)
_IN_ORDER = (CD_R, CD_RW, DVD_R, DVD_RW, DVD_R_DL, DVD_PLUS_R, DVD_PLUS_R_DL, BD_R, BD_R_POW)
_ANYWHERE = (DVD_RAM, DVD_PLUS_RW, DVD_PLUS_RW_DL, BD_RE)
_FORMATTABLE = (*_ANYWHERE, CD_RW, CD_RW_FORMATTED, DVD_RW, DVD_RW_RESTRICTED, BD_R, BD_R_POW)
_CD_TYPES = sum(1 << kind for kind in BLOCK_TYPES).to_bytes(2, "big")

FEATURES = (
    Feature(0x0000, "Profile List", 0, _profiles),
    Feature(0x0001, "Core", 2, lambda drive: b"\0\0\0\x01\x03\0\0\0"),  # SCSI; DBE, INQ2
    Feature(0x0002, "Morphing", 1, lambda drive: b"\x02\0\0\0"),  # OCEVENT; no asynchronous events
    # a tray; LOAD, EJECT, LOCK: the lock holds when the drive starts only if somebody locks it
    Feature(0x0003, "Removable Medium", 2, lambda drive: b"\x39\0\0\0"),
    Feature(0x0010, "Random Readable", 0, _random_readable, EVERY_KIND),
    Feature(0x001D, "Multi-Read", 0, lambda drive: b"", _CDS),
    Feature(0x001E, "CD Read", 2, lambda drive: b"\x01\0\0\0", _CDS),  # no C2 pointers; CD-TEXT
    Feature(0x001F, "DVD Read", 1, lambda drive: b"\x01\0\x03\0", _DVDS),  # MULTI110, DVD-RW DL and DVD-R DL
    Feature(0x0020, "Random Writable", 1, _random_writable, _ANYWHERE),
    Feature(0x0021, "Incremental Streaming Writable", 3, _incremental, _IN_ORDER),
    # no spare areas, no certification
    Feature(
        0x0023,
        "Formattable",
        1,
        lambda drive: bytes(8),
        _FORMATTABLE,
    ),
    Feature(0x0026, "Restricted Overwrite", 0, lambda drive: b"", (DVD_RW_RESTRICTED, CD_RW_FORMATTED)),
    Feature(0x002A, "DVD+RW", 0, lambda drive: b"\x01\x03\0\0", _PLUS[:1]),  # WRITE; quick start, close only
    Feature(0x002B, "DVD+R", 0, lambda drive: b"\x01\0\0\0", (DVD_PLUS_R,)),
    Feature(0x002C, "Rigid Restricted Overwrite", 0, lambda drive: b"\x0b\0\0\0", (DVD_RW_RESTRICTED,)),
    Feature(
        0x002D, "CD Track at Once", 2, lambda drive: b"\x46\0" + _CD_TYPES, (CD_R, CD_RW)
    ),  # BUF, test write, CD-RW
    # BUF, SAO, test write, CD-RW; the most that a cue sheet has
    Feature(0x002E, "CD Mastering", 0, lambda drive: b"\x66" + MOST_CUE_SHEET.to_bytes(3, "big"), (CD_R, CD_RW)),
    # BUF, RDL, test write, DVD-RW
    Feature(0x002F, "DVD-R/-RW Write", 2, lambda drive: b"\x4e\0\0\0", (DVD_R, DVD_RW, DVD_R_DL)),
    Feature(
        0x0037, "CD-RW Media Write Support", 0, lambda drive: b"\0\xff\0\0", (CD_RW, CD_RW_FORMATTED)
    ),  # every speed
    Feature(0x0038, "BD-R Pseudo-Overwrite", 0, lambda drive: bytes(4), (BD_R_POW,)),
    Feature(0x003A, "DVD+RW Dual Layer", 0, lambda drive: b"\x01\x03\0\0", (DVD_PLUS_RW_DL,)),
    Feature(0x003B, "DVD+R Dual Layer", 0, lambda drive: b"\x01\0\0\0", (DVD_PLUS_R_DL,)),
    Feature(0x0040, "BD Read", 1, _bd_read, _BDS),
    Feature(0x0041, "BD Write", 0, _bd_write, (BD_RE, BD_R, BD_R_POW)),
    Feature(0x0100, "Power Management", 0, lambda drive: b""),
    Feature(0x0105, "Timeout", 1, lambda drive: b"\0\0\0\0"),
    # SCS, MP2A, WSPD, SW, RBCB: SET CD SPEED, mode page 2Ah, write speeds, streams, READ BUFFER CAPACITY in blocks
    Feature(0x0107, "Real Time Streaming", 5, lambda drive: b"\x1f\0\0\0", EVERY_KIND),
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
