"""The structures of a VHDX file (MS-VHDX, version 1; clauses are those of revision 8.0). All are little-endian.

0        file type identifier          1 MiB and above, at multiples of 1 MiB, in any order:
64 KiB   header 1                          log, metadata region, BAT region, blocks
128 KiB  header 2
192 KiB  region table, and at 256 KiB once more
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.image_states import ImageError

MB = 1 << 20
MAX_SIZE = 64 << 40  # bytes (2.6.2.2)
MAX_FILE = MAX_SIZE + (1 << 40)  # with all bitmaps and metadata: what a log may let a file grow to
DEFAULT_BLOCK, DIFFERENCING_BLOCK = 32 << 20, 2 << 20  # as Hyper-V has them
SIGNATURE = b"vhdxfile"
HEADERS = (64 << 10, 128 << 10)
REGION_TABLES = (192 << 10, 256 << 10)
TABLE_LENGTH = 64 << 10
SECTORS_PER_BITMAP = 1 << 23  # of a sector bitmap block of 1 MiB (2.4)
NO_GUID = uuid.UUID(int=0)
PAGE = 4096

BAT = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")
METADATA = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E")
FILE_PARAMETERS = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
DISK_SIZE = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
DISK_ID = uuid.UUID("BECA12AB-B2E6-4523-93EF-C309E000C746")
LOGICAL_SECTOR = uuid.UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
PHYSICAL_SECTOR = uuid.UUID("CDA348C7-445D-4471-9CC9-E9885251C556")
PARENT_LOCATOR = uuid.UUID("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
_VHDX_PARENT = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")
_IS_VIRTUAL_DISK, _IS_REQUIRED = 2, 4
_KNOWN = {
    FILE_PARAMETERS: _IS_REQUIRED,
    DISK_SIZE: _IS_VIRTUAL_DISK | _IS_REQUIRED,
    DISK_ID: _IS_VIRTUAL_DISK | _IS_REQUIRED,
    LOGICAL_SECTOR: _IS_VIRTUAL_DISK | _IS_REQUIRED,
    PHYSICAL_SECTOR: _IS_VIRTUAL_DISK | _IS_REQUIRED,
    PARENT_LOCATOR: _IS_REQUIRED,
}

# signature | checksum | sequence number | file write, data write, log GUID | log version | version | log length, offset
_HEADER = struct.Struct("<4sIQ16s16s16sHHIQ4016x")
_REGION_HEADER = struct.Struct("<4sIII")
_REGION = struct.Struct("<16sQII")
_METADATA_HEADER = struct.Struct("<8s2xH20x")
_ITEM = struct.Struct("<16sIII4x")
_LOCATOR = struct.Struct("<16s2xH")
_PAIR = struct.Struct("<IIHH")
_MOST_ENTRIES = 2047
_LAST_SEQUENCE = (1 << 64) - (1 << 16)  # of a header that others can follow


def sealed(data: bytes) -> bytes:
    """With its checksum in bytes 4 to 7."""
    zeroed = data[:4] + bytes(4) + data[8:]
    return data[:4] + struct.pack("<I", crc32c(zeroed)) + data[8:]


def sound(data: bytes, signature: bytes) -> bool:
    """Whether a structure has its signature, and its checksum is right."""
    return data[:4] == signature and sealed(data) == data


def identifier(creator: str) -> bytes:
    return (SIGNATURE + creator.encode("utf-16-le")).ljust(TABLE_LENGTH, b"\0")


@dataclass(frozen=True)
class Header:
    """The one of the two headers that counts (2.2.2)."""

    sequence: int
    file_write: uuid.UUID
    data_write: uuid.UUID
    log: uuid.UUID
    log_version: int
    version: int
    log_length: int
    log_offset: int

    @classmethod
    def read(cls, data: bytes) -> Header | None:
        """None where there is none, or its checksum is wrong."""
        if not sound(data, b"head"):
            return None
        _, _, sequence, file_write, data_write, log, log_version, version, length, offset = _HEADER.unpack(data)
        names = [uuid.UUID(bytes_le=guid) for guid in (file_write, data_write, log)]
        return cls(sequence, names[0], names[1], names[2], log_version, version, length, offset)

    def pack(self) -> bytes:
        guids = (guid.bytes_le for guid in (self.file_write, self.data_write, self.log))
        data = _HEADER.pack(
            b"head", 0, self.sequence, *guids, self.log_version, self.version, self.log_length, self.log_offset
        )
        return sealed(data)

    def check(self, path: str, size: int) -> None:
        """Raises ImageError."""
        if self.version != 1:
            raise ImageError(path, f"it is a VHDX of version {self.version}, and only version 1 is known")
        if self.sequence > _LAST_SEQUENCE:
            raise ImageError(path, f"its header has the sequence number {self.sequence}, after which there are no more")
        if self.log_version and self.log != NO_GUID:
            raise ImageError(path, f"its log has version {self.log_version}, and only version 0 is known")
        if self.log_offset % MB or self.log_length % MB or not self.log_length or self.log_offset < MB:
            raise ImageError(
                path, f"its log of {self.log_length} bytes at {self.log_offset} is not at multiples of 1 MiB"
            )
        if self.log_offset + self.log_length > size:
            raise ImageError(path, f"its log at {self.log_offset} lies outside of the file")

    def next(self, **changes: uuid.UUID) -> Header:
        return replace(self, sequence=self.sequence + 1, **changes)  # type: ignore[arg-type]


class Region(NamedTuple):
    """A region by its GUID's entry in the region table (2.2.3)."""

    position: int
    length: int
    required: bool = True


