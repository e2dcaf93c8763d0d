"""The data path of devices that answer later (block/device.py, Overlapped): READ and WRITE in their usual form.

`begin_plain` has the accesses of all such commands in a batch begun; each is answered when its own is done. In between it is a
command in progress like every other: the session, the task set and task management know it. What is left out is only what could
make no difference: decoding by the command table, checks that open gates make needless (fastpath.py), and the general form of the
answer. Whatever fails is answered by the general road (LogicalUnit.end_launched).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from blockyard.block.device import Overlapped
from blockyard.iscsi.command import Command
from blockyard.iscsi.connection import Connection, State
from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.session import Session
from blockyard.iscsi.transmit import MAX_INLINE_READ, TransmitBuffer
from blockyard.scsi import limits
from blockyard.scsi.commands import COMMANDS
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.task import Result, Task
from blockyard.scsi.unit import LogicalUnit
from blockyard.worker.buffers import ReceiveBuffer
from blockyard.worker.plain import (
    ANSWER,
    COMMAND_10,
    COMMAND_16,
    DATA_IN_STATUS,
    FORM,
    MASK,
    NO_TAG,
    PLAIN_WRITES,
    READ_10,
    READ_16,
    RESPONSE,
    SIMPLE_READ,
    UNTAGGED_READ,
    WRITE_10,
    WRITE_16,
    add_digests,
    intact,
)

_HEADER = 48
_ROWS = {code: COMMANDS.get(code >> 8, None) for code in (READ_10, READ_16, WRITE_10, WRITE_16)}


class Head(NamedTuple):
    """What a command needs of the PDU that it came in."""

    itt: int
    lun: int
    read: bool
    immediate: bool = False


class Plain:
    """The answer to a plain command that has succeeded."""

    __slots__ = ("data", "tag")

    def __init__(self, tag: int, data: bytearray | None) -> None:
        self.tag = tag
        self.data = data

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        session = connection.session
        assert session is not None
        to, stat_sn, digest = tx.end, connection.stat_sn, connection.header_digest
        connection.stat_sn = (stat_sn + 1) & MASK
        data = self.data
        if data is None:
            ANSWER(tx.memory, to, RESPONSE, self.tag, 0, stat_sn, session.exp_cmd_sn, session.max_cmd_sn)
            tx.end = to + _HEADER
            if digest:
                tx.end = add_digests(tx.memory, tx.view, to, tx.end, tx.end, header_digest=True, data_digest=False) + 4
            return True
        start = to + _HEADER + (4 if digest else 0)
        after = start + len(data)
        tx.view[start:after] = data
        ANSWER(
            tx.memory, to, DATA_IN_STATUS | len(data), self.tag, NO_TAG, stat_sn, session.exp_cmd_sn, session.max_cmd_sn
        )
        tx.end = add_digests(tx.memory, tx.view, to, start, after, digest, connection.data_digest)
        return True


def begin_plain(connection: Connection, rx: ReceiveBuffer) -> int:
    """Begin plain commands on one logical unit, up to the first that is not; how many they were."""
    session = connection.session
    if session is None or session.node is None or session.detour or connection.state is not State.FULL_FEATURE:
        return 0
    buffer, view, at, end = rx.memory, rx.view, rx.start, rx.end
    lun = int.from_bytes(buffer[at + 8 : at + 16], "big")
    nexus = session.nexus(lun)
    unit = nexus.unit
    overlapped = unit.deferred
    if overlapped is None or nexus.gate is not None or unit.gate is not None:
        return 0
    assert isinstance(unit, LogicalUnit)
    assert unit.tasks is not None
    room = min(COMMAND_WINDOW - session.outstanding, limits.TASKS - len(unit.tasks))
    shift, blocks = unit.shift, unit.blocks
    writable = unit.defer_writes and not nexus.read_only
    header_digest, data_digest = connection.header_digest, connection.data_digest
    header_length = 52 if header_digest else _HEADER
    largest = min(connection.peer_segment, connection.max_burst, MAX_INLINE_READ)
    immediate_limit = session.parameters.first_burst_length if session.parameters.immediate_data else 0
    begun = 0
    while end - at >= header_length and begun < room and (form := FORM[buffer[at + 32]]):
        if form == 16:
            head, to_lun, tag, length, cmd_sn, code, lba, count, tail = COMMAND_16(buffer, at)
        else:
            head, to_lun, tag, length, cmd_sn, code, lba, tail, count, control = COMMAND_10(buffer, at)
            tail |= control
        if (
            cmd_sn != session.exp_cmd_sn
            or to_lun != lun
            or tail
            or count << shift != length
            or lba + count > blocks
            or not count
            or tag in session.commands
        ):
            break
        reads = code in (READ_16, READ_10)
        after = at + header_length
        if reads:
            if head not in (SIMPLE_READ, UNTAGGED_READ) or length > largest:
                break
            if header_digest and not intact(buffer, view, at, after, after, header_digest=True, data_digest=False):
                break
        elif code in (WRITE_16, WRITE_10):
            after += length + (4 if data_digest else 0)
            if head - length not in PLAIN_WRITES or length > immediate_limit or not writable or after > end:
                break
            data = at + header_length
            if (header_digest or data_digest) and not intact(
                buffer, view, at, data, data + length, header_digest, data_digest
            ):
                break
        else:
            break
        task = Task(
            nexus, buffer[at + 32 : at + 48], data_out_length=0 if reads else length, read_length=length if reads else 0
        )
        task.command = _ROWS[code]
        task.fields = {"lba": lba, "count": count}
        session.exp_cmd_sn = (cmd_sn + 1) & MASK
        command = Command(Head(tag, lun, reads), task, connection)
        session.add(command)
        task.abort = partial(session.abort, tag)
        if not reads:
            task.expected = command.wanted = command.received = length
            task.data_out = bytes(view[data : data + length])
        _begin(session, nexus, unit, overlapped, command, lba << shift, length)
        at = after
        begun += 1
        if (
            unit.gate is not None or nexus.gate is not None or session.detour
        ):  # what ended at once has changed something
            break
    rx.start = at
    return begun


def _begin(
    session: Session,
    nexus: Nexus,
    unit: LogicalUnit,
    overlapped: Overlapped,
    command: Command,
    offset: int,
    length: int,
) -> None:
    """Begin the access of a command whose turn it is."""
    task, tasks = command.task, unit.tasks
    assert tasks is not None

    def answered(_: Task, result: Result) -> None:
        session.complete(command, result)

    def ended(outcome: bytearray | OSError | None) -> None:
        if isinstance(outcome, OSError) or command.aborted or command.connection is None:
            unit.end_launched(task, outcome, lambda result: tasks.finish(task, answered, result))
            return
        tasks.ran(task)
        connection = command.connection
        session.remove(command)
        session.respond(connection, Plain(command.itt, outcome))

    tasks.run_at_once(task, answered)
    counters = unit.counters
    if command.read:
        counters.read_ops += 1
        counters.read_bytes += length
        overlapped.read(offset, length, ended)
    else:
        counters.write_ops += 1
        counters.write_bytes += length
        overlapped.write(task.data_out, offset, ended)
