"""The command table, and the checks that follow from it alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.commands import COMMANDS, Command, CommandTable, Field, Kind
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Task
from tests.scsi.host import Host, cdb_of, disk, memory, parse_sense

_LENGTHS = {0: 6, 1: 10, 2: 10, 3: 32, 4: 16, 5: 12}  # by group code, the top bits of the operation code


def _ids(command: Command) -> str:
    return command.name


@pytest.fixture(scope="module")
def host() -> Host:
    return memory(removable=True, protection=2)


def _cdb(command: Command) -> bytearray:
    cdb = cdb_of(command)
    if command.name.startswith("MODE SELECT"):
        cdb[1] = 0x10
    return cdb


@pytest.mark.parametrize("command", list(COMMANDS), ids=_ids)
class TestEachCommand:
    def test_length_is_that_of_its_group(self, command: Command) -> None:
        assert command.length == _LENGTHS[command.opcode >> 5]

    def test_is_found(self, command: Command) -> None:
        assert COMMANDS.find(bytes(_cdb(command))) is command
        assert COMMANDS.get(command.opcode, command.service_action) is command

    def test_reserved_bits_are_refused(self, command: Command, host: Host) -> None:
        usable = bytearray(command.length)
        usable[1 if command.length == 32 else -1] = 0x04  # NACA
        for field in command.fields:
            if field.kind is not Kind.ZERO:
                mask = field.mask(command.length).to_bytes(command.length, "big")
                usable = bytearray(a | b for a, b in zip(usable, mask, strict=True))
        zero_fields = [field for field in command.fields if field.kind is Kind.ZERO]
        action = range(64, 80) if command.length == 32 else range(0)  # with other bits it would be another command
        for position in range(8, 8 * command.length):
            if position in action:
                continue
            byte, bit = position // 8, 7 - position % 8
            if usable[byte] & 1 << bit:
                continue
            cdb = _cdb(command)
            cdb[byte] |= 1 << bit
            whole = next(
                (f for f in zero_fields if f.mask(command.length) & 1 << (8 * command.length - 1 - position)), None
            )
            host.invalid(
                bytes(cdb), whole.byte if whole else byte, whole.bit if whole else bit, data_out=bytes(1 << 20)
            )

    def test_control_byte_is_refused(self, command: Command, host: Host) -> None:
        cdb = _cdb(command)
        control = 1 if command.length == 32 else command.length - 1
        cdb[control] = 0x01  # LINK, obsolete
        host.invalid(bytes(cdb), control, 0)

    def test_usage(self, command: Command) -> None:
        usage = command.usage(protection=True)
        assert len(usage) == command.length
        assert usage[0] == command.opcode
        assert usage[1 if command.length == 32 else -1] == 0x04  # NACA
        if command.length == 32:
            assert int.from_bytes(usage[8:10], "big") == command.service_action
        elif command.service_action is not None:
            assert usage[1] & 0x1F == command.service_action
        for field in command.fields[1:]:
            mask = field.mask(command.length)
            used = int.from_bytes(usage, "big") & mask
            if field.name != "service_action":
                assert used == (mask if field.kind is Kind.VALUE else 0)

    def test_cdb_that_is_cut_short(self, command: Command, host: Host) -> None:
        result = host.unit.begin(Task(host.nexus, bytes(_cdb(command))[: command.length - 1]))
        assert result is not None
        assert parse_sense(result.sense)[:2] == (SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB)


@pytest.mark.parametrize("opcode", sorted(set(range(256)) - {command.opcode for command in COMMANDS}))
def test_unknown_operation_codes(opcode: int, host: Host) -> None:
    host.fail(
        bytes([opcode]),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_COMMAND_OPERATION_CODE,
        pointer=(True, 0, None),
    )


@pytest.mark.parametrize("opcode", [0x9E, 0xA3])
def test_unknown_service_actions(opcode: int, host: Host) -> None:
    host.invalid(bytes([opcode, 0x1F]), 1, 4)


def test_unmap_exists_on_thin_units_only() -> None:
    thick = disk(MemoryDevice(1 << 20, granularity=0))
    thick.fail(bytes([0x42]), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE, pointer=(True, 0, None))


def test_fields() -> None:
    command = COMMANDS.get(0x0A, None)
    assert command is not None
    number = int.from_bytes(bytes([0x0A, 0x1F, 0xFF, 0xFE, 0x00, 0x00]), "big")
    assert command.decode(number) == {"lba": 0x1FFFFE, "count": 256}
    assert command.decode(number | 5 << 8) == {"lba": 0x1FFFFE, "count": 5}


def test_overlapping_fields_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="overlaps"):
        Command(0, "X", 6, (Field("a", 1, 7, 8), Field("b", 1, 0, 1)), lambda unit, task: b"")


def test_a_command_cannot_stand_twice() -> None:
    command = COMMANDS.get(0x00, None)
    assert command is not None
    with pytest.raises(ValueError, match="twice"):
        CommandTable([command, command])


@given(cdb=st.binary(min_size=16, max_size=16), data=st.binary(max_size=600))
def test_nothing_raises(cdb: bytes, data: bytes) -> None:
    """Any CDB ends with a result; a fault in this program would show as a hardware error."""
    result = memory(removable=True).send(cdb, data)
    if result.sense:
        assert parse_sense(result.sense).key != SenseKey.HARDWARE_ERROR


@given(
    command=st.sampled_from(list(COMMANDS)),
    values=st.dictionaries(st.integers(0, 10), st.integers(0, 1 << 64)),
    data=st.binary(max_size=9000),
)
def test_nothing_raises_with_sound_cdbs(command: Command, values: dict[int, int], data: bytes) -> None:
    number = 0
    for index, field in enumerate(command.fields[1:]):
        if field.kind is Kind.VALUE:
            number |= (values.get(index, 0) % (1 << field.width)) << field.shift(command.length)
    cdb = bytearray(number.to_bytes(command.length, "big"))
    cdb[0] = command.opcode
    if command.service_action is not None:
        cdb[1] = command.service_action
    result = memory(removable=True).send(bytes(cdb), data)
    if result.sense:
        assert parse_sense(result.sense).key != SenseKey.HARDWARE_ERROR
