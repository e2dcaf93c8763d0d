"""Caches on persistent devices: what is refused, what fails, many at once, and what can be done while one is in use."""

from __future__ import annotations

import errno
import os
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.building import open_stack, tree
from blockyard.block.cache.layout import CacheError, slots_of
from blockyard.block.cache.ssd import SsdCache
from blockyard.block.cache.ssd_opening import create_cache, open_cache
from blockyard.block.cache.ssd_options import Rate, Resizing, SsdCreation, SsdOptions, Switching, Tuning
from blockyard.block.device import Device
from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.file import FileDevice, create
from blockyard.block.layers import Absent, Opening
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size
from tests.block.cache.test_ram import quick_read, read
from tests.block.raid.disks import Disk

LINE = 4096
DISK = 256 * LINE
BACK = SsdOptions(mode="back", delay=3600)


def nobody(done: int, total: int) -> None:
    """Nobody looks at the progress."""


class Pair:
    """An origin and a cache device, in files."""

    def __init__(self, directory: Path, blocks: int = 64) -> None:
        self.directory = directory
        create(directory / "origin", DISK)
        create(directory / "ssd", (1 << 20) + (64 << 10) + blocks * (LINE + 32))
        self.with_devices(lambda *devices: create_cache(devices, SsdCreation(), Opening()))

    def with_devices(self, run: object) -> str:
        devices = FileDevice(self.directory / "origin"), FileDevice(self.directory / "ssd")
        try:
            return run(*devices)  # type: ignore[operator,no-any-return]
        finally:
            for device in devices:
                device.close()

    def open(
        self, options: SsdOptions = BACK, origin: Device | None = None, opening: Opening | None = None
    ) -> SsdCache:
        origin = origin or FileDevice(self.directory / "origin")
        device = FileDevice(self.directory / "ssd")
        try:
            return open_cache((origin, device), options, opening or Opening())
        except BaseException:
            origin.close()
            device.close()
            raise


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
def cache(pair: Pair) -> Iterator[SsdCache]:
    cache = pair.open()
    yield cache
    cache.close()


def origin_bytes(pair: Pair, offset: int, length: int) -> bytes:
    return (pair.directory / "origin").read_bytes()[offset : offset + length]


def test_written_back(pair: Pair, cache: SsdCache) -> None:
    cache.pwritev([b"a" * LINE * 3], LINE)
    cache.flush()
    assert origin_bytes(pair, LINE, 3 * LINE) == bytes(3 * LINE)
    assert cache.report()["gauges"]["dirty_bytes"] == 3 * LINE  # type: ignore[index]
    assert cache.actions()["flush"].run(None, nobody) == "everything is written back"
    assert origin_bytes(pair, LINE, 3 * LINE) == b"a" * 3 * LINE
    assert read(cache, 0, 5 * LINE) == bytes(LINE) + b"a" * 3 * LINE + bytes(LINE)


def test_the_thread_writes_back_when_its_time_has_come(pair: Pair) -> None:
    done = threading.Event()
    origin = FaultDevice(FileDevice(pair.directory / "origin"))
    flush = origin.flush
    cache = pair.open(SsdOptions(mode="back", delay=0.1), origin)
    origin.flush = lambda: (flush(), done.set())  # type: ignore[method-assign,assignment,func-returns-value]
    cache.pwritev([b"a" * LINE], 0)
    assert done.wait(120)
    assert origin_bytes(pair, 0, LINE) == b"a" * LINE
    cache.close()


def test_writers_wait_for_room(pair: Pair) -> None:
    """Twice as much as may be dirty gets through, and never is more than that dirty."""
    cache = pair.open(SsdOptions(mode="back", delay=3600, dirty=25))
    for line in range(64):
        cache.pwritev([bytes([line + 1]) * LINE], line * LINE)
        assert cache.slots.dirty_count <= 16
    assert read(cache, 0, 64 * LINE) == b"".join(bytes([line + 1]) * LINE for line in range(64))
    cache.close()
    assert origin_bytes(pair, 0, 16 * LINE) == b"".join(bytes([line + 1]) * LINE for line in range(16))


