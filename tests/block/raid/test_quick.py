"""The short road: it reads and writes what the long one would, and is not taken where something stands in the way."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice
from blockyard.block.layers import Opening
from blockyard.block.raid.acting import Chosen
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import assemble
from blockyard.block.raid.creation import Plan, create
from tests.block.raid.disks import read

PLANS = [Plan(0), Plan(1), Plan(10), Plan(10, copies=3), Plan(5), Plan(6)]


def on_files(directory: Path, plan: Plan, count: int = 4) -> Array:
    paths = [directory / f"m{number}" for number in range(count)]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(4 << 20)
    devices = [FileDevice(path) for path in paths]
    create(devices, plan)
    return assemble(devices, plan.level, Opening())


def quickly(array: Array, offset: int, length: int) -> bytearray | None:
    data = bytearray(length)
    view = memoryview(data)
    cut = length // 3
    return data if array.quick.read([view[:cut], view[cut:]], offset, length) else None


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"raid{plan.level} of {plan.copies}")
def test_it_reads_and_writes_what_the_long_road_does(plan: Plan, tmp_path: Path) -> None:
    array = on_files(tmp_path, plan)
    if any(member.device.fd < 0 for member in array.members.all):
        pytest.fail("the file system of the tests cannot tell cached data from cold")
    chance = random.Random(3)
    stripe = {5: 192 << 10, 6: 128 << 10}.get(plan.level, 64 << 10)
    model = bytearray(chance.randbytes(array.size))
    array.pwritev([bytes(model)], 0)
    for _ in range(200):
        unit, length = chance.choice(
            ((4096, 4096), (4096, 65536), (65536, 262144), (stripe, stripe), (stripe, 2 * stripe))
        )
        offset = chance.randrange(array.size // unit) * unit
        length = min(length, array.size - offset)
        assert quickly(array, offset, length) == model[offset : offset + length]
        piece = chance.randbytes(length)
        wrote = array.quick.write(memoryview(piece), offset)
        assert wrote is (plan.level not in (5, 6) or (offset % stripe == 0 and length % stripe == 0))
        if wrote:
            model[offset : offset + length] = piece
    assert read(array, 0, array.size) == model
    if plan.level:
        assert array.check(0, array.members.bitmap.size, repair=False) == 0
    array.close()


def test_it_is_not_taken_where_a_bit_has_to_be_set_first(tmp_path: Path) -> None:
    array = on_files(tmp_path, Plan(1), 2)
    piece = memoryview(bytes(4096))
    assert not array.quick.write(piece, 0)
    array.pwritev([piece], 0)
    assert array.quick.write(piece, 0)
    assert not array.quick.write(piece, 2 << 20)
    for _ in range(3):
        array.tidy()
    assert not array.quick.write(piece, 0), "the bit has gone"
    array.close()


def test_it_is_not_taken_where_somebody_has_the_place_or_members_change(tmp_path: Path) -> None:
    array = on_files(tmp_path, Plan(1), 3)
    piece = memoryview(bytes(4096))
    array.pwritev([piece], 0)
    before = array.quick.write
    with array.ranges.held(4096, 8192):
        assert not array.quick.write(piece, 4096)
        assert array.quick.write(piece, 0)
    array.actions()["fail"].run(Chosen("1"), lambda done, total: None)
    assert not before(piece, 0), "who still has the old road in hand"
    assert array.quick.write(piece, 0)
    assert quickly(array, 1 << 20, 4096) is not None
    array.members.bitmap.distrust(0, 4096)
    assert quickly(array, 1 << 20, 4096) is None
    array.members.bitmap.distrusted.clear()
    array.close()
