"""Damaged images: each is refused in words or read within its file, and never anything else.

Fields are changed under a checksum that is right, as somebody would who means harm; the disk of these tests does not bear a read
outside of the file.
"""

from __future__ import annotations

import random
import struct
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from fastcrc.crc32 import iscsi as crc32c

from blockyard.block.device import Device
from blockyard.block.free_places import FreePlaces
from blockyard.block.image_states import ImageError
from blockyard.block.memory import MemoryDevice
from blockyard.block.parents import Wanted
from blockyard.block.vhd import open_vhd
from blockyard.block.vhd_creation import write_vhd
from blockyard.block.vhd_layout import path_of
from blockyard.block.vhdx import open_vhdx
from blockyard.block.vhdx_creation import write_vhdx
from blockyard.block.vhdx_file import Headers
from blockyard.block.vhdx_layout import read_locator
from blockyard.block.vhdx_log import LogReader
from tests.block.disks import SECTOR, Disk

KIB, MIB = 1 << 10, 1 << 20
LOCATOR_TYPE = uuid.UUID("B04AEFB7-D19E-4A81-B789-25B8E9445913")  # of a parent that is a VHDX
Opener = Callable[[Disk, str, Callable[[Wanted], Device]], Device]


def no_parent(wanted: Wanted) -> Device:
    return MemoryDevice(3 * MIB)


def vhd(*, on_parent: bool = False) -> Disk:
    base, disk = Disk(), Disk()
    write_vhd(base, "base", 16 * KIB, "dynamic", block_size=4096, parent=None)
    parent = open_vhd(base, "base", no_parent)
    write_vhd(disk, "child", 16 * KIB, "dynamic", block_size=4096, parent=parent if on_parent else None)
    image = open_vhd(disk, "child", no_parent)
    image.pwritev([b"\x11" * 4096], 4096)
    image.pwritev([b"\x22" * 512], 0)
    image.flush()
    return disk


def vhdx(*, on_parent: bool = False, clean: bool = True) -> Disk:
    base, disk = Disk(), Disk()
    write_vhdx(base, "base", 3 * MIB, "dynamic", block_size=MIB, sector_size=0, parent=None)
    parent = open_vhdx(base, "base", no_parent)
    write_vhdx(disk, "child", 3 * MIB, "dynamic", block_size=MIB, sector_size=0, parent=parent if on_parent else None)
    image = open_vhdx(disk, "child", no_parent)
    image.pwritev([b"\x11" * MIB], MIB)
    image.pwritev([b"\x22" * 512], 0)
    image.flush()
    if clean:
        image.parent = None
        image.close()
    return disk


def sums_of_vhd(data: bytearray, at: int) -> None:
    """Put the checksum right that the byte at `at` is under."""
    for start, length, place in ((0, 512, 64), (512, 1024, 36), (len(data) - 512, 512, 64)):
        if start <= at < start + length:
            part = data[start : start + length]
            part[place : place + 4] = bytes(4)
            data[start + place : start + place + 4] = struct.pack(">I", ~sum(part) & 0xFFFFFFFF)


def sums_of_vhdx(data: bytearray, at: int) -> None:
    parts = [(64 * KIB, 4096), (128 * KIB, 4096), (192 * KIB, 64 * KIB), (256 * KIB, 64 * KIB)]
    parts += [(entry, length) for entry, length in log_entries(data)]
    for start, length in parts:
        if start <= at < start + length:
            part = data[start : start + length]
            part[4:8] = bytes(4)
            data[start + 4 : start + 8] = struct.pack("<I", crc32c(bytes(part)))


def log_entries(data: bytearray) -> Iterator[tuple[int, int]]:
    at = MIB
    while data[at : at + 4] == b"loge":
        length = int.from_bytes(data[at + 8 : at + 12], "little")
        if not length or length > MIB:
            return
        yield at, length
        at += length


