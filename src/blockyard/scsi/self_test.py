"""SEND DIAGNOSTIC, RECEIVE DIAGNOSTIC RESULTS and self-tests (SPC-5).

The short self-test reads samples from all over the medium and flushes the cache, the extended one reads all that is
mapped. Both go on in pieces, so that other commands have their turn; in the background they outlast the command that has
begun them. Their results are log page 10h, which outlives the process.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from blockyard.scsi import limits, medium
from blockyard.scsi.operation import Aborted, Operation, Piece, Steps
from blockyard.scsi.sense import (
    PROGRESS_DONE,
    Asc,
    CheckCondition,
    SenseKey,
    condition,
    invalid_field,
    invalid_parameter,
    parameter_list_length_error,
)

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

log = logging.getLogger(__name__)

BACKGROUND_SHORT, BACKGROUND_EXTENDED, ABORT_BACKGROUND = 1, 2, 4  # SELF-TEST CODE
FOREGROUND_SHORT, FOREGROUND_EXTENDED = 5, 6
_COMPLETED, _ABORTED_BY_COMMAND, _ABORTED, _FAILED, _IN_PROGRESS = 0x0, 0x1, 0x2, 0x7, 0xF  # SELF-TEST RESULTS
_EXTENDED = frozenset({BACKGROUND_EXTENDED, FOREGROUND_EXTENDED})
_KIND = "self-tests"  # what the results are kept as (scsi/durable.py)
_RESULTS = 20  # that log page 10h has room for
_SAMPLES, _SAMPLE = 16, 1 << 16  # reads of the short test, and their bytes
_NO_LBA = 0xFFFF_FFFF_FFFF_FFFF
_SUPPORTED_PAGES = 0x00


class SelfTests:
    """The self-tests of one logical unit."""

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._results: list[str] = self._load()  # newest first
        self._running: int | None = None  # the code of the one that goes on
        self._done = self._total = 0
        self._background: Operation | None = None
        self._why_aborted = _ABORTED

    def _load(self) -> list[str]:
        try:
            document: Any = self._unit.durable.load(_KIND) or []
            return [text for text in document if len(bytes.fromhex(text)) == 16]
        except (OSError, TypeError, ValueError) as error:
            log.error("%s: the results of self-tests are lost: %s", self._unit, error)
            return []

    def log(self) -> list[bytes]:
        """The parameters of the Self-Test Results log page, one that goes on first."""
        results = [bytes.fromhex(text) for text in self._results]
        if self._running is not None:
            results.insert(0, _result(self._running, _IN_PROGRESS))
        return (results + [bytes(16)] * _RESULTS)[:_RESULTS]

    def progress(self) -> CheckCondition | None:
        """What REQUEST SENSE tells while one goes on."""
        if self._running is None:
            return None
        done = PROGRESS_DONE * self._done // max(1, self._total)
        return CheckCondition(SenseKey.NO_SENSE, Asc.LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS, progress=done)

    def check_free(self) -> None:
        if self._running is not None:
            raise CheckCondition(SenseKey.NOT_READY, Asc.LOGICAL_UNIT_NOT_READY_SELF_TEST_IN_PROGRESS)

    def run(self, code: int) -> Steps:
        """A test from begin to end; raises CheckCondition when it fails."""
        self._running = code
        self._done = self._total = 0
        self._why_aborted = _ABORTED
        found = _result(code, _ABORTED)
        try:
            yield from self._extended() if code in _EXTENDED else self._short()
            found = _result(code, _COMPLETED, minutes=self._unit.health.minutes)
        except (Aborted, GeneratorExit):
            found = _result(code, self._why_aborted, minutes=self._unit.health.minutes)
            raise
        except Exception as error:
            found = _failure(code, error, self._unit.health.minutes)
            raise CheckCondition(SenseKey.HARDWARE_ERROR, Asc.LOGICAL_UNIT_FAILED_SELF_TEST) from error
        finally:
            self._running = None
            if code:  # code 0, the default self-test, marks entries of the log that are not used
                self._keep(found)
        return b""

    def _short(self) -> Steps:
        size = self._unit.blocks << self._unit.shift
        length = min(_SAMPLE, size)
        yield from self._read([(number * (size - length) // (_SAMPLES - 1), length) for number in range(_SAMPLES)])
        if not self._unit.read_only:
            yield Piece((self._unit,), self._unit.device.flush)
        return b""

    def _extended(self) -> Steps:
        size = self._unit.blocks << self._unit.shift
        runs = yield Piece((self._unit,), lambda: list(self._unit.device.runs(0, size)))
        mapped = [(run.offset, run.length) for run in runs if run.mapped]
        pieces = [
            (offset + at, min(limits.PIECE, length - at))
            for offset, length in mapped
            for at in range(0, length, limits.PIECE)
        ]
        return (yield from self._read(pieces))

    def _read(self, ranges: list[tuple[int, int]]) -> Steps:
        block = self._unit.block_size
        self._total = len(ranges)
        for offset, length in ranges:
            start, end = offset - offset % block, offset + length + -(offset + length) % block
            yield Piece((self._unit,), lambda start=start, end=end: medium.read(self._unit, start, end - start))  # type: ignore[misc]
            self._done += 1
        return b""

    def _keep(self, result: bytes) -> None:
        self._results = [result.hex(), *self._results][:_RESULTS]
        try:
            self._unit.durable.save(_KIND, self._results)
        except OSError as error:
            log.error("%s: the result of a self-test is not saved: %s", self._unit, error)

    def start(self, code: int) -> None:
        """Begin a test in the background."""
        self._background = Operation(self.run(code), lambda outcome: None)
        self._background.start()

    def abort(self, why: int = _ABORTED) -> bool:
        """End the test in the background as soon as its piece has ended. False when there is none."""
        if self._background is None or self._background.ended:
            return False
        self._why_aborted = why
        self._background.abort()
        return True


def _result(code: int, result: int, *, minutes: int = 0, lba: int = _NO_LBA, key: int = 0, asc: int = 0) -> bytes:
    """SELF-TEST CODE and RESULTS, NUMBER, ACCUMULATED POWER ON HOURS, ADDRESS OF FIRST FAILURE, sense data (SPC-5)."""
    head = bytes([code << 5 | result, 0]) + min(minutes // 60, 0xFFFF).to_bytes(2, "big")
    return head + lba.to_bytes(8, "big") + bytes([key]) + asc.to_bytes(2, "big") + b"\0"


def _failure(code: int, error: Exception, minutes: int) -> bytes:
    found = condition(error) or CheckCondition(SenseKey.HARDWARE_ERROR, Asc.INTERNAL_TARGET_FAILURE)
    lba = _NO_LBA if found.information is None else found.information
    return _result(code, _FAILED, minutes=minutes, lba=lba, key=found.key, asc=found.asc)


# ---- SEND DIAGNOSTIC


def check_send(unit: LogicalUnit, task: Task) -> None:
    fields = task.fields
    code = fields["self_test_code"]
    if code in (3, 7) or (code and fields["self_test"]):
        raise invalid_field(1, 7)
    if (code or fields["self_test"]) and fields["parameter_list_length"]:
        raise invalid_field(3)
    if code == ABORT_BACKGROUND:
        if unit.self_tests.progress() is None:
            raise invalid_field(1, 7)
    elif code or fields["self_test"]:
        unit.self_tests.check_free()
    if task.data_out_length < task.expected:
        raise parameter_list_length_error()


def send_diagnostic(unit: LogicalUnit, task: Task) -> Steps:
    code, tests = task.fields["self_test_code"], unit.self_tests
    if code in (BACKGROUND_SHORT, BACKGROUND_EXTENDED):
        tests.start(code)
    elif code == ABORT_BACKGROUND:
        tests.abort(_ABORTED_BY_COMMAND)
    elif code or task.fields["self_test"]:
        yield from tests.run(code)
    else:
        _take_page(bytes(task.data_out))
    return b""


def _take_page(data: bytes) -> None:
    """The one page that may be sent is the one that asks which there are."""
    if not data:
        return
    if len(data) < 4:
        raise parameter_list_length_error()
    if data[0] != _SUPPORTED_PAGES:
        raise invalid_parameter(0)
    if int.from_bytes(data[2:4], "big"):
        raise invalid_parameter(2)


# ---- RECEIVE DIAGNOSTIC RESULTS


def check_receive(unit: LogicalUnit, task: Task) -> None:
    if task.fields["pcv"] and task.fields["page_code"] != _SUPPORTED_PAGES:
        raise invalid_field(2)


def receive_diagnostic_results(unit: LogicalUnit, task: Task) -> Buffer:
    return bytes([_SUPPORTED_PAGES, 0, 0, 1, _SUPPORTED_PAGES])
