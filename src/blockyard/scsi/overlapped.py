"""Commands on devices that have many accesses under way without a thread for each (block/device.py, Overlapped).

What a host does all day begins on the loop's thread and ends there when the device says so: the depth that initiators ask for
arrives below, and a cluster that does not answer holds up no thread that others need. All else runs in a thread, by the
handlers of scsi/sbc.py; so does whatever fails on the medium, once more, as there the block is found that is to blame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from blockyard.scsi import sbc

if TYPE_CHECKING:
    from blockyard.block.device import Overlapped
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit

Then = Callable[["Buffer | OSError | None"], None]  # gets the Data-In, if there is any
Starter = Callable[["LogicalUnit", "Overlapped", "Task", Then], None]


def starter(unit: LogicalUnit, task: Task) -> Starter | None:
    """What begins a task that may run now, where it goes on without a thread."""
    if unit.device.overlapped is None or task.command is None:
        return None
    may, start = _STARTERS.get(task.command.run, _NONE)
    return start if may(unit, task) else None


def _read(unit: LogicalUnit, overlapped: Overlapped, task: Task, then: Then) -> None:
    fields = task.fields
    overlapped.read(fields["lba"] << unit.shift, fields["count"] << unit.shift, then)


def _may_read(unit: LogicalUnit, task: Task) -> bool:
    """Not with FUA, which may have something to be flushed first."""
    return bool(task.fields["count"]) and not task.fields.get("fua")


def _write(unit: LogicalUnit, overlapped: Overlapped, task: Task, then: Then) -> None:
    stable = task.fields.get("fua", 0) or not unit.write_back
    overlapped.write(task.data_out, task.fields["lba"] << unit.shift, _flushed(overlapped, then) if stable else then)


def _may_write(unit: LogicalUnit, task: Task) -> bool:
    """Whole blocks: of others the rest has to be read first."""
    return len(task.data_out) > 0 and not len(task.data_out) % unit.block_size


def _flushed(overlapped: Overlapped, then: Then) -> Then:
    """`then`, after what has been written has been flushed."""

    def flush(outcome: Any) -> None:
        if isinstance(outcome, OSError):
            then(outcome)
        else:
            overlapped.flush(then)

    return flush


def _synchronize(unit: LogicalUnit, overlapped: Overlapped, task: Task, then: Then) -> None:
    overlapped.flush(then)


def _may_synchronize(unit: LogicalUnit, task: Task) -> bool:
    return not unit.read_only


def _write_same(unit: LogicalUnit, overlapped: Overlapped, task: Task, then: Then) -> None:
    fields, block = task.fields, bytes(task.data_out)
    offset, length = fields["lba"] << unit.shift, fields["count"] << unit.shift
    after = then if unit.write_back else _flushed(overlapped, then)
    if block.count(0) != len(block):  # UNMAP or not: what reads as something else has to be written
        overlapped.write_same(block, offset, length, after)
    elif fields["unmap"]:
        overlapped.discard(offset, length, after)
    else:
        overlapped.write_zeroes(offset, length, after)


def _unmap(unit: LogicalUnit, overlapped: Overlapped, task: Task, then: Then) -> None:
    """One descriptor after the other; the first that fails ends it."""
    ranges = iter(sbc.unmap_descriptors(unit, bytes(task.data_out)))

    def go_on(outcome: Any) -> None:
        if isinstance(outcome, OSError):
            then(outcome)
            return
        for lba, count in ranges:
            if count:
                overlapped.discard(lba << unit.shift, count << unit.shift, go_on)
                return
        (then if unit.write_back else _flushed(overlapped, then))(None)

    go_on(None)


_NONE: tuple[Callable[[LogicalUnit, Task], bool], Starter | None] = (lambda unit, task: False, None)
_STARTERS: dict[Any, tuple[Callable[[LogicalUnit, Task], bool], Starter | None]] = {
    sbc.read: (_may_read, _read),
    sbc.write: (_may_write, _write),
    sbc.synchronize_cache: (_may_synchronize, _synchronize),
    sbc.write_same: (lambda unit, task: True, _write_same),
    sbc.unmap: (lambda unit, task: True, _unmap),
}