def read_regions(data: bytes, path: str, size: int) -> dict[uuid.UUID, Region]:
    """A sound region table. Raises ImageError."""
    _, _, count, _ = _REGION_HEADER.unpack_from(data)
    if count > _MOST_ENTRIES:
        raise ImageError(path, f"its region table has {count} entries, {_MOST_ENTRIES} at most are allowed")
    regions: dict[uuid.UUID, Region] = {}
    for number in range(count):
        guid, position, length, required = _REGION.unpack_from(data, 16 + number * _REGION.size)
        name = uuid.UUID(bytes_le=guid)
        if name in regions:
            raise ImageError(path, f"its region table has {name} twice")
        if position % MB or length % MB or position < MB or not length or position + length > size:
            raise ImageError(
                path, f"its region {name}, {length} bytes at {position}, lies outside of the file or is not aligned"
            )
        if required & 1 and name not in (BAT, METADATA):
            raise ImageError(path, f"it needs a region {name}, which is unknown")
        regions[name] = Region(position, length, bool(required & 1))
    for name, what in ((BAT, "BAT"), (METADATA, "metadata")):
        if name not in regions:
            raise ImageError(path, f"it has no {what} region")
    return regions


def pack_regions(regions: Mapping[uuid.UUID, Region]) -> bytes:
    data = _REGION_HEADER.pack(b"regi", 0, len(regions), 0)
    for name, region in regions.items():
        data += _REGION.pack(name.bytes_le, region.position, region.length, region.required)
    return sealed(data.ljust(TABLE_LENGTH, b"\0"))


