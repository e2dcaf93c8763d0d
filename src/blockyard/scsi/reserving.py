"""Reservations at work on a logical unit: whom they stand against, and how they outlive the process.

Both kinds are here: persistent reservations (scsi/reservations.py has their rules) and those of RESERVE and RELEASE, which
SPC-2 defines and SPC-4 5.13.3 only makes an exception for. Where a reservation stands against a nexus, its short cut is
closed and every command of it is checked; holders and registrants are as fast as without any.

While "persist through power loss" is activated, every change is on stable storage before its command ends (APTPL). Should
what is kept prove unreadable, nobody may touch the medium: the one who was fenced off must not come back by a bad sector.
The unit answers PERSISTENT RESERVATION INFORMATION LOST until an initiator sends REPLACE LOST RESERVATION (SPC-4 5.13.5.3).
"""

from __future__ import annotations

import errno
import logging
from typing import TYPE_CHECKING, Any

from blockyard.scsi.nexus import ITNexus, Nexus, TargetPort
from blockyard.scsi.reservations import Change, State, Type
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, StatusCondition
from blockyard.scsi.task import Status

if TYPE_CHECKING:
    from blockyard.scsi.cdb import Command
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Task

log = logging.getLogger(__name__)

_KIND = "reservations"  # of the document that is kept
_REASON = "reservation"  # why a nexus's gate is closed

# LOG SENSE, INQUIRY, READ BUFFER, REPORT LUNS, REPORT TARGET PORT GROUPS, REQUEST SENSE, WRITE BUFFER: what is carried out
# whatever became of the reservations, beside START STOP UNIT that starts and REPLACE LOST RESERVATION (SPC-4 5.13.5.2)
_WITHOUT_INFORMATION = frozenset({(0x4D, None), (0x12, None), (0x3C, None), (0xA0, None), (0xA3, 0x0A), (0x03, None),
                                  (0x3B, None), (0x5F, 0x08)})  # fmt: skip
# What else a RESERVE of another nexus lets pass: LOG SENSE, RELEASE (10) and (6) (SPC-2 5.5.1); and READ CAPACITY, which tells
# nothing worth protecting, while Linux takes a disk whose size it was refused for one without any
_DESPITE_RESERVE = frozenset({(0x4D, None), (0x57, None), (0x17, None), (0x25, None), (0x9E, 0x10)})
_PREVENT_ALLOW = 0x1E
_START_STOP_UNIT = 0x1B


