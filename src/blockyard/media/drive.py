"""A tape drive: a sequential access device (SSC-5) with perhaps a cartridge in it.

Commands that move the tape run one at a time, in threads, under the drive's lock; a library that takes the cartridge out waits
for that lock. What the page cache takes or has at once is written and read on the loop's thread, if that gets the lock at once.
What only looks runs there too: it takes the attribute `tape` once, and finds a whole state in it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

from blockyard.media import tape_pages as pages
from blockyard.media.cartridge import CLEANINGS, Description, describe, save
from blockyard.media.encryption import Encryption
from blockyard.media.generations import GENERATIONS
from blockyard.media.models import DriveModel
from blockyard.media.streaming import Stream
from blockyard.media.tape import Tape
from blockyard.media.tape_commands import TAPE_COMMANDS
from blockyard.media.transfer import MAX_BLOCK, at_once
from blockyard.media.unit import MediaUnit
from blockyard.scsi import log as log_pages
from blockyard.scsi.cdb import Command
from blockyard.scsi.durable import Durable
from blockyard.scsi.mode import ModeParameters
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.primary import Identity
from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    ReadFailure,
    SenseKey,
    StatusCondition,
    condition,
    invalid_parameter,
    parameter_list_length_error,
)
from blockyard.scsi.task import Result, Status, Task
from blockyard.scsi.vpd import VpdPage

log = logging.getLogger(__name__)

_SAME_DENSITY = (0x00, 0x7F)  # DENSITY CODE: the default, no change
_BUFFERED = 1
_POSITION = "position"  # the kind of document that says where a tape stood
PATIENCE = 20.0  # seconds that a library waits for a drive that is busy; hosts and people ask again


class TapeDrive(MediaUnit):
    """One drive. With `block_size` 0 the blocks that are transferred have any length."""

    peripheral = 0x01
    commands = TAPE_COMMANDS
    vpd_pages: Mapping[int, VpdPage] = pages.VPD_PAGES
    log_pages: Mapping[int, log_pages.LogPage] = pages.LOG_PAGES
    standards = (0x00A0, 0x0960, 0x0460, 0x0400)  # SAM-5, iSCSI, SPC-4, SSC-3

    def __init__(self, identity: Identity, durable: Durable | None, *, model: DriveModel, serial: str) -> None:
        super().__init__(identity, durable, model=model, serial=serial)
        self.model = model
        self.lock = RLock()
        self.inserted: Path | None = None  # the cartridge that is in the drive, loaded or not
        self.tape: Tape | None = None  # it, when it is loaded
        self.streaming: Stream | None = None  # what goes without a detour, until something else is done
        self.trouble: Asc | None = None  # why what is in the drive cannot be loaded
        self.block_size = 0
        self.buffered = _BUFFERED
        self.compression = False
        self.encryption = Encryption()
        self.alerts: set[int] = set()
        self.medium_errors = {"read": 0, "write": 0}
        self.mode = ModeParameters(self.durable, pages=pages.MODE_PAGES, bare=True)
        self.update()

    # ---- tasks

    def waits(self, task: Task) -> bool:
        if task.blocking and self.lock.acquire(blocking=False):
            try:
                task.blocking = not at_once(self, task)
            finally:
                self.lock.release()
        return task.blocking

    def run(self, task: Task) -> Result:
        assert task.command is not None
        if not task.command.blocking:
            return self._run(task, task.command)
        if not self.lock.acquire(blocking=task.blocking):  # the library is just taking the cartridge away
            return self._failed(task, StatusCondition(Status.BUSY))
        try:
            return self._run(task, task.command)
        finally:
            self._look_at_index()
            self.lock.release()

    def _run(self, task: Task, command: Command) -> Result:
        self.streaming = None
        try:
            self._check_medium(task, command)
        except CheckCondition as error:
            return self._failed(task, error)
        return super().run(task)

    def _check_medium(self, task: Task, command: Command) -> None:
        """Raise CheckCondition where a command needs a cartridge and there is none that is fit for it."""
        if command.medium:
            self.check_same_medium(task)
        if command.medium and self.tape is None:
            raise self.not_ready()
        if command.writes:
            self.check_may_write()

    def check_may_write(self) -> None:
        """Raise CheckCondition where nothing may be written to the cartridge."""
        tape = self.tape
        assert tape is not None
        if not self._writes(tape):
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT)
        if not self.may_write(tape):
            self.alerts.add(pages.WRITE_PROTECTED)
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)

    def not_ready(self) -> CheckCondition:
        return CheckCondition(SenseKey.NOT_READY, self.trouble or Asc.MEDIUM_NOT_PRESENT)

    @property
    def write_protected(self) -> bool:
        """Whether what is loaded must not be written, by its switch or by the host's wish."""
        tape = self.tape
        return tape is not None and not self.may_write(tape)

    def may_write(self, tape: Tape) -> bool:
        """Whether what is loaded may be written."""
        protected = self.mode.get(pages.CONFIGURATION, "swp") or tape.cartridge.write_protected
        return not protected and self._writes(tape)

    def _writes(self, tape: Tape) -> bool:
        """Whether this hardware writes such cartridges."""
        return tape.description.generation.name in self.model.writes

    def _failed(self, task: Task, error: Exception) -> Result:
        found = condition(error)
        if found is not None and found.key == SenseKey.MEDIUM_ERROR:
            reading = isinstance(error, ReadFailure) or isinstance(error.__cause__, ReadFailure)
            self.medium_errors["read" if reading else "write"] += 1
            self.alerts.add(pages.READ_FAILED if reading else pages.WRITE_FAILED)
        return super()._failed(task, error)

    @property
    def block_length(self) -> int:
        return self.block_size

    def pending_condition(self, nexus: Nexus) -> CheckCondition | None:
        return nexus.take_attention() or (self.not_ready() if self.tape is None else None)

    # ---- the cartridge

    def insert(self, directory: Path) -> None:
        """A cartridge is put into the drive, and is loaded."""
        with self.lock:
            assert self.inserted is None
            self.inserted = directory
            self.load()

    def put_back(self, directory: Path) -> None:
        """The server starts with this cartridge in the drive: it is wound to where hosts have left it, or to the end of data.

        Linux tells its users of the unit attention by failing one write; Bacula tries that again, and at the beginning of the
        tape it would take the place of all that is there.
        """
        self.insert(directory)
        left = self._left(directory.name)
        if self.tape is not None:
            self.tape.locate(*(left or (0, self.tape.cartridge.partitions[0].objects)))

    def _left(self, barcode: str) -> tuple[int, int] | None:
        """Partition and position of this cartridge when the server ended in order: that holds once."""
        try:
            kept = self.durable.load(_POSITION)
            if kept is None:
                return None
            self.durable.save(_POSITION, None)
        except OSError as error:
            log.warning("%s: where the tape stood is not known: %s", self, error)
            return None
        partitions = 0 if self.tape is None else len(self.tape.cartridge.partitions)
        match kept:
            case [str(found), int(partition), int(position)] if found == barcode and 0 <= partition < partitions:
                return partition, max(0, position)
        return None

    def _leave(self) -> None:
        """The server ends in order. Raises OSError when the cartridge cannot be left as it should."""
        directory, tape = self.inserted, self.tape
        if directory is not None:
            self.inserted = None
            try:
                place = [0, 0] if tape is None else [tape.number, tape.position]
                self.durable.save(_POSITION, [directory.name, *place])
            except OSError as error:
                log.warning("%s: where the tape stands cannot be written down: %s", self, error)
        self._let_go()

    def load(self, by: Nexus | None = None) -> None:
        """Load what is in the drive, or wind it to its beginning. Failures show in `trouble`: there is nobody to tell."""
        with self.lock:
            self.streaming = None
            if self.tape is not None:
                self.tape.sync()
                self.tape.locate(0, 0)
                return
            if self.inserted is None:
                raise self.not_ready()
            self.alerts.clear()
            self.trouble = self._load(self.inserted)
            self.show_partitions()
            self.update()
            if self.tape is not None:
                self.attention(Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED, but=by)

    def _load(self, directory: Path) -> Asc | None:
        try:
            description = describe(directory)
            if description.cleaning:
                return self._clean(directory, description)
            if description.generation.name not in self.model.reads:
                self.alerts.add(pages.UNSUPPORTED_FORMAT)
                return Asc.INCOMPATIBLE_MEDIUM_INSTALLED
            tape = Tape(directory)
        except OSError as error:
            log.error("%s: the cartridge %s cannot be loaded: %s", self, directory.name, error)
            self.alerts.add(pages.LOAD_FAILED)
            return Asc.MEDIA_LOAD_OR_EJECT_FAILED
        try:
            tape.cartridge.change(loads=description.loads + 1)
        except OSError as error:  # it can be read all the same: the host's disk may be full
            log.warning("%s: that %s was loaded is not counted: %s", self, directory.name, error)
        self.tape = tape
        self._look_at_index()
        return None

    def _look_at_index(self) -> None:
        if self.tape is not None and self.tape.index_damaged:
            self.alerts.add(pages.DIRECTORY_CORRUPTED)

    def _clean(self, directory: Path, description: Description) -> Asc:
        """A cleaning cartridge was put in, which can be used so often. Raises OSError."""
        self.alerts.add(pages.CLEANING_MEDIUM)
        if description.loads >= CLEANINGS:
            self.alerts.add(pages.EXPIRED_CLEANING)
            return Asc.CLEANING_FAILURE
        save(directory, replace(description, loads=description.loads + 1))
        return Asc.CLEANING_CARTRIDGE_INSTALLED

    def unload(self) -> None:
        """Give the cartridge out of the drive's hands, with all on stable storage. Raises CheckCondition, OSError."""
        with self.lock:
            if self.tray.locked and self.inserted is not None:
                self.alerts.add(pages.REMOVAL_PREVENTED)
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
            self._let_go()

    def take_out(self) -> None:
        """The library takes the cartridge. Raises CheckCondition where a host forbids that or keeps the drive busy, OSError."""
        if not self.lock.acquire(timeout=PATIENCE):
            raise CheckCondition(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS)
        try:
            self.unload()
            self.inserted = None
            self.trouble = None
        finally:
            self.lock.release()

    def _let_go(self) -> None:
        tape, self.tape, self.streaming = self.tape, None, None
        if tape is not None:
            self.encryption.demounted()
            self.update()
            tape.close(f"{self.vendor:8.8}{self.serial:32.32}")

    def flush(self) -> None:
        """It is about to go. The cartridge is let go of here, in a thread: that waits for the disk, and `close` must not."""
        with self.lock:
            self._leave()

    def close(self) -> None:
        with self.lock:
            self._leave()

    # ---- mode data

    def mode_header(self, nexus: Nexus) -> tuple[int, int]:
        """WP and BUFFERED MODE; the medium type is that of LTO drives."""
        tape = self.tape
        kind = 0 if tape is None else tape.description.generation.medium_type + 4 * tape.description.worm
        return kind, (0x80 if self.write_protected or nexus.read_only else 0) | self.buffered << 4

    def block_descriptor(self, *, long: bool) -> bytes:
        """DENSITY CODE and BLOCK LENGTH (SSC-5, there is no long form)."""
        tape = self.tape
        generation = self.model.generation if tape is None else tape.description.generation
        return bytes([generation.density, 0, 0, 0, 0]) + self.block_size.to_bytes(3, "big")

    def check_block_descriptors(self, data: bytes, at: int, length: int, *, long: bool) -> None:
        if length not in (0, 8):
            raise invalid_parameter(at - 1)
        if at + length > len(data):
            raise parameter_list_length_error()
        if length and data[at] not in _SAME_DENSITY + tuple(kind.density for kind in GENERATIONS.values()):
            raise invalid_parameter(at)
        if length and int.from_bytes(data[at + 5 : at + 8], "big") > MAX_BLOCK:
            raise invalid_parameter(at + 5)

    def take_mode_header(self, device_specific: int, descriptor: bytes) -> None:
        self.buffered = min(device_specific >> 4 & 0x07, _BUFFERED)
        if descriptor:
            self.block_size = int.from_bytes(descriptor[5:8], "big")

    def change_mode(self, data: bytes, at: int, nexus: Nexus, *, save: bool = False) -> None:
        super().change_mode(pages.with_all_sizes(data, at), at, nexus, save=save)

    def _settle_compression(self) -> None:
        """Two mode pages say whether data is compressed: the one that has changed holds, and the other follows."""
        enabled = bool(self.mode.get(pages.COMPRESSION, "dce"))
        algorithm = bool(self.mode.get(pages.CONFIGURATION, "select_data_compression_algorithm"))
        self.compression = enabled if enabled != self.compression else algorithm
        self.mode.put(pages.COMPRESSION, "dce", int(self.compression))
        self.mode.put(pages.CONFIGURATION, "select_data_compression_algorithm", int(self.compression))

    def update(self) -> None:
        super().update()
        self._settle_compression()
        put: Any = self.mode.put
        tape = self.tape
        description = None if tape is None else tape.description
        generation = self.model.generation if description is None else description.generation
        put(pages.CONFIGURATION, "active_partition", 0 if tape is None else tape.number)
        put(pages.PARTITIONS, "maximum_additional", generation.partitions - 1)
        put(pages.MEDIUM, "wormm", int(description is not None and description.worm))
        put(pages.MEDIUM, "worm_label_restrictions", 0x01)
        put(pages.MEDIUM, "worm_filemarks_restrictions", 0x02)

    def show_partitions(self) -> None:
        """Have the Medium Partition mode page say how the cartridge is divided."""
        tape = self.tape
        capacities = () if tape is None else tape.description.capacities
        self.mode.put(pages.PARTITIONS, "additional", max(0, len(capacities) - 1))
        for number in range(4):
            size = capacities[number] // 10**6 if number < len(capacities) else 0
            self.mode.put(pages.PARTITIONS, f"size_{number}", min(size, 0xFFFF))

    def detach(self, nexus: Nexus) -> None:
        super().detach(nexus)
        self.streaming = None
        self.encryption.forget(nexus)

    def reset(self) -> None:
        self.streaming = None
        self.encryption.reset()
        self.block_size = 0
        self.buffered = _BUFFERED
        super().reset()
        self.show_partitions()