@dataclass(frozen=True)
class Metadata:
    """What the metadata items say (2.6.2)."""

    size: int
    block_size: int
    leave_allocated: bool = False
    logical_sector: int = 512
    physical_sector: int = 4096
    disk_id: uuid.UUID = NO_GUID
    parent: tuple[tuple[str, str], ...] | None = None  # keys and values of the parent locator

    @property
    def has_parent(self) -> bool:
        return self.parent is not None

    @property
    def chunk_ratio(self) -> int:
        """Payload blocks to a sector bitmap block (2.4)."""
        return SECTORS_PER_BITMAP * self.logical_sector // self.block_size

    @property
    def blocks(self) -> int:
        return -(-self.size // self.block_size)

    @property
    def entries(self) -> int:
        """Of the BAT (2.5)."""
        ratio = self.chunk_ratio
        if self.has_parent:
            return -(-self.blocks // ratio) * (ratio + 1)
        return self.blocks + (self.blocks - 1) // ratio

    def items(self) -> Iterator[tuple[uuid.UUID, bytes]]:
        flags = int(self.leave_allocated) | self.has_parent << 1
        yield FILE_PARAMETERS, struct.pack("<II", self.block_size, flags)
        yield DISK_SIZE, struct.pack("<Q", self.size)
        yield DISK_ID, self.disk_id.bytes_le
        yield LOGICAL_SECTOR, struct.pack("<I", self.logical_sector)
        yield PHYSICAL_SECTOR, struct.pack("<I", self.physical_sector)
        if self.parent is not None:
            yield PARENT_LOCATOR, pack_locator(self.parent)


def pack_metadata(metadata: Metadata) -> bytes:
    """The metadata region, up to its last item."""
    items = list(metadata.items())
    table = _METADATA_HEADER.pack(b"metadata", len(items))
    at, content = TABLE_LENGTH, b""
    for name, data in items:
        table += _ITEM.pack(name.bytes_le, at + len(content), len(data), _KNOWN[name])
        content += data
    return table.ljust(TABLE_LENGTH, b"\0") + content


def read_items(table: bytes, region: Region, path: str) -> dict[uuid.UUID, tuple[int, int]]:
    """Where the known metadata items are in the file, and how long they are. Raises ImageError."""
    if table[:8] != b"metadata":
        raise ImageError(path, "its metadata region does not begin with metadata")
    _, count = _METADATA_HEADER.unpack_from(table)
    if count > _MOST_ENTRIES:
        raise ImageError(path, f"its metadata table has {count} entries, {_MOST_ENTRIES} at most are allowed")
    found: dict[uuid.UUID, tuple[int, int]] = {}
    for number in range(count):
        guid, offset, length, flags = _ITEM.unpack_from(table, (number + 1) * _ITEM.size)
        name = uuid.UUID(bytes_le=guid)
        if name not in _KNOWN:
            if flags & _IS_REQUIRED:
                raise ImageError(path, f"it needs a metadata item {name}, which is unknown")
            continue
        if name in found:
            raise ImageError(path, f"its metadata table has {name} twice")
        if offset < TABLE_LENGTH or not 0 < length <= MB or offset + length > region.length:
            raise ImageError(path, f"its metadata item {name}, {length} bytes at {offset}, lies outside of its region")
        found[name] = region.position + offset, length
    return found


def with_item(table: bytes, name: uuid.UUID, length: int) -> tuple[bytes, int]:
    """A sound metadata table in which an item has moved behind all others, with another length; and where that is."""
    _, count = _METADATA_HEADER.unpack_from(table)
    end, at = TABLE_LENGTH, 0
    for number in range(count):
        place = (number + 1) * _ITEM.size
        guid, offset, size, _ = _ITEM.unpack_from(table, place)
        end = max(end, offset + size)
        if guid == name.bytes_le:
            at = place
    end = -(-end // 8) * 8
    return table[:at] + _ITEM.pack(name.bytes_le, end, length, _KNOWN[name]) + table[at + _ITEM.size :], end


def check_block_size(path: str, size: int) -> None:
    """Raises ImageError."""
    if size & (size - 1) or not MB <= size <= 256 * MB:
        raise ImageError(path, f"a block size of {size} bytes is not a power of two from 1 MiB to 256 MiB")


def parse_metadata(items: Mapping[uuid.UUID, bytes], path: str) -> Metadata:
    """What the items say, checked. Raises ImageError."""

    def item(name: uuid.UUID, what: str, form: str) -> tuple[int, ...]:
        data = items.get(name)
        if data is None or len(data) < struct.calcsize(form):
            raise ImageError(path, f"its metadata has no {what}")
        return struct.unpack_from(form, data)

    block_size, flags = item(FILE_PARAMETERS, "file parameters", "<II")
    (size,) = item(DISK_SIZE, "size of the disk", "<Q")
    (logical,) = item(LOGICAL_SECTOR, "logical sector size", "<I")
    (physical,) = item(PHYSICAL_SECTOR, "physical sector size", "<I")
    item(DISK_ID, "identifier of the disk", "<QQ")
    check_block_size(path, block_size)
    if logical not in (512, 4096) or physical not in (512, 4096):
        raise ImageError(path, f"sectors of {logical} bytes, {physical} of the medium, are neither of 512 nor of 4096")
    if not size or size % logical or size > MAX_SIZE:
        raise ImageError(path, f"a size of {size} bytes is not whole sectors of {logical}, or more than 64 TiB")
    parent = None
    if flags & 2:
        if PARENT_LOCATOR not in items:
            raise ImageError(path, "it stands on a parent and does not say on which")
        parent = read_locator(items[PARENT_LOCATOR], path)
    return Metadata(
        size, block_size, bool(flags & 1) and parent is None, logical, physical,
        uuid.UUID(bytes_le=items[DISK_ID][:16]), parent,
    )  # fmt: skip


def read_locator(data: bytes, path: str) -> tuple[tuple[str, str], ...]:
    """Keys and values of a parent locator (2.6.2.6). Raises ImageError."""
    if len(data) < _LOCATOR.size:
        raise ImageError(path, "its parent locator is cut short")
    kind, count = _LOCATOR.unpack_from(data)
    if uuid.UUID(bytes_le=kind) != _VHDX_PARENT:
        raise ImageError(path, f"its parent is of the type {uuid.UUID(bytes_le=kind)}, which is unknown")
    pairs = []
    total = 0
    for number in range(count):
        at = _LOCATOR.size + number * _PAIR.size
        if at + _PAIR.size > len(data):
            raise ImageError(path, "its parent locator is cut short")
        key, value, key_length, value_length = _PAIR.unpack_from(data, at)
        if key + key_length > len(data) or value + value_length > len(data):
            raise ImageError(path, "an entry of its parent locator lies outside of it")
        total += key_length + value_length
        if total > len(data):  # they would take more memory than the file has bytes
            raise ImageError(path, "entries of its parent locator overlap")
        texts = data[key : key + key_length], data[value : value + value_length]
        pairs.append((texts[0].decode("utf-16-le", "replace"), texts[1].decode("utf-16-le", "replace")))
    return tuple(pairs)


def pack_locator(pairs: tuple[tuple[str, str], ...]) -> bytes:
    at = _LOCATOR.size + len(pairs) * _PAIR.size
    table, texts = _LOCATOR.pack(_VHDX_PARENT.bytes_le, len(pairs)), b""
    for pair in pairs:
        key, value = (text.encode("utf-16-le") for text in pair)
        start = at + len(texts)
        table += _PAIR.pack(start, start + len(key), len(key), len(value))
        texts += key + value
    return table + texts
