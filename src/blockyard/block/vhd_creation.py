"""New VHD files."""

from __future__ import annotations

import os
from dataclasses import replace

from blockyard.block.device import Device
from blockyard.block.image_states import ImageError
from blockyard.block.vhd import DynamicVhd, FixedVhd
from blockyard.block.vhd_layout import (
    DEFAULT_BLOCK,
    DIFFERENCING,
    DYNAMIC,
    FIXED,
    HEADER_LENGTH,
    MAX_SIZE,
    SECTOR,
    Footer,
    Header,
    Locator,
    blocks_of,
    check_block_size,
    locator_texts,
)

_TABLE = SECTOR + HEADER_LENGTH  # where the BAT begins


def write_vhd(below: Device, path: str, size: int, kind: str, *, block_size: int, parent: Device | None) -> None:
    """Write an image without data into an empty file. Raises ImageError, OSError."""
    if size % SECTOR or not 0 < size <= MAX_SIZE:
        raise ImageError(path, f"a VHD has whole sectors of 512 bytes, {MAX_SIZE} bytes (2040 GiB) at most")
    if kind == "fixed":
        footer = Footer.new(size, FIXED)
        below.pwritev([footer.pack()], size)
        below.flush()
        return
    block_size = block_size or DEFAULT_BLOCK
    check_block_size(path, block_size)
    footer = Footer.new(size, DYNAMIC if parent is None else DIFFERENCING)
    entries = blocks_of(path, size, block_size)
    header = Header(_TABLE, entries, block_size)
    table = 4 * entries + -4 * entries % SECTOR
    end = _TABLE + table
    texts: list[bytes] = []
    if parent is not None:
        header, texts = _with_parent(header, path, parent, end)
        end += sum(map(len, texts))
    below.pwritev([b"\xff" * table, *texts], _TABLE)
    below.pwritev([header.pack()], SECTOR)
    below.pwritev([footer.pack()], end)
    below.flush()
    below.pwritev([footer.pack()], 0)
    below.flush()


def _with_parent(header: Header, path: str, parent: Device, position: int) -> tuple[Header, list[bytes]]:
    """The header with what leads to the parent, and the texts of its locators, each in sectors of its own."""
    if not isinstance(parent, FixedVhd | DynamicVhd):
        raise ImageError(path, "the parent of a VHD is a VHD")
    absolute = os.path.realpath(parent.path)
    relative = os.path.relpath(absolute, os.path.dirname(os.path.realpath(path)))
    locators, texts = [], []
    for platform, text in locator_texts(relative, absolute).items():
        locators.append(Locator(platform, position, len(text)))
        texts.append(text + bytes(-len(text) % SECTOR))
        position += len(texts[-1])
    header = replace(
        header,
        parent=parent.identifier,
        parent_time=parent.footer.time,
        parent_name=os.path.basename(absolute),
        locators=tuple(locators),
    )
    return header, texts
