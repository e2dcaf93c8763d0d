"""REPORT SUPPORTED OPERATION CODES."""

from __future__ import annotations

import struct

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.commands import COMMANDS, Command
from tests.scsi.host import disk, memory, supported_opcodes


def _all(data: bytes, size: int) -> list[bytes]:
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return [data[at : at + size] for at in range(4, len(data), size)]


def test_all_commands() -> None:
    descriptors = _all(memory(removable=True, protection=2).ok(supported_opcodes()), 8)
    assert [struct.unpack(">BxHxBH", d) for d in descriptors] == [
        (c.opcode, c.service_action or 0, 0 if c.service_action is None else 1, c.length) for c in COMMANDS
    ]


def test_all_commands_with_timeouts() -> None:
    descriptors = _all(memory(removable=True, protection=2).ok(supported_opcodes(rctd=True)), 20)
    assert len(descriptors) == len(list(COMMANDS))
    for descriptor, command in zip(descriptors, COMMANDS, strict=True):
        assert descriptor[5] & 2
        assert struct.unpack(">HxBII", descriptor[8:]) == (10, 0, 0, command.timeout)


def test_unmap_is_left_out_where_nothing_can_be_unmapped() -> None:
    host = disk(MemoryDevice(1 << 20, granularity=0))
    assert 0x42 not in [d[0] for d in _all(host.ok(supported_opcodes()), 8)]
    assert host.ok(supported_opcodes(1, 0x42)) == bytes([0, 1, 0, 0])
    assert memory().ok(supported_opcodes(1, 0x42))[1] == 3


@pytest.mark.parametrize("command", list(COMMANDS), ids=lambda command: command.name)
@pytest.mark.parametrize("rctd", [False, True])
def test_one_command(command: Command, rctd: bool) -> None:
    host = memory(removable=True, protection=2)
    action = command.service_action
    right, wrong = (1, 2) if action is None else (2, 1)
    expected = bytes([0, 3 | rctd << 7]) + struct.pack(">H", command.length) + command.usage(protection=True)
    if rctd:
        expected += struct.pack(">HxBII", 10, 0, 0, command.timeout)
    assert host.ok(supported_opcodes(right, command.opcode, action or 0, rctd=rctd)) == expected
    assert host.ok(supported_opcodes(3, command.opcode, action or 0, rctd=rctd)) == expected
    host.invalid(supported_opcodes(wrong, command.opcode, action or 0), 2, 2)


def test_usage_of_read_10() -> None:
    data = memory().ok(supported_opcodes(1, 0x28))
    assert data == bytes.fromhex("00 03 000a 28 18 ffffffff 00 ffff 04")


def test_usage_of_read_capacity_16() -> None:
    data = memory().ok(supported_opcodes(2, 0x9E, 0x10))
    assert data == bytes.fromhex("00 03 0010 9e 10 0000000000000000 ffffffff 00 04")


@pytest.mark.parametrize(
    ("options", "opcode", "action"), [(1, 0xFF, 0), (2, 0xFF, 0), (2, 0x9E, 0x1F), (3, 0x28, 1), (3, 0x9E, 0)]
)
def test_what_is_not_supported(options: int, opcode: int, action: int) -> None:
    assert memory().ok(supported_opcodes(options, opcode, action)) == bytes([0, 1, 0, 0])


def test_bad_options() -> None:
    memory().invalid(supported_opcodes(4), 2, 2)


def test_allocation_length() -> None:
    host = memory(removable=True, protection=2)
    assert host.ok(supported_opcodes(length=11)) == host.ok(supported_opcodes())[:11]