def test_who_waits_is_told_when_the_origin_fails(pair: Pair) -> None:
    told: list[str] = []
    origin = FaultDevice(FileDevice(pair.directory / "origin"))
    opening = Opening(notify=lambda severity, what, text: told.append(f"{severity} {what}"))
    cache = pair.open(SsdOptions(mode="back", delay=3600, dirty=25), origin, opening)
    fault = origin.inject(Fault(Operation.WRITE, errno=errno.EIO))
    with pytest.raises(OSError, match="does not take") as caught:
        for line in range(64):
            cache.pwritev([b"a" * LINE], line * LINE)
    assert caught.value.errno == errno.EIO
    assert cache.report()["health"] == "degraded"
    assert told == ["error cache-not-written-back"]
    origin.heal(fault)
    cache.actions()["flush"].run(None, nobody)
    assert told[1:] == ["info cache-written-back"]
    assert "health" not in cache.report()
    cache.pwritev([b"b" * LINE], 63 * LINE)
    assert read(cache, 0, 16 * LINE) == b"a" * LINE * 16
    cache.close()


def test_a_flush_that_has_failed_goes_on_failing(tmp_path: Path) -> None:
    origin, device = MemoryDevice(DISK), FaultDevice(MemoryDevice(2 << 20))
    create_cache((origin, device), SsdCreation(), Opening())
    cache = open_cache((origin, device), BACK, Opening())
    cache.pwritev([b"a" * LINE], 0)
    fault = device.inject(Fault(Operation.FLUSH, errno=errno.EIO))
    for _ in range(2):
        with pytest.raises(OSError, match="cannot be flushed"):
            cache.flush()
    device.heal(fault)
    with pytest.raises(OSError, match="cannot be flushed"):
        cache.flush()
    with pytest.raises(OSError, match="cannot be flushed"):
        cache.close()
    again = open_cache((origin, device), BACK, Opening())
    assert read(again, 0, LINE) == b"a" * LINE
    again.close()


def test_a_damaged_block_does_not_get_to_the_origin(pair: Pair) -> None:
    cache = pair.open()
    cache.pwritev([b"a" * LINE], 0)
    slot = cache.slots.index[0]
    cache.device.pwritev([b"b"], cache.slots.position(slot))
    with pytest.raises(OSError, match="damaged block"):
        cache.actions()["flush"].run(None, nobody)
    assert origin_bytes(pair, 0, LINE) == bytes(LINE)
    cache.close()


def test_detached_while_in_use(pair: Pair, cache: SsdCache) -> None:
    cache.pwritev([b"a" * LINE * 9], LINE)
    cache.actions()["detach"].run(None, nobody)
    assert (pair.directory / "origin").read_bytes() == bytes(LINE) + b"a" * LINE * 9 + bytes(DISK - 10 * LINE)
    cache.pwritev([b"b" * LINE], 0)
    assert cache.quick is not None
    assert cache.quick.write(memoryview(b"c" * LINE), LINE)
    cache.discard(2 * LINE, LINE)
    cache.flush()
    assert quick_read(cache, 0, 4 * LINE) == b"b" * LINE + b"c" * LINE + bytes(LINE) + b"a" * LINE
    assert cache.actions() == {}
    cache.close()
    with pytest.raises(OSError, match="has been detached"):
        pair.open()
    pair.with_devices(lambda *devices: create_cache(devices, SsdCreation(), Opening()))
    again = pair.open()
    assert read(again, 0, LINE) == b"b" * LINE
    again.close()


