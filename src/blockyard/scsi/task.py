"""What passes between a transport and the SCSI layer: a task goes in, a result comes out (SAM-5 §5).

A transport (iscsi/) knows nothing of commands. It makes a `Task` from what the wire says and hands
it to the logical unit in two steps:

    result = unit.begin(task)        # decode, check; never blocks, needs no data
    if result is None:               # nothing stands in the way
        ...                          # fetch task.data_out, when the task takes any
        result = unit.run(task)      # in a worker thread when task.blocking

Neither step raises: every failure is a result with its status and sense data.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.scsi.commands import Command
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.overhaul import Overhaul

Buffer = bytes | bytearray | memoryview

_CONTROL = {0: 5, 1: 9, 2: 9, 4: 15, 5: 11}  # where the CONTROL byte is, by group code (SPC-5, operation code)
VARIABLE_LENGTH = 0x7F


NACA = 0x04


class Status(IntEnum):
    """SCSI status codes (SAM-5 §5.3.1)."""

    GOOD = 0x00
    CHECK_CONDITION = 0x02
    CONDITION_MET = 0x04
    BUSY = 0x08
    RESERVATION_CONFLICT = 0x18
    TASK_SET_FULL = 0x28
    ACA_ACTIVE = 0x30
    TASK_ABORTED = 0x40


class Attribute(IntEnum):
    """Task attributes in the numbering of iSCSI (RFC 7143 §11.3.1)."""

    UNTAGGED = 0
    SIMPLE = 1
    ORDERED = 2
    HEAD_OF_QUEUE = 3
    ACA = 4


class Result:
    """How a task ended.

    `data` is what the command sends to the initiator, already cut to its allocation length;
    `expected` is how many bytes of Data-Out the CDB asked for (0 where it takes none). The transport
    compares both with the length that the initiator expected and reports the residual.
    """

    __slots__ = ("data", "expected", "sense", "status")

    def __init__(self, status: Status = Status.GOOD, data: Buffer = b"", sense: bytes = b"", expected: int = 0) -> None:
        self.status = status
        self.data = data
        self.sense = sense
        self.expected = expected

    def __repr__(self) -> str:
        return f"Result({self.status.name}, {len(self.data)} bytes, sense={self.sense.hex()})"


class Task:
    """One SCSI command from one I_T_L nexus.

    `data_out_length` is what the initiator announced that it would send; `data_out` holds it once it
    is all there. `read_length` is the most that the initiator takes back.
    """

    __slots__ = (
        "abort", "attribute", "began", "blocking", "cdb", "command", "data_out", "data_out_length", "effect", "exclusive",
        "expected", "fields", "nexus", "overhaul", "read_length", "special",
    )  # fmt: skip

    def __init__(
        self,
        nexus: Nexus,
        cdb: bytes,
        *,
        attribute: int = Attribute.SIMPLE,
        data_out_length: int = 0,
        read_length: int = 0,
    ) -> None:
        self.nexus = nexus
        self.began = monotonic()  # when it had come
        self.cdb = cdb
        self.attribute = attribute
        self.data_out_length = data_out_length
        self.read_length = read_length
        self.data_out: Buffer = b""
        self.command: Command | None = None  # set by LogicalUnit.begin, with what follows
        self.fields: dict[str, int] = {}
        self.expected = 0  # bytes of Data-Out that the CDB asks for; the transport fetches no more than these
        self.blocking = False  # run it in a worker thread
        self.overhaul: Overhaul | None = (
            None  # what its run has begun and goes on; it ends after that unless IMMED is set
        )
        self.exclusive = False  # nothing else of this unit may run beside it
        self.effect: Callable[[], None] | None = None  # what is left to be done on the loop's thread, before it ends
        self.special = False  # set by the task set: it may have to wait, or others for it
        self.abort: Callable[[bool], None] = _cannot_abort  # the transport's; it says whether another nexus is to blame

    @property
    def naca(self) -> bool:
        """The NACA bit of the CONTROL byte (SAM-5): an error of this command establishes an ACA condition."""
        at = 1 if self.cdb[0] == VARIABLE_LENGTH else _CONTROL.get(self.cdb[0] >> 5)
        return at is not None and at < len(self.cdb) and bool(self.cdb[at] & NACA)


def _cannot_abort(by_other: bool) -> None:
    raise NotImplementedError("whoever puts a task into a task set has to say how it is aborted")
