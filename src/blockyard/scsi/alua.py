"""Asymmetric logical unit access: target port groups, their states, and who is told when one changes (SPC-4 5.16.2).

A target port is a target name with a portal group tag (RFC 7143 §4.3), and every portal group is a target port group of its
own, under its tag. States belong to the target: all its logical units share them. The administrator changes them (implicitly,
in the words of the standard), and so may an initiator by SET TARGET PORT GROUPS; both outlive the process.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from threading import Lock
from typing import TYPE_CHECKING, Any

from blockyard.scsi.cdb import Access
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_parameter, parameter_list_length_error

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.durable import Durable
    from blockyard.scsi.nexus import Nexus, TargetPort
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task

log = logging.getLogger(__name__)

_KIND = "target-port-groups"  # of the document that is kept
_REASON = "alua"  # why a nexus's gate is closed


class AccessState(IntEnum):
    """Asymmetric access states in the numbering of REPORT TARGET PORT GROUPS (SPC-4 table 307)."""

    ACTIVE_OPTIMIZED = 0x0
    ACTIVE_NON_OPTIMIZED = 0x1
    STANDBY = 0x2
    UNAVAILABLE = 0x3
    OFFLINE = 0xE
    TRANSITIONING = 0xF

    @property
    def text(self) -> str:
        """As people write it: active/non-optimized."""
        return self.name.lower().replace("active_", "active/").replace("_", "-")


STATES = {state.text: state for state in AccessState}
_SUPPORTED = 0xCF  # T_SUP, O_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP
# What an initiator may set: a secondary state is that of a port and the administrator's, and nothing stays in transition
_SETTABLE = frozenset(
    {AccessState.ACTIVE_OPTIMIZED, AccessState.ACTIVE_NON_OPTIMIZED, AccessState.STANDBY, AccessState.UNAVAILABLE}
)
_BY_COMMAND, _IMPLICITLY = 1, 2  # STATUS CODE

# Commands that a port in such a state takes, and what the others end with (SPC-4 5.16.2.4, 5.16.2.5)
_RESTRICTIONS: dict[AccessState, tuple[frozenset[Access], Asc]] = {
    AccessState.STANDBY: (
        frozenset({Access.STANDBY, Access.UNAVAILABLE}),
        Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE,
    ),
    AccessState.UNAVAILABLE: (
        frozenset({Access.UNAVAILABLE}),
        Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE,
    ),
    AccessState.OFFLINE: (frozenset({Access.UNAVAILABLE}), Asc.LOGICAL_UNIT_NOT_READY_OFFLINE),
    AccessState.TRANSITIONING: (
        frozenset({Access.UNAVAILABLE}),
        Asc.LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION,
    ),
}


@dataclass(frozen=True)
class PortGroup:
    """The state of a target port group."""

    state: AccessState = AccessState.ACTIVE_OPTIMIZED
    preferred: bool = False
    status: int = 0  # STATUS CODE: why it is in this state


class PortGroups:
    """The target ports of one target, in their groups."""

    def __init__(
        self,
        ports: Iterable[TargetPort],
        durable: Durable | None = None,
        initial: Mapping[int, PortGroup] | None = None,
    ) -> None:
        """`initial` are the states, by tag, in which groups are before anybody changes them."""
        self._durable = durable
        self._initial = dict(initial or {})
        self._nexuses: list[Nexus] = []
        self._changing = Lock()  # commands of two logical units may change states at a time
        self._gating = Lock()
        self._kept = self._load()  # what somebody has changed
        self._ports: tuple[TargetPort, ...] = ()
        self._groups: dict[int, PortGroup] = {}
        self.set_ports(ports)

    def set_ports(self, ports: Iterable[TargetPort], initial: Mapping[int, PortGroup] | None = None) -> None:
        """Target ports have come or gone, or the `initial` states are others. What was changed since stays as it is."""
        if initial is not None:
            self._initial = dict(initial)
        before, ports_before = self._groups, self._ports
        self._ports = tuple(sorted(ports, key=lambda port: port.relative_port))
        begin = self._initial | self._kept
        self._groups = {port.portal_group: begin.get(port.portal_group, PortGroup()) for port in self._ports}
        changed = any(before[tag] != group for tag, group in self._groups.items() if tag in before)
        for nexus in tuple(self._nexuses):
            self._update_gate(nexus)
            if changed:
                nexus.establish(Asc.ASYMMETRIC_ACCESS_STATE_CHANGED)
            if ports_before != self._ports:  # MULTIP and VPD page 88h tell of them
                nexus.establish(Asc.INQUIRY_DATA_HAS_CHANGED)

    def all(self) -> tuple[TargetPort, ...]:
        """The target ports."""
        return self._ports

    def find(self, relative_port: int) -> TargetPort | None:
        """The target port with this relative identifier."""
        return next((port for port in self._ports if port.relative_port == relative_port), None)

    @property
    def groups(self) -> Mapping[int, PortGroup]:
        """The groups by their tags."""
        return self._groups

    def group(self, tag: int) -> PortGroup:
        """A group by its tag. Raises LookupError when there is none."""
        if tag not in self._groups:
            known = ", ".join(map(str, self._groups))
            raise LookupError(f"there is no target port group {tag}; there are {known}")
        return self._groups[tag]

    def of(self, nexus: Nexus) -> PortGroup:
        """The group of the target port through which a nexus comes."""
        return self._groups.get(nexus.target_port.portal_group, _GONE)

    # ---- what a state means

    def check(self, command: Command, nexus: Nexus) -> None:
        """Raise NOT READY for a command that the nexus's target port does not take in its state."""
        passing, asc = _RESTRICTIONS.get(self.of(nexus).state, (None, Asc.NO_ADDITIONAL_SENSE_INFORMATION))
        if passing is not None and command.access not in passing:
            raise CheckCondition(SenseKey.NOT_READY, asc)

    def attach(self, nexus: Nexus) -> None:
        """A nexus has come through one of the ports."""
        if nexus not in self._nexuses:
            self._nexuses.append(nexus)
        self._update_gate(nexus)

    def detach(self, nexus: Nexus) -> None:
        """A nexus is gone."""
        if nexus in self._nexuses:
            self._nexuses.remove(nexus)

    def _update_gate(self, nexus: Nexus) -> None:
        with self._gating:
            if self.of(nexus).state in _RESTRICTIONS:
                nexus.close(_REASON)
            else:
                nexus.open(_REASON)

    # ---- changes

    def set(self, tag: int, state: AccessState | None = None, *, preferred: bool | None = None) -> None:
        """The administrator changes a group; every nexus hears of it. Raises LookupError, OSError."""
        old = self.group(tag)
        new = PortGroup(
            old.state if state is None else state,
            old.preferred if preferred is None else preferred,
            old.status if state is None or state == old.state else _IMPLICITLY,
        )
        with self._changing:
            self._change({tag: new})

    def set_by_command(self, states: Mapping[int, AccessState], requester: Nexus) -> None:
        """An initiator changes groups; every nexus but its own hears of it. Raises OSError, and then nothing has changed.

        When it makes a group active/optimized, others that it does not name are so no longer: it has moved the load, and
        hosts move it back by the same way to a preferred group that has come back (SPC-4 6.45 allows for that).
        """
        with self._changing:
            moves = any(
                self._groups[tag].state != state == AccessState.ACTIVE_OPTIMIZED for tag, state in states.items()
            )
            after = dict(states)
            for tag, group in self._groups.items():
                if moves and group.state == AccessState.ACTIVE_OPTIMIZED:
                    after.setdefault(tag, AccessState.ACTIVE_NON_OPTIMIZED)
            changed = {tag: PortGroup(state, self._groups[tag].preferred, _BY_COMMAND) for tag, state in after.items()}
            self._change(changed, requester)

    def _change(self, changed: dict[int, PortGroup], requester: Nexus | None = None) -> None:
        if all(
            (group.state, group.preferred) == (self._groups[tag].state, self._groups[tag].preferred)
            for tag, group in changed.items()
        ):
            return
        if self._durable is not None:
            self._durable.save(_KIND, _document(self._kept | changed))
        self._kept |= changed
        self._groups |= changed
        for nexus in tuple(self._nexuses):
            self._update_gate(nexus)
            if nexus is not requester:
                nexus.establish(Asc.ASYMMETRIC_ACCESS_STATE_CHANGED)

    def _load(self) -> dict[int, PortGroup]:
        if self._durable is None:
            return {}
        try:
            return _groups(self._durable.load(_KIND) or {})
        except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            log.error("states of target port groups cannot be read, so that all are active/optimized: %s", error)
            return {}

    # ---- for initiators

    def describe(self) -> bytes:
        """The target port group descriptors (SPC-4 table 306)."""
        return b"".join(self._descriptor(tag, group) for tag, group in self._groups.items())

    def _descriptor(self, tag: int, group: PortGroup) -> bytes:
        ports = [port.relative_port for port in self._ports if port.portal_group == tag]
        head = struct.pack(">BBHxBxB", group.preferred << 7 | group.state, _SUPPORTED, tag, group.status, len(ports))
        return head + b"".join(struct.pack(">HH", 0, port) for port in ports)


