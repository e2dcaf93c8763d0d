"""VHD and VHDX beside other programs, both ways: qemu-img writes and reads them, libvhdi reads them and their chains."""

from __future__ import annotations

import json
import random
import struct
import uuid
from pathlib import Path

import pytest
import pyvhdi

from blockyard.block import formats
from blockyard.block.device import Device
from tests.conftest import need, run

MIB = 1 << 20
BAT = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08")  # the region of a VHDX
SIZE = 40 * MIB  # more than two blocks of 32 MiB, the last of which is not whole
QEMU_NAMES = {"vhd": "vpc", "vhdx": "vhdx"}
EVERY = [(format, kind) for format in QEMU_NAMES for kind in ("dynamic", "fixed")]


def qemu_img(*words: str | Path) -> str:
    return run([need("qemu-img", "qemu-utils"), *words]).stdout


def scattered(seed: int, align: int = 512) -> list[tuple[int, bytes]]:
    """Writes all over a disk: where and what."""
    rolls = random.Random(seed)
    writes = []
    for _ in range(12):
        length = rolls.choice((align, 4096, 65536, 3 * MIB))
        offset = rolls.randrange((SIZE - length) // align) * align
        writes.append((offset, rolls.randbytes(length)))
    return writes


def write(image: Device, writes: list[tuple[int, bytes]], content: bytearray) -> None:
    for offset, data in writes:
        image.pwritev([data], offset)
        content[offset : offset + len(data)] = data


def read(image: Device) -> bytes:
    data = bytearray(image.size)
    image.preadv([memoryview(data)], 0)
    return bytes(data)


def by_libvhdi(*paths: Path) -> bytes:
    """The disk in the last of a chain, whose first has no parent."""
    files: list[pyvhdi.file] = []
    for path in paths:
        file = pyvhdi.file()
        file.open(str(path))
        if files:
            file.set_parent(files[-1])
        files.append(file)
    data: bytes = files[-1].read_buffer_at_offset(files[-1].get_media_size(), 0)
    for file in reversed(files):
        file.close()
    return data


@pytest.mark.parametrize(("format", "kind"), EVERY)
def test_others_read_what_is_written_here(format: str, kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / f"disk.{format}", bytearray(SIZE)
    formats.create_image(path, format, SIZE, kind=kind)
    image = formats.open_image(path)
    write(image, scattered(1), content)
    image.discard(0, 33 * MIB)
    content[: 33 * MIB] = bytes(33 * MIB)
    write(image, scattered(2), content)
    image.close()
    (tmp_path / "raw").write_bytes(content)
    name = QEMU_NAMES[format]
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", name, tmp_path / "raw", path)
    assert json.loads(qemu_img("info", "--output=json", "-f", name, path))["virtual-size"] == SIZE
    if format == "vhdx":
        assert "No errors" in qemu_img("check", "-f", name, path)
    assert by_libvhdi(path) == content
    told = run([need("vhdiinfo", "libvhdi-utils"), path]).stdout
    assert f"({SIZE} bytes)" in told
    assert {"dynamic": "Dynamic", "fixed": "Fixed"}[kind] in told


@pytest.mark.parametrize(("format", "kind"), EVERY)
def test_what_others_write_is_read_and_changed_here(format: str, kind: str, tmp_path: Path) -> None:
    path, raw, name = tmp_path / f"disk.{format}", tmp_path / "raw", QEMU_NAMES[format]
    content = bytearray(SIZE)
    for offset, data in scattered(3):
        content[offset : offset + len(data)] = data
    raw.write_bytes(content)
    options = f"subformat={kind}" + (",force_size=on" if format == "vhd" else "")
    qemu_img("convert", "-f", "raw", "-O", name, "-o", options, raw, path)
    image = formats.open_image(path)
    assert (image.format, image.kind, image.size) == (format, kind, SIZE)  # type: ignore[attr-defined]
    assert read(image) == content
    write(image, scattered(4), content)
    image.close()
    raw.write_bytes(content)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", name, raw, path)
    qemu_io = need("qemu-io", "qemu-utils")
    run([qemu_io, "-f", name, "-c", "write -P 0x5a 30M 3M", "-c", "write -P 0xa5 512 1024", path])
    content[30 * MIB : 33 * MIB] = b"\x5a" * (3 * MIB)
    content[512:1536] = b"\xa5" * 1024
    image = formats.open_image(path, read_only=True)
    assert read(image) == content
    image.close()


@pytest.mark.parametrize("format", QEMU_NAMES)
def test_a_chain_is_read_by_libvhdi_as_it_was_written(format: str, tmp_path: Path) -> None:
    """But for two cases: where there is a parent it does not take blocks of zeros in a VHDX for zeros; and of a VHD's bitmap
    it takes the bits behind the last one that is set, up to the end of the byte, for set too.
    """
    paths = [tmp_path / f"{name}.{format}" for name in ("base", "middle", "top")]
    content = bytearray(SIZE)
    for number, path in enumerate(paths):
        parent = str(paths[number - 1]) if number else None
        formats.create_image(path, format, 0 if parent else SIZE, parent=parent)
        image = formats.open_image(path)
        write(image, scattered(number, align=4096), content)
        image.discard(9 * MIB * number, MIB)
        content[9 * MIB * number : 9 * MIB * number + MIB] = bytes(MIB)
        image.close()
    assert by_libvhdi(*paths) == content
    assert "Differential" in run([need("vhdiinfo", "libvhdi-utils"), paths[-1]]).stdout
    assert formats.merge(str(paths[-1])) == str(paths[1])
    assert by_libvhdi(*paths[:2]) == content
    formats.convert(str(paths[1]), str(tmp_path / f"one.{format}"), format)
    assert by_libvhdi(tmp_path / f"one.{format}") == content


@pytest.mark.parametrize("format", QEMU_NAMES)
def test_disks_that_have_grown_and_shrunk_files_are_sound_to_others(format: str, tmp_path: Path) -> None:
    path, content = tmp_path / f"disk.{format}", bytearray(SIZE)
    formats.create_image(path, format, SIZE, block_size=2 * MIB)
    image = formats.open_image(path)
    write(image, scattered(5), content)
    image.pwritev([bytes(range(1, 129)) * 8192 * 32], 4 * MIB)
    content[4 * MIB : 36 * MIB] = bytes(range(1, 129)) * 8192 * 32
    image.discard(2 * MIB, 30 * MIB)
    content[2 * MIB : 32 * MIB] = bytes(30 * MIB)
    image.close()
    before = path.stat().st_size
    formats.compact(str(path))
    assert path.stat().st_size < before - 20 * MIB
    larger = 200 << 30 if format == "vhd" else 3 << 40  # which needs a longer BAT
    formats.resize(str(path), larger)
    name = QEMU_NAMES[format]
    assert json.loads(qemu_img("info", "--output=json", "-f", name, path))["virtual-size"] == larger
    assert by_part(path, SIZE + MIB) == content + bytes(MIB)
    if format == "vhdx":
        assert "No errors" in qemu_img("check", "-f", name, path)


def by_part(path: Path, length: int) -> bytes:
    file = pyvhdi.file()
    file.open(str(path))
    data: bytes = file.read_buffer_at_offset(length, 0)
    file.close()
    return data


def test_a_log_that_was_left_behind_is_replayed_by_qemu_too(tmp_path: Path) -> None:
    """The process has died: what it has written is in the file, but for the BAT, which is in the log."""
    path, content = tmp_path / "disk.vhdx", bytearray(SIZE)
    formats.create_image(path, "vhdx", SIZE)
    image = formats.open_image(path)
    write(image, scattered(6), content)
    (tmp_path / "died.vhdx").write_bytes(path.read_bytes())
    image.close()
    (tmp_path / "raw").write_bytes(content)
    copy = tmp_path / "died.vhdx"
    assert "not closed cleanly" in formats.describe(copy).notes[0]
    assert read(formats.open_image(copy, read_only=True)) == content
    qemu_img("check", "-r", "all", "-f", "vhdx", copy)
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "vhdx", tmp_path / "raw", copy)


def test_a_vhdx_of_64_tib(tmp_path: Path) -> None:
    """The most that the format has: its BAT is 16 MiB, its last block 64 TiB away. Both ways with qemu; libvhdi reads it."""
    size = 64 << 40
    path, child = tmp_path / "large.vhdx", tmp_path / "child.vhdx"
    formats.create_image(path, "vhdx", size)
    image = formats.open_image(path)
    places = (0, 1 << 40, (32 << 40) + 512, size - 4096)
    for number, place in enumerate(places):
        image.pwritev([bytes([number + 1]) * 4096], place)
    image.close()
    assert json.loads(qemu_img("info", "--output=json", "-f", "vhdx", path))["virtual-size"] == size
    assert "No errors" in qemu_img("check", "-f", "vhdx", path)
    qemu_io = need("qemu-io", "qemu-utils")
    checks = [word for number, place in enumerate(places) for word in ("-c", f"read -P {number + 1} {place} 4096")]
    assert "failed" not in run([qemu_io, "-f", "vhdx", *checks, "-c", f"write -P 9 {size - 8192} 4096", path]).stdout
    formats.create_image(child, "vhdx", parent=str(path))
    image = formats.open_image(child)
    assert image.size == size
    image.pwritev([b"\x0a" * 4096], size - 12288)
    image.close()
    files = [pyvhdi.file(), pyvhdi.file()]
    for file, name in zip(files, (path, child), strict=True):
        file.open(str(name))
    files[1].set_parent(files[0])
    assert files[1].get_media_size() == size
    assert files[1].read_buffer_at_offset(12288, size - 12288) == b"\x0a" * 4096 + b"\x09" * 4096 + b"\x04" * 4096
    for file in reversed(files):
        file.close()
    image = formats.open_image(child, read_only=True)
    for number, place in enumerate(places):
        found = bytearray(4096)
        image.preadv([memoryview(found)], place)
        assert found == bytes([number + 1]) * 4096
    image.close()
    with path.open("r+b") as file:  # the last entry of the BAT is made to lead out of the file
        file.seek(192 << 10)
        table = file.read(4096)  # MS-VHDX 2.2.3
        place, length = struct.unpack_from("<QI", table, table.index(BAT.bytes_le) + 16)
        file.seek(place)
        entries = struct.unpack(f"<{length // 8}Q", file.read(length))
        last = max(number for number, entry in enumerate(entries) if entry & 7 == 6)
        file.seek(place + 8 * last)
        file.write(struct.pack("<Q", 6 | 1 << 60))
    with pytest.raises(OSError, match="outside of the file"):
        formats.open_image(path, read_only=True)
