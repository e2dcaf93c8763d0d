"""ORWRITE and WRITE ATOMIC."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.file import FileDevice, create
from blockyard.block.memory import MemoryDevice
from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import UUID_1, Host, disk, memory, write_16


def orwrite(lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIxx", 0x8B, flags, lba, count)


def write_atomic(lba: int, count: int, boundary: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">BBQHHxx", 0x9C, flags, lba, boundary, count)


# ---- ORWRITE


@given(old=st.binary(min_size=1024, max_size=1024), new=st.binary(max_size=1024))
def test_orwrite_sets_bits(old: bytes, new: bytes) -> None:
    """Data that does not come sets none."""
    host = memory()
    host.write(3, old)
    host.ok(orwrite(3, 2), new)
    padded = new.ljust(1024, b"\0")
    assert host.read(2, 4) == bytes(512) + bytes(a | b for a, b in zip(old, padded, strict=True)) + bytes(512)


def test_orwrite_runs_alone() -> None:
    for cdb, length in ((orwrite(0, 1), 512), (write_atomic(0, 8), 4096)):
        task, result = memory().begin(cdb, length)
        assert result is None
        assert task.exclusive


def test_what_orwrite_refuses() -> None:
    host = memory()
    host.invalid(orwrite(0, 1, 0x20), 1, 7, bytes(512))  # ORPROTECT
    host.fail(orwrite(2047, 2), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, bytes(1024))
    host.ok(orwrite(0, 0))


# ---- WRITE ATOMIC


def _kept(directory: Path, *, block_size: int = 512) -> Host:
    return disk(FileDevice(directory / "disk.img"), block_size=block_size, durable=Durable(directory / "units", UUID_1))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    create(tmp_path / "disk.img", 4 << 20)
    return tmp_path


def test_write_atomic(directory: Path) -> None:
    host = _kept(directory)
    data = os.urandom(1 << 20)
    host.ok(write_atomic(8, 2048), data)
    assert host.read(8, 2048) == data
    host.ok(write_atomic(16, 16, boundary=8), data[:8192])
    assert host.read(16, 16) == data[:8192]
    host.ok(write_atomic(0, 0))


def test_what_write_atomic_refuses(directory: Path) -> None:
    host = _kept(directory)
    host.invalid(write_atomic(1, 8), 2, None, bytes(4096))
    host.invalid(write_atomic(0, 1), 12, None, bytes(512))
    host.invalid(write_atomic(0, 2056), 12, None, bytes(2056 * 512))
    host.invalid(write_atomic(0, 8, boundary=4), 10, None, bytes(4096))
    host.invalid(write_atomic(0, 8, boundary=2056), 10, None, bytes(4096))
    host.invalid(write_atomic(0, 8, flags=0x20), 1, 7, bytes(4096))
    part = Asc.INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT
    host.fail(write_atomic(0, 16), SenseKey.ILLEGAL_REQUEST, part, bytes(4096))
    host.fail(write_atomic(8192, 8), SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE, bytes(4096))


class _Crash(Exception):
    """The process dies here."""


class _Crashing(FileDevice):
    """A device whose process dies after `survives` bytes of a write."""

    survives = -1

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        if self.survives >= 0:
            super().pwritev([memoryview(buffers[0])[: self.survives]], offset)
            raise _Crash
        super().pwritev(buffers, offset)


@pytest.mark.parametrize("survives", [0, 4096, 8192, 16384])
def test_a_crash_leaves_all_or_nothing(directory: Path, survives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the journal is written it is all, however much the device has of it."""
    device = _Crashing(directory / "disk.img")
    host = disk(device, durable=Durable(directory / "units", UUID_1))
    host.ok(write_16(0, 64), b"a" * 32768)
    device.survives = survives
    monkeypatch.setattr(host.disk.journal, "_clear", lambda: None)  # a process that is dead clears nothing
    host.fail(write_atomic(8, 32), SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE, b"b" * 16384)
    device.close()
    again = _kept(directory)
    assert again.read(0, 64) == b"a" * 4096 + b"b" * 16384 + b"a" * 12288
    again.write(8, b"c" * 512)  # …and only once: what is written later is not undone
    again.disk.close()
    assert _kept(directory).read(8, 1) == b"c" * 512


def test_a_journal_that_is_half_written_is_not_replayed(directory: Path) -> None:
    host = _kept(directory)
    host.ok(write_atomic(0, 8), b"a" * 4096)
    journal = directory / "units" / f"{UUID_1}.atomic"
    host.disk.close()
    whole = _record(directory)
    for size in (10, 4096, len(whole) - 1):
        journal.write_bytes(whole[:size].ljust(len(whole), b"\0"))
        again = _kept(directory)
        assert again.read(0, 8) == b"a" * 4096
        again.disk.close()


def _record(directory: Path) -> bytes:
    """What the journal holds of a WRITE ATOMIC of "b" at LBA 0 when the crash comes before it reaches the device."""
    other = directory / "other"
    other.mkdir()
    create(other / "disk.img", 4 << 20)
    device = _Crashing(other / "disk.img")
    host = disk(device, durable=Durable(other / "units", UUID_1))
    device.survives = 0
    host.disk.journal._clear = lambda: None  # type: ignore[method-assign]
    host.send(write_atomic(0, 8), b"b" * 4096)
    device.close()
    return (other / "units" / f"{UUID_1}.atomic").read_bytes()


def test_without_a_state_directory_it_is_atomic_among_commands_only() -> None:
    host = disk(MemoryDevice(1 << 20))
    host.ok(write_atomic(0, 8), b"a" * 4096)
    assert host.read(0, 8) == b"a" * 4096
