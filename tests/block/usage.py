"""A disk used as disks are used, with a model of what is on it: for layers on other people's servers."""

from __future__ import annotations

import random
import threading

from blockyard.block.device import Device
from tests.block.disks import SECTOR

PART = 6 << 20  # bytes that the model looks at


def use(device: Device, seed: int | str, rounds: int = 60) -> bytearray:
    """All that a disk can do, at random; what the first bytes of it are then."""
    model = bytearray(PART)
    device.write_zeroes(0, PART)
    chance = random.Random(seed)
    for number in range(rounds):
        length = chance.choice((1, 2, 8, 9, 64, 1000, 3000)) * SECTOR
        offset = chance.randrange((PART - length) // SECTOR) * SECTOR
        end = offset + length
        match number % 5:
            case 0 | 1:
                data = chance.randbytes(length)
                device.pwritev([data[: SECTOR // 2], data[SECTOR // 2 :]], offset)
                model[offset:end] = data
            case 2:
                device.discard(offset, length)
                model[offset:end] = bytes(length)
            case 3:
                device.write_zeroes(offset, length)
                model[offset:end] = bytes(length)
            case 4:
                device.flush()
                found = bytearray(length)
                device.preadv([memoryview(found)[:SECTOR], memoryview(found)[SECTOR:]], offset)
                assert found == model[offset:end]
    return model


def check(device: Device, model: bytearray) -> None:
    """That this is on it, and that nothing of it is unmapped."""
    found = bytearray(PART)
    device.preadv([memoryview(found)], 0)
    assert found == model
    at = 0
    for run in device.runs(0, PART):
        assert run.offset == at
        at += run.length
        assert run.mapped or not any(model[run.offset : at])
    assert at == PART


def use_by_many(device: Device, align: int = SECTOR) -> None:
    """Twelve threads, each with a part of its own, that read what they have written, at multiples of `align` bytes."""
    failures: list[object] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        base = number * (4 << 20)
        for _ in range(40):
            length = chance.choice((1, 8, 64, 512)) * SECTOR
            offset = base + chance.randrange(((4 << 20) - length) // align) * align
            data = chance.randbytes(length)
            device.pwritev([data], offset)
            found = bytearray(length)
            device.preadv([memoryview(found)], offset)
            if found != data:
                failures.append((number, offset))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
