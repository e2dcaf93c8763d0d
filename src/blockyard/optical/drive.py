"""An optical drive: a CD, DVD or BD drive (MMC-6) with perhaps an image in it as its disc.

A disc comes and goes on the loop's thread alone, where the data path looks; it is opened before, in another one. Reads that go on
in threads keep the disc that they have begun with (disc.py). What is in the tray, and whether that is open, outlives the process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from blockyard.optical import pages
from blockyard.optical.commands import OPTICAL_COMMANDS
from blockyard.optical.disc import Disc
from blockyard.optical.events import Events, MediaEvent
from blockyard.optical.kinds import AUTO, CD
from blockyard.optical.reading import MOST
from blockyard.scsi.cdb import Command
from blockyard.scsi.durable import Durable
from blockyard.scsi.mode import ModeParameters
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.primary import Identity, PrimaryUnit
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey
from blockyard.scsi.task import Task
from blockyard.scsi.vpd import VpdPage

log = logging.getLogger(__name__)

_TRAY = "tray"  # what the state of the tray is kept as (scsi/durable.py)


class Image(NamedTuple):
    """What lies in the tray: a file, and the kind of disc that it is to be."""

    path: str
    kind: str = AUTO


class Wish(NamedTuple):
    """Somebody wants the disc that hosts keep in the drive, and has another one for it, or none."""

    disc: Disc | None
    image: Image | None


class OpticalDrive(PrimaryUnit):
    """One drive. `image` is in it at first: when it has never been served before, or with another one then."""

    peripheral = 0x05  # CD/DVD device
    commands = OPTICAL_COMMANDS
    vpd_pages: Mapping[int, VpdPage] = pages.VPD_PAGES
    product = "Virtual BD-RE"
    standards = (0x00A0, 0x0960, 0x0460, 0x04E0)  # SAM-5, iSCSI, SPC-4, MMC-6
    copies_for_others = False
    reports_port_groups = False
    removable = True
    shift = 11

    def __init__(self, identity: Identity, durable: Durable | None, *, image: Image | None = None) -> None:
        super().__init__(identity, durable)
        self.events = Events()
        self.persistent: set[Nexus] = set()  # who persistently prevents that the disc is taken out
        # those that were asked for, in kilobytes a second; None: as fast as it can
        self.speed: int | None = None
        self.write_speed: int | None = None
        self.disc: Disc | None = None  # that can be read
        self.image = image  # what lies in the tray, readable or not
        self.open = False  # the tray
        self.wish: Wish | None = None  # what is to be done when a host ejects, as it is asked to
        self.trouble: Asc | None = None  # why what lies in the tray cannot be read
        self._configured = image
        self._saving = Lock()
        self._saved: object = None
        self.mode = ModeParameters(self.durable, pages=pages.MODE_PAGES)
        self._restore()
        if not self.open:
            self._put(self.opened())
        self.update()

    # ---- the first step of a task

    def check_ready(self, command: Command, task: Task) -> None:
        if not command.medium:
            return
        disc = self.loaded()
        if command.transfers and task.fields["count"] > MOST:
            raise command.invalid("count")
        if command.writes and not (disc.recorder is not None or disc.kind.writable):
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
        if command.ranged and disc.unformatted:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_NOT_FORMATTED)
        in_image = command.ranged and disc.recorder is None  # what is written in order knows its own addresses
        if in_image and task.fields["lba"] + (task.fields["count"] or 1) > disc.blocks:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)

    def count(self, command: Command, fields: dict[str, int]) -> None:
        if command.transfers and command.writes:
            self.counters.write_ops += 1
            self.counters.write_bytes += fields["count"] << self.shift
        elif command.transfers:
            self.counters.read_ops += 1
            self.counters.read_bytes += fields["count"] << self.shift
        else:
            self.counters.other_ops += 1

    def loaded(self) -> Disc:
        """The disc. Raises CheckCondition when there is none that can be read."""
        disc = self.disc
        if disc is None:
            raise self.not_ready()
        return disc

    def not_ready(self) -> CheckCondition:
        empty = Asc.MEDIUM_NOT_PRESENT_TRAY_OPEN if self.open else Asc.MEDIUM_NOT_PRESENT_TRAY_CLOSED
        return CheckCondition(SenseKey.NOT_READY, self.trouble or empty)

    def pending_condition(self, nexus: Nexus) -> CheckCondition | None:
        return nexus.take_attention() or (self.not_ready() if self.disc is None else None)

    # ---- the disc

    @property
    def locked(self) -> bool:
        """Whether hosts prevent that the disc is taken out."""
        return self.disc is not None and (self.tray.locked or bool(self.persistent))

    @property
    def preventing(self) -> list[str]:
        """The initiators that do, by name."""
        names = {nexus.it.initiator.partition(",i,")[0] for nexus in {*self.tray.preventing, *self.persistent}}
        return sorted(names)

    def opened(self) -> Disc | None:
        """What lies in the tray, opened; None where there is nothing, or nothing that can be read. Blocks."""
        if self.image is None:
            return None
        try:
            return Disc(Path(self.image.path), self.image.kind)
        except OSError as error:
            log.error("%s: %s cannot be read: %s", self, self.image.path, error)
            return None

    def insert(self, disc: Disc, image: Image) -> None:
        """Somebody puts a disc in, in the place of what was there."""
        self.image = image
        self._put(disc)

    def configure(self, image: Image | None) -> None:
        """The configuration names another image, or none: that one goes in. Blocks as long as it takes to open it."""
        self._configured = self.image = image
        self._put(self.opened())
        self.keep()

    def remove(self) -> None:
        """Somebody takes out what lies in the tray, and closes it."""
        self.image = None
        self._put(None)

    def request_eject(self, wish: Wish) -> None:
        """Somebody presses the button of a locked drive: hosts are asked to eject (MMC-6, persistent prevent)."""
        self.withdraw()
        self.wish = wish
        self.events.media(MediaEvent.EJECT_REQUEST)

    def recorded(self) -> None:
        """What can be read of the disc has changed: hosts are told by an event, so that they look again without a reload."""
        self.update()
        self.events.media(MediaEvent.NEW_MEDIA)

    def withdraw(self) -> None:
        """Nobody wishes anything any more."""
        wish, self.wish = self.wish, None
        if wish is not None and wish.disc is not None:
            wish.disc.close()

    def open_tray(self) -> None:
        """A host ejects. What lies in the tray stays there, unless somebody waits for it.

        Another disc is put in at once. Linux ejects once more when it is told of a removal, which would hit that disc otherwise.
        """
        wish, self.wish = self.wish, None
        if wish is not None:
            self.image = wish.image
        if wish is not None and wish.disc is not None:
            self._put(wish.disc)
        else:
            self._put(None, is_open=True)
        self.keep()

    def close_tray(self, disc: Disc | None, *, by: Nexus) -> None:
        """A host loads what it has had opened."""
        if self.open:
            self._put(disc, by=by)
            self.keep()
        elif disc is not None:  # it was closed before
            disc.close()

    def _put(self, disc: Disc | None, *, is_open: bool = False, by: Nexus | None = None) -> None:
        """There is this disc now, or none: tell everybody."""
        before, self.disc, self.open = self.disc, disc, is_open
        self.withdraw()
        unreadable = disc is None and self.image is not None and not is_open
        self.trouble = Asc.INCOMPATIBLE_MEDIUM_INSTALLED if unreadable else None
        self.update()
        if before is not None:
            before.close()
        if disc is not None:
            self.events.media(MediaEvent.NEW_MEDIA)
            self.attention(Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED, but=by)
        elif before is not None:
            self.events.media(MediaEvent.MEDIA_REMOVAL)

    # ---- what outlives the process

    def keep(self) -> None:
        """Have the state of the tray saved soon."""
        if self.tasks is None:
            self.save()
        else:
            self.tasks.executor.submit(self.save, lambda result: None)

    def flush(self) -> None:
        disc = self.disc
        if disc is not None:
            disc.flush()

    def save(self) -> None:
        """Save the state of the tray, as it is now. Blocks; what cannot be saved is logged."""
        with self._saving:
            document = {"configured": self._configured, "image": self.image, "open": self.open}
            if document == self._saved:
                return
            try:
                self.durable.save(_TRAY, document)
            except OSError as error:
                log.error("%s: what is in the tray will be forgotten at the next start: %s", self, error)
            else:
                self._saved = document

    def _restore(self) -> None:
        """The tray is as it was, if the configuration still says the same."""
        try:
            kept = self.durable.load(_TRAY)
            if kept is not None and kept["configured"] == (self._configured and [*self._configured]):
                image = kept["image"]
                self.image = None if image is None else Image(*image)
                self.open = bool(kept["open"])
        except (OSError, LookupError, TypeError) as error:
            log.error("%s: what was in the tray is forgotten: %s", self, error)

    # ---- nexuses and life

    def attach(self, nexus: Nexus) -> None:
        super().attach(nexus)
        self.events.attach(nexus, present=self.disc is not None)

    def detach(self, nexus: Nexus) -> None:
        super().detach(nexus)
        self.events.detach(nexus)
        self.persistent.discard(nexus)
        self.update()

    def reset(self) -> None:
        self.persistent.clear()
        self.speed = self.write_speed = None
        super().reset()

    @property
    def current_speed(self) -> int:
        """Kilobytes a second."""
        return self._fastest if self.speed is None else min(self.speed, self._fastest)

    @property
    def _fastest(self) -> int:
        return CD.speed if self.disc is None else self.disc.kind.speed

    @property
    def current_write_speed(self) -> int:
        """Kilobytes a second."""
        return self._fastest if self.write_speed is None else min(self.write_speed, self._fastest)

    def update(self) -> None:
        super().update()
        put: Any = self.mode.put
        put(pages.CAPABILITIES, "lock_state", self.locked)
        for name in ("maximum_read_speed", "maximum_write_speed", "write_speed"):
            put(pages.CAPABILITIES, name, self._fastest)
        put(pages.CAPABILITIES, "current_read_speed", self.current_speed)
        for name in ("current_write_speed", "current_write_speed_selected"):
            put(pages.CAPABILITIES, name, self.current_write_speed)
        disc = self.disc
        self.fd = disc.device.fd if disc is not None and disc.in_place else -1
        self.read_flags = os.RWF_NOWAIT if disc is not None and self.fd >= 0 and disc.device.nowait else 0
        self.blocks = 0 if disc is None else disc.blocks
        self.fast_read = self.fd >= 0
        self.fast_write = self.fast_read and disc is not None and disc.open_for_writing

    def close(self) -> None:
        self.save()
        self.withdraw()
        disc, self.disc = self.disc, None
        self.fast_read = self.fast_write = False
        self.fd = -1
        if disc is not None:
            disc.close()