def look_at(disk: Disk, opener: Opener) -> str:
    """Open an image and read all of it; "" or why it is refused."""
    disk.read_only = True
    try:
        image = opener(disk, "image", no_parent)
        data = bytearray(min(image.size, 4 * MIB))
        image.preadv([memoryview(data)], 0)
        list(image.runs(0, image.size))
    except OSError as error:
        return error.strerror or "a refusal that does not say why"
    return ""


def mutations(
    disk: Disk, places: list[tuple[int, int]], reseal: Callable[[bytearray, int], None], opener: Opener
) -> int:
    """Change every byte of some places, one after the other; how many changes were refused."""
    refused = 0
    for start, length in places:
        for at in range(start, start + length):
            for change in (0x01, 0x80, 0xFF):
                before = {place: bytes(disk.seen[place[0] : place[0] + place[1]]) for place in sealed_places(disk, at)}
                byte = disk.seen[at]
                disk.seen[at] = byte ^ change
                reseal(disk.seen, at)
                refused += bool(look_at(disk, opener))
                disk.seen[at] = byte
                for (place, size), content in before.items():
                    disk.seen[place : place + size] = content
    assert look_at(disk, opener) == ""
    return refused


def sealed_places(disk: Disk, at: int) -> list[tuple[int, int]]:
    """What `reseal` may change."""
    return [(start, 80) for start in (0, 512, len(disk.seen) - 512, 64 * KIB, 128 * KIB, 192 * KIB, 256 * KIB)] + [
        (start, 80) for start, _ in log_entries(disk.seen)
    ]


@pytest.mark.parametrize("on_parent", [False, True])
def test_every_field_of_a_vhd(on_parent: bool) -> None:
    disk = vhd(on_parent=on_parent)
    places = [(len(disk.seen) - 512, 88), (512, 64), (512 + 64, 16), (512 + 576, 8 * 24), (1536, 16), (2048, 16)]
    if on_parent:
        header = disk.seen[512:1536]
        for locator in range(576, 576 + 8 * 24, 24):  # what the locators lead to
            length, place = (
                int.from_bytes(header[locator + at : locator + at + n], "big") for at, n in ((8, 4), (16, 8))
            )
            places.append((place, length))
    assert mutations(disk, places, sums_of_vhd, open_vhd) > 100
    disk.seen[-512:] = bytes(512)  # the copy at the beginning counts
    assert look_at(disk, open_vhd) == ""
    assert mutations(disk, [(0, 88)], sums_of_vhd, open_vhd) > 20


@pytest.mark.parametrize("on_parent", [False, True])
def test_every_field_of_a_vhdx(on_parent: bool) -> None:
    disk = vhdx(on_parent=on_parent)
    items = 6 if on_parent else 5
    places = [(192 * KIB, 16 + 64), (2 * MIB, 32 + 32 * items), (2 * MIB + 64 * KIB, 40), (3 * MIB, 32)]
    if on_parent:
        places += [(2 * MIB + 64 * KIB + 40, 80), (3 * MIB + 8 * 8192, 8)]
    disk.seen[128 * KIB : 132 * KIB] = bytes(4096)
    places.append((64 * KIB, 80))
    assert mutations(disk, places, sums_of_vhdx, open_vhdx) > 200


def test_every_field_of_a_log() -> None:
    disk = vhdx(clean=False)
    (_, first), (second, _) = list(log_entries(disk.seen))[:2]
    assert mutations(disk, [(MIB, 96), (second, 96), (second + 4096, 12)], sums_of_vhdx, open_vhdx) > 50
    assert first == 8192


@pytest.mark.parametrize("opener", [open_vhd, open_vhdx])
def test_every_length_that_is_left(opener: Opener) -> None:
    disk = vhd() if opener is open_vhd else vhdx()
    whole = bytes(disk.seen)
    step = SECTOR if opener is open_vhd else 128 * KIB
    for length in range(SECTOR, len(whole), step):
        disk.seen[:] = whole[:length]
        answer = look_at(disk, opener)
        assert answer or opener is open_vhd, length  # a VHD has a copy of its footer, and its last block may be there
    disk.seen[:] = whole
    assert look_at(disk, opener) == ""


