"""Sense data: what went wrong and where (SPC-5), and the one road from an exception to it.

Handlers raise `CheckCondition` for what the initiator did wrong; everything below SCSI raises OSError.
`failure` turns either into a result; nothing else in the project builds sense data from an exception.
"""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import NamedTuple

from blockyard.scsi.task import Buffer, Result, Status


class SenseKey(IntEnum):
    """Sense keys (SPC-5)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


class Asc(IntEnum):
    """Additional sense code and its qualifier as one 16-bit number, under the names of SPC-5 annex F.2."""

    NO_ADDITIONAL_SENSE_INFORMATION = 0x0000
    FILEMARK_DETECTED = 0x0001
    END_OF_PARTITION_MEDIUM_DETECTED = 0x0002
    PROGRAMMABLE_EARLY_WARNING_DETECTED = 0x0007
    BEGINNING_OF_PARTITION_MEDIUM_DETECTED = 0x0004
    END_OF_DATA_DETECTED = 0x0005
    IO_PROCESS_TERMINATED = 0x0006
    OPERATION_IN_PROGRESS = 0x0016
    LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY = 0x0401
    LOGICAL_UNIT_NOT_READY_INITIALIZING_COMMAND_REQUIRED = 0x0402
    LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED = 0x0403
    LOGICAL_UNIT_NOT_READY_FORMAT_IN_PROGRESS = 0x0404
    LOGICAL_UNIT_NOT_READY_OPERATION_IN_PROGRESS = 0x0407
    LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS = 0x0409
    LOGICAL_UNIT_NOT_ACCESSIBLE_ASYMMETRIC_ACCESS_STATE_TRANSITION = 0x040A
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_STANDBY_STATE = 0x040B
    LOGICAL_UNIT_NOT_ACCESSIBLE_TARGET_PORT_IN_UNAVAILABLE_STATE = 0x040C
    LOGICAL_UNIT_NOT_READY_OFFLINE = 0x0412
    LOGICAL_UNIT_NOT_READY_SANITIZE_IN_PROGRESS = 0x041B
    LOGICAL_UNIT_COMMUNICATION_TIME_OUT = 0x0801
    UNREACHABLE_COPY_TARGET = 0x0804
    WRITE_ERROR = 0x0C00
    WRITE_ERROR_UNEXPECTED_UNSOLICITED_DATA = 0x0C0C
    WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA = 0x0C0D
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0x0D02
    INCORRECT_COPY_TARGET_DEVICE_TYPE = 0x0D03
    INVALID_FIELD_IN_COMMAND_INFORMATION_UNIT = 0x0E03
    LOGICAL_BLOCK_GUARD_CHECK_FAILED = 0x1001
    LOGICAL_BLOCK_APPLICATION_TAG_CHECK_FAILED = 0x1002
    LOGICAL_BLOCK_REFERENCE_TAG_CHECK_FAILED = 0x1003
    UNRECOVERED_READ_ERROR = 0x1100
    PARAMETER_LIST_LENGTH_ERROR = 0x1A00
    MISCOMPARE_DURING_VERIFY_OPERATION = 0x1D00
    INVALID_COMMAND_OPERATION_CODE = 0x2000
    LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE = 0x2100
    INVALID_ELEMENT_ADDRESS = 0x2101
    INVALID_ADDRESS_FOR_WRITE = 0x2102
    INVALID_TOKEN_OPERATION_CAUSE_NOT_REPORTABLE = 0x2300
    INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE = 0x2301
    INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN = 0x2304
    INVALID_TOKEN_OPERATION_TOKEN_CORRUPT = 0x2305
    INVALID_TOKEN_OPERATION_TOKEN_REVOKED = 0x2306
    INVALID_TOKEN_OPERATION_TOKEN_EXPIRED = 0x2307
    INVALID_TOKEN_OPERATION_TOKEN_CANCELLED = 0x2308
    INVALID_TOKEN_OPERATION_TOKEN_DELETED = 0x2309
    INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH = 0x230A
    INVALID_FIELD_IN_CDB = 0x2400
    LOGICAL_UNIT_NOT_SUPPORTED = 0x2500
    INVALID_FIELD_IN_PARAMETER_LIST = 0x2600
    INVALID_RELEASE_OF_PERSISTENT_RESERVATION = 0x2604
    TOO_MANY_TARGET_DESCRIPTORS = 0x2606
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE = 0x2607
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x2608
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE = 0x2609
    UNEXPECTED_INEXACT_SEGMENT = 0x260A
    INLINE_DATA_LENGTH_EXCEEDED = 0x260B
    COPY_SEGMENT_GRANULARITY_VIOLATION = 0x260D
    WRITE_PROTECTED = 0x2700
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x2707
    NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED = 0x2800
    IMPORT_OR_EXPORT_ELEMENT_ACCESSED = 0x2801
    POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED = 0x2900
    BUS_DEVICE_RESET_FUNCTION_OCCURRED = 0x2903
    MODE_PARAMETERS_CHANGED = 0x2A01
    LOG_PARAMETERS_CHANGED = 0x2A02
    RESERVATIONS_PREEMPTED = 0x2A03
    RESERVATIONS_RELEASED = 0x2A04
    REGISTRATIONS_PREEMPTED = 0x2A05
    ASYMMETRIC_ACCESS_STATE_CHANGED = 0x2A06
    PRIORITY_CHANGED = 0x2A08
    CAPACITY_DATA_HAS_CHANGED = 0x2A09
    TIMESTAMP_CHANGED = 0x2A10
    DATA_ENCRYPTION_PARAMETERS_CHANGED_BY_ANOTHER_I_T_NEXUS = 0x2A11
    COMMAND_SEQUENCE_ERROR = 0x2C00
    PREVIOUS_BUSY_STATUS = 0x2C07
    PREVIOUS_TASK_SET_FULL_STATUS = 0x2C08
    PREVIOUS_RESERVATION_CONFLICT_STATUS = 0x2C09
    COMMANDS_CLEARED_BY_ANOTHER_INITIATOR = 0x2F00
    INCOMPATIBLE_MEDIUM_INSTALLED = 0x3000
    CANNOT_READ_MEDIUM_INCOMPATIBLE_FORMAT = 0x3002
    CLEANING_CARTRIDGE_INSTALLED = 0x3003
    CANNOT_WRITE_MEDIUM_INCOMPATIBLE_FORMAT = 0x3005
    CLEANING_FAILURE = 0x3007
    WORM_MEDIUM_OVERWRITE_ATTEMPTED = 0x300C
    MEDIUM_NOT_FORMATTED = 0x3010
    MEDIUM_FORMAT_CORRUPTED = 0x3100
    FORMAT_COMMAND_FAILED = 0x3101
    SANITIZE_COMMAND_FAILED = 0x3103
    THIN_PROVISIONING_SOFT_THRESHOLD_REACHED = 0x3807
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x3900
    MEDIUM_NOT_PRESENT = 0x3A00
    MEDIUM_NOT_PRESENT_TRAY_CLOSED = 0x3A01
    MEDIUM_NOT_PRESENT_TRAY_OPEN = 0x3A02
    MEDIUM_DESTINATION_ELEMENT_FULL = 0x3B0D
    MEDIUM_SOURCE_ELEMENT_EMPTY = 0x3B0E
    LOGICAL_UNIT_FAILED_SELF_TEST = 0x3E03
    INQUIRY_DATA_HAS_CHANGED = 0x3F03
    DEVICE_IDENTIFIER_CHANGED = 0x3F05
    REPORTED_LUNS_DATA_HAS_CHANGED = 0x3F0E
    INTERNAL_TARGET_FAILURE = 0x4400
    PERSISTENT_RESERVATION_INFORMATION_LOST = 0x4401
    PROTOCOL_SERVICE_CRC_ERROR = 0x4705
    INVALID_MESSAGE_ERROR = 0x4900
    WRITE_APPEND_ERROR = 0x5000
    MEDIA_LOAD_OR_EJECT_FAILED = 0x5300
    MEDIUM_REMOVAL_PREVENTED = 0x5302
    INSUFFICIENT_REGISTRATION_RESOURCES = 0x5504
    MEDIA_FAILURE_PREDICTION_THRESHOLD_EXCEEDED = 0x5D01
    SPARE_AREA_EXHAUSTION_PREDICTION_THRESHOLD_EXCEEDED = 0x5D03
    FAILURE_PREDICTION_THRESHOLD_EXCEEDED_FALSE = 0x5DFF
    IDLE_CONDITION_ACTIVATED_BY_COMMAND = 0x5E03
    STANDBY_CONDITION_ACTIVATED_BY_COMMAND = 0x5E04
    IDLE_B_CONDITION_ACTIVATED_BY_COMMAND = 0x5E06
    IDLE_C_CONDITION_ACTIVATED_BY_COMMAND = 0x5E08
    STANDBY_Y_CONDITION_ACTIVATED_BY_COMMAND = 0x5E0A
    END_OF_USER_AREA_ENCOUNTERED_ON_THIS_TRACK = 0x6300
    ILLEGAL_MODE_FOR_THIS_TRACK = 0x6400
    SET_TARGET_PORT_GROUPS_COMMAND_FAILED = 0x670A
    EMPTY_OR_PARTIALLY_WRITTEN_RESERVED_TRACK = 0x7204
    UNABLE_TO_DECRYPT_DATA = 0x7401
    UNENCRYPTED_DATA_ENCOUNTERED_WHILE_DECRYPTING = 0x7402
    INCORRECT_DATA_ENCRYPTION_KEY = 0x7403
    CRYPTOGRAPHIC_INTEGRITY_VALIDATION_FAILED = 0x7404
    ENCRYPTED_BLOCK_NOT_RAW_READ_ENABLED = 0x740A

    @property
    def text(self) -> str:
        return self.name.replace("_", " ")


class FieldPointer(NamedTuple):
    """Where the field in error begins: byte, and the number of its left-most bit or None for a whole byte."""

    byte: int
    bit: int | None = None
    in_cdb: bool = True  # else in the parameter list

    def encode(self) -> bytes:
        """The sense-key specific field for ILLEGAL REQUEST (SPC-5, field pointer)."""
        flags = 0x80 | (0x40 if self.in_cdb else 0) | (0 if self.bit is None else 0x08 | self.bit)
        return bytes([flags]) + self.byte.to_bytes(2, "big")


class CheckCondition(Exception):
    """A command ends with CHECK CONDITION status and this sense data."""

    def __init__(
        self,
        key: SenseKey,
        asc: int,
        *,
        pointer: FieldPointer | None = None,
        progress: int | None = None,
        information: int | None = None,
        command_specific: int | None = None,
        stream: int = 0,
        data: Buffer = b"",
    ) -> None:
        super().__init__(key, asc)
        self.key = key
        self.asc = asc
        self.pointer = pointer
        self.progress = progress
        self.information = information
        self.command_specific = command_specific
        self.stream = stream  # FILEMARK, END_OF_MEDIUM, INCORRECT_LENGTH
        self.data = data  # the Data-In that goes with it

    def encode(self, *, descriptor: bool = False) -> bytes:
        """It as sense data, in fixed or descriptor format."""
        return encode(
            self.key,
            self.asc,
            descriptor=descriptor,
            pointer=self.pointer,
            progress=self.progress,
            information=self.information,
            command_specific=self.command_specific,
            stream=self.stream,
        )

    def __str__(self) -> str:
        return f"{self.key.name.replace('_', ' ')}, {self.asc >> 8:02X}h/{self.asc & 0xFF:02X}h"


class StatusCondition(Exception):
    """A command ends with a status that needs no sense data: RESERVATION CONFLICT, BUSY, ACA ACTIVE (SAM-5 §5.3.1)."""

    def __init__(self, status: Status) -> None:
        super().__init__(status)
        self.status = status

    def __str__(self) -> str:
        return self.status.name.replace("_", " ")


class MediumFailure(OSError):
    """An OSError from accessing the medium, at the block `lba` where that is known."""

    lba: int | None = None


class ReadFailure(MediumFailure):
    """One from reading it: it becomes a read error where others become write errors."""


# of sequential access devices, where fixed format and the stream commands descriptor have them (SPC-5)
FILEMARK, END_OF_MEDIUM, INCORRECT_LENGTH = 0x80, 0x40, 0x20

PROGRESS_DONE = 0x10000  # what PROGRESS INDICATION counts to; it shows the part done in this many parts


def encode(
    key: int,
    asc: int,
    *,
    descriptor: bool = False,
    pointer: FieldPointer | None = None,
    progress: int | None = None,
    information: int | None = None,
    command_specific: int | None = None,
    stream: int = 0,
) -> bytes:
    """Sense data for a current error, in fixed or descriptor format (SPC-5).

    The sense-key specific field holds the pointer or, of PROGRESS_DONE parts, how many are done of what goes on.
    `information` and `command_specific` are left out of fixed format where they need more than 32 bits; a negative
    `information` is in two's complement. `stream` has the bits of sequential access devices.
    """
    specific = pointer.encode() if pointer else b""
    if progress is not None:
        specific = b"\x80" + min(progress, PROGRESS_DONE - 1).to_bytes(2, "big")
    if descriptor:
        return _descriptor_format(key, asc, specific, information, command_specific, stream)
    data = bytearray(18)
    data[0] = 0x70
    data[2] = stream | key
    if information is not None and -0x80000000 <= information <= 0xFFFFFFFF:
        data[0] |= 0x80
        data[3:7] = (information & 0xFFFFFFFF).to_bytes(4, "big")
    data[7] = len(data) - 8
    if command_specific is not None and command_specific <= 0xFFFFFFFF:
        data[8:12] = command_specific.to_bytes(4, "big")
    data[12:14] = asc.to_bytes(2, "big")
    data[15 : 15 + len(specific)] = specific
    return bytes(data)


def _descriptor_format(
    key: int, asc: int, specific: bytes, information: int | None, command_specific: int | None, stream: int
) -> bytes:
    descriptors = b""
    if information is not None:
        descriptors += b"\x00\x0a\x80\x00" + (information & (1 << 64) - 1).to_bytes(8, "big")
    if command_specific is not None:
        descriptors += b"\x01\x0a\x00\x00" + command_specific.to_bytes(8, "big")
    if specific:
        descriptors += b"\x02\x06\x00\x00" + specific + b"\x00"
    if stream:
        descriptors += bytes([0x04, 0x02, 0x00, stream])
    return bytes([0x72, key, asc >> 8, asc & 0xFF, 0, 0, 0, len(descriptors)]) + descriptors


def invalid_field(byte: int, bit: int | None = None) -> CheckCondition:
    """A field of the CDB has a value that it cannot have."""
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_CDB, pointer=FieldPointer(byte, bit))


def invalid_parameter(byte: int, bit: int | None = None) -> CheckCondition:
    """A field of the parameter list has a value that it cannot have."""
    pointer = FieldPointer(byte, bit, in_cdb=False)
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, pointer=pointer)


def parameter_list_length_error() -> CheckCondition:
    """The parameter list ends where it cannot end (SPC-5)."""
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


_SPACE = (SenseKey.DATA_PROTECT, Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT)
_PROTECTED = (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
_GONE = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_MANUAL_INTERVENTION_REQUIRED)
_AWAY = (SenseKey.NOT_READY, Asc.LOGICAL_UNIT_IS_IN_PROCESS_OF_BECOMING_READY)  # hosts try again by themselves
_TIMEOUT = (SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_COMMUNICATION_TIME_OUT)
_READ_ERROR = (SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR)
_WRITE_ERROR = (SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR)

# what an errno means to an initiator; EIO and its like depend on whether the medium was read or written
_BY_ERRNO: dict[int, tuple[SenseKey, Asc]] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EFBIG: _SPACE,
    errno.EROFS: _PROTECTED,
    errno.ENODEV: _GONE,
    errno.ENXIO: _GONE,
    errno.ENOMEDIUM: _GONE,
    errno.ESHUTDOWN: _GONE,
    errno.ENOTCONN: _AWAY,
    errno.ETIMEDOUT: _TIMEOUT,
}
MEDIUM_ERRNOS = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN, errno.EILSEQ, errno.ENODATA, errno.ESTALE})


def condition(error: BaseException) -> CheckCondition | None:
    """What an exception means to the initiator; None for one that only a fault in this program explains."""
    if isinstance(error, CheckCondition):
        return error
    if isinstance(error, OSError):
        meaning = _BY_ERRNO.get(error.errno or 0)
        if meaning is None and error.errno in MEDIUM_ERRNOS:
            meaning = _READ_ERROR if isinstance(error, ReadFailure) else _WRITE_ERROR
        if meaning is not None:
            lba = error.lba if isinstance(error, MediumFailure) else None
            return CheckCondition(*meaning, information=lba)
    return None


def failure(error: BaseException, *, descriptor: bool = False, expected: int = 0) -> Result:
    """The result of a command that ended with `error`; `descriptor` chooses the sense format (D_SENSE)."""
    if isinstance(error, StatusCondition):
        return Result(error.status, expected=expected)
    found = condition(error) or CheckCondition(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    sense = found.encode(descriptor=descriptor)
    return Result(Status.CHECK_CONDITION, found.data, sense, expected)


def _transport_failure(asc: Asc) -> Result:
    return Result(Status.CHECK_CONDITION, sense=encode(SenseKey.ABORTED_COMMAND, asc))


# what an iSCSI transport reports of data that came wrong (RFC 7143 §11.4.7.2)
UNEXPECTED_UNSOLICITED_DATA = _transport_failure(Asc.WRITE_ERROR_UNEXPECTED_UNSOLICITED_DATA)
INCORRECT_AMOUNT_OF_DATA = _transport_failure(Asc.WRITE_ERROR_NOT_ENOUGH_UNSOLICITED_DATA)
PROTOCOL_SERVICE_CRC_ERROR = _transport_failure(Asc.PROTOCOL_SERVICE_CRC_ERROR)
