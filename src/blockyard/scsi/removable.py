"""Starting, stopping, power conditions, and media that can be taken out (SBC-4, START STOP UNIT; SPC-5, PREVENT ALLOW
MEDIUM REMOVAL).

The medium of a removable disk is its volume. Ejecting it lets go of nothing: the volume stays where it is, but it
cannot be accessed until it is loaded again. Whether it is loaded does not outlive the process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

PREVENT = 1  # the PREVENT field; 2 and 3 are obsolete

START_VALID, ACTIVE, IDLE, STANDBY, LU_CONTROL, FORCE_IDLE_0, FORCE_STANDBY_0 = 0x0, 0x1, 0x2, 0x3, 0x7, 0xA, 0xB

# What REQUEST SENSE reports in a power condition that START STOP UNIT has brought about, by POWER CONDITION and its modifier
_LOW_POWER: dict[int, tuple[Asc, ...]] = {
    IDLE: (
        Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND,
        Asc.IDLE_B_CONDITION_ACTIVATED_BY_COMMAND,
        Asc.IDLE_C_CONDITION_ACTIVATED_BY_COMMAND,
    ),
    STANDBY: (Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND, Asc.STANDBY_Y_CONDITION_ACTIVATED_BY_COMMAND),
    FORCE_IDLE_0: (Asc.IDLE_CONDITION_ACTIVATED_BY_COMMAND,),
    FORCE_STANDBY_0: (Asc.STANDBY_CONDITION_ACTIVATED_BY_COMMAND,),
}


class Tray:
    """Where the medium of a logical unit is, and who forbids to take it out."""

    def __init__(self) -> None:
        self.loaded = True
        self._preventing: set[Nexus] = set()

    @property
    def locked(self) -> bool:
        return bool(self._preventing)

    @property
    def preventing(self) -> frozenset[Nexus]:
        return frozenset(self._preventing)

    def prevent(self, nexus: Nexus) -> None:
        self._preventing.add(nexus)

    def allow(self, nexus: Nexus) -> None:
        """The nexus forbids nothing any longer: it has said so, is gone, or was preempted (SPC-5)."""
        self._preventing.discard(nexus)

    def reset(self) -> None:
        """A hard reset ends every prevention; the medium stays where it is."""
        self._preventing.clear()


def prevent_allow_medium_removal(unit: PrimaryUnit, task: Task) -> Buffer:
    if task.fields["prevent"] == PREVENT:
        unit.tray.prevent(task.nexus)
    else:
        unit.tray.allow(task.nexus)
    return b""


def check_prevent_allow(unit: PrimaryUnit, task: Task) -> None:
    if task.fields["prevent"] > PREVENT:
        raise invalid_field(4, 1)


# ---- START STOP UNIT


def check_start_stop_unit(unit: LogicalUnit, task: Task) -> None:
    fields = task.fields
    condition, modifier = fields["power_condition"], fields["power_condition_modifier"]
    if condition != START_VALID:  # START, LOEJ and NO_FLUSH are ignored
        if modifier and modifier >= len(_LOW_POWER.get(condition, (None,))):
            raise invalid_field(3, 3)
        return
    if modifier:
        raise invalid_field(3, 3)
    if fields["loej"]:
        if not unit.removable:
            raise invalid_field(4, 1)
    elif not unit.tray.loaded:
        raise medium_not_present()


def start_stop_unit(unit: LogicalUnit, task: Task) -> Buffer:
    fields = task.fields
    if fields["power_condition"] != START_VALID:
        _change_power_condition(unit, fields["power_condition"], fields["power_condition_modifier"])
    elif fields["loej"] and unit.tray.locked:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    elif fields["loej"] and fields["start"]:
        unit.load(task.nexus)
    elif fields["loej"]:
        unit.eject(flush=not fields["no_flush"])
    elif fields["start"]:
        unit.start()
    else:
        unit.stop(flush=not fields["no_flush"])
    return b""


def _change_power_condition(unit: LogicalUnit, condition: int, modifier: int) -> None:
    """Enter a power condition. Reserved codes change nothing, and are no error: initiators try them."""
    conditions = _LOW_POWER.get(condition)
    if conditions is not None:
        unit.enter_low_power(conditions[modifier])
    elif condition in (ACTIVE, LU_CONTROL):  # there are no timers that could be given control
        unit.enter_low_power(None)


def medium_not_present() -> CheckCondition:
    return CheckCondition(SenseKey.NOT_READY, Asc.MEDIUM_NOT_PRESENT)
