"""PERSISTENT RESERVE IN and OUT (SPC-4 6.15, 6.16) and RESERVE and RELEASE (SPC-2): from the wire to the rules and back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.scsi import reservations, transport_id
from blockyard.scsi.nexus import ITNexus
from blockyard.scsi.reservations import Change, State
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task

_BASIC_LENGTH = 24  # of the parameter list of PERSISTENT RESERVE OUT
_LONGEST_LIST = 1 << 18  # bytes; a TransportID has 228 at most
_SPEC_I_PT, _ALL_TG_PT, _APTPL = 0x08, 0x04, 0x01
_UNREG = 0x02

# ---- PERSISTENT RESERVE IN

_TYPE_MASK = 0xEA01  # all six types, in their places of the PERSISTENT RESERVATION TYPE MASK
_RLR_C, _CRH, _SIP_C, _ATP_C, _PTPL_C = 0x80, 0x10, 0x08, 0x04, 0x01
_TMV, _ALLOW_COMMANDS, _PTPL_A = 0x80, 4 << 4, 0x01  # ALLOW COMMANDS 100b: all that may be let pass is


def check_in(unit: PrimaryUnit, task: Task) -> None:
    unit.reservations.refuse_if_reserved()


def _with_header(state: State, data: bytes) -> bytes:
    return struct.pack(">II", state.generation, len(data)) + data


def read_keys(unit: PrimaryUnit, task: Task) -> Buffer:
    state = unit.reservations.state
    return _with_header(state, b"".join(key.to_bytes(8, "big") for key in state.keys.values()))


def read_reservation(unit: PrimaryUnit, task: Task) -> Buffer:
    state = unit.reservations.state
    return _with_header(state, b"" if state.type is None else struct.pack(">Q5xBxx", state.holder_key, state.type))


def report_capabilities(unit: PrimaryUnit, task: Task) -> Buffer:
    kept = unit.durable.persistent
    return struct.pack(
        ">HBBHxx",
        8,
        _RLR_C | _CRH | _SIP_C | _ATP_C | (_PTPL_C if kept else 0),
        _TMV | _ALLOW_COMMANDS | (_PTPL_A if unit.reservations.state.aptpl else 0),
        _TYPE_MASK,
    )


def read_full_status(unit: PrimaryUnit, task: Task) -> Buffer:
    state = unit.reservations.state
    descriptors = []
    for it, key in state.keys.items():
        name = transport_id.encode(it.initiator)
        holds = state.holds(it)
        kind = state.type if holds and state.type is not None else 0
        head = struct.pack(">Q4xBB4xHI", key, holds, kind, it.target_port.relative_port, len(name))
        descriptors.append(head + name)
    return _with_header(state, b"".join(descriptors))


# ---- PERSISTENT RESERVE OUT


def check_out(unit: PrimaryUnit, task: Task) -> None:
    unit.reservations.refuse_if_reserved()
    if not _BASIC_LENGTH <= task.expected <= _LONGEST_LIST or task.data_out_length < task.expected:
        raise parameter_list_length_error()
    task.blocking = unit.durable.persistent  # it may have to wait for stable storage


def _keys(task: Task) -> tuple[int, int]:
    key, new_key = struct.unpack_from(">QQ", task.data_out)
    return key, new_key


def _flags(unit: PrimaryUnit, task: Task, *, spec_i_pt: bool = False) -> int:
    """The byte with SPEC_I_PT, ALL_TG_PT and APTPL, checked as SPC-4 table 216 has it."""
    flags = task.data_out[20]
    if flags & _SPEC_I_PT and not spec_i_pt:
        raise invalid_parameter(20, 3)
    if not flags & _SPEC_I_PT and len(task.data_out) != _BASIC_LENGTH:
        raise parameter_list_length_error()
    return flags


def _activates(unit: PrimaryUnit, aptpl: int) -> bool:
    """APTPL, which takes a place to keep things in."""
    if aptpl and not unit.durable.persistent:
        raise invalid_parameter(20, 0)
    return bool(aptpl)


def _carry_out(unit: PrimaryUnit, task: Task, change: Change, *, abort: bool = False) -> Buffer:
    """Keep the next state if it has to be kept; on the loop's thread it then takes effect."""
    unit.reservations.save(change.state)
    task.effect = lambda: unit.reservations.take_over(change, task, abort=abort)
    return b""


def register(unit: PrimaryUnit, task: Task) -> Buffer:
    return _register(unit, task, _keys(task)[0])


def register_and_ignore_existing_key(unit: PrimaryUnit, task: Task) -> Buffer:
    return _register(unit, task, None)


