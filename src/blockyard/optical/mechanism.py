"""The tray: START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL, MECHANISM STATUS (MMC-6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.task import Buffer, Task

_ALLOW, _PREVENT, _PERSISTENT_ALLOW, _PERSISTENT_PREVENT = range(4)


def check_start_stop_unit(drive: OpticalDrive, task: Task) -> None:
    fields = task.fields
    if fields["power_condition"]:
        return
    if fields["fl"]:  # jump to another layer of a hybrid disc
        raise invalid_field(4, 2)
    if fields["start"] and not fields["loej"] and drive.disc is None:
        raise drive.not_ready()
    # an image is opened, or what was written is made stable before it goes
    task.blocking = bool(fields["loej"] and (fields["start"] or _unstable(drive)))


def start_stop_unit(drive: OpticalDrive, task: Task) -> Buffer:
    """Load or eject. Without LOEJ a disc starts and stops to turn, which makes no difference."""
    fields, nexus = task.fields, task.nexus
    if fields["power_condition"] or not fields["loej"]:
        return b""
    if fields["start"]:
        disc = drive.opened() if drive.open else None
        task.effect = lambda: drive.close_tray(disc, by=nexus)
        return b""
    if drive.locked:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    if _unstable(drive):
        drive.flush()
        task.effect = drive.open_tray
        return b""
    drive.open_tray()
    return b""


def _unstable(drive: OpticalDrive) -> bool:
    """Whether the disc is one that is burned, perhaps not to its end."""
    return drive.disc is not None and drive.disc.recorder is not None


def prevent_allow_medium_removal(drive: OpticalDrive, task: Task) -> Buffer:
    """Prevention, and persistent prevention, under which drives ask hosts to eject instead of doing it (MMC-6)."""
    wanted, nexus = task.fields["prevent"], task.nexus
    if wanted == _PREVENT:
        drive.tray.prevent(nexus)
    elif wanted == _ALLOW:
        drive.tray.allow(nexus)
    elif wanted == _PERSISTENT_PREVENT:
        drive.persistent.add(nexus)
    else:
        drive.persistent.discard(nexus)
    drive.update()
    return b""


def mechanism_status(drive: OpticalDrive, task: Task) -> Buffer:
    """No fault, no changer, idle; whether the tray is open."""
    return struct.pack(">BB3xB2x", 0, drive.open << 4, 0)
