"""What logical units of every device type have in common (SPC-5, SAM-5): identity, nexuses, unit attentions, reservations,
mode parameters, and the first step of a task.

Disks are in unit.py. Tape drives and media changers (media/) build on this too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from blockyard.scsi import log, vpd
from blockyard.scsi.buffers import Buffers
from blockyard.scsi.cdb import Capability, Command
from blockyard.scsi.designators import unit_designators
from blockyard.scsi.device_server import Unit
from blockyard.scsi.durable import Durable
from blockyard.scsi.log import LogPage
from blockyard.scsi.maintenance import Clock
from blockyard.scsi.mode import ModeParameters
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.removable import Tray
from blockyard.scsi.reserving import Reservations
from blockyard.scsi.sense import Asc, CheckCondition, FieldPointer, SenseKey, StatusCondition, invalid_parameter
from blockyard.scsi.task import Result, Task
from blockyard.scsi.taskset import UA_CLEARED, Queueing
from blockyard.scsi.vpd import VpdPage


@dataclass(frozen=True)
class Identity:
    """Who a logical unit is, wherever it is served from: its UUID goes into VPD pages 80h and 83h."""

    uuid: UUID
    name: str  # for people: logs and statistics


class PrimaryUnit(Unit):
    """A logical unit, of whatever type. What has to outlive the process is in `durable`."""

    mode: ModeParameters
    vpd_pages: Mapping[int, VpdPage] = vpd.PAGES
    log_pages: Mapping[int, LogPage] = log.PAGES
    initial_priority = 0  # COMMAND PRIORITY of what comes without one

    def __init__(self, identity: Identity, durable: Durable | None) -> None:
        super().__init__()
        self.identity = identity
        self.serial: str = identity.uuid.hex
        self.durable = durable or Durable(None, identity.uuid)
        self.tray = Tray()
        self.buffers = Buffers()
        self.clock = Clock()
        self.log_origins: dict[tuple[int, int], int] = {}  # by page and parameter: where LOG SELECT has put a counter
        self._nexuses: list[Nexus] = []
        self.reservations = Reservations(self)

    def __str__(self) -> str:
        return self.identity.name

    # ---- the first step of a task

    def _begin(self, task: Task) -> None:
        command = self.commands.find(task.cdb)
        nexus = task.nexus
        if self.tasks is not None:
            self.tasks.admit(task)
        if nexus.gate is not None and (command is None or not command.exempt):
            attention = nexus.take_attention(keep=self.queueing.ua_interlock != UA_CLEARED)
            if attention is not None:
                raise attention
        if command is not None and nexus.gate is not None:
            self.reservations.check(command, task)
            nexus.ports.check(command, nexus)
        if command is not None and nexus.read_only and command.changes(task.cdb):
            raise CheckCondition(SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
        if command is not None and not self.supports(command):
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_COMMAND_OPERATION_CODE, pointer=FieldPointer(0))
        command = self._decode(task, command)
        task.blocking = command.blocking
        task.exclusive = command.exclusive
        self.check_admitted(command)
        self.check_ready(command, task)
        if command.check is not None:
            command.check(self, task)
        self.count(command, task.fields)

    def run(self, task: Task) -> Result:
        """Carry out a task; not if something has come in its way while it waited for its data or its turn."""
        refusal = self._refuse(task)
        return super().run(task) if refusal is None else refusal

    def _refuse(self, task: Task) -> Result | None:
        """What has come in the way of a task meanwhile."""
        assert task.command is not None
        try:
            if task.nexus.gate is not None:
                self.reservations.check(task.command, task)
            self.check_admitted(task.command)
        except (CheckCondition, StatusCondition) as error:
            return self._failed(task, error)
        return None

    def overlaps(self, task: Task) -> bool:
        """Whether a task that may run now goes on without a thread: then it is not run, but launched."""
        return False

    def launch(self, task: Task, done: Callable[[Result], None]) -> None:
        """Begin to carry out a task that overlaps; `done` gets its result, perhaps before this returns."""
        raise NotImplementedError

    def check_admitted(self, command: Command) -> None:
        """Raise CheckCondition while what the unit is occupied with does not let the command pass."""

    def check_ready(self, command: Command, task: Task) -> None:
        """Raise CheckCondition where the medium is not fit for a command that has come, with its fields decoded."""

    def check_same_medium(self, task: Task) -> None:
        """Raise the unit attention where the medium was changed since a command came: it was meant for the one before."""
        if task.nexus.gate is not None:
            attention = task.nexus.take_attention(Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED)
            if attention is not None:
                raise attention

    def waits(self, task: Task) -> bool:
        """Whether a task that may run now has to do so in a thread, as it may wait for something there."""
        return task.blocking

    def count(self, command: Command, fields: dict[str, int]) -> None:
        """Account for a command that is carried out."""
        self.counters.other_ops += 1

    # ---- what commands ask

    @property
    def capabilities(self) -> set[Capability]:
        """What commands may require of it."""
        return {Capability.NONE}

    def supports(self, command: Command) -> bool:
        """Whether a command of the table exists on this logical unit."""
        return command.requires is Capability.NONE or command.requires in self.capabilities

    def supported_commands(self) -> Iterator[Command]:
        return (command for command in self.commands if self.supports(command))

    def find_command(self, opcode: int, service_action: int | None) -> Command | None:
        """A command by its numbers, where this logical unit supports it."""
        command = self.commands.get(opcode, service_action)
        return command if command is not None and self.supports(command) else None

    def change_mode(self, data: bytes, at: int, nexus: Nexus, *, save: bool = False) -> None:
        """Take over the mode pages in `data[at:]` that `nexus` has sent, and tell the other nexuses."""
        if self.mode.select(data, at, save=save):
            self.update()
            self.attention(Asc.MODE_PARAMETERS_CHANGED, but=nexus)

    def mode_header(self, nexus: Nexus) -> tuple[int, int]:
        """MEDIUM TYPE and DEVICE-SPECIFIC PARAMETER, as `nexus` sees them."""
        return 0, 0

    def block_descriptor(self, *, long: bool) -> bytes:
        """The mode parameter block descriptor; empty where there are no blocks."""
        return b""

    def check_block_descriptors(self, data: bytes, at: int, length: int, *, long: bool) -> None:
        """Raise CheckCondition unless the unit can take the descriptors at `data[at:at + length]`."""
        if length:
            raise invalid_parameter(at - 1)

    def take_mode_header(self, device_specific: int, descriptor: bytes) -> None:
        """MODE SELECT has sent these, which were checked."""

    def vpd_page(self, nexus: Nexus, code: int) -> bytes | None:
        return vpd.page(self, nexus, code)

    @property
    def designators(self) -> tuple[bytes, ...]:
        """What VPD page 83h says of the unit itself, the one to prefer first."""
        return unit_designators(self.identity)

    def update(self) -> None:
        """Bring the attributes that follow from others up to date."""
        self.descriptor_sense = bool(self.mode.get(0x0A, "d_sense"))
        self.initial_priority = self.mode.get(0x0A, "initial_command_priority", subpage=0x01)
        self.queueing = Queueing(
            per_nexus=bool(self.mode.get(0x0A, "tst")),
            restricted=not self.mode.get(0x0A, "queue_algorithm_modifier"),
            qerr=self.mode.get(0x0A, "qerr"),
            ua_interlock=self.mode.get(0x0A, "ua_intlck_ctrl"),
            report_aborted=bool(self.mode.get(0x0A, "tas")),
        )

    # ---- nexuses and life

    @property
    def nexuses(self) -> tuple[Nexus, ...]:
        """All that are attached now."""
        return tuple(self._nexuses)

    def attach(self, nexus: Nexus) -> None:
        if nexus not in self._nexuses:
            self._nexuses.append(nexus)
            if nexus.unit is self:
                self.traffic.open(nexus.initiator, nexus.traffic)
            self.reservations.update_gate(nexus)
            nexus.ports.attach(nexus)

    def detach(self, nexus: Nexus) -> None:
        if nexus in self._nexuses:
            self._nexuses.remove(nexus)
            if nexus.unit is self:
                nexus.traffic = self.traffic.close(nexus.initiator, nexus.traffic)
            nexus.ports.detach(nexus)
            self.reservations.lose(nexus.it)
        self.tray.allow(nexus)
        self.buffers.forget(nexus)
        if self.tasks is not None:
            self.tasks.clear_aca(nexus)

    def attention(self, asc: int, *, but: Nexus | None = None) -> None:
        """Establish a unit attention for every nexus, except perhaps one."""
        for nexus in tuple(self._nexuses):
            if nexus is not but:
                nexus.establish(asc)

    def reset(self) -> None:
        if self.tasks is not None:
            self.tasks.reset()
        self.mode.reset()
        self.tray.reset()
        self.buffers.reset()
        for nexus in self._nexuses:
            nexus.priority = 0
        self.reservations.reset()
        self.update()
        self.attention(Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)

    def flush(self) -> None:
        """Have what was acknowledged on stable storage. Blocks; raises OSError."""

    def resume(self) -> None:
        """Go on with what a restart has interrupted. Once `tasks` is set, on the loop's thread."""