def _register(unit: PrimaryUnit, task: Task, key: int | None) -> Buffer:
    flags = _flags(unit, task, spec_i_pt=key is not None)
    nexus = task.nexus.it
    target_ports = task.nexus.ports.all() if flags & _ALL_TG_PT else (nexus.target_port,)
    others = None
    if flags & _SPEC_I_PT:
        initiators = _initiators(unit, bytes(task.data_out)) - {nexus.initiator}
        others = {ITNexus(initiator, port) for initiator in initiators for port in target_ports}
    change = reservations.register(
        unit.reservations.state,
        nexus,
        key,
        _keys(task)[1],
        same_initiator=[ITNexus(nexus.initiator, port) for port in target_ports if port != nexus.target_port],
        others=others,
        aptpl=_activates(unit, flags & _APTPL),
    )
    return _carry_out(unit, task, change)


def _initiators(unit: PrimaryUnit, data: bytes) -> set[str]:
    """The initiator ports of the TransportIDs that follow the basic parameter list (SPC-4 table 215)."""
    if len(data) < 28 or 28 + int.from_bytes(data[24:28], "big") != len(data):
        raise parameter_list_length_error()
    try:
        return {port for one in transport_id.split(data[28:]) for port in transport_id.ports(one, _known(unit))}
    except ValueError:
        raise invalid_parameter(28) from None


def _known(unit: PrimaryUnit) -> set[str]:
    """The initiator ports that a node's name stands for: those with a nexus or a registration here."""
    return {nexus.initiator for nexus in unit.nexuses} | {it.initiator for it in unit.reservations.state.keys}


def reserve(unit: PrimaryUnit, task: Task) -> Buffer:
    return _with_type(unit, task, reservations.reserve)


def release(unit: PrimaryUnit, task: Task) -> Buffer:
    return _with_type(unit, task, reservations.release)


def _with_type(unit: PrimaryUnit, task: Task, action: Callable[[State, ITNexus, int, int, int], Change]) -> Buffer:
    _flags(unit, task)
    fields = task.fields
    change = action(unit.reservations.state, task.nexus.it, _keys(task)[0], fields["scope"], fields["type"])
    return _carry_out(unit, task, change)


def clear(unit: PrimaryUnit, task: Task) -> Buffer:
    _flags(unit, task)
    return _carry_out(unit, task, reservations.clear(unit.reservations.state, task.nexus.it, _keys(task)[0]))


def preempt(unit: PrimaryUnit, task: Task) -> Buffer:
    return _preempt(unit, task, abort=False)


def preempt_and_abort(unit: PrimaryUnit, task: Task) -> Buffer:
    return _preempt(unit, task, abort=True)


def _preempt(unit: PrimaryUnit, task: Task, *, abort: bool) -> Buffer:
    _flags(unit, task)
    key, victim = _keys(task)
    fields = task.fields
    change = reservations.preempt(unit.reservations.state, task.nexus.it, key, victim, fields["scope"], fields["type"])
    return _carry_out(unit, task, change, abort=abort)


def register_and_move(unit: PrimaryUnit, task: Task) -> Buffer:
    data = bytes(task.data_out)
    state, nexus = unit.reservations.state, task.nexus.it
    key, new_key = _keys(task)
    flags, relative_port, length = struct.unpack_from(">xBHI", data, 16)
    reservations.check_move(state, nexus, key)
    if _BASIC_LENGTH + length != len(data):
        raise parameter_list_length_error()
    port = task.nexus.ports.find(relative_port)
    if port is None:
        raise invalid_parameter(18)
    try:
        (initiator,) = transport_id.ports(data[_BASIC_LENGTH:], _known(unit))
    except ValueError:
        raise invalid_parameter(24) from None
    change = reservations.register_and_move(
        state,
        nexus,
        key,
        new_key,
        ITNexus(initiator, port),
        unregister=bool(flags & _UNREG),
        aptpl=_activates(unit, flags & _APTPL),
    )
    return _carry_out(unit, task, change)


def replace_lost_reservation(unit: PrimaryUnit, task: Task) -> Buffer:
    flags = _flags(unit, task)
    if not unit.reservations.lost:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_RELEASE_OF_PERSISTENT_RESERVATION)
    if flags & _ALL_TG_PT:
        raise invalid_parameter(20, 2)
    key, new_key = _keys(task)
    fields = task.fields
    aptpl = _activates(unit, flags & _APTPL)
    change = reservations.replace_lost(task.nexus.it, key, new_key, fields["scope"], fields["type"], aptpl=aptpl)
    return _carry_out(unit, task, change)


# ---- RESERVE and RELEASE


def reserve_unit(unit: PrimaryUnit, task: Task) -> Buffer:
    """RESERVE (6) and (10): the whole unit, for this nexus."""
    unit.reservations.reserve(task.nexus.it)
    return b""


def release_unit(unit: PrimaryUnit, task: Task) -> Buffer:
    """RELEASE (6) and (10)."""
    unit.reservations.release(task.nexus.it)
    return b""
