"""READ BUFFER and WRITE BUFFER."""

from __future__ import annotations

import pytest

from blockyard.scsi.buffers import CAPACITY, ECHO_CAPACITY
from blockyard.scsi.sense import Asc, SenseKey
from tests.scsi.host import memory, ready_host

DATA, DESCRIPTOR, ECHO, ECHO_DESCRIPTOR = 0x02, 0x03, 0x0A, 0x0B


def read(mode: int, length: int = 1 << 20, offset: int = 0, number: int = 0) -> bytes:
    return bytes([0x3C, mode, number]) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + b"\0"


def write(mode: int, length: int, offset: int = 0, number: int = 0) -> bytes:
    return bytes([0x3B, mode, number]) + offset.to_bytes(3, "big") + length.to_bytes(3, "big") + b"\0"


def test_data_buffer() -> None:
    one = memory()
    two = ready_host(one.target, initiator="iqn.test:other")
    assert one.ok(read(DESCRIPTOR)) == CAPACITY.to_bytes(4, "big")
    assert one.ok(read(DESCRIPTOR, number=1)) == bytes(4)
    assert one.ok(read(DATA)) == bytes(CAPACITY)
    one.ok(write(DATA, 5, 100), b"hello")
    one.ok(write(DATA, 2, 101), b"EL")
    assert two.ok(read(DATA, 7, 99)) == b"\0hELlo\0"
    one.ok(write(DATA, 1, CAPACITY - 1), b"x")
    assert two.ok(read(DATA, offset=CAPACITY - 2)) == b"\0x"
    assert two.ok(read(DATA, offset=CAPACITY)) == b""
    one.unit.reset()
    assert one.disk.buffers.data == b""


def test_an_echo_buffer_is_of_its_nexus() -> None:
    one = memory()
    two = ready_host(one.target, initiator="iqn.test:other")
    assert one.ok(read(ECHO_DESCRIPTOR)) == b"\1\0" + ECHO_CAPACITY.to_bytes(2, "big")
    one.fail(read(ECHO), SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    one.ok(write(ECHO, 5), b"hello")
    two.ok(write(ECHO, 3), b"two")
    assert one.ok(read(ECHO)) == b"hello"
    assert two.ok(read(ECHO)) == b"two"
    one.unit.detach(two.nexus)
    assert list(one.disk.buffers.echo) == [one.nexus]


@pytest.mark.parametrize("mode", [0x01, 0x04, 0x05, 0x06, 0x07, 0x0D, 0x0E, 0x0F, 0x1C])
def test_modes_that_do_not_exist(mode: int) -> None:
    """Microcode above all."""
    host = memory()
    host.invalid(read(mode), 1, 4)
    host.invalid(write(mode, 4), 1, 4, bytes(4))


def test_places_that_do_not_exist() -> None:
    host = memory()
    host.invalid(read(DATA, number=1), 2)
    host.invalid(read(DATA, offset=CAPACITY + 1), 3)
    host.invalid(write(DATA, 2, CAPACITY - 1), 6, data_out=bytes(2))
    host.invalid(write(ECHO, ECHO_CAPACITY + 1), 6, data_out=bytes(ECHO_CAPACITY + 1))
    host.fail(write(DATA, 4), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, bytes(3))
