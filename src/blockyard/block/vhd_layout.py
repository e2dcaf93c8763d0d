"""The structures of a VHD file (Microsoft, Virtual Hard Disk Image Format Specification, version 1.0). All are big-endian.

A fixed disk is its data with a footer after it. A dynamic or differencing one begins with a copy of the footer, then come the
dynamic disk header, the block allocation table, blocks, and the footer. A block is a bitmap of its sectors, padded to whole
sectors, and its data.
"""

from __future__ import annotations

import struct
import time
import urllib.parse
import uuid
from dataclasses import dataclass, replace
from typing import NamedTuple

from blockyard.block.image_states import ImageError

SECTOR = 512
MAX_SIZE = 2040 << 30  # bytes: what Windows mounts at most
DEFAULT_BLOCK = 2 << 20
MOST_BLOCKS = 1 << 26  # each takes some bytes of memory
NOBODY = uuid.UUID(int=0)
UNUSED = 0xFFFFFFFF  # an entry of the BAT without a block
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
KINDS = {FIXED: "fixed", DYNAMIC: "dynamic", DIFFERENCING: "differencing"}
EPOCH = 946684800  # 2000-01-01T00:00:00Z
_NO_OFFSET = (1 << 64) - 1
_VERSION = 0x00010000
_RESERVED_FEATURE = 2  # "must always be set to 1"
# Programs take the size of a disk from its geometry, which cannot express every size, unless they know that the creator
# means the size that is written beside it. They all know Windows.
_CREATOR, _CREATOR_VERSION, _CREATOR_OS = b"win ", 0x000A0000, b"Wi2k"

# cookie | features | version | next structure | time | creator, its version, its system | original and current size |
# geometry | type | checksum | unique id | saved state
_FOOTER = struct.Struct(">8sIIQI4sI4sQQ4sII16sB427x")
_FOOTER_COOKIE, _FOOTER_SUM = b"conectix", 64
# cookie | next structure | BAT | version | entries | block size | checksum | parent's id and time | parent's name | locators
_HEADER = struct.Struct(">8sQQIIII16sI4x512s192s256x")
_HEADER_COOKIE, _HEADER_SUM = b"cxsparse", 36
_LOCATOR = struct.Struct(">4sIIIQ")  # platform | space | length | | position
HEADER_LENGTH = _HEADER.size  # 1024


def now() -> int:
    """Seconds since 2000."""
    return int(time.time()) - EPOCH


def _checksum(data: bytes, at: int) -> int:
    """The ones' complement of the sum of all bytes but the checksum's own."""
    return ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF


def _sealed(data: bytes, at: int) -> bytes:
    return data[:at] + struct.pack(">I", _checksum(data, at)) + data[at + 4 :]