def test_modes_and_tuning(pair: Pair, cache: SsdCache) -> None:
    cache.pwritev([b"a" * LINE], 0)
    assert "back" in cache.actions()["mode"].run(Switching("through"), nobody)
    assert origin_bytes(pair, 0, LINE) == b"a" * LINE
    cache.pwritev([b"b" * LINE], LINE)
    assert origin_bytes(pair, LINE, LINE) == b"b" * LINE
    assert quick_read(cache, LINE, LINE) == b"b" * LINE, "what is written through is in the cache too"
    cache.actions()["mode"].run(Switching("back"), nobody)
    cache.pwritev([b"c" * LINE], LINE)
    assert origin_bytes(pair, LINE, LINE) == b"b" * LINE
    cache.actions()["tune"].run(Tuning(dirty=10, rate=Rate(1 << 20)), nobody)
    assert (cache.limit, cache.options.rate, cache.options.delay) == (6, 1 << 20, 3600)
    with pytest.raises(ValueError, match="per cent"):
        cache.actions()["tune"].run(Tuning(dirty=100), nobody)


def test_long_reads_pass_by(cache: SsdCache) -> None:
    read(cache, 0, 100 * LINE)
    assert not cache.slots.index
    read(cache, 0, 10 * LINE)
    assert len(cache.slots.index) == 10


