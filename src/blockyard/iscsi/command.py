"""A SCSI command in progress: what a session knows of it besides the task that the SCSI layer has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from blockyard.iscsi.pdu import NO_TAG, R2T, AhsType, ScsiCommand, parse_ahs
from blockyard.scsi.task import Result, Task

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.output import Completion
    from blockyard.scsi.nexus import Nexus


class Head(Protocol):
    """What a command needs to know of the PDU that it came in."""

    @property
    def itt(self) -> int: ...

    @property
    def lun(self) -> int: ...

    @property
    def immediate(self) -> bool: ...

    @property
    def read(self) -> bool: ...


class Sequence:
    """A sequence of Data-Out PDUs that is under way: unsolicited, or the answer to one R2T (RFC 7143 §4.2.5.2)."""

    __slots__ = ("broken", "data_sn", "end", "ttt")

    def __init__(self, end: int, ttt: int = NO_TAG) -> None:
        self.ttt = ttt
        self.end = end  # buffer offset that it may not go beyond; a solicited one must reach it
        self.data_sn = 0  # of the PDU that is due
        self.broken = False  # a PDU was lost: what follows in this sequence cannot be placed


class Command:
    """A SCSI command in progress: the task, and how far its data has come."""

    __slots__ = (
        "aborted", "asked", "buffer", "charged", "connection", "failure", "immediate", "itt", "lost", "lun", "r2ts", "read",
        "received", "recoveries", "snack_tag", "solicited", "task", "unsolicited", "waited", "wanted",
    )  # fmt: skip

    def __init__(self, pdu: Head, task: Task, connection: Connection) -> None:
        self.task = task
        self.itt = pdu.itt
        self.lun = pdu.lun
        self.immediate = pdu.immediate
        self.read = pdu.read
        # The one that it is allegiant to: all that belongs to it goes there (RFC 7143 §4.2.5.1). None: that one is lost.
        self.connection: Connection | None = connection
        self.lost: dict[int, Command | Completion] | None = None  # where it is kept then (iscsi/reassign.py)
        self.wanted = 0  # bytes of Data-Out to wait for
        self.received = 0  # bytes of Data-Out that have come, wanted or not: all in order (DataPDUInOrder=Yes)
        self.asked = 0  # buffer offset up to which data has come unasked or been asked for
        self.charged = 0  # bytes held against the session's limit of solicited data
        self.buffer: bytearray | None = None
        self.unsolicited: Sequence | None = None  # while unsolicited Data-Out PDUs are still to come
        self.solicited: deque[Sequence] = deque()  # R2Ts that have not been answered in full
        self.r2ts: list[tuple[int, int, int]] = []  # all that were sent, by R2TSN: transfer tag, offset and length
        self.snack_tag = 0  # of the last R-Data SNACK, for the response (RFC 7143 §11.16.1)
        self.recoveries = 0  # R2Ts that asked again for what was lost
        self.waited = 0  # looks at the clock since data last came
        self.failure: Result | None = None  # the answer is known; only its data must still be let pass
        self.aborted: list[Callable[[], None]] = []  # who waits for the end of an aborted command that runs

    @property
    def collecting(self) -> bool:
        """Whether Data-Out is still to come, so that the SCSI layer has not got the task."""
        under_way = self.unsolicited is not None or bool(self.solicited)
        return under_way or (self.failure is None and self.received < self.wanted)

    def r2t(self, number: int) -> R2T:
        """The R2T with that R2TSN (RFC 7143 §11.8)."""
        ttt, offset, length = self.r2ts[number]
        return R2T(
            lun=self.lun, itt=self.itt, ttt=ttt, final=True, r2t_sn=number, buffer_offset=offset, desired_length=length
        )

    def store(self, data: memoryview) -> None:
        """Take the next bytes of Data-Out, and keep what of them is wanted."""
        length = min(len(data), self.wanted - self.received)
        if self.failure is None and length == self.wanted > 0:  # all at once, as immediate data of most writes is
            self.buffer = bytearray(data[:length])
        elif self.failure is None and length > 0:
            if self.buffer is None:
                self.buffer = bytearray(self.wanted)
            self.buffer[self.received : self.received + length] = data[:length]
        self.received += len(data)


def make_task(nexus: Nexus, pdu: ScsiCommand) -> Task:
    """The SCSI task that a command PDU carries. Raises ValueError for an AHS that cannot be understood."""
    cdb, read, write, length = pdu.cdb, pdu.read, pdu.write, pdu.edtl
    segments = parse_ahs(pdu.ahs) if pdu.ahs else {}
    if segments:
        cdb += segments.get(AhsType.EXTENDED_CDB, b"")
    read_length = length if read else 0
    if read and write:
        bidirectional = segments.get(AhsType.BIDI_READ_LENGTH, b"")
        if len(bidirectional) != 4:
            raise ValueError("a bidirectional command has no read data length (RFC 7143 §11.2.2.4)")
        read_length = int.from_bytes(bidirectional, "big")
    data_out_length = length if write else 0
    return Task(nexus, cdb, attribute=pdu.attribute, data_out_length=data_out_length, read_length=read_length)
