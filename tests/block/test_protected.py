"""Devices with protection information: what is made and checked, and what a crash leaves."""

from __future__ import annotations

import os
import random
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.file import FileDevice, create
from blockyard.block.information import FileStore, MemoryStore, Store
from blockyard.block.memory import MemoryDevice
from blockyard.block.protected import Checks, Interleaved, Part, ProtectedDevice, ProtectionError, guard, join, split

SIZE = 1 << 20
FREE = b"\xff" * 8


def device(kind: int = 1, *, block_size: int = 512, store: Store | None = None, size: int = SIZE) -> ProtectedDevice:
    return ProtectedDevice(MemoryDevice(size), store or MemoryStore(), block_size=block_size, kind=kind)


def read(from_: ProtectedDevice, offset: int, length: int) -> bytes:
    data = bytearray(length)
    from_.preadv([memoryview(data)], offset)
    return bytes(data)


def naive_guard(data: bytes) -> int:
    """CRC-16 of T10 DIF, bit by bit (SBC-4: polynomial 8BB7h, not reflected, from 0)."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8BB7 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def test_the_guard_is_that_of_the_standard() -> None:
    """SBC-4 has these five as examples."""
    assert guard(bytes(32)) == 0
    assert guard(b"\xff" * 32) == 0xA293
    assert guard(bytes(range(32))) == 0x0224
    assert guard(b"\xff" * 2 + bytes(30)) == 0x21B8
    assert guard(bytes(range(0xFF, 0xDF, -1))) == 0xA0B7
    data = os.urandom(512)
    assert guard(data) == naive_guard(data)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "units" / "x.protection")


def test_what_was_never_written_is_free(store: Store) -> None:
    assert store.read(1 << 40, 2) == FREE * 2
    store.write(5, b"12345678abcdefgh")
    assert store.read(4, 4) == FREE + b"12345678abcdefgh" + FREE
    store.erase(6, 1)
    assert store.read(5, 2) == b"12345678" + FREE


def test_a_file_is_sparse_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.protection"
    store = FileStore(path)
    store.write(1 << 30, b"12345678")
    store.close()
    assert path.stat().st_blocks * 512 < 1 << 20
    assert FileStore(path).read(1 << 30, 1) == b"12345678"


@pytest.mark.parametrize("block_size", [512, 4096])
@pytest.mark.parametrize(("kind", "tag", "reference"), [(1, 0, 7), (2, 0xFFFF, 0xFFFFFFFF), (3, 0, 0xFFFFFFFF)])
def test_what_is_made_of_plain_writes(kind: int, tag: int, reference: int, block_size: int) -> None:
    made = device(kind, block_size=block_size)
    block = os.urandom(block_size)
    made.pwritev([block], 7 * block_size)
    data, information = made.read_blocks(7, 1, Checks())
    assert data == block
    assert struct.unpack(">HHI", information) == (guard(block), tag, reference)


def test_type_0_makes_and_checks_nothing() -> None:
    made = device(0)
    made.pwritev([b"x" * 512], 0)
    made.below.pwritev([b"y" * 512], 0)
    assert read(made, 0, 512) == b"y" * 512


@pytest.mark.parametrize("kind", [1, 3])
def test_damage_is_found(kind: int) -> None:
    made = device(kind)
    made.pwritev([b"a" * 2048], 0)
    made.below.pwritev([b"z"], 2 * 512 + 100)
    assert read(made, 0, 1024)
    with pytest.raises(ProtectionError) as caught:
        read(made, 0, 2048)
    assert (caught.value.part, caught.value.lba) == (Part.GUARD, 2)
    made.write_blocks(3, bytes(512), struct.pack(">HHI", 0, 1, 9))
    with pytest.raises(ProtectionError) as caught:
        made.read_blocks(3, 1, Checks(application_tag=(2, 2)))
    assert (caught.value.part, caught.value.lba) == (Part.APPLICATION_TAG, 3)
    with pytest.raises(ProtectionError) as caught:
        made.read_blocks(3, 1, Checks(application_tag=(3, 1), reference_tag=3))
    assert (caught.value.part, caught.value.lba) == (Part.REFERENCE_TAG, 3)


@pytest.mark.parametrize(
    ("kind", "tags", "free"), [(1, (0xFFFF, 5), True), (3, (0xFFFF, 5), False), (3, (0xFFFF, 0xFFFFFFFF), True)]
)
def test_blocks_that_nobody_has_protected_are_not_checked(kind: int, tags: tuple[int, int], free: bool) -> None:
    made = device(kind)
    made.write_blocks(0, b"x" * 512, struct.pack(">HHI", 1, *tags))
    if free:
        assert read(made, 0, 512) == b"x" * 512
    else:
        with pytest.raises(ProtectionError):
            read(made, 0, 512)


def test_discarding_and_zeroing() -> None:
    made = device()
    made.pwritev([b"x" * 4096], 0)
    made.discard(0, 2048)
    made.write_zeroes(2048, 2048)
    data, information = made.read_blocks(0, 8, made.default_checks(0))
    assert data == bytes(4096)
    assert information[:32] == FREE * 4
    assert information[32:40] == struct.pack(">HHI", 0, 0, 4)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "discard", "zero", "read"]),
            st.integers(0, 4095),
            st.integers(1, 2000),
            st.integers(1, 255),
        ),
        max_size=8,
    )
)
def test_bytes_need_not_be_aligned(steps: list[tuple[str, int, int, int]]) -> None:
    made = device(size=4096)
    model = bytearray(4096)
    for what, offset, length, byte in steps:
        size = min(length, 4096 - offset)
        if what == "write":
            made.pwritev([bytes([byte]) * size], offset)
            model[offset : offset + size] = bytes([byte]) * size
        elif what != "read":
            (made.discard if what == "discard" else made.write_zeroes)(offset, size)
            model[offset : offset + size] = bytes(size)
        assert read(made, offset, size) == model[offset : offset + size]
    assert read(made, 0, 4096) == model


def test_a_damaged_block_is_not_made_good_by_writing_a_part_of_it() -> None:
    made = device()
    made.pwritev([b"a" * 512], 0)
    made.below.pwritev([b"z"], 100)
    with pytest.raises(ProtectionError):
        made.pwritev([b"b" * 10], 300)
    with pytest.raises(ProtectionError):
        read(made, 0, 512)


def test_interleaved() -> None:
    made = device()
    data = os.urandom(1024)
    information = made.generate(data, 3)
    image = join(data, information, 512)
    assert len(image) == 1040
    assert split(image, 512) == (data, information)
    Interleaved(made).pwritev([image], 3 * 520)
    back, same = made.read_blocks(3, 2, made.default_checks(3))
    assert (bytes(back), same) == (data, information)


def test_readers_and_writers_of_one_block_see_what_fits() -> None:
    made = device(size=1 << 16)
    failures: list[Exception] = []
    stop = threading.Event()

    def work(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while not stop.is_set():
                lba, count = chance.randrange(4), chance.randrange(1, 5)
                if seed % 2:
                    made.pwritev([chance.randbytes(512 * count)], 512 * lba)
                else:
                    read(made, 512 * lba, 512 * count)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        made.pwritev([os.urandom(2048)], 0)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures


# ---- crashes


class Machine:
    """A disk and its protection information on files, where a crash loses any of what was not flushed.

    Both files are written to copies, of which each write is a record; `crash` applies the flushed ones and some others.
    """

    def __init__(self, directory: Path, kind: int, chance: random.Random) -> None:
        self.directory, self.kind, self.chance = directory, kind, chance
        self.open_regions: list[int] = []
        create(directory / "disk.img", SIZE)
        self.start()

    def start(self) -> None:
        machine = self

        class Disk(FileDevice):
            def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
                machine.pending.append(
                    (machine.directory / "disk.img", offset, bytes(buffers[0]), self._old(offset, buffers[0]))
                )
                super().pwritev(buffers, offset)

            def _old(self, offset: int, buffer: memoryview | bytes | bytearray) -> bytes:
                return os.pread(self._fd, len(buffer), offset)

            def flush(self) -> None:
                machine.pending = [entry for entry in machine.pending if entry[0].suffix != ".img"]

        class Information(FileStore):
            def write(self, lba: int, information: bytes) -> None:
                old = os.pread(self._fd, len(information), 8 * lba).ljust(len(information), b"\0")
                super().write(lba, information)
                machine.pending.append((machine.directory / "x.pi", 8 * lba, b"", old))

            def flush(self) -> None:
                machine.pending = [entry for entry in machine.pending if entry[0].suffix != ".pi"]

        def note(regions: list[int]) -> None:
            machine.open_regions = regions

        self.pending: list[tuple[Path, int, bytes, bytes]] = []
        self.disk = Disk(self.directory / "disk.img")
        self.device = ProtectedDevice(
            self.disk, Information(self.directory / "x.pi"), block_size=512, kind=self.kind, note=note,
            left_open=list(self.open_regions),
        )  # fmt: skip

    def crash(self) -> None:
        """Power is lost: of what was not flushed, pieces of 512 bytes (of information: of 8) come to be as they were before."""
        pending = self.pending
        os.close(self.disk._fd)
        self.disk._fd = -1
        for path, offset, _, old in reversed(pending):
            step = 512 if path.suffix == ".img" else 8
            with path.open("r+b") as file:
                for at in range(0, len(old), step):
                    if self.chance.random() < 0.5:
                        file.seek(offset + at)
                        file.write(old[at : at + step])
        self.start()


@pytest.mark.parametrize("kind", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_after_a_crash_every_block_can_be_read(kind: int, seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    machine = Machine(tmp_path, kind, chance)
    stable: dict[int, bytes] = {}  # what every block must be, as it was flushed and not written since
    for _ in range(6):
        for _ in range(chance.randrange(1, 12)):
            lba, count = chance.randrange(60), chance.randrange(1, 5)
            data = chance.randbytes(512 * count)
            information = b"".join(
                struct.pack(">HHI", guard(data[512 * n : 512 * n + 512]), n, (lba + n if kind == 1 else 7 + n))
                for n in range(count)
            )
            machine.device.write_blocks(lba, data, information)
            for n in range(count):
                stable.pop(lba + n, None)
            if chance.random() < 0.2:
                machine.device.flush()
                whole, _ = machine.device.read_blocks(0, 64, machine.device.default_checks(0))
                stable = {n: bytes(whole[512 * n : 512 * n + 512]) for n in range(64)}
        machine.crash()
        whole, _ = machine.device.read_blocks(0, 64, machine.device.default_checks(0))
        for lba, block in stable.items():
            assert whole[512 * lba : 512 * lba + 512] == block
        machine.device.flush()
        stable = {n: bytes(whole[512 * n : 512 * n + 512]) for n in range(64)}


def test_regions_are_noted_before_they_are_written_and_closed_when_there_are_many() -> None:
    noted: list[list[int]] = []

    class Watched(MemoryStore):
        def write(self, lba: int, information: bytes) -> None:
            if lba:
                assert lba // 131072 in noted[-1]
            super().write(lba, information[:0])

    class Large(MemoryDevice):
        def __init__(self) -> None:
            super().__init__(0)
            self.size = 1 << 40

        def pwritev(self, buffers: object, offset: int) -> None:
            """Nowhere."""

    made = ProtectedDevice(Large(), Watched(), block_size=512, kind=1, note=noted.append)
    for region in range(200):
        made.pwritev([bytes(512)], region << 26)
        made.pwritev([bytes(512)], (region << 26) + 512)
        assert len(noted[-1]) <= 65
    assert len(noted) < 210
    made.close()
    assert noted[-1] == []


def test_a_write_that_fails_half_way_leaves_what_can_be_read() -> None:
    class Broken(MemoryDevice):
        broken = False

        def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
            if self.broken:
                raise OSError(5, "broken")
            super().pwritev(buffers, offset)

    below = Broken(SIZE)
    made = ProtectedDevice(below, MemoryStore(), block_size=512, kind=1)
    made.pwritev([b"a" * 2048], 0)
    below.broken = True
    with pytest.raises(OSError, match="broken"):
        made.pwritev([b"b" * 1024], 512)
    assert read(made, 0, 2048) == b"a" * 2048
