"""Stacks put together at random: they are one disk, keep what was flushed when power is lost, and change while in use."""

from __future__ import annotations

import contextlib
import errno
import functools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.block import kinds
from blockyard.block.building import create_layer, open_stack, understood, written
from blockyard.block.cache.layout import CacheError
from blockyard.block.cache.ssd import SsdCache
from blockyard.block.cache.write_back import WriteBack
from blockyard.block.cipher import keys
from blockyard.block.cipher.keys import Kdf
from blockyard.block.compressed.device import CompressedDevice
from blockyard.block.device import Device
from blockyard.block.layers import Kind, Opening
from blockyard.block.raid.work import Background
from blockyard.block.restack import Failed, common, plan
from blockyard.block.stack import StackError
from tests.block.files import File, Image
from tests.block.nbd.servers import serving
from tests.block.raid.disks import Disk, read

BLOCK = 4096
_SIZE = 1 << 20
_WINDOW = 48  # blocks of a device that are looked at
_CACHED = 64  # results of what takes long; a run has a few
_SECTOR = 512  # what a file is torn at
_DISKS: list[Disk] = []
_IMAGES: list[Image] = []
_SERVED: list[Served] = []


@dataclass(frozen=True)
class _Options:
    number: int


class PowerLost(BaseException):
    """Nothing goes on from here."""


def _disk(children: Sequence[Device], options: _Options, opening: Opening) -> Device:
    return _DISKS[options.number]


def _image(children: Sequence[Device], options: _Options, opening: Opening) -> Device:
    return _IMAGES[options.number].open(read_only=opening.read_only)


KINDS = (
    Kind("disk", "A disk of the tests.", _disk, _Options, (0, 0), "number",
         claims=lambda options: [f"disk:{options.number}"]),
    Kind("image", "An image of the tests.", _image, _Options, (0, 0), "number",
         claims=lambda options: [f"image:{options.number}"]),
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def disks_and_no_threads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_bytes(b"the key")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kinds.MODULES, "disk", __name__)
        patch.setitem(kinds.MODULES, "image", __name__)
        patch.setitem(_OPTIONS, "luks", f"key_file={key}, ")
        for worker in (
            Background,
            WriteBack,
            CompressedDevice,
        ):  # what goes on behind would go on after the power is lost
            patch.setattr(worker, "start", lambda self: None)
        # the same header is opened again and again: what takes long by design is worked out once
        patch.setattr(Kdf, "derive", functools.lru_cache(_CACHED)(Kdf.derive))
        patch.setattr(keys, "merge", functools.lru_cache(_CACHED)(keys.merge))
        yield


def _leaf(chance: random.Random, size: int = _SIZE) -> str:
    if _SERVED and chance.random() < 0.5:
        return _SERVED[-1].disk(size)
    if chance.random() < 0.4:
        _IMAGES.append(Image(chance, size))
        return f"image({len(_IMAGES) - 1})"
    _DISKS.append(Disk(size))
    return f"disk({len(_DISKS) - 1})"


@dataclass
class Served:
    """Disks of an NBD server, which shows each file of a directory."""

    socket: Path
    directory: Path
    count: int = 0

    def disk(self, size: int) -> str:
        self.count += 1
        with (self.directory / f"disk{self.count}").open("xb") as file:
            file.truncate(size)
        return f'nbd("nbd+unix:///disk{self.count}?socket={self.socket}")'

    def forget(self) -> None:
        for path in self.directory.iterdir():
            path.unlink()


def _forget() -> None:
    _DISKS.clear()
    _IMAGES.clear()


def _size(text: str) -> int:
    device = open_stack(text)
    size = device.size
    device.close()
    return size


_OPTIONS = {"throttle": "iops=1000000, ", "cache": "ram=1M, ", "delay": "read=0, "}
_OTHERS = ("concat", "slice", "throttle", "faults", "delay", "cache", "moving", "ssd-cache", "luks", "compressed")
_RAID = {"raid0": 2, "raid1": 2, "raid10": 3, "raid5": 3, "raid6": 4}  # members


