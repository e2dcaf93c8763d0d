"""How a command is declared, and how its CDB is taken apart and checked by that declaration.

A field stands where a field pointer would point to it: at the byte and bit of its most significant bit
(SPC-5, field pointer sense-key specific data). Bits that no field covers are reserved; they and fields
of the kind ZERO must be zero, else the command ends with INVALID FIELD IN CDB and a pointer to the first
offender.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from blockyard.scsi.sense import CheckCondition, invalid_field
from blockyard.scsi.task import NACA, VARIABLE_LENGTH, Buffer

if TYPE_CHECKING:
    from blockyard.scsi.task import Task


class Kind(Enum):
    """What becomes of a field."""

    VALUE = "evaluated"
    ZERO = "must be zero"  # defined, but for something that this device has not got
    IGNORED = "ignored"  # obsolete, or a hint


class Field(NamedTuple):
    """`width` bits from bit `bit` of byte `byte` on; 0 stands for `zero_means`."""

    name: str
    byte: int
    bit: int
    width: int
    kind: Kind = Kind.VALUE
    zero_means: int = 0

    def shift(self, length: int) -> int:
        """How far right its least significant bit is in a CDB of `length` bytes, seen as one number."""
        return 8 * length - (8 * self.byte + 7 - self.bit) - self.width

    def mask(self, length: int) -> int:
        return ((1 << self.width) - 1) << self.shift(length)


class Conflict(Enum):
    """Whether a command conflicts with another nexus's persistent reservation (SPC-4 tables 65 and 66, SBC-4 table 13)."""

    NEVER = "never"
    EXCLUSIVE_ACCESS = "exclusive access"  # it reads: Write Exclusive lets it pass
    ANY = "any"
    UNLESS_STARTS = "any, unless it starts the unit"  # START=1, POWER CONDITION=0
    UNLESS_ALLOWS = "any, unless it allows removal"  # PREVENT=0
    KEY = "none, but without the right key"  # PERSISTENT RESERVE OUT, and that without any reservation too

    def of(self, cdb: Buffer) -> Conflict:
        """What it comes to for this CDB: NEVER, EXCLUSIVE_ACCESS, ANY or KEY."""
        if self is Conflict.UNLESS_STARTS:
            return Conflict.NEVER if cdb[4] & 0xF1 == 0x01 else Conflict.ANY
        if self is Conflict.UNLESS_ALLOWS:
            return Conflict.ANY if cdb[4] & 0x03 else Conflict.NEVER
        return self


class Access(Enum):
    """The worst asymmetric access state in which a target port still takes a command (SPC-5)."""

    UNAVAILABLE = "unavailable"
    STANDBY = "standby"
    ACTIVE = "active"


class Capability(Enum):
    """What a logical unit must have for a command to exist on it."""

    NONE = "all"
    THIN = "thin"
    REMOVABLE = "removable"
    TYPE_2 = "protection type 2"


# of a LogicalUnit, of any Unit where the command is `absent`; returns the Data-In, or Steps where it is `in_pieces`
Handler = Callable[[Any, "Task"], Any]
Check = Callable[[Any, "Task"], None]
DataOut = Callable[[dict[str, int], int], int]  # fields and block size → bytes of Data-Out


def no_data(fields: dict[str, int], block_size: int) -> int:
    """A command without Data-Out."""
    return 0