def test_threads(pair: Pair) -> None:
    """Many at once on a cache much smaller than what they use, with the thread that writes back: each sees what it wrote last."""
    cache = pair.open(SsdOptions(mode="back", delay=0.05, dirty=50))
    wrong: list[str] = []

    def use(number: int) -> None:
        chance = random.Random(number)
        seen = dict.fromkeys(range(number, DISK // 512, 4), 0)
        mine = list(seen)
        for _ in range(600):
            sector = chance.choice(mine)
            dice = chance.random()
            if dice < 0.4:
                seen[sector] = chance.randrange(1, 256)
                cache.pwritev([bytes([seen[sector]]) * 512], sector * 512)
            elif dice < 0.45:
                cache.discard(sector * 512, 512)
                seen[sector] = 0
            elif dice < 0.5:
                cache.flush()
            else:
                found = quick_read(cache, sector * 512, 512) or read(cache, sector * 512, 512)
                if found != bytes([seen[sector]]) * 512:
                    wrong.append(f"sector {sector} is {found[0]}, not {seen[sector]}")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    expected = read(cache, 0, DISK)
    cache.actions()["mode"].run(Switching("through"), nobody)
    assert origin_bytes(pair, 0, DISK) == expected
    cache.close()


def test_short_road(pair: Pair) -> None:
    """Writes and hits that wait for nothing, killed at the end: all is there when it is opened again."""
    cache = pair.open(SsdOptions(mode="back", delay=3600, dirty=90))
    assert cache.quick is not None
    model, chance = bytearray(DISK), random.Random(5)
    for number in range(1500):
        line, count = chance.randrange(40), chance.choice((1, 1, 1, 6))
        if chance.random() < 0.5:
            data = bytes([number % 255 + 1]) * LINE * count
            if not cache.quick.write(memoryview(data), line * LINE):
                cache.pwritev([data], line * LINE)
            model[line * LINE : (line + count) * LINE] = data
        else:
            found = quick_read(cache, line * LINE, LINE * count) or read(cache, line * LINE, LINE * count)
            assert found == model[line * LINE : (line + count) * LINE]
    (pair.directory / "copy").mkdir()
    for name in ("ssd", "origin"):  # as after kill -9; in this order, as the thread goes on writing back meanwhile
        shutil.copy(pair.directory / name, pair.directory / "copy" / name)
    copy = Pair.__new__(Pair)
    copy.directory = pair.directory / "copy"
    again = copy.open()
    assert read(again, 0, DISK) == model
    again.close()
    cache.close()


def test_what_does_not_belong_together(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = Pair(tmp_path / "one"), Pair(tmp_path / "two")
    old = tmp_path / "old"
    shutil.copytree(one.directory, old)
    cache = one.open()
    cache.pwritev([b"a" * LINE], 0)
    cache.close()
    one.open().close()
    mixed = Pair.__new__(Pair)
    mixed.directory = tmp_path / "mixed"
    for origin, device, problem in (
        (one.directory, two.directory, "belongs to another origin"),
        (one.directory, old, "The cache .* is stale"),
        (old, one.directory, "The origin .* is stale"),
    ):
        shutil.rmtree(mixed.directory, ignore_errors=True)
        mixed.directory.mkdir()
        shutil.copy(origin / "origin", mixed.directory / "origin")
        shutil.copy(device / "ssd", mixed.directory / "ssd")
        with pytest.raises(OSError, match=problem):
            mixed.open()
    (mixed.directory / "ssd").write_bytes(b"x" * (2 << 20))
    with pytest.raises(OSError, match="is no cache"):
        mixed.open()
    with (one.directory / "ssd").open("r+b") as file:
        file.truncate((1 << 20) + (64 << 10))
    with pytest.raises(OSError, match="cut short"):
        one.open()
    with (two.directory / "origin").open("r+b") as file:
        file.truncate(DISK)
    with pytest.raises(OSError, match="cut short"):
        two.open()


def test_missing(pair: Pair) -> None:
    origin = FileDevice(pair.directory / "origin")
    gone = Absent("/dev/gone", OSError(errno.ENOENT, "No such file"))
    with pytest.raises(OSError, match="can be used without it"):
        open_cache((origin, gone), BACK, Opening())
    cache = pair.open(BACK, origin)
    cache.pwritev([b"a" * LINE], 0)
    cache.close()
    origin = FileDevice(pair.directory / "origin")
    with pytest.raises(OSError, match="is only there, and the origin alone is not what it should be"):
        open_cache((origin, gone), BACK, Opening())
    with pytest.raises(OSError, match=r"The origin /dev/gone is not there: No such file"):
        open_cache((gone, origin), BACK, Opening())
    origin.close()


def test_creation_writes_over_nothing(tmp_path: Path) -> None:
    origin, device = MemoryDevice(DISK), MemoryDevice(2 << 20)
    device.pwritev([b"x"], 600)
    with pytest.raises(OSError, match="holds something"):
        create_cache((origin, device), SsdCreation(), Opening())
    device.pwritev([b"\0"], 600)
    origin.pwritev([b"x"], DISK - 512)
    with pytest.raises(OSError, match="make the origin larger"):
        create_cache((origin, device), SsdCreation(), Opening())
    origin.pwritev([b"\0"], DISK - 512)
    create_cache((origin, device), SsdCreation(block=Size(16384)), Opening())
    with pytest.raises(OSError, match="is a cache already"):
        create_cache((origin, device), SsdCreation(), Opening())
    with pytest.raises(OSError, match="has a cache already"):
        create_cache((origin, MemoryDevice(2 << 20)), SsdCreation(), Opening())
    create_cache((origin, device), SsdCreation(force=True), Opening())
    with pytest.raises(OSError, match="too small"):
        create_cache((origin, MemoryDevice(1 << 20)), SsdCreation(), Opening())


def test_an_origin_that_has_no_place_for_the_mark() -> None:
    """It cannot become larger, and is not even looked at before its beginning."""
    for force in (False, True):
        with pytest.raises(OSError, match="The origin is too small: it has 49152 bytes"):
            create_cache((Disk(48 << 10), MemoryDevice(2 << 20)), SsdCreation(force=force), Opening())


def test_what_is_in_the_table_may_be_anything(pair: Pair) -> None:
    """Damaged entries are none; a damaged superblock leaves the other copy."""
    cache = pair.open()
    for line in range(20):
        cache.pwritev([bytes([line + 1]) * LINE], line * LINE)
    cache.close()
    path, chance = pair.directory / "ssd", random.Random(7)
    sound = path.read_bytes()
    for _ in range(60):
        data = bytearray(sound)
        for _ in range(chance.randrange(1, 4)):
            at = chance.choice((chance.randrange(8192), (64 << 10) + chance.randrange(64 * 32)))
            data[at] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        origin = (pair.directory / "origin").read_bytes()
        try:
            cache = pair.open()
        except CacheError:
            pass
        else:
            for line in range(20):
                assert read(cache, line * LINE, LINE) in (bytes(LINE), bytes([line + 1]) * LINE)
            cache.write_back.stop()
            cache.origin.close()
            cache.device.close()
        (pair.directory / "origin").write_bytes(origin)


def test_as_a_layer_of_a_stack(pair: Pair) -> None:
    device = open_stack(f"cache(ram=1M, ssd-cache(mode=back, {pair.directory}/origin, {pair.directory}/ssd))")
    device.pwritev([b"a" * LINE], 0)
    found = tree(device)["children"][0]
    assert found["gauges"]["dirty_bytes"] == LINE
    assert found["actions"] == ["detach", "flush", "mode", "resize", "tune"]
    assert len(found["children"]) == 2
    device.close()


def test_resized(pair: Pair, cache: SsdCache) -> None:
    """Larger, with its file, then smaller: what was dirty is on the origin, and the mode stays."""
    cache.pwritev([b"a" * LINE * 9], LINE)
    assert cache.actions()["resize"].run(Resizing(Size(8 << 20)), nobody).startswith("it has 6.88")
    assert (pair.directory / "ssd").stat().st_size == 8 << 20
    assert origin_bytes(pair, LINE, 9 * LINE) == b"a" * LINE * 9
    cache.pwritev([b"b" * LINE], 0)
    assert cache.slots.dirty_count == 1
    cache.actions()["resize"].run(Resizing(Size(2 << 20)), nobody)
    assert (pair.directory / "ssd").stat().st_size == 2 << 20
    assert quick_read(cache, 0, 10 * LINE) is None
    assert read(cache, 0, 10 * LINE) == b"b" * LINE + b"a" * LINE * 9
    assert quick_read(cache, 0, 10 * LINE) == b"b" * LINE + b"a" * LINE * 9


def test_resized_to_what_there_is(pair: Pair) -> None:
    """An administrator has made the device larger while nobody used it."""
    os.truncate(pair.directory / "ssd", 4 << 20)
    cache = pair.open()
    assert cache.slots.count == 64
    cache.actions()["resize"].run(Resizing(), nobody)
    assert cache.slots.count == slots_of(4 << 20, LINE)
    cache.close()
    again = pair.open()
    assert again.slots.count == slots_of(4 << 20, LINE)
    again.close()


def test_what_cannot_be_resized(tmp_path: Path, cache: SsdCache) -> None:
    with pytest.raises(CacheError, match="has to have 16 blocks"):
        cache.actions()["resize"].run(Resizing(Size(1 << 20)), nobody)
    origin, device = MemoryDevice(DISK), MemoryDevice(2 << 20)
    create_cache((origin, device), SsdCreation(), Opening())
    other = open_cache((origin, device), BACK, Opening())
    with pytest.raises(CacheError, match="has 2 MiB, and not more"):
        other.actions()["resize"].run(Resizing(Size(4 << 20)), nobody)
    assert other.mode == "back"
    other.close()


@pytest.mark.parametrize("mode", ["back", "through"])
def test_resized_under_load(pair: Pair, mode: str) -> None:
    """Writers and readers, by both roads, see what they wrote while the cache has another size again and again."""
    cache = pair.open(SsdOptions(mode=mode, delay=0.05))
    assert cache.quick is not None
    ended, wrong = threading.Event(), list[str]()

    def work(first: int) -> None:
        lines, seed = dict.fromkeys(range(first, first + 16), bytes(LINE)), random.Random(first)
        while not ended.is_set():
            line = seed.randrange(first, first + 16)
            if seed.random() < 0.5:
                lines[line] = bytes([seed.randrange(256)]) * LINE
                if not cache.quick.write(memoryview(lines[line]), line * LINE):  # type: ignore[union-attr]
                    cache.pwritev([lines[line]], line * LINE)
            found = quick_read(cache, line * LINE, LINE)
            found = read(cache, line * LINE, LINE) if found is None else found
            if found != lines[line]:
                wrong.append(f"line {line}")
                return

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 64, 16)]
    for thread in threads:
        thread.start()
    for size in (8, 2, 3, 9, 2, 5):
        cache.actions()["resize"].run(Resizing(Size(size << 20)), nobody)
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.mode == mode
    cache.close()
