"""Logical units: what carries out the tasks that a transport brings (SAM-5).

`begin` does everything that can be done without data and without waiting; `run` does the rest. The
attributes that the data path looks at are plain and kept current, so that it needs no call to know
whether it may go ahead by itself.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable

from blockyard.block.device import Device
from blockyard.block.journal import Journal
from blockyard.block.protected import Interleaved, ProtectedDevice
from blockyard.scsi import limits
from blockyard.scsi.cdb import Capability, Command
from blockyard.scsi.copy_manager import CopyManager
from blockyard.scsi.durable import Durable
from blockyard.scsi.format import Format
from blockyard.scsi.health import Health
from blockyard.scsi.mode import ModeParameters, block_descriptor, check_block_descriptors
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.overhaul import KIND, Overhaul
from blockyard.scsi.overlapped import starter
from blockyard.scsi.primary import Identity, PrimaryUnit
from blockyard.scsi.protection import check as check_protection
from blockyard.scsi.protection import open_device
from blockyard.scsi.removable import medium_not_present
from blockyard.scsi.sanitize import Sanitize
from blockyard.scsi.self_test import SelfTests
from blockyard.scsi.sense import (
    MEDIUM_ERRNOS,
    Asc,
    CheckCondition,
    SenseKey,
    condition,
)
from blockyard.scsi.task import Buffer, Result, Task
from blockyard.scsi.thin import Thresholds, mode_defaults
from blockyard.scsi.tokens import Rod, TokenStore, revoke

__all__ = ["Identity", "LogicalUnit"]

log = logging.getLogger(__name__)

_PAGE = os.sysconf("SC_PAGE_SIZE")
_INLINE_READ = 1 << 16  # bytes that are read from the page cache in less time than a thread needs to be woken
_TRY = memoryview(bytearray(_INLINE_READ))  # where a try reads to; on the loop's thread alone
_INLINE_WRITE = 1 << 20  # bytes that are written to the page cache in about 0.1 ms


def resumed(unit: LogicalUnit) -> Overhaul | None:
    """What a unit was occupied with when it was last served."""
    document = unit.durable.load(KIND)
    if document is None:
        return None
    kinds: dict[str, type[Sanitize] | type[Format]] = {kind.kind: kind for kind in (Sanitize, Format)}
    return kinds[document["kind"]].resumed(unit, document)


class LogicalUnit(PrimaryUnit):
    """A disk: a block device that speaks SBC.

    `block_size` is 512 (reported as emulated on physical blocks of 4096) or 4096. With `write_through`
    every write is on stable storage before its GOOD, and initiators cannot switch that off. A `thick` one is fully
    provisioned, whatever its device can free; the medium of a `removable` one can be ejected. SANITIZE and FORMAT
    UNIT write no more than `background_rate` bytes per second, unless it is 0. Initiators are warned when no more than
    `soft_threshold` bytes can be allocated, unless it is 0. With `protection` 1, 2 or 3 blocks have protection
    information, of that type until FORMAT UNIT says otherwise. What has to outlive the process is in `durable`; `tokens`
    are those of all units that copy from each other. Raises ValueError for another block size, OSError for a device that
    holds not even one block.
    """

    peripheral = 0x00  # connected; direct access block device

    def __init__(
        self,
        device: Device,
        *,
        block_size: int = 512,
        read_only: bool = False,
        write_through: bool = False,
        thick: bool = False,
        removable: bool = False,
        background_rate: int = 0,
        soft_threshold: int = 0,
        protection: int = 0,
        identity: Identity,
        durable: Durable | None = None,
        tokens: TokenStore | None = None,
    ) -> None:
        super().__init__(identity, durable)
        if block_size not in (512, 4096):
            raise ValueError(f"block size {block_size} is neither 512 nor 4096")
        if not 0 <= protection <= 3:
            raise ValueError(f"there is no protection information of type {protection}")
        self.protection: ProtectedDevice | None = None
        if protection:
            self.protection = open_device(device, self.durable, block_size=block_size, kind=protection)
        self.device: Device = self.protection or device
        self.block_size = block_size
        self.shift = block_size.bit_length() - 1
        self.physical_exponent = 3 if block_size == 512 else 0
        self.read_only = read_only or device.read_only
        self.thin = device.granularity > 0 and not thick
        self.removable = removable
        self.health = Health(self)
        self.self_tests = SelfTests(self)
        self.cycles = 0  # how often it was started
        self.background_rate = background_rate
        self.overhaul: Overhaul | None = None  # what goes on with all of the medium, or has failed
        self.stopped = False
        self.low_power: Asc | None = None  # how REQUEST SENSE names the power condition, unless it is active
        image = Interleaved(self.protection) if self.protection is not None else device
        self.journal = Journal(image, self.durable.file("atomic"))
        self.max_blocks = limits.MAX_TRANSFER >> self.shift
        self.blocks = device.size >> self.shift
        if not self.blocks:
            message = f"{device.size} bytes do not make one block of {block_size}"
            raise OSError(errno.EINVAL, message, identity.name)
        defaults = mode_defaults(self, soft_threshold)
        self.mode = ModeParameters(
            self.durable, write_through=write_through, protected=protection > 0, thin=self.thin, defaults=defaults
        )
        self.copies = CopyManager(self)
        self.thresholds = Thresholds(self)
        self.tokens = tokens or TokenStore()
        self.rods: tuple[Rod, ...] = ()  # what tokens stand for of it: a write is compared with them
        self.overhaul = resumed(self)
        self.update()

    # ---- the first step of a task

    def _refuse(self, task: Task) -> Result | None:
        if self.rods and task.command is not None and task.command.writes:
            ranged = task.command.ranged
            revoke(self, task.fields["lba"] if ranged else 0, (ranged and task.fields["count"]) or self.blocks)
        return super()._refuse(task)

    def overlaps(self, task: Task) -> bool:
        return self.device.overlapped is not None and starter(self, task) is not None

    def launch(self, task: Task, done: Callable[[Result], None]) -> None:
        refusal, begin, overlapped = self._refuse(task), starter(self, task), self.device.overlapped
        if refusal is not None:
            done(refusal)
            return
        assert begin is not None
        assert overlapped is not None

        try:
            begin(self, overlapped, task, lambda outcome: self.end_launched(task, outcome, done))
        except CheckCondition as error:
            done(self._failed(task, error))

    def end_launched(self, task: Task, outcome: Buffer | OSError | None, done: Callable[[Result], None]) -> None:
        """The accesses of a task that was launched have ended: with Data-In, if there is any, or an error."""
        if not isinstance(outcome, OSError):
            done(self._succeeded(task, b"" if outcome is None else outcome))
        elif outcome.errno in MEDIUM_ERRNOS and self.tasks is not None:  # which finds the block that is to blame
            self.tasks.executor.submit(lambda: self.run(task), done)
        else:
            done(self._failed(task, outcome))

    def check_admitted(self, command: Command) -> None:
        """SANITIZE and FORMAT UNIT let few commands pass, while they go on and when they have failed."""
        if self.overhaul is not None and not self.overhaul.admits(command):
            raise self.overhaul.refusal()

    def _failed(self, task: Task, error: Exception) -> Result:
        found = condition(error)
        if found is not None and found.key == SenseKey.MEDIUM_ERROR and task.command is not None:
            self.health.failed(task.command, found)
        return super()._failed(task, error)

    def check_ready(self, command: Command, task: Task) -> None:
        if command.medium:
            self.check_medium(command, task.fields)
        if command.protect:
            check_protection(self, task, command)
        if self.low_power is not None and (command.ranged or command.writes):
            self.enter_low_power(None)  # what accesses the medium makes the unit active (SPC-5, power conditions)

    def check_medium(self, command: Command, fields: dict[str, int]) -> None:
        """Raise CheckCondition where the medium is not there, not ready, protected, or too small for a command."""
        if not self.tray.loaded:
            raise medium_not_present()
        if self.stopped:
            raise CheckCondition(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED)
        if command.transfers and fields["count"] > self.max_blocks:
            raise command.invalid("count")
        if command.writes and self.write_protected:
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
        if command.ranged and fields["lba"] + (fields["count"] or 1) > self.blocks:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE)

    def count(self, command: Command, fields: dict[str, int]) -> None:
        counters = self.counters
        if not command.transfers:
            counters.other_ops += 1
        elif command.writes:
            counters.write_ops += 1
            counters.write_bytes += fields["count"] << self.shift
        else:
            counters.read_ops += 1
            counters.read_bytes += fields["count"] << self.shift

    def ended(self, task: Task) -> None:
        command = task.command
        if command is not None and command.transfers:
            traffic = task.nexus.traffic.writes if command.writes else task.nexus.traffic.reads
            traffic.add(time.monotonic() - task.began, 1, task.fields["count"] << self.shift)

    def may_inline_read(self, task: Task) -> bool:
        """Whether a READ of `task.fields` returns without waiting for a disk: the page cache has all of it."""
        fields = task.fields
        length = fields["count"] << self.shift
        if not self.fast_read or self.fd < 0 or fields.get("fua") or length > _INLINE_READ:
            return False
        return self._cached(fields["lba"] << self.shift, length)

    def may_inline_write(self, task: Task) -> bool:
        """Whether a WRITE of `task.fields` returns without waiting for a disk.

        So it is with what goes to the page cache and nothing has to be read for first: whole pages, and parts of cached ones.
        """
        fields = task.fields
        offset, length = fields["lba"] << self.shift, fields["count"] << self.shift
        if (
            not self.fast_write
            or self.fd < 0
            or fields.get("fua")
            or not task.data_out_length >= length <= _INLINE_WRITE
        ):
            return False
        if not (offset | length) & (_PAGE - 1):
            return True
        return self._cached(offset, 1) and self._cached(offset + length - 1, 1)

    def _cached(self, offset: int, length: int) -> bool:
        """Whether the page cache has a range, as a try shows, or stands for a disk that there is not.

        What is pushed out of it before a task has its turn makes the loop wait for the disk that once.
        """
        if not self.read_flags or not length:
            return True
        try:
            return os.preadv(self.fd, [_TRY[:length]], offset, self.read_flags) == length
        except OSError:
            return False

    # ---- what commands ask

    @property
    def capabilities(self) -> set[Capability]:
        present = {
            Capability.NONE: True,
            Capability.THIN: self.thin,
            Capability.REMOVABLE: self.removable,
            Capability.TYPE_2: self.protection is not None and self.protection.kind == 2,
        }
        return {capability for capability, has in present.items() if has}

    def pending_condition(self, nexus: Nexus) -> CheckCondition | None:
        attention = nexus.take_attention()
        if attention is not None:
            return attention
        if self.overhaul is not None:
            return self.overhaul.refusal()
        if not self.tray.loaded:
            return medium_not_present()
        if self.stopped:
            return CheckCondition(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED)
        if self.low_power is not None:
            return CheckCondition(SenseKey.NO_SENSE, self.low_power)
        return self.self_tests.progress() or self.health.on_request()

    def mode_header(self, nexus: Nexus) -> tuple[int, int]:
        """WP and DPOFUA (SBC-4)."""
        return 0, (0x80 if self.write_protected or nexus.read_only else 0) | 0x10

    def block_descriptor(self, *, long: bool) -> bytes:
        return block_descriptor(self.blocks, self.block_size, long=long)

    def check_block_descriptors(self, data: bytes, at: int, length: int, *, long: bool) -> None:
        check_block_descriptors(data, at, length, self.blocks, self.block_size, long=long)

    def resume(self) -> None:
        if self.overhaul is not None and not self.overhaul.failed:
            self.overhaul.start()

    def change_mode(self, data: bytes, at: int, nexus: Nexus, *, save: bool = False) -> None:
        was_write_back = self.write_back
        super().change_mode(data, at, nexus, save=save)
        if was_write_back and not self.write_back:  # what was acknowledged from the cache has to leave it
            self.device.flush()

    def start(self) -> None:
        """START STOP UNIT with START."""
        self.cycles += self.stopped
        self.stopped = False
        self.enter_low_power(None)

    def stop(self, *, flush: bool) -> None:
        """START STOP UNIT without START: the medium is not accessible until it is started.

        A removable one has nothing that turns: it stays ready until its medium is ejected.
        """
        if flush and not self.read_only:
            self.device.flush()
        self.stopped = not self.removable
        self.update()

    def eject(self, *, flush: bool) -> None:
        """Take the medium out, which nobody forbids."""
        if flush and not self.read_only and self.tray.loaded:
            self.device.flush()
        self.tray.loaded = False
        self.update()

    def load(self, nexus: Nexus | None) -> None:
        """Put the medium in, as `nexus` has asked for: the other nexuses are told."""
        if not self.tray.loaded:
            self.tray.loaded = True
            self.attention(Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED, but=nexus)
        self.start()

    def enter_low_power(self, condition: Asc | None) -> None:
        """Enter a power condition; None is active. What there is to save is the short cut of the data path."""
        self.low_power = condition
        self.update()

    def update(self) -> None:
        super().update()
        self.write_back = bool(self.mode.get(0x08, "wce"))
        self.write_protected = self.read_only or bool(self.mode.get(0x0A, "swp"))
        self.thresholds.update()
        self.health.update()
        if self.protection is not None:
            self.protection.application_tag = 0xFFFF if self.mode.get(0x0A, "ato") else 0
        self.fd, self.quick = self.device.fd, self.device.quick
        self.read_flags = os.RWF_NOWAIT if self.device.nowait else 0
        direct = self.fd >= 0 or self.quick is not None
        ready = not self.stopped and self.tray.loaded and self.low_power is None and self.overhaul is None
        writable = self.write_back and not self.write_protected and not self.rods
        self.fast_read, self.fast_write = ready and direct, ready and direct and writable
        self.deferred, self.defer_writes = self.device.overlapped if ready else None, writable

    # ---- nexuses and life

    def detach(self, nexus: Nexus) -> None:
        if nexus in self._nexuses:
            self.copies.forget(nexus)
        super().detach(nexus)

    def set_read_only(self, read_only: bool) -> None:
        """The administrator lets nobody write, or everybody again. The write protect bit of mode data tells (SBC-4)."""
        self.read_only = read_only
        self.update()
        self.attention(Asc.MODE_PARAMETERS_CHANGED)

    def capacity_changed(self) -> None:
        """The device has got another size: take it over and tell every nexus (SBC-4)."""
        blocks = self.device.size >> self.shift
        if blocks != self.blocks:
            self.blocks = blocks
            self.attention(Asc.CAPACITY_DATA_HAS_CHANGED)

    def reset(self) -> None:
        self.stopped = False
        self.low_power = None
        super().reset()
        self.self_tests.abort()
        self.copies.reset()

    def flush(self) -> None:
        self.device.flush()

    def close(self) -> None:
        self.fast_read = self.fast_write = False
        self.fd, self.quick, self.deferred = -1, None, None
        if self.overhaul is not None:
            self.overhaul.stop()
        self.self_tests.abort()
        revoke(self, 0, self.blocks)
        self.copies.reset()
        self.journal.close()
        self.device.close()