@pytest.mark.parametrize("opener", [open_vhd, open_vhdx])
def test_noise(opener: Opener) -> None:
    """Many bytes at once, without care for checksums."""
    disk = vhd(on_parent=True) if opener is open_vhd else vhdx(on_parent=True, clean=False)
    whole = bytes(disk.seen)
    metadata = [*range(4096)]
    if opener is open_vhdx:
        metadata = [*range(MIB, MIB + 65536), *range(2 * MIB, 2 * MIB + 512), *range(3 * MIB, 3 * MIB + 64)]
    for seed in range(150):
        rolls = random.Random(seed)
        for at in rolls.sample(metadata, rolls.choice((1, 3, 30))):
            disk.seen[at] = rolls.randrange(256)
        look_at(disk, opener)
        disk.seen[:] = whole


def test_blocks_may_not_overlap_or_lie_outside() -> None:
    disk = vhd()
    disk.seen[1536:1540] = disk.seen[1540:1544]
    assert "overlaps" in look_at(disk, open_vhd)
    disk.seen[1536:1540] = (len(disk.seen) // 512).to_bytes(4, "big")
    assert "outside of the file" in look_at(disk, open_vhd)
    disk = vhdx()
    disk.seen[3 * MIB : 3 * MIB + 8] = disk.seen[3 * MIB + 8 : 3 * MIB + 16]
    assert "overlaps" in look_at(disk, open_vhdx)
    disk.seen[3 * MIB : 3 * MIB + 8] = (6 | 1 << 60).to_bytes(8, "little")
    assert "outside of the file" in look_at(disk, open_vhdx)


def test_a_vhdx_whose_second_copies_are_gone_is_read_by_its_first() -> None:
    disk = vhdx()
    for copy in (128 * KIB, 192 * KIB):
        disk.seen[copy : copy + 4096] = bytes(4096)
    assert look_at(disk, open_vhdx) == ""
    disk.seen[256 * KIB : 256 * KIB + 64] = bytes(64)
    assert "region tables" in look_at(disk, open_vhdx)
    disk.seen[64 * KIB : 64 * KIB + 64] = bytes(64)
    assert "headers" in look_at(disk, open_vhdx)


def test_a_refusal_is_an_error_of_the_image() -> None:
    with pytest.raises(ImageError, match="footer"):
        open_vhd(Disk(data=bytes(4096)), "image", no_parent)
    with pytest.raises(ImageError, match="vhdxfile"):
        open_vhdx(Disk(data=bytes(4096)), "image", no_parent)


def test_what_would_take_too_much_memory_is_refused() -> None:
    disk = vhdx(on_parent=True)
    pairs = struct.pack("<II HH", 20, 20, 0, 30000) * 1000  # all of them lead to the same text
    with pytest.raises(ImageError, match="overlap"):
        read_locator((LOCATOR_TYPE.bytes_le + struct.pack("<HH", 0, 1000) + pairs).ljust(40000, b"x"), "image")
    header = Headers(disk, "image").current
    with pytest.raises(ImageError, match="fit memory"):
        LogReader(disk, replace(header, log_length=1 << 30), "image")
    with pytest.raises(ImageError, match="no more"):
        replace(header, sequence=(1 << 64) - 1).check("image", disk.size)
    with pytest.raises(ImageError, match="blocks"):
        write_vhd(Disk(), "image", 1 << 40, "dynamic", block_size=4096, parent=None)


def test_a_url_that_is_none_leads_to_no_parent() -> None:
    assert path_of(b"MacX", b"file://[abc") is None
    assert path_of(b"MacX", b"file:///disks/a%20b.vhd") == "/disks/a b.vhd"


def test_a_file_with_a_hole_without_end_is_opened() -> None:
    free = FreePlaces(MIB)
    assert free.find([(0, MIB)], MIB, 1 << 60, align=MIB) == (1 << 60) - MIB - (MIB << 20)
    assert (len(free.free), free.take()) == (1 << 20, MIB)
