"""What concerns the cartridge as a whole: LOAD UNLOAD, FORMAT MEDIUM, SET CAPACITY, densities, block limits (SSC-5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.media.generations import GENERATIONS, ORGANIZATION, WIDTH, Generation
from blockyard.media.record import FIRST
from blockyard.media.tape_pages import PARTITIONS
from blockyard.media.transfer import MAX_BLOCK, loaded
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_field,
)

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.media.tape import Tape
    from blockyard.scsi.task import Buffer, Task

_DEFAULT, _PARTITION, _DEFAULT_AND_PARTITION = 0, 1, 2  # FORMAT
_REST = (0, 0xFFFF)  # PARTITION SIZE of the one that has what the others leave
_LEAST = FIRST + (1 << 20)  # bytes that a partition has at least
_UNIT = {0: 1, 1: 1000, 2: 10**6}  # PSUM


def check_load_unload(unit: TapeDrive, task: Task) -> None:
    if task.fields["eot"]:
        raise invalid_field(4, 2)
    if task.fields["hold"] and task.fields["load"]:
        raise invalid_field(4, 3)


def load_unload(unit: TapeDrive, task: Task) -> Buffer:
    if task.fields["load"]:
        unit.load(task.nexus)
        if unit.tape is None:
            raise unit.not_ready()
    else:
        unit.unload()
    return b""


def read_block_limits(unit: TapeDrive, task: Task) -> Buffer:
    return struct.pack(">IH", MAX_BLOCK, 1)  # GRANULARITY 0, MAXIMUM, MINIMUM


# ---- densities

_WRITABLE, _DEFAULT_DENSITY, _ASSIGNED = 0x80, 0x20, 0x40


def report_density_support(unit: TapeDrive, task: Task) -> Buffer:
    """Of all that the drive knows, or of the loaded cartridge alone: densities, or with MEDIUM TYPE kinds of cartridges."""
    media = task.fields["media"]
    known = [kind for kind in GENERATIONS.values() if kind.name in unit.model.reads]
    if media:
        known = [loaded(unit).description.generation]
    if task.fields["medium_type"]:
        body = b"".join(
            _medium_type(kind, worm) for kind in known for worm in (False, True) if not media or _is(unit, worm)
        )
    else:
        body = b"".join(_density(unit, kind) for kind in known)
    return struct.pack(">Hxx", len(body) + 2) + body


def _is(unit: TapeDrive, worm: bool) -> bool:
    return loaded(unit).description.worm == worm


def _text(text: str, length: int) -> bytes:
    return f"{text:{length}}".encode()


def _density(unit: TapeDrive, kind: Generation) -> bytes:
    flags = _WRITABLE if kind.name in unit.model.writes else 0
    flags |= _DEFAULT_DENSITY if kind is unit.model.generation else 0
    head = struct.pack(">BBBxx", kind.density, kind.density, flags)
    numbers = kind.bits_per_mm.to_bytes(3, "big") + struct.pack(">HHI", WIDTH, kind.tracks, kind.capacity // 10**6)
    return head + numbers + _text(ORGANIZATION, 8) + _text(kind.density_name, 8) + _text(kind.description, 20)


def _medium_type(kind: Generation, worm: bool) -> bytes:
    head = struct.pack(">BxHB", kind.medium_type + 4 * worm, 52, 1)
    head += bytes([kind.density]).ljust(9, b"\0") + struct.pack(">Hxxxx", WIDTH)
    name = f"{kind.name} {'WORM' if worm else 'Data'}"
    return head + _text(ORGANIZATION, 8) + _text(kind.density_name, 8) + _text(name, 20)


# ---- FORMAT MEDIUM and SET CAPACITY


def _check_formattable(unit: TapeDrive, tape: Tape) -> None:
    if (tape.number, tape.position) != (0, 0):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.COMMAND_SEQUENCE_ERROR)
    if tape.description.worm:
        raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WORM_MEDIUM_OVERWRITE_ATTEMPTED)


def check_format(unit: TapeDrive, task: Task) -> None:
    if task.fields["format"] not in (_DEFAULT, _PARTITION, _DEFAULT_AND_PARTITION):
        raise invalid_field(2, 3)
    if task.fields["transfer_length"]:
        raise invalid_field(3)


def format_medium(unit: TapeDrive, task: Task) -> Buffer:
    """All data is gone. There is one partition, or what the Medium Partition mode page says."""
    tape = loaded(unit)
    _check_formattable(unit, tape)
    total = tape.description.capacity
    capacities = [total] if task.fields["format"] == _DEFAULT else _wanted(unit, total)
    tape.cartridge.format(capacities)
    tape.locate(0, 0)
    unit.show_partitions()
    unit.update()
    return b""


def _wanted(unit: TapeDrive, total: int) -> list[int]:
    """The capacities that the Medium Partition mode page asks for. Raises CheckCondition."""

    def field(name: str) -> int:
        return unit.mode.get(PARTITIONS, name)

    count = field("additional") + 1
    if count > loaded(unit).description.generation.partitions:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    if not field("idp"):  # FDP, SDP: as the drive likes it
        return [total - (count - 1) * (total // count)] + [total // count] * (count - 1)
    scale = _UNIT.get(field("psum"), 10 ** field("units"))
    sizes = [field(f"size_{number}") for number in range(count)]
    given = [0 if size in _REST else size * scale for size in sizes]
    rest = total - sum(given)
    takers = [number for number, size in enumerate(given) if not size]
    for number in takers:
        given[number] = rest // len(takers)
    if min(given) < _LEAST or sum(given) > total:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST)
    return given


def set_capacity(unit: TapeDrive, task: Task) -> Buffer:
    """So many 65535ths of the generation's capacity are used; all data is gone."""
    tape = loaded(unit)
    _check_formattable(unit, tape)
    full = max(tape.description.capacity, tape.description.full)
    tape.cartridge.change(full=full)
    proportion = task.fields["proportion"]
    tape.cartridge.format([max(_LEAST, full * proportion // 0xFFFF)])
    tape.locate(0, 0)
    unit.show_partitions()
    unit.update()
    return b""
