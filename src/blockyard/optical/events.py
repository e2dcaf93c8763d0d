"""What drives tell of by themselves, to those who ask again and again: GET EVENT STATUS NOTIFICATION (MMC-6).

Events belong to a nexus, of each class the last one. What is reported is over.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

from blockyard.scsi.sense import invalid_field

if TYPE_CHECKING:
    from blockyard.optical.drive import OpticalDrive
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.task import Buffer, Task

OPERATIONAL_CHANGE, POWER, EXTERNAL_REQUEST, MEDIA, BUSY = 1, 2, 3, 4, 6
CLASSES = (OPERATIONAL_CHANGE, POWER, EXTERNAL_REQUEST, MEDIA, BUSY)  # by priority, the highest first
_SUPPORTED = sum(1 << number for number in CLASSES)
_NEA = 0x80  # no event of a class that was asked for can be had
_FEATURES_CHANGED = 2
_ACTIVE = 1  # POWER STATUS
_PERSISTENT_PREVENT = 0x80
_HEADER = 4


class MediaEvent(IntEnum):
    """MEDIA EVENT CODE."""

    NO_CHANGE = 0
    EJECT_REQUEST = 1
    NEW_MEDIA = 2
    MEDIA_REMOVAL = 3


class Events:
    """What a drive has to tell to its nexuses."""

    def __init__(self) -> None:
        self._pending: dict[Nexus, dict[int, int]] = {}

    def attach(self, nexus: Nexus, *, present: bool) -> None:
        """A nexus has come: it learns of a disc that is there as if it had just been put in."""
        self._pending.setdefault(nexus, {MEDIA: MediaEvent.NEW_MEDIA} if present else {})

    def detach(self, nexus: Nexus) -> None:
        self._pending.pop(nexus, None)

    def media(self, event: MediaEvent) -> None:
        """Something has happened to the disc, or is wished for; another disc is another profile with other features."""
        for pending in self._pending.values():
            pending[MEDIA] = event
            if event != MediaEvent.EJECT_REQUEST:
                pending[OPERATIONAL_CHANGE] = _FEATURES_CHANGED

    def next(self, nexus: Nexus, wanted: int) -> tuple[int, int]:
        """The class and event code to report of the classes that are wanted, given as bits; without an event its code is 0."""
        classes = [number for number in CLASSES if wanted & 1 << number]
        pending = self._pending.get(nexus, {})
        return next(((number, pending[number]) for number in classes if number in pending), (classes[0], 0))

    def reported(self, nexus: Nexus, number: int) -> None:
        self._pending.get(nexus, {}).pop(number, None)


def check_get_event_status(drive: OpticalDrive, task: Task) -> None:
    if not task.fields["polled"]:
        raise invalid_field(1, 0)  # asynchronous notification


def get_event_status(drive: OpticalDrive, task: Task) -> Buffer:
    wanted = task.fields["notification_class_request"]
    if not wanted & _SUPPORTED:
        return struct.pack(">HBB", 2, _NEA, _SUPPORTED)
    number, event = drive.events.next(task.nexus, wanted)
    if task.fields["allocation_length"] > _HEADER:
        drive.events.reported(task.nexus, number)
    return struct.pack(">HBB", _HEADER + 2, number, _SUPPORTED) + _descriptor(drive, number, event)


def _descriptor(drive: OpticalDrive, number: int, event: int) -> bytes:
    persistent = _PERSISTENT_PREVENT if drive.persistent else 0
    if number == OPERATIONAL_CHANGE:
        return struct.pack(">BBH", event, persistent, 1 if event else 0)
    if number == POWER:
        return struct.pack(">BBxx", 0, _ACTIVE)
    if number == EXTERNAL_REQUEST:
        return struct.pack(">BBH", 0, persistent, 0)
    if number == MEDIA:
        return struct.pack(">BBBB", event, (drive.disc is not None) << 1 | drive.open, 0, 0)
    return bytes(4)  # not busy