@dataclass(eq=False)
class Command:
    """One command: one row of the table."""

    opcode: int
    name: str
    length: int  # of its CDB
    fields: Sequence[Field]
    run: Handler  # may block when `blocking`; returns the Data-In
    service_action: int | None = None
    check: Check | None = None  # what can be checked before its data is there, beyond what this row says
    data_out: DataOut = no_data
    device_types: frozenset[int] = frozenset({0x00})
    requires: Capability = Capability.NONE
    blocking: bool = False  # runs in a worker thread, unless its check says otherwise
    exclusive: bool = False  # nothing else of its unit runs beside it
    in_pieces: bool = False  # goes on in pieces, between which others run (operation.py)
    exempt: bool = False  # is carried out while a unit attention is pending, and leaves it so (SAM-5 5.14)
    unready: bool = False  # is carried out while SANITIZE or FORMAT UNIT goes on too, as what is exempt is (SBC-4)
    absent: bool = False  # is answered by a LUN without a logical unit too (SPC-5)
    medium: bool = False  # needs the medium: its unit must not be stopped
    writes: bool = False  # changes the medium: its unit must not be write-protected
    ranged: bool = False  # its fields lba and count must lie inside the medium
    transfers: bool = False  # MAXIMUM TRANSFER LENGTH limits its count (SBC-4)
    conflict: Conflict = Conflict.ANY
    read_only: bool | None = None  # whether the right to read only permits it; None: as far as WRITE EXCLUSIVE would
    access: Access = Access.ACTIVE
    timeout: int = 10  # seconds, recommended (SPC-5, command timeouts descriptor)

    protect: str = field(init=False)  # the name of its RDPROTECT, WRPROTECT, … field; "" where it has none
    allocates: bool = field(init=False)  # its Data-In is cut to its allocation length
    _parts: tuple[tuple[str, int, int], ...] = field(init=False)
    _defaults: tuple[tuple[str, int], ...] = field(init=False)
    _forbidden: int = field(init=False)
    _control: int = field(init=False)

    def __post_init__(self) -> None:
        self.fields = (Field("opcode", 0, 7, 8, Kind.IGNORED), *self.fields)
        values = [f for f in self.fields if f.kind is Kind.VALUE]
        self.protect = next((f.name for f in values if f.name.endswith("protect")), "")
        self.allocates = any(f.name == "allocation_length" for f in values)
        self._parts = tuple((f.name, f.shift(self.length), (1 << f.width) - 1) for f in values)
        self._defaults = tuple((f.name, f.zero_means) for f in values if f.zero_means)
        self._control = NACA << (8 * (self.length - 2) if self.opcode == VARIABLE_LENGTH else 0)
        allowed = self._control  # the CONTROL byte: the task set looks at it (SAM-5)
        for part in self.fields:
            mask = part.mask(self.length)
            if allowed & mask:
                raise ValueError(f"{self.name}: {part.name} overlaps another field")
            allowed |= mask
        for part in self.fields:
            if part.kind is Kind.ZERO:
                allowed &= ~part.mask(self.length)
        self._forbidden = ~allowed & ((1 << 8 * self.length) - 1)

    def decode(self, number: int) -> dict[str, int]:
        """The fields of a CDB, given as one number of `length` bytes."""
        fields = {name: number >> shift & mask for name, shift, mask in self._parts}
        for name, value in self._defaults:
            fields[name] = fields[name] or value
        return fields

    def changes(self, cdb: Buffer) -> bool:
        """Whether it changes what others see or may do: the right to read only does not permit it then."""
        if self.read_only is not None:
            return not self.read_only
        return self.conflict.of(cdb) not in (Conflict.NEVER, Conflict.EXCLUSIVE_ACCESS)

    def check_reserved(self, number: int) -> None:
        """Raise CheckCondition when bits are set that must be zero."""
        wrong = number & self._forbidden
        if not wrong:
            return
        first = 8 * self.length - wrong.bit_length()  # counted from the left
        for part in self.fields:
            if part.mask(self.length) & 1 << (wrong.bit_length() - 1):
                raise invalid_field(part.byte, part.bit)
        raise invalid_field(first // 8, 7 - first % 8)

    def invalid(self, name: str) -> CheckCondition:
        """INVALID FIELD IN CDB, pointing to the field `name`."""
        part = next(f for f in self.fields if f.name == name)
        return invalid_field(part.byte, part.bit)

    def usage(self, *, protection: bool = False) -> bytes:
        """The CDB with ones where bits are evaluated (SPC-5, REPORT SUPPORTED OPERATION CODES)."""
        evaluated = [f for f in self.fields if f.kind is Kind.VALUE and (protection or f.name != self.protect)]
        number = sum(f.mask(self.length) for f in evaluated) | self._control
        usage = bytearray(number.to_bytes(self.length, "big"))
        usage[0] = self.opcode
        if self.opcode == VARIABLE_LENGTH:
            usage[8:10] = (self.service_action or 0).to_bytes(2, "big")
        elif self.service_action is not None:
            usage[1] = usage[1] & 0xE0 | self.service_action
        return bytes(usage)


def service_action(cdb: Buffer) -> int:
    """The SERVICE ACTION of a command that has one (SPC-5: in byte 1, or in bytes 8 and 9 of a CDB of variable length)."""
    return int.from_bytes(cdb[8:10], "big") if cdb[0] == VARIABLE_LENGTH else cdb[1] & 0x1F


class CommandTable:
    """Commands by operation code and service action."""

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = tuple(sorted(commands, key=lambda command: (command.opcode, command.service_action or 0)))
        self._plain: list[Command | None] = [None] * 256
        self._actions: dict[int, dict[int, Command]] = {}
        for command in commands:
            if command.service_action is None:
                known = self._plain[command.opcode] is not None or command.opcode in self._actions
                self._plain[command.opcode] = command
            else:
                actions = self._actions.setdefault(command.opcode, {})
                known = command.service_action in actions or self._plain[command.opcode] is not None
                actions[command.service_action] = command
            if known:
                raise ValueError(f"{command.name} stands twice in the table")

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands)

    def find(self, cdb: Buffer) -> Command | None:
        """The command that `cdb` asks for; None when there is no such one."""
        command = self._plain[cdb[0]]
        if command is None:
            actions = self._actions.get(cdb[0])
            if actions is not None:
                command = actions.get(service_action(cdb))
        return command

    def has_actions(self, opcode: int) -> bool:
        """Whether the operation code is one with service actions."""
        return opcode in self._actions

    def get(self, opcode: int, service_action: int | None) -> Command | None:
        if service_action is None:
            return self._plain[opcode]
        return self._actions.get(opcode, {}).get(service_action)