def geometry(size: int) -> bytes:
    """Cylinders, heads and sectors per track (the specification's appendix)."""
    total = min(size // SECTOR, 65535 * 16 * 255)
    if total >= 65535 * 16 * 63:
        sectors, heads = 255, 16
        tracks = total // sectors
    else:
        sectors = 17
        tracks = total // sectors
        heads = max(4, (tracks + 1023) // 1024)
        for wanted in (31, 63):
            if tracks < heads * 1024 and heads <= 16:
                break
            sectors, heads = wanted, 16
            tracks = total // sectors
    return struct.pack(">HBB", tracks // heads, heads, sectors)


@dataclass(frozen=True)
class Footer:
    """What a VHD says of itself."""

    size: int
    type: int
    identifier: uuid.UUID
    time: int
    original_size: int
    data_offset: int = _NO_OFFSET  # of the dynamic disk header
    features: int = _RESERVED_FEATURE
    creator: tuple[bytes, int, bytes] = (_CREATOR, _CREATOR_VERSION, _CREATOR_OS)
    saved_state: int = 0

    @classmethod
    def new(cls, size: int, kind: int) -> Footer:
        return cls(size, kind, uuid.uuid4(), now(), size, _NO_OFFSET if kind == FIXED else SECTOR)

    @classmethod
    def read(cls, data: bytes) -> Footer | None:
        """None where there is none, or its checksum is wrong."""
        if len(data) < SECTOR or data[:8] != _FOOTER_COOKIE:
            return None
        fields = _FOOTER.unpack(data)
        _, features, version, offset, stamp, app, app_version, system, original, size, _, kind, checksum, own, state = (
            fields
        )
        if checksum != _checksum(data, _FOOTER_SUM) or version >> 16 != _VERSION >> 16:
            return None
        return cls(
            size, kind, uuid.UUID(bytes=own), stamp, original, offset, features, (app, app_version, system), state
        )

    def pack(self) -> bytes:
        data = _FOOTER.pack(
            _FOOTER_COOKIE, self.features, _VERSION, self.data_offset, self.time, *self.creator, self.original_size,
            self.size, geometry(self.size), self.type, 0, self.identifier.bytes, self.saved_state,
        )  # fmt: skip
        return _sealed(data, _FOOTER_SUM)

    def modified(self) -> Footer:
        """The same with a time of its own: later than it had, even within one second."""
        return replace(self, time=max(now(), self.time + 1) & 0xFFFFFFFF)

    def grown(self, size: int) -> Footer:
        """The same for a larger disk. Some programs take the original size, which is for information, for the size."""
        return replace(self, size=size, original_size=size)

    def check(self, path: str) -> None:
        """Raises ImageError for what no disk has."""
        if self.type not in KINDS:
            raise ImageError(
                path, f"its footer says disk type {self.type}, which is neither fixed, dynamic nor differencing"
            )
        if not self.size or self.size % SECTOR:
            raise ImageError(path, f"its footer says a size of {self.size} bytes, which are no whole sectors")
        if self.size > MAX_SIZE:
            raise ImageError(
                path, f"its footer says a size of {self.size} bytes; a VHD has at most {MAX_SIZE} (2040 GiB)"
            )


class Locator(NamedTuple):
    """Where a parent locator has its text."""

    platform: bytes
    position: int
    length: int


def check_block_size(path: str, size: int) -> None:
    """Raises ImageError."""
    if size & (size - 1) or not 8 * SECTOR <= size <= 1 << 28:
        raise ImageError(path, f"a block size of {size} bytes is not a power of two from 4 KiB to 256 MiB")


def blocks_of(path: str, size: int, block_size: int) -> int:
    """How many blocks a disk has. Raises ImageError where that is more than memory is kept for."""
    blocks = -(-size // block_size)
    if blocks > MOST_BLOCKS:
        raise ImageError(path, f"{size} bytes in blocks of {block_size} are more than {MOST_BLOCKS} blocks")
    return blocks


@dataclass(frozen=True)
class Header:
    """The dynamic disk header."""

    table: int  # position of the BAT
    entries: int
    block_size: int
    parent: uuid.UUID = NOBODY
    parent_time: int = 0
    parent_name: str = ""
    locators: tuple[Locator, ...] = ()

    @classmethod
    def read(cls, data: bytes, path: str) -> Header:
        """Raises ImageError."""
        cookie, _, table, version, entries, block_size, checksum, parent, stamp, name, locators = _HEADER.unpack(data)
        if cookie != _HEADER_COOKIE:
            raise ImageError(path, "its dynamic disk header does not begin with cxsparse")
        if checksum != _checksum(data, _HEADER_SUM):
            raise ImageError(path, "the checksum of its dynamic disk header is wrong")
        if version >> 16 != _VERSION >> 16:
            raise ImageError(path, f"its dynamic disk header has version {version >> 16}.{version & 0xFFFF}, not 1.0")
        check_block_size(path, block_size)
        found = []
        for at in range(0, len(locators), _LOCATOR.size):
            platform, _, length, _, position = _LOCATOR.unpack_from(locators, at)
            if platform != bytes(4):
                found.append(Locator(platform, position, length))
        text = name.decode("utf-16-be", errors="replace").partition("\0")[0]
        return cls(table, entries, block_size, uuid.UUID(bytes=parent), stamp, text, tuple(found))

    def pack(self) -> bytes:
        locators = b"".join(
            _LOCATOR.pack(platform, -(-length // SECTOR) * SECTOR, length, 0, position)
            for platform, position, length in self.locators
        )
        name = self.parent_name.encode("utf-16-be")[:510]
        data = _HEADER.pack(
            _HEADER_COOKIE, _NO_OFFSET, self.table, _VERSION, self.entries, self.block_size, 0, self.parent.bytes,
            self.parent_time, name, locators,
        )  # fmt: skip
        return _sealed(data, _HEADER_SUM)


# ---- where the parent is: relative to the child (W2ru), absolute on Windows (W2ku), and as a file URL (MacX)

_TEXT_LIMIT = 64 << 10  # bytes of a locator


def locator_texts(relative: str, absolute: str) -> dict[bytes, bytes]:
    """Parent locators for paths of this system, by their platform codes."""
    windows = relative.replace("/", "\\")
    if not windows.startswith(".."):
        windows = ".\\" + windows
    url = "file://" + urllib.parse.quote(absolute)
    return {b"W2ru": windows.encode("utf-16-le"), b"MacX": url.encode()}


def path_of(platform: bytes, data: bytes) -> str | None:
    """The path that a parent locator has, for this system; None for one that means nothing here."""
    if platform in (b"W2ru", b"W2ku", b"Wi2r", b"Wi2k"):
        encoding = "utf-16-le" if platform.startswith(b"W2") else "ascii"
        path = data.decode(encoding, errors="replace").rstrip("\0").replace("\\", "/")
        return None if path[1:2] == ":" or path.startswith("//") else path
    if platform == b"MacX":
        try:
            url = urllib.parse.urlsplit(data.decode(errors="replace").rstrip("\0"))
        except ValueError:
            return None
        return urllib.parse.unquote(url.path) if url.scheme == "file" else None
    return None


def limited(locator: Locator, end: int) -> bool:
    """Whether a locator's text can be read: it lies in the file, and is no longer than a path can be."""
    return 0 < locator.length <= _TEXT_LIMIT and locator.position + locator.length <= end
