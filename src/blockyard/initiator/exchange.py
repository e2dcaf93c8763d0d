"""A request that waits for its answer, and how far it has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockyard.iscsi.pdu import NO_TAG, Buffer, DataIn, ScsiCommand, ScsiResponse

if TYPE_CHECKING:
    from blockyard.initiator.connection import Connection


@dataclass(frozen=True, slots=True)
class Response:
    """How a command ended. `residual` bytes too few were moved, or with `overflow` there would have been more."""

    status: int
    data: bytes = b""
    sense: bytes = b""
    residual: int = 0
    overflow: bool = False


class Exchange:
    """A SCSI command, a ping, a text, a task management function or a logout.

    `request` is the PDU as it was sent; it goes out once more when it turns out to be lost. Data-In and R2T PDUs of
    a command are numbered together (RFC 7143 §4.2.2.3): `data_sn` is the number that is expected next, `ahead` has
    those that came after a gap, with their lengths.
    """

    __slots__ = (
        "acked", "acknowledge", "ahead", "asked", "connection", "data_in", "data_out", "data_sn", "end", "error", "final",
        "looked_after", "reassigned", "received", "request", "response", "segment", "snack_tag", "stalls", "then",
        "touched", "withheld",
    )  # fmt: skip

    def __init__(self, request: Any, data_out: Buffer = b"", read_length: int = 0) -> None:
        self.request = request
        self.connection: Connection | None = None  # its allegiance (RFC 7143 §4.2.5.1)
        self.data_out = memoryview(data_out)
        self.data_in = bytearray(read_length)
        self.response: Any = None  # a Response; for the other requests the PDU that answers
        self.error: Exception | None = None
        self.then: Callable[[Exchange], None] | None = None  # called at the end
        self.touched = 0.0  # when it last made progress
        self.looked_after = 0.0  # when something was last done about the lack of it
        self.restart()

    def restart(self) -> None:
        """Nothing of the answer has come."""
        self.received = 0  # bytes of Data-In, up to the gap if there is one
        self.data_sn = 0
        self.ahead: dict[int, int] = {}
        self.end = 0  # numbers before this one are known to have been given
        self.asked = 0  # numbers below this one have been asked for again
        self.acked = (0, 0)  # DataSN and bytes up to which data has been acknowledged
        self.acknowledge: DataIn | None = None  # wants DataACK once everything up to it is there (RFC 7143 §11.7.2)
        self.final: DataIn | ScsiResponse | None = None  # the end, which came while data is missing
        self.withheld: set[int] = set()  # StatSNs of responses that came while data was missing
        self.snack_tag = NO_TAG  # of the last R-Data SNACK: the status must carry it (RFC 7143 §11.4.6)
        self.segment = 0  # MaxRecvDataSegmentLength when the command was sent
        self.reassigned = False  # the next number may start anew: it goes on on another connection
        self.stalls = 0  # how often it was looked after in vain

    @property
    def itt(self) -> int:
        tag: int = self.request.itt
        return tag

    @property
    def lun(self) -> int:
        """As the LUN field has it."""
        field: int = self.request.lun
        return field

    @property
    def cmd_sn(self) -> int:
        number: int = self.request.cmd_sn
        return number

    @property
    def numbered(self) -> bool:
        """Whether the request takes a CmdSN of its own, so that the target tells when it has it."""
        return not self.request.immediate

    @property
    def is_command(self) -> bool:
        return isinstance(self.request, ScsiCommand)

    @property
    def done(self) -> bool:
        return self.response is not None or self.error is not None

    def take_number(self, data_sn: int, length: int = 0) -> bool:
        """Account for a Data-In of `length` bytes, or an R2T. False when it has come before."""
        if data_sn < self.data_sn or data_sn in self.ahead:
            return False
        self.ahead[data_sn] = length
        while self.data_sn in self.ahead:
            self.received += self.ahead.pop(self.data_sn)
            self.data_sn += 1
        return True

    def missing(self, end: int) -> list[tuple[int, int]]:
        """Runs of numbers below `end` that have not come: the first and how many."""
        runs: list[tuple[int, int]] = []
        for number in range(self.data_sn, end):
            if number in self.ahead:
                continue
            if runs and sum(runs[-1]) == number:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((number, 1))
        return runs
