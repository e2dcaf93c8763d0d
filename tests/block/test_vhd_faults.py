"""Errors of the file below, one at each operation: the image goes on, and holds what it has said that it holds; many threads."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block import formats
from blockyard.block.device import Device
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.block.parents import Wanted
from blockyard.block.vhd import open_vhd
from blockyard.block.vhd_creation import write_vhd
from blockyard.block.vhdx import open_vhdx
from blockyard.block.vhdx_creation import write_vhdx
from tests.block.disks import SECTOR, Disk

MIB = 1 << 20
BLOCKS = 4


def no_parent(wanted: Wanted) -> Device:
    raise AssertionError("it has no parent")


def made(format: str, on_parent: bool) -> tuple[Disk, Callable[[Device], Device], int]:
    """A new image, how it is opened, and the size of its blocks."""
    base, disk = Disk(), Disk()
    block = 4096 if format == "vhd" else MIB
    size = BLOCKS * block
    opener = open_vhd if format == "vhd" else open_vhdx
    above = None
    for each in (base, disk):
        parent = above if each is disk and on_parent else None
        if format == "vhd":
            write_vhd(each, "image", size, "dynamic", block_size=block, parent=parent)
        else:
            write_vhdx(each, "image", size, "dynamic", block_size=block, sector_size=0, parent=parent)
        above = open_vhd(base, "base", no_parent) if format == "vhd" else open_vhdx(base, "base", no_parent)
    return disk, lambda below: opener(below, "image", lambda wanted: MemoryDevice(size)), block


def work(image: Device, block: int, possible: dict[int, set[int]]) -> int:
    """Much of what can be done to an image; how much of it has failed. `possible` has the first bytes that sectors may have."""
    rolls = random.Random(7)
    sectors, failed = BLOCKS * block // SECTOR, 0
    for number in range(1, 60):
        what = rolls.choice(("write", "write", "discard", "zero", "flush"))
        start = rolls.choice((0, block // SECTOR)) * rolls.randrange(3) + rolls.randrange(4)
        count = rolls.choice((1, 3))
        if what != "write" and rolls.random() < 0.6:
            start, count = start // (block // SECTOR) * (block // SECTOR), block // SECTOR
        end = min(start + count, sectors)
        touched = [sector for sector in possible if start <= sector < end]
        value = number if what == "write" else 0
        try:
            if what == "write":
                image.pwritev([bytes([number]) * SECTOR * (end - start)], start * SECTOR)
            elif what == "flush":
                image.flush()
            else:
                (image.discard if what == "discard" else image.write_zeroes)(start * SECTOR, (end - start) * SECTOR)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017
            failed += 1
            for sector in touched:
                possible[sector] = possible[sector] | {value}
        else:
            if what != "flush":
                for sector in touched:
                    possible[sector] = {value}
    return failed


def compare(image: Device, possible: dict[int, set[int]]) -> None:
    for sector, values in possible.items():
        data = bytearray(SECTOR)
        image.preadv([memoryview(data)], sector * SECTOR)
        assert data[0] in values, sector
        assert data.count(data[0]) == SECTOR


@pytest.mark.parametrize("operation", [Operation.WRITE, Operation.FLUSH, Operation.DISCARD])
@pytest.mark.parametrize(("format", "on_parent"), [("vhd", False), ("vhd", True), ("vhdx", False), ("vhdx", True)])
def test_an_error_at_each_operation(format: str, on_parent: bool, operation: Operation) -> None:
    skip, step = 0, 1 if format == "vhd" else 5
    while True:
        disk, opened, block = made(format, on_parent)
        faulty = FaultDevice(disk)
        image = opened(faulty)
        possible = {
            start * (block // SECTOR) + sector: {0} for start in range(BLOCKS) for sector in (0, 1, 2, 3, 5, 6, 7)
        }
        fault = faulty.inject(Fault(operation, errno=errno.ENOSPC, skip=skip, count=1))
        failed = work(image, block, possible)
        assert failed <= 1
        faulty.heal()
        compare(image, possible)
        image.flush()
        disk.lose_power(0, 0.0)
        compare(opened(disk), possible)
        if fault.hits <= skip:  # there are no more operations
            break
        skip += step
    assert skip > 3


@pytest.mark.parametrize("format", ["vhd", "vhdx"])
@pytest.mark.parametrize("on_parent", [False, True])
def test_many_threads(format: str, on_parent: bool, tmp_path: Path) -> None:
    """Each has parts of some blocks, and others for itself, which it discards too. The first goes shortly where it can."""
    threads, block, stripe = 4, MIB, 64 << 10
    size = 12 * block
    path = tmp_path / f"image.{format}"
    parent = str(tmp_path / f"base.{format}") if on_parent else None
    if parent:
        formats.create_image(parent, format, size)
    formats.create_image(path, format, size, block_size=block, parent=parent)
    image = formats.open_image(path)
    expected = bytearray(size)
    errors: list[BaseException] = []
    shortly = {"read": 0, "write": 0}
    quick = image.quick
    assert quick is not None

    def put(data: bytes, at: int, own: int) -> None:
        if own == 0 and quick.write(memoryview(data), at):
            shortly["write"] += 1
        else:
            image.pwritev([data], at)

    def get(at: int, length: int, own: int) -> bytes:
        data = bytearray(length)
        if own == 0 and quick.read([memoryview(data)], at, length):
            shortly["read"] += 1
        else:
            image.preadv([memoryview(data)], at)
        return bytes(data)

    def one(own: int) -> None:
        rolls = random.Random(own)
        try:
            for number in range(40):
                data = bytes([rolls.randrange(1, 256)]) * rolls.choice((512, 4096, stripe))
                if number % 3:
                    at = (
                        rolls.randrange(4) * block
                        + (rolls.randrange(block // stripe // threads) * threads + own) * stripe
                    )
                else:
                    at = (4 + own + threads * rolls.randrange(2)) * block
                    image.discard(at, block)
                    expected[at : at + block] = bytes(block)
                put(data, at, own)
                expected[at : at + len(data)] = data
                assert get(at, len(data), own) == data
                if number % 10 == own:
                    image.flush()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not errors
    put(b"\x5a" * 4096, 8 * block, 0)
    put(bytes(expected[8 * block : 8 * block + 4096]), 8 * block, 0)
    assert get(8 * block, 4096, 0) == expected[8 * block : 8 * block + 4096]
    assert min(shortly.values()) > 0
    assert not quick.read([memoryview(bytearray(size))], 0, size)  # several blocks
    image.close()
    image = formats.open_image(path, read_only=True)
    found = bytearray(size)
    image.preadv([memoryview(found)], 0)
    image.close()
    assert found == expected
