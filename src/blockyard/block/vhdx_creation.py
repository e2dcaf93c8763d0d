"""New VHDX files: log, metadata region and BAT region follow each other from 1 MiB on, then blocks."""

from __future__ import annotations

import os
import uuid

from blockyard import __version__
from blockyard.block.device import Device
from blockyard.block.image_states import PRESENT, ImageError
from blockyard.block.vhdx import Vhdx
from blockyard.block.vhdx_layout import (
    BAT,
    DEFAULT_BLOCK,
    DIFFERENCING_BLOCK,
    HEADERS,
    MAX_SIZE,
    MB,
    METADATA,
    NO_GUID,
    REGION_TABLES,
    Header,
    Metadata,
    Region,
    check_block_size,
    identifier,
    pack_metadata,
    pack_regions,
)

_LOG = Region(MB, MB)
_METADATA = Region(2 * MB, MB)
_BAT_POSITION = 3 * MB


def write_vhdx(
    below: Device, path: str, size: int, kind: str, *, block_size: int, sector_size: int, parent: Device | None
) -> None:
    """Write an image without data into an empty file. Raises ImageError, OSError."""
    if parent is not None and not isinstance(parent, Vhdx):
        raise ImageError(path, "the parent of a VHDX is a VHDX")
    sector_size = sector_size or (parent.sector_size if parent is not None else 512)
    if parent is not None and sector_size != parent.sector_size:
        raise ImageError(path, f"its parent has sectors of {parent.sector_size} bytes, and so it must have")
    if size % sector_size or not 0 < size <= MAX_SIZE:
        raise ImageError(path, f"a VHDX has whole sectors of {sector_size} bytes, and 64 TiB at most")
    block_size = block_size or (DEFAULT_BLOCK if parent is None else DIFFERENCING_BLOCK)
    check_block_size(path, block_size)
    metadata = Metadata(
        size,
        block_size,
        leave_allocated=kind == "fixed",
        logical_sector=sector_size,
        disk_id=uuid.uuid4() if parent is None else parent.metadata.disk_id,
        parent=None if parent is None else locator_pairs(path, parent),
    )
    bat = Region(_BAT_POSITION, -(-8 * metadata.entries // MB) * MB)
    end = bat.position + bat.length
    if kind == "fixed":
        _write_fixed_bat(below, metadata, end)
        end += metadata.blocks * metadata.block_size
    below.truncate(end)
    below.pwritev([pack_metadata(metadata)], _METADATA.position)
    table = pack_regions({BAT: bat, METADATA: _METADATA})
    for position in REGION_TABLES:
        below.pwritev([table], position)
    header = Header(1, uuid.uuid4(), uuid.uuid4(), NO_GUID, 0, 1, _LOG.length, _LOG.position)
    for position in HEADERS:
        below.pwritev([header.pack()], position)
        header = header.next()
    below.flush()
    below.pwritev([identifier(f"Blockyard {__version__}")], 0)
    below.flush()


def _write_fixed_bat(below: Device, metadata: Metadata, start: int) -> None:
    """All blocks, one after the other."""
    ratio, step = metadata.chunk_ratio, 1 << 16
    for first in range(0, metadata.blocks, step):
        blocks = range(first, min(first + step, metadata.blocks))
        entries = bytearray()
        for block in blocks:
            if block and not block % ratio:
                entries += bytes(8)  # of the sector bitmap, which there is none of
            entries += (start + block * metadata.block_size | PRESENT).to_bytes(8, "little")
        before = first + (first - 1) // ratio if first else 0
        below.pwritev([entries], _BAT_POSITION + 8 * before)


def locator_pairs(path: str, parent: Vhdx, linkage2: uuid.UUID | None = None) -> tuple[tuple[str, str], ...]:
    """The parent locator of a child at `path` (MS-VHDX 2.6.2.6.3)."""
    absolute = os.path.realpath(parent.path)
    relative = os.path.relpath(absolute, os.path.dirname(os.path.realpath(path))).replace("/", "\\")
    pairs = [("parent_linkage", f"{{{parent.data_write}}}")]
    if linkage2 is not None:
        pairs.append(("parent_linkage2", f"{{{linkage2}}}"))
    pairs.append(("relative_path", relative if relative.startswith("..") else ".\\" + relative))
    pairs.append(("absolute_win32_path", "\\\\?\\" + absolute.lstrip("/").replace("/", "\\")))
    return tuple(pairs)
