"""iSCSI protocol data units: one class for each, fields at the offsets of RFC 7143 §11.

Every PDU is a 48-byte basic header segment (BHS), optional additional header segments (AHS), an
optional header digest, and an optional data segment padded to four bytes with an optional data digest:

    bhs 48 | ahs 4*n | [header digest 4] | data | pad 0-3 | [data digest 4]

A class here is a *view* of the three segments: its fields read and write the BHS in place, so that
the same class serves to parse and to build, on either side of the wire. It costs microseconds and
belongs to login, control and every rare path; the data path (worker/fastpath.py) packs and unpacks
the few PDUs that it knows with the precompiled structs at the end of this file.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, ClassVar, Generic, TypeVar, overload

from blockyard.iscsi.digest import DIGEST_LENGTH, crc32c

BHS_LENGTH = 48
NO_TAG = 0xFFFFFFFF  # the reserved task tag (RFC 7143 §11.7.2, §11.19)
MAX_AHS_LENGTH = 255 * 4
_LENGTHS = struct.Struct(">I")  # TotalAHSLength, in words, and in the low 24 bits DataSegmentLength (RFC 7143 §11.2.1)
LOST = -1  # where a stream goes on whose framing is lost

Buffer = bytes | bytearray | memoryview


class Opcode(IntEnum):
    """Operation codes (RFC 7143 §11.2.1.2)."""

    NOP_OUT = 0x00
    SCSI_COMMAND = 0x01
    TASK_MANAGEMENT_REQUEST = 0x02
    LOGIN_REQUEST = 0x03
    TEXT_REQUEST = 0x04
    DATA_OUT = 0x05
    LOGOUT_REQUEST = 0x06
    SNACK_REQUEST = 0x10
    NOP_IN = 0x20
    SCSI_RESPONSE = 0x21
    TASK_MANAGEMENT_RESPONSE = 0x22
    LOGIN_RESPONSE = 0x23
    TEXT_RESPONSE = 0x24
    DATA_IN = 0x25
    LOGOUT_RESPONSE = 0x26
    R2T = 0x31
    ASYNC_MESSAGE = 0x32
    REJECT = 0x3F


OPCODE_MASK = 0x3F


class TaskFunction(IntEnum):
    """Task management functions (RFC 7143 §11.5.1)."""

    ABORT_TASK = 1
    ABORT_TASK_SET = 2
    CLEAR_ACA = 3
    CLEAR_TASK_SET = 4
    LOGICAL_UNIT_RESET = 5
    TARGET_WARM_RESET = 6
    TARGET_COLD_RESET = 7
    TASK_REASSIGN = 8


class TaskResponse(IntEnum):
    """Task management responses (RFC 7143 §11.6.1)."""

    COMPLETE = 0
    NO_SUCH_TASK = 1
    NO_SUCH_LUN = 2
    STILL_ALLEGIANT = 3
    REASSIGN_UNSUPPORTED = 4
    UNSUPPORTED = 5
    UNAUTHORIZED = 6
    REJECTED = 255


class RejectReason(IntEnum):
    """Reject reasons (RFC 7143 §11.17.1)."""

    DATA_DIGEST_ERROR = 0x02
    SNACK_REJECT = 0x03
    PROTOCOL_ERROR = 0x04
    COMMAND_NOT_SUPPORTED = 0x05
    TOO_MANY_IMMEDIATE = 0x06
    TASK_IN_PROGRESS = 0x07
    INVALID_DATA_ACK = 0x08
    INVALID_PDU_FIELD = 0x09
    LONG_OPERATION = 0x0A
    NEGOTIATION_RESET = 0x0B
    WAITING_FOR_LOGOUT = 0x0C


class SnackType(IntEnum):
    """SNACK types (RFC 7143 §11.16.1)."""

    DATA = 0  # Data-In or R2T
    STATUS = 1
    DATA_ACK = 2
    R_DATA = 3


class AsyncEvent(IntEnum):
    """Asynchronous events (RFC 7143 §11.9.1)."""

    SCSI = 0
    LOGOUT_REQUESTED = 1
    CONNECTION_DROPPED = 2
    SESSION_DROPPED = 3
    NEGOTIATION_REQUESTED = 4
    TASKS_TERMINATED = 5
    VENDOR = 255


class LogoutReason(IntEnum):
    """Logout reasons (RFC 7143 §11.14.1)."""

    CLOSE_SESSION = 0
    CLOSE_CONNECTION = 1
    RECOVERY = 2


class LogoutResponseCode(IntEnum):
    """Logout responses (RFC 7143 §11.15.1)."""

    CLOSED = 0
    CID_NOT_FOUND = 1
    RECOVERY_UNSUPPORTED = 2
    CLEANUP_FAILED = 3


class LoginStatus(IntEnum):
    """Login status class and detail as one 16-bit number (RFC 7143 §11.13.5)."""

    SUCCESS = 0x0000
    MOVED_TEMPORARILY = 0x0101
    MOVED_PERMANENTLY = 0x0102
    INITIATOR_ERROR = 0x0200
    AUTHENTICATION_FAILURE = 0x0201
    AUTHORIZATION_FAILURE = 0x0202
    NOT_FOUND = 0x0203
    TARGET_REMOVED = 0x0204
    UNSUPPORTED_VERSION = 0x0205
    TOO_MANY_CONNECTIONS = 0x0206
    MISSING_PARAMETER = 0x0207
    CANNOT_INCLUDE_IN_SESSION = 0x0208
    SESSION_TYPE_UNSUPPORTED = 0x0209
    SESSION_DOES_NOT_EXIST = 0x020A
    INVALID_REQUEST = 0x020B
    TARGET_ERROR = 0x0300
    SERVICE_UNAVAILABLE = 0x0301
    OUT_OF_RESOURCES = 0x0302


class PduError(Exception):
    """The bytes are not a PDU that this side can take: wrong lengths, or a failed digest.

    `reason` says how a target answers (RFC 7143 §7.7, §7.8). `pdu` is what came, with its damaged
    data, where the header is sound; without it the stream has lost its framing and the connection must be closed.
    """

    def __init__(self, message: str, reason: RejectReason, pdu: Pdu | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.pdu = pdu


V = TypeVar("V")
P = TypeVar("P", bound="Pdu")


class _Field(Generic[V]):
    """A field of the BHS, read and written in place."""

    def __init__(self, offset: int, code: str) -> None:
        self._offset = offset
        layout = struct.Struct(">" + code)
        self._unpack = layout.unpack_from
        self._pack = layout.pack_into

    @overload
    def __get__(self, pdu: None, owner: type[Pdu]) -> _Field[V]: ...
    @overload
    def __get__(self, pdu: Pdu, owner: type[Pdu]) -> V: ...
    def __get__(self, pdu: Pdu | None, owner: type[Pdu]) -> _Field[V] | V:
        if pdu is None:
            return self
        value: V = self._unpack(pdu.bhs, self._offset)[0]
        return value

    def __set__(self, pdu: Pdu, value: V) -> None:
        self._pack(pdu.bhs, self._offset, value)


class U8(_Field[int]):
    def __init__(self, offset: int) -> None:
        super().__init__(offset, "B")


class U16(_Field[int]):
    def __init__(self, offset: int) -> None:
        super().__init__(offset, "H")


class U32(_Field[int]):
    def __init__(self, offset: int) -> None:
        super().__init__(offset, "I")


class U64(_Field[int]):
    def __init__(self, offset: int) -> None:
        super().__init__(offset, "Q")


class Octets(_Field[bytes]):
    def __init__(self, offset: int, length: int) -> None:
        super().__init__(offset, f"{length}s")


class Flag:
    """One bit of the BHS."""

    def __init__(self, offset: int, bit: int) -> None:
        self._offset = offset
        self.mask = 1 << bit

    @overload
    def __get__(self, pdu: None, owner: type[Pdu]) -> Flag: ...
    @overload
    def __get__(self, pdu: Pdu, owner: type[Pdu]) -> bool: ...
    def __get__(self, pdu: Pdu | None, owner: type[Pdu]) -> Flag | bool:
        return self if pdu is None else bool(pdu.bhs[self._offset] & self.mask)

    def __set__(self, pdu: Pdu, value: bool) -> None:
        kept = pdu.bhs[self._offset] & ~self.mask
        pdu.bhs[self._offset] = kept | self.mask if value else kept


class Bits:
    """Some bits of one octet of the BHS, as a number."""

    def __init__(self, offset: int, shift: int, width: int) -> None:
        self._offset = offset
        self._shift = shift
        self._mask = (1 << width) - 1

    @overload
    def __get__(self, pdu: None, owner: type[Pdu]) -> Bits: ...
    @overload
    def __get__(self, pdu: Pdu, owner: type[Pdu]) -> int: ...
    def __get__(self, pdu: Pdu | None, owner: type[Pdu]) -> Bits | int:
        return self if pdu is None else pdu.bhs[self._offset] >> self._shift & self._mask

    def __set__(self, pdu: Pdu, value: int) -> None:
        if value & ~self._mask:
            raise ValueError(f"{value} does not fit in {self._mask.bit_length()} bits")
        kept = pdu.bhs[self._offset] & ~(self._mask << self._shift)
        pdu.bhs[self._offset] = kept | value << self._shift


class Pdu:
    """What all PDUs have in common (RFC 7143 §11.2).

    `bhs` is a bytearray of 48; `ahs` and `data` are without padding and digests. No class has a `__dict__`, so that a
    name that is no field cannot be set.
    """

    __slots__ = ("ahs", "bhs", "data")
    OPCODE: ClassVar[int] = 0

    bhs: bytearray
    ahs: bytes
    data: Buffer

    immediate = Flag(0, 6)
    final = Flag(1, 7)
    flags = U8(1)
    lun = U64(8)
    itt = U32(16)

    def __init__(self, data: Buffer = b"", ahs: bytes = b"", **fields: Any) -> None:
        self.bhs = bytearray(BHS_LENGTH)
        self.bhs[0] = self.OPCODE
        self.ahs = ahs
        self.data = data
        for name, value in fields.items():
            setattr(self, name, value)

    @property
    def opcode(self) -> int:
        return self.bhs[0] & OPCODE_MASK

    def encode(self, *, header_digest: bool = False, data_digest: bool = False) -> bytes:
        """The PDU as it goes over the wire, lengths and digests filled in."""
        length = len(self.data)
        if length >= 1 << 24:
            raise ValueError(f"{length} bytes do not fit into a data segment")
        _LENGTHS.pack_into(self.bhs, 4, len(self.ahs) // 4 << 24 | length)
        header = bytes(self.bhs) + self.ahs
        if header_digest:
            header += crc32c(header).to_bytes(DIGEST_LENGTH, "little")
        if not length:
            return header
        rest = bytes(-length % 4)
        if data_digest:
            rest += crc32c(rest, crc32c(self.data)).to_bytes(DIGEST_LENGTH, "little")
        return b"".join((header, self.data, rest))

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={getattr(self, name)!r}"
            for owner in reversed(type(self).__mro__)
            for name, field in vars(owner).items()
            if isinstance(field, _Field | Flag | Bits)
        )
        return f"{type(self).__name__}({fields}, data={len(self.data)} bytes)"


class NopOut(Pdu):
    """RFC 7143 §11.18."""

    __slots__ = ()
    OPCODE = Opcode.NOP_OUT
    ttt = U32(20)
    cmd_sn = U32(24)
    exp_stat_sn = U32(28)


class ScsiCommand(Pdu):
    """RFC 7143 §11.3."""

    __slots__ = ()
    OPCODE = Opcode.SCSI_COMMAND
    read = Flag(1, 6)
    write = Flag(1, 5)
    attribute = Bits(1, 0, 3)
    edtl = U32(20)
    cmd_sn = U32(24)
    exp_stat_sn = U32(28)
    cdb = Octets(32, 16)


class TaskManagementRequest(Pdu):
    """RFC 7143 §11.5."""

    __slots__ = ()
    OPCODE = Opcode.TASK_MANAGEMENT_REQUEST
    function = Bits(1, 0, 7)
    referenced_task_tag = U32(20)
    cmd_sn = U32(24)
    exp_stat_sn = U32(28)
    ref_cmd_sn = U32(32)
    exp_data_sn = U32(36)


class LoginRequest(Pdu):
    """RFC 7143 §11.12. `final` is the T (transit) bit."""

    __slots__ = ()
    OPCODE = Opcode.LOGIN_REQUEST
    continued = Flag(1, 6)
    csg = Bits(1, 2, 2)
    nsg = Bits(1, 0, 2)
    version_max = U8(2)
    version_min = U8(3)
    isid = Octets(8, 6)
    tsih = U16(14)
    cid = U16(20)
    cmd_sn = U32(24)
    exp_stat_sn = U32(28)


class TextRequest(Pdu):
    """RFC 7143 §11.10."""

    __slots__ = ()
    OPCODE = Opcode.TEXT_REQUEST
    continued = Flag(1, 6)
    ttt = U32(20)
    cmd_sn = U32(24)
    exp_stat_sn = U32(28)


class DataOut(Pdu):
    """RFC 7143 §11.7."""

    __slots__ = ()
    OPCODE = Opcode.DATA_OUT
    ttt = U32(20)
    exp_stat_sn = U32(28)
    data_sn = U32(36)
    buffer_offset = U32(40)


class LogoutRequest(Pdu):
    """RFC 7143 §11.14."""

    __slots__ = ()
    OPCODE = Opcode.LOGOUT_REQUEST
    reason = Bits(1, 0, 7)
    cid = U16(20)
    cmd_sn = U32(24)
    exp_stat_sn = U32(28)


class SnackRequest(Pdu):
    """RFC 7143 §11.16."""

    __slots__ = ()
    OPCODE = Opcode.SNACK_REQUEST
    type = Bits(1, 0, 4)
    snack_tag = U32(20)
    exp_stat_sn = U32(28)
    beg_run = U32(40)
    run_length = U32(44)


class _Response(Pdu):
    """The numbering that every PDU from a target carries (RFC 7143 §11.4.8 to §11.4.10)."""

    __slots__ = ()
    stat_sn = U32(24)
    exp_cmd_sn = U32(28)
    max_cmd_sn = U32(32)


class NopIn(_Response):
    """RFC 7143 §11.19."""

    __slots__ = ()
    OPCODE = Opcode.NOP_IN
    ttt = U32(20)


class ScsiResponse(_Response):
    """RFC 7143 §11.4."""

    __slots__ = ()
    OPCODE = Opcode.SCSI_RESPONSE
    overflow = Flag(1, 2)
    underflow = Flag(1, 1)
    bidi_overflow = Flag(1, 4)
    bidi_underflow = Flag(1, 3)
    response = U8(2)
    status = U8(3)
    snack_tag = U32(20)
    exp_data_sn = U32(36)
    bidi_residual = U32(40)
    residual = U32(44)


class TaskManagementResponse(_Response):
    """RFC 7143 §11.6."""

    __slots__ = ()
    OPCODE = Opcode.TASK_MANAGEMENT_RESPONSE
    response = U8(2)


class LoginResponse(_Response):
    """RFC 7143 §11.13. `final` is the T (transit) bit."""

    __slots__ = ()
    OPCODE = Opcode.LOGIN_RESPONSE
    continued = Flag(1, 6)
    csg = Bits(1, 2, 2)
    nsg = Bits(1, 0, 2)
    version_max = U8(2)
    version_active = U8(3)
    isid = Octets(8, 6)
    tsih = U16(14)
    status = U16(36)


class TextResponse(_Response):
    """RFC 7143 §11.11."""

    __slots__ = ()
    OPCODE = Opcode.TEXT_RESPONSE
    continued = Flag(1, 6)
    ttt = U32(20)


class DataIn(_Response):
    """RFC 7143 §11.7."""

    __slots__ = ()
    OPCODE = Opcode.DATA_IN
    acknowledge = Flag(1, 6)
    overflow = Flag(1, 2)
    underflow = Flag(1, 1)
    has_status = Flag(1, 0)
    status = U8(3)
    ttt = U32(20)
    data_sn = U32(36)
    buffer_offset = U32(40)
    residual = U32(44)


class LogoutResponse(_Response):
    """RFC 7143 §11.15."""

    __slots__ = ()
    OPCODE = Opcode.LOGOUT_RESPONSE
    response = U8(2)
    time2wait = U16(40)
    time2retain = U16(42)


class R2T(_Response):
    """RFC 7143 §11.8."""

    __slots__ = ()
    OPCODE = Opcode.R2T
    ttt = U32(20)
    r2t_sn = U32(36)
    buffer_offset = U32(40)
    desired_length = U32(44)


class AsyncMessage(_Response):
    """RFC 7143 §11.9."""

    __slots__ = ()
    OPCODE = Opcode.ASYNC_MESSAGE
    event = U8(36)
    vendor_code = U8(37)
    parameter1 = U16(38)
    parameter2 = U16(40)
    parameter3 = U16(42)


class Reject(_Response):
    """RFC 7143 §11.17. The data segment is the header of the rejected PDU."""

    __slots__ = ()
    OPCODE = Opcode.REJECT
    reason = U8(2)
    data_sn = U32(36)


PDU_CLASSES: dict[int, type[Pdu]] = {
    int(cls.OPCODE): cls
    for cls in (
        NopOut, ScsiCommand, TaskManagementRequest, LoginRequest, TextRequest, DataOut, LogoutRequest, SnackRequest,
        NopIn, ScsiResponse, TaskManagementResponse, LoginResponse, TextResponse, DataIn, LogoutResponse, R2T,
        AsyncMessage, Reject,
    )
}  # fmt: skip


class AhsType(IntEnum):
    """Additional header segments (RFC 7143 §11.2.2.1)."""

    EXTENDED_CDB = 1
    BIDI_READ_LENGTH = 2


def extended_cdb_ahs(cdb: bytes) -> bytes:
    """The AHS that carries what of a CDB goes beyond 16 bytes (RFC 7143 §11.2.2.3)."""
    rest = cdb[16:]
    return struct.pack(">HBB", len(rest) + 1, AhsType.EXTENDED_CDB, 0) + rest + bytes(-len(rest) % 4)


def parse_ahs(ahs: bytes) -> dict[int, bytes]:
    """AHS type → its specific part, for each segment in `ahs`.

    Raises ValueError when the lengths do not add up (RFC 7143 §11.2.2.2).
    """
    segments: dict[int, bytes] = {}
    at = 0
    while at < len(ahs):
        if at + 4 > len(ahs):
            raise ValueError("AHS is cut short")
        length, kind = struct.unpack_from(">HB", ahs, at)
        if length < 1 or at + 3 + length > len(ahs):
            raise ValueError(f"AHSLength {length} does not fit")
        if kind in segments:
            raise ValueError(f"AHS type {kind} stands twice")
        segments[kind] = ahs[at + 4 : at + 3 + length]
        at += 3 + length + (-(3 + length) % 4)
    return segments


def data_length(buffer: Buffer, at: int) -> int:
    """The DataSegmentLength of the PDU whose BHS stands at `buffer[at:]`."""
    lengths: int = _LENGTHS.unpack_from(buffer, at + 4)[0]
    return lengths & 0xFFFFFF


def pdu_length(buffer: Buffer, at: int, *, header_digest: bool, data_digest: bool) -> int:
    """Length on the wire of the PDU whose 48-byte BHS stands at `buffer[at:]`."""
    length = BHS_LENGTH + buffer[at + 4] * 4 + (DIGEST_LENGTH if header_digest else 0)
    data = data_length(buffer, at)
    if data:
        length += data + (-data % 4) + (DIGEST_LENGTH if data_digest else 0)
    return length


def next_sound_header(buffer: Buffer, at: int, end: int, *, data_digest: bool) -> int | None:
    """Where in `buffer[at:end]` the PDU begins whose header digest matches: `at`, or behind a damaged one (RFC 7143 §7.7).

    Where the lengths in a damaged header lead to a sound one they are true, and that PDU alone is lost. None while too
    little is there to tell; LOST where they lead elsewhere.
    """
    matches = _header_digest_matches(buffer, at, end)
    if matches is not False:
        return at if matches else None
    after = at + pdu_length(buffer, at, header_digest=True, data_digest=data_digest)
    matches = _header_digest_matches(buffer, after, end)
    return after if matches else None if matches is None else LOST


def _header_digest_matches(buffer: Buffer, at: int, end: int) -> bool | None:
    """Whether the header at `buffer[at:end]` has the digest that stands behind it; None while it is not all there."""
    if end - at < BHS_LENGTH or end < (after := at + BHS_LENGTH + buffer[at + 4] * 4) + DIGEST_LENGTH:
        return None
    return int.from_bytes(buffer[after : after + DIGEST_LENGTH], "little") == crc32c(bytes(buffer[at:after]))


def decode(buffer: Buffer, at: int, *, header_digest: bool = False, data_digest: bool = False) -> Pdu:
    """The whole PDU that stands at `buffer[at:]`; `data` is a view into `buffer`, not a copy.

    The caller has made sure that `pdu_length` bytes are there. An opcode that no PDU has gives a
    plain `Pdu`. Raises PduError when a digest does not match: without a PDU for the header's (RFC 7143 §7.8
    lets a target with ErrorRecoveryLevel 0 do no less), with it for the data's.
    """
    bhs_end = at + BHS_LENGTH
    start = ahs_end = bhs_end + buffer[at + 4] * 4
    if header_digest:
        if int.from_bytes(buffer[ahs_end : ahs_end + DIGEST_LENGTH], "little") != crc32c(bytes(buffer[at:ahs_end])):
            raise PduError("header digest error", RejectReason.PROTOCOL_ERROR)
        start += DIGEST_LENGTH
    cls = PDU_CLASSES.get(buffer[at] & OPCODE_MASK, Pdu)
    pdu = cls.__new__(cls)
    pdu.bhs = bytearray(buffer[at:bhs_end])
    pdu.ahs = bytes(buffer[bhs_end:ahs_end]) if ahs_end > bhs_end else b""
    length = data_length(pdu.bhs, 0)
    if not length:
        pdu.data = b""
        return pdu
    view = memoryview(buffer)
    pdu.data = view[start : start + length]
    if data_digest:
        end = start + length + (-length % 4)
        if int.from_bytes(view[end : end + DIGEST_LENGTH], "little") != crc32c(view[start:end]):
            raise PduError("data digest error", RejectReason.DATA_DIGEST_ERROR, pdu)
    return pdu


def serial_less(a: int, b: int) -> bool:
    """Whether sequence number `a` comes before `b` (RFC 1982 with SERIAL_BITS 32; RFC 7143 §4.2.2.1)."""
    return a != b and (b - a) & 0xFFFFFFFF < 0x80000000
