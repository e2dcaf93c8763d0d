"""What tape drives and media changers have in common: how they name themselves, and commands of all devices."""

from __future__ import annotations

from blockyard.media.models import DriveModel, LibraryModel
from blockyard.scsi import sbc
from blockyard.scsi.cdb import Access, Command, Field
from blockyard.scsi.commands import PRIMARY_COMMANDS
from blockyard.scsi.designators import ASCII, T10, UNIT, designator, unit_designators
from blockyard.scsi.durable import Durable
from blockyard.scsi.primary import Identity, PrimaryUnit
from blockyard.scsi.sense import invalid_field, invalid_parameter, parameter_list_length_error
from blockyard.scsi.task import Buffer, Task

_SEND_DIAGNOSTIC = 0x1D


def _check_send_diagnostic(unit: MediaUnit, task: Task) -> None:
    fields = task.fields
    if fields["self_test_code"] in (3, 4, 7) or (fields["self_test_code"] and fields["self_test"]):
        raise invalid_field(1, 7)
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def _send_diagnostic(unit: MediaUnit, task: Task) -> Buffer:
    """Self-tests find nothing: there is no mechanism. The one page that may be sent asks which there are."""
    data = bytes(task.data_out)
    if data and data[0]:
        raise invalid_parameter(0)
    return b""


COMMANDS = (
    *(row for row in PRIMARY_COMMANDS if row.opcode != _SEND_DIAGNOSTIC),
    Command(
        _SEND_DIAGNOSTIC, "SEND DIAGNOSTIC", 6,
        (
            Field("self_test_code", 1, 7, 3), Field("pf", 1, 4, 1), Field("self_test", 1, 2, 1),
            Field("devoffl", 1, 1, 1), Field("unitoffl", 1, 0, 1), Field("parameter_list_length", 3, 7, 16),
        ),
        _send_diagnostic, check=_check_send_diagnostic, data_out=sbc.parameter_list, access=Access.STANDBY,
    ),
)  # fmt: skip


class MediaUnit(PrimaryUnit):
    """A drive or a changer of some model."""

    copies_for_others = False
    removable = True

    def __init__(
        self, identity: Identity, durable: Durable | None, *, model: DriveModel | LibraryModel, serial: str
    ) -> None:
        super().__init__(identity, durable)
        self.serial = serial
        self.vendor, self.product = model.vendor, model.product
        self.revision = model.revision or self.revision

    @property
    def designators(self) -> tuple[bytes, ...]:
        """Those of all logical units, the T10 one with vendor, product and serial number, as this hardware has it."""
        own = f"{self.vendor:8.8}{self.product:16.16}{self.serial}".encode()
        naa, _, *rest = unit_designators(self.identity)
        return (designator(ASCII, UNIT | T10, own), naa, *rest)