class Reservations:
    """The reservations of one logical unit."""

    def __init__(self, unit: PrimaryUnit) -> None:
        self._unit = unit
        self.lost = False  # what was to outlive a power loss cannot be read
        self.state = self._load()
        self.reserved_by: ITNexus | None = None  # by RESERVE

    # ---- the check of every command

    def check(self, command: Command, task: Task) -> None:
        """Raise RESERVATION CONFLICT where a reservation stands against this command from this nexus."""
        if self.lost and not self._passes_loss(command, task):
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.PERSISTENT_RESERVATION_INFORMATION_LOST)
        nexus = task.nexus.it
        conflict = command.conflict.of(task.cdb)
        if self.reserved_by is not None and self.reserved_by != nexus and not _passes_reserve(command, task):
            raise StatusCondition(Status.RESERVATION_CONFLICT)
        if not self.state.allows(nexus, conflict):
            raise StatusCondition(Status.RESERVATION_CONFLICT)

    def _passes_loss(self, command: Command, task: Task) -> bool:
        starts = command.opcode == _START_STOP_UNIT and task.cdb[4] & 0xF1 == 0x01
        return starts or (command.opcode, command.service_action) in _WITHOUT_INFORMATION

    # ---- gates

    def update_gate(self, nexus: Nexus) -> None:
        """Open or close the short cut of a nexus: closed where a READ or a WRITE could be refused."""
        it = nexus.it
        reserved = self.reserved_by is not None and self.reserved_by != it
        persistent = self.state.type is not None and not self.state.holds(it)
        if persistent and self.state.type is not None and self.state.type.for_registrants:
            persistent = it not in self.state.keys
        if self.lost or reserved or persistent:
            nexus.close(_REASON)
        else:
            nexus.open(_REASON)

    def _update_gates(self) -> None:
        for nexus in self._unit.nexuses:
            self.update_gate(nexus)

    # ---- persistent reservations

    def refuse_if_reserved(self) -> None:
        """PERSISTENT RESERVE IN and OUT conflict with RESERVE, whoever sends them (SPC-2 5.5.1)."""
        if self.reserved_by is not None:
            raise StatusCondition(Status.RESERVATION_CONFLICT)

    def save(self, state: State) -> None:
        """Have `state` outlive the process if it is to. Raises CheckCondition, and then the old one is what is kept."""
        if not (state.aptpl or self.state.aptpl or self.lost):
            return
        try:
            self._unit.durable.save(_KIND, _document(state) if state.aptpl else None)
        except OSError as error:
            log.error("%s: reservations cannot be saved: %s", self._unit, error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INSUFFICIENT_REGISTRATION_RESOURCES) from error
            raise CheckCondition(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE) from error

    def take_over(self, change: Change, task: Task, *, abort: bool = False) -> None:
        """A change takes effect: gates, unit attentions, and the end of the tasks of those who were preempted."""
        self.state = change.state
        self.lost = False
        for nexus in self._unit.nexuses:
            self.update_gate(nexus)
            if nexus.it in change.attentions:
                nexus.establish(change.attentions[nexus.it])
        for nexus in self._unit.nexuses if abort else ():
            if nexus.it in change.preempted:
                nexus.abort_tasks(task)
                if self._unit.tasks is not None:
                    self._unit.tasks.clear_aca(nexus)
                self._unit.tray.allow(nexus)

    def _load(self) -> State:
        try:
            document = self._unit.durable.load(_KIND)
            return State() if document is None else _state(document)
        except (OSError, LookupError, TypeError, ValueError) as error:
            log.critical(
                "%s: its persistent reservations cannot be read, so that nobody may use it until an initiator replaces "
                "them (REPLACE LOST RESERVATION) or the file is taken away and the unit opened again: %s",
                self._unit, error,
            )  # fmt: skip
            self.lost = True
            return State()

    # ---- RESERVE and RELEASE, as SPC-2 has them

    def _makes_no_difference(self, nexus: ITNexus) -> bool:
        """Whether RESERVE and RELEASE do nothing: the persistent reservation grants it all already (SPC-4 5.13.3)."""
        state = self.state
        if state.type is None:
            return False
        return state.holds(nexus) or (state.type.for_registrants and nexus in state.keys)

    def reserve(self, nexus: ITNexus) -> None:
        """RESERVE: for one nexus alone, until it releases, is lost, or the unit is reset."""
        if self._makes_no_difference(nexus):
            return
        if self.state.keys or self.reserved_by not in (None, nexus):
            raise StatusCondition(Status.RESERVATION_CONFLICT)
        self.reserved_by = nexus
        self._update_gates()

    def release(self, nexus: ITNexus) -> None:
        """RELEASE; that of somebody else's reservation does nothing."""
        if self._makes_no_difference(nexus):
            return
        if self.state.keys:
            raise StatusCondition(Status.RESERVATION_CONFLICT)
        self.lose(nexus)

    def lose(self, nexus: ITNexus) -> None:
        """An I_T nexus is gone, or gives up: what it has reserved is free."""
        if self.reserved_by == nexus:
            self.reset()

    def reset(self) -> None:
        """A reset releases what RESERVE has reserved; persistent reservations survive it (SPC-4 5.13.5.1)."""
        self.reserved_by = None
        self._update_gates()


def _passes_reserve(command: Command, task: Task) -> bool:
    if command.opcode == _PREVENT_ALLOW:
        return not task.cdb[4] & 0x03
    return command.exempt or (command.opcode, command.service_action) in _DESPITE_RESERVE


# ---- what is kept


def _document(state: State) -> dict[str, Any]:
    return {
        "type": state.type,
        "holder": None if state.holder is None else list(state.keys).index(state.holder),
        "registrations": [
            {"initiator": it.initiator, "target_port": list(it.target_port), "key": f"{key:016x}"}
            for it, key in state.keys.items()
        ],
    }


def _state(document: dict[str, Any]) -> State:
    """What `_document` has made a document of; PRgeneration begins anew (SPC-4 6.15.2)."""
    keys = {
        ITNexus(entry["initiator"], TargetPort(*entry["target_port"])): int(entry["key"], 16)
        for entry in document["registrations"]
    }
    kind = None if document["type"] is None else Type(document["type"])
    holder = None if document["holder"] is None else list(keys)[document["holder"]]
    if kind is not None and kind.held_by_all == (holder is not None):
        raise ValueError("the reservation and its holder do not fit together")
    return State(keys=keys, type=kind, holder=holder, aptpl=True)