_GONE = PortGroup(AccessState.UNAVAILABLE)  # of a port that has been taken away while a session is still there


def _document(groups: Mapping[int, PortGroup]) -> dict[str, Any]:
    return {
        str(tag): {"state": group.state.text, "preferred": group.preferred, "status": group.status}
        for tag, group in groups.items()
    }


def _groups(document: dict[str, Any]) -> dict[int, PortGroup]:
    return {
        int(tag): PortGroup(STATES[kept["state"]], bool(kept["preferred"]), int(kept["status"]))
        for tag, kept in document.items()
    }


# ---- commands

_LENGTH_ONLY, _EXTENDED = 0, 1  # PARAMETER DATA FORMAT
_TRANSITION_SECONDS = 0  # IMPLICIT TRANSITION TIME is not specified: a change is one event


def report_target_port_groups(unit: PrimaryUnit, task: Task) -> Buffer:
    """REPORT TARGET PORT GROUPS (SPC-4 6.37), with either header."""
    groups = task.nexus.ports.describe()
    if task.fields["parameter_data_format"] == _EXTENDED:
        groups = struct.pack(">BBxx", _EXTENDED << 4, _TRANSITION_SECONDS) + groups
    return struct.pack(">I", len(groups)) + groups


def check_report(unit: PrimaryUnit, task: Task) -> None:
    assert task.command is not None
    if task.fields["parameter_data_format"] not in (_LENGTH_ONLY, _EXTENDED):
        raise task.command.invalid("parameter_data_format")


def check_set(unit: PrimaryUnit, task: Task) -> None:
    if task.expected and (task.expected < 4 or task.expected % 4 or task.expected > 4 + 4 * 0xFFFF):
        raise parameter_list_length_error()
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def set_target_port_groups(unit: PrimaryUnit, task: Task) -> Buffer:
    """SET TARGET PORT GROUPS (SPC-4 6.45): all the changes or none."""
    ports = task.nexus.ports
    data = bytes(task.data_out)
    states: dict[int, AccessState] = {}
    for at in range(4, len(data), 4):
        code, tag = struct.unpack_from(">BxH", data, at)
        if code not in _SETTABLE:
            raise invalid_parameter(at, 3)
        try:
            ports.group(tag)
        except LookupError:
            raise invalid_parameter(at + 2) from None
        states[tag] = AccessState(code)
    try:
        ports.set_by_command(states, task.nexus)
    except OSError as error:
        log.error("states of target port groups cannot be saved: %s", error)
        raise CheckCondition(SenseKey.HARDWARE_ERROR, Asc.SET_TARGET_PORT_GROUPS_COMMAND_FAILED) from error
    return b""