def _made(chance: random.Random, depth: int) -> str:
    """The text of a stack; what is to be created for it has been."""
    if not depth:
        return _leaf(chance)
    choice = chance.choice((*_OTHERS, *_RAID))
    if choice in _RAID:
        members = ", ".join(_made(chance, depth - 1 if number == 0 else 0) for number in range(_RAID[choice]))
        made = (
            "region=32K"
            if choice == "raid1"
            else "chunk=8K, journal_size=64K" + ("" if choice == "raid0" else ", region=32K")
        )
        if choice in ("raid5", "raid6") and chance.random() < 0.5:
            made += ", journal=true"
        try:
            create_layer(f"{choice}({made}, force=true, {members})")
        except StackError:  # what is below has become too small for it
            return _leaf(chance)
        return f"{choice}({members})"
    if choice == "concat":
        return f"concat({', '.join(_made(chance, depth - 1 if number == 0 else 0) for number in range(chance.randint(1, 3)))})"
    if choice == "moving":
        return f"moving({_leaf(chance)}, {_leaf(chance)})"
    below = _made(chance, depth - 1)
    if choice in _WITH_HEADERS:
        return _WITH_HEADERS[choice](chance, below)
    if choice == "slice":
        blocks = _size(below) // BLOCK
        offset = chance.randrange(max(1, blocks // 2))
        return f"slice(offset={offset * BLOCK}, length={chance.randint(1, blocks - offset) * BLOCK}, {below})"
    return f"{choice}({_OPTIONS.get(choice, '')}{below})"


def _ssd_cache(chance: random.Random, below: str) -> str:
    fast = _leaf(chance, 2 << 20)
    try:
        create_layer(f"ssd-cache(force=true, {below}, {fast})")
    except OSError as error:  # what is being moved gets no longer, which the mark would need; or it is too small
        if error.errno != errno.EBUSY and not isinstance(error, CacheError):
            raise
        return below
    return f"ssd-cache(mode={chance.choice(('back', 'through'))}, dirty=80, {below}, {fast})"


def _luks(chance: random.Random, below: str) -> str:
    """Its header and keys take 16 MiB, which another disk has."""
    whole = f"concat({_leaf(chance, 16 << 20)}, {below})"
    create_layer(f"luks({_OPTIONS['luks']}kdf=pbkdf2, time=1000, force=true, {whole})")
    return f"luks({_OPTIONS['luks']}{whole})"


def _compressed(chance: random.Random, below: str) -> str:
    """It is in pieces of 8 MiB; the first has to be whole."""
    whole = f"concat({below}, {_leaf(chance, 16 << 20)})"
    create_layer(f"compressed(size={_SIZE}, chunk=16K, level=1, force=true, {whole})")
    return f"compressed({whole})"


_WITH_HEADERS = {"ssd-cache": _ssd_cache, "luks": _luks, "compressed": _compressed}


def _behind(device: Device) -> None:
    """What is done behind in time: caches write back."""
    for child in device.children:
        _behind(child)
    if isinstance(device, SsdCache):
        device.write_back.sweep()


class Model:
    """What each block may be: the one that it is, and if power is lost, those that have been since the last flush."""

    def __init__(self, device: Device, chance: random.Random) -> None:
        self.blocks = min(_WINDOW, device.size // BLOCK)
        self.base = chance.randint(0, device.size // BLOCK - self.blocks) * BLOCK
        self.now = [self._read(device, block) for block in range(self.blocks)]
        self.may = [{content} for content in self.now]

    def _read(self, device: Device, block: int) -> bytes:
        return read(device, self.base + block * BLOCK, BLOCK)

    def write(self, block: int, content: bytes) -> None:
        self.may[block].add(content)
        self.now[block] = content

    def flushed(self) -> None:
        self.may = [{content} for content in self.now]

    def check(self, device: Device) -> None:
        for block, content in enumerate(self.now):
            assert self._read(device, block) == content, f"block {block}"

    def check_after_power_loss(self, device: Device) -> None:
        for block, contents in enumerate(self.may):
            found = self._read(device, block)
            assert found in contents or (_IMAGES and _torn(found, contents)), f"block {block}"


def _torn(found: bytes, contents: set[bytes]) -> bool:
    """Whether each sector is of one of the contents: those that files are torn at are smaller than blocks."""
    parts = range(0, len(found), _SECTOR)
    return all(any(found[at : at + _SECTOR] == each[at : at + _SECTOR] for each in contents) for at in parts)


def _act(chance: random.Random, device: Device, model: Model) -> None:
    start = chance.randrange(model.blocks)
    count = chance.randint(1, min(6, model.blocks - start))
    what = chance.choice(("write", "write", "write", "zero", "discard", "flush", "read", "behind"))
    if what == "behind":
        _behind(device)
        return
    if what == "flush":
        device.flush()
        model.flushed()
        return
    if what == "read":
        assert read(device, model.base + start * BLOCK, count * BLOCK) == b"".join(model.now[start : start + count])
        return
    data = [bytes([chance.randrange(256)]) * BLOCK if what == "write" else bytes(BLOCK) for _ in range(count)]
    for number, content in enumerate(data):
        model.write(start + number, content)
    if what == "write":
        device.pwritev([b"".join(data)], model.base + start * BLOCK)
    elif what == "zero":
        device.write_zeroes(model.base + start * BLOCK, count * BLOCK)
    else:
        device.discard(model.base + start * BLOCK, count * BLOCK)


def _lose_power(chance: random.Random) -> None:
    _DISKS[:] = [disk.after_power_loss(chance) for disk in _DISKS]
    for image in _IMAGES:
        image.lose_power(chance)


def _files() -> list[Disk | File]:
    return [*_DISKS, *(image.file for image in _IMAGES)]


def _run(seed: int, depth: int) -> None:
    chance = random.Random(seed)
    _forget()
    text = _made(chance, depth)
    for each in _files():
        each.flush()
    device = open_stack(text)
    model = Model(device, chance)
    for _ in range(chance.randint(0, 25)):
        _act(chance, device, model)
    model.check(device)
    left = chance.randint(0, 40)

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise PowerLost

    for each in _files():
        each.before_write = each.before_flush = count
    with contextlib.suppress(PowerLost):
        while left >= 0:
            _act(chance, device, model)
    for _ in range(2):  # what opening it writes may be lost as well
        _lose_power(chance)
        device = open_stack(text)
        model.check_after_power_loss(device)
    model = Model(device, chance)
    for _ in range(10):
        _act(chance, device, model)
    device.close()
    device = open_stack(text)
    model.check(device)
    device.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32), depth=st.integers(1, 3))
def test_power_is_lost(seed: int, depth: int) -> None:
    _run(seed, depth)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_power_is_lost_very_often() -> None:
    for seed in range(20_000):
        _run(seed, 1 + seed % 4)


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_disks_of_an_nbd_server(tmp_path: Path) -> None:
    """nbdkit is the one that has them; power is not lost, as what it has is not ours to lose."""
    (directory := tmp_path / "disks").mkdir()
    with serving(("nbdkit", "-f", "-U", "$", "file", f"dir={directory}"), tmp_path) as server:
        _SERVED.append(Served(server.socket, directory))
        try:
            for seed in range(500):
                _run_in_peace(seed, 1 + seed % 4)
                _SERVED[-1].forget()
        finally:
            _SERVED.pop()


def _run_in_peace(seed: int, depth: int) -> None:
    chance = random.Random(seed)
    _forget()
    text = _made(chance, depth)
    device = open_stack(text)
    model = Model(device, chance)
    for _ in range(3):
        for _ in range(20):
            _act(chance, device, model)
        model.check(device)
        device.close()
        device = open_stack(text)
    model.check(device)
    device.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32))
def test_stacks_change_while_they_are_in_use(seed: int) -> None:
    chance = random.Random(seed)
    _forget()
    device = open_stack(_made(chance, 2))
    model = Model(device, chance)
    for _ in range(6):
        text = written(device)
        above = chance.choice(("throttle(iops=1000000, {})", "cache(ram=1M, {})", "faults({})", "concat({})"))
        whole = understood(chance.choice((above.format(text), *map(written, _passing(device)))))
        assert common(device, whole)
        with contextlib.suppress(Failed):
            device = plan(device, whole, Opening()).carry_out()
        _act(chance, device, model)
        model.check(device)
    device.close()


def _passing(device: Device) -> Iterator[Device]:
    """The layers down to the first that does more than to pass on."""
    yield device
    while device.label.startswith(("throttle", "cache", "faults", "delay")):
        (device,) = device.children
        yield device
