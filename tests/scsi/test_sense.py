"""Sense data formats, and what becomes of exceptions."""

from __future__ import annotations

import errno

import pytest

from blockyard.scsi import sense
from blockyard.scsi.sense import Asc, CheckCondition, FieldPointer, ReadFailure, SenseKey
from blockyard.scsi.task import Result, Status
from tests.scsi.host import parse_sense


def test_fixed_format() -> None:
    data = sense.encode(SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, information=0x01020304)
    assert data == bytes.fromhex("f0 00 0e 01020304 0a 00000000 1d00 00 000000")


def test_fixed_format_without_information() -> None:
    assert sense.encode(SenseKey.NOT_READY, 0x0402) == bytes.fromhex("70 00 02 00000000 0a 00000000 0402 00 000000")


def test_fixed_format_has_no_room_for_large_information() -> None:
    assert sense.encode(SenseKey.MEDIUM_ERROR, 0x1100, information=1 << 32)[:7] == bytes.fromhex("70 00 03 00000000")


def test_descriptor_format() -> None:
    data = sense.encode(
        SenseKey.ILLEGAL_REQUEST, 0x2400, descriptor=True, information=1 << 32, pointer=FieldPointer(1, 4)
    )
    assert data == bytes.fromhex("72 05 2400 000000 14  00 0a 80 00 0000000100000000  02 06 0000 cc0001 00")


def test_progress_indication() -> None:
    """Where the field pointer is otherwise: SKSV, and the part done of 65,536 (SPC-5)."""
    fixed = sense.encode(SenseKey.NOT_READY, 0x041B, progress=0x8000)
    assert fixed == bytes.fromhex("70 00 02 00000000 0a 00000000 041b 00 80 8000")
    descriptor = sense.encode(SenseKey.NOT_READY, 0x041B, progress=0, descriptor=True)
    assert descriptor == bytes.fromhex("72 02 041b 000000 08  02 06 0000 800000 00")
    assert sense.encode(SenseKey.NO_SENSE, 0x0016, progress=sense.PROGRESS_DONE)[15:] == bytes.fromhex("80 ffff")


def test_command_specific_information() -> None:
    fixed = sense.encode(SenseKey.COPY_ABORTED, 0x0D01, command_specific=0x01020304)
    assert fixed == bytes.fromhex("70 00 0a 00000000 0a 01020304 0d01 00 000000")
    assert sense.encode(SenseKey.COPY_ABORTED, 0x0D01, command_specific=1 << 32)[8:12] == bytes(4)
    descriptor = CheckCondition(SenseKey.COPY_ABORTED, 0x0D01, information=1, command_specific=2)
    assert descriptor.encode(descriptor=True) == bytes.fromhex(
        "72 0a 0d01 000000 18  00 0a 80 00 0000000000000001  01 0a 00 00 0000000000000002"
    )


@pytest.mark.parametrize(
    ("pointer", "expected"),
    [
        (FieldPointer(2), "c0 0002"),
        (FieldPointer(1, 7), "cf 0001"),
        (FieldPointer(1, 0), "c8 0001"),
        (FieldPointer(300, 3, in_cdb=False), "8b 012c"),
        (FieldPointer(4, in_cdb=False), "80 0004"),
    ],
)
def test_field_pointer(pointer: FieldPointer, expected: str) -> None:
    assert pointer.encode() == bytes.fromhex(expected)
    assert sense.encode(SenseKey.ILLEGAL_REQUEST, 0x2400, pointer=pointer)[15:] == bytes.fromhex(expected)


@pytest.mark.parametrize(
    ("error", "key", "asc"),
    [
        (OSError(errno.EIO, "x"), SenseKey.MEDIUM_ERROR, 0x0C00),
        (ReadFailure(errno.EIO, "x"), SenseKey.MEDIUM_ERROR, 0x1100),
        (ReadFailure(errno.EBADMSG, "x"), SenseKey.MEDIUM_ERROR, 0x1100),
        (OSError(errno.ENOSPC, "x"), SenseKey.DATA_PROTECT, 0x2707),
        (OSError(errno.EDQUOT, "x"), SenseKey.DATA_PROTECT, 0x2707),
        (OSError(errno.EROFS, "x"), SenseKey.DATA_PROTECT, 0x2700),
        (OSError(errno.ENXIO, "x"), SenseKey.NOT_READY, 0x0403),
        (OSError(errno.ENOTCONN, "x"), SenseKey.NOT_READY, 0x0401),
        (OSError(errno.ETIMEDOUT, "x"), SenseKey.HARDWARE_ERROR, 0x0801),
        (OSError(errno.EFAULT, "x"), SenseKey.HARDWARE_ERROR, 0x4400),
        (OSError("without a number"), SenseKey.HARDWARE_ERROR, 0x4400),
        (ZeroDivisionError(), SenseKey.HARDWARE_ERROR, 0x4400),
        (CheckCondition(SenseKey.NOT_READY, 0x0402), SenseKey.NOT_READY, 0x0402),
    ],
)
@pytest.mark.parametrize("descriptor", [False, True])
def test_exceptions_become_results(error: Exception, key: SenseKey, asc: int, descriptor: bool) -> None:
    result = sense.failure(error, descriptor=descriptor, expected=512)
    found = parse_sense(result.sense)
    assert (result.status, result.expected, len(result.data)) == (Status.CHECK_CONDITION, 512, 0)
    assert (found.key, found.asc, found.descriptor) == (key, asc, descriptor)


def test_names() -> None:
    assert Asc.INVALID_FIELD_IN_CDB.text == "INVALID FIELD IN CDB"
    assert str(CheckCondition(SenseKey.DATA_PROTECT, 0x2707)) == "DATA PROTECT, 27h/07h"


@pytest.mark.parametrize(
    ("result", "asc"),
    [
        (sense.UNEXPECTED_UNSOLICITED_DATA, 0x0C0C),
        (sense.INCORRECT_AMOUNT_OF_DATA, 0x0C0D),
        (sense.PROTOCOL_SERVICE_CRC_ERROR, 0x4705),
    ],
)
def test_what_transports_report(result: Result, asc: int) -> None:
    """RFC 7143 §11.4.7.2."""
    assert result.status == Status.CHECK_CONDITION
    assert parse_sense(result.sense)[:2] == (SenseKey.ABORTED_COMMAND, asc)
