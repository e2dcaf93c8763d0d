"""Layers that make the device below fail, or be slow, where and when they are told to: for tests of what is above."""

from __future__ import annotations

import errno as numbers
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from threading import Lock

from blockyard.block.actions import Action, NoOptions, Progress
from blockyard.block.device import Device
from blockyard.block.filter import Filter
from blockyard.block.layers import Kind, Opening
from blockyard.block.size import Duration, Size


class Operation(Enum):
    """What a fault strikes."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    DISCARD = "discard"  # and write_zeroes


@dataclass
class Fault:
    """Strikes an operation that touches `offset` to `offset + length` (flush: always).

    First `delay` seconds pass, then an OSError with `errno` is raised unless that is 0. The first `skip`
    hits go free; `count` further ones are struck, all when it is None; of these only about so many as `probability` says.
    """

    operation: Operation
    offset: int = 0
    length: int = 1 << 63
    errno: int = 0
    delay: float = 0.0
    skip: int = 0
    count: int | None = None
    probability: float = 1.0
    hits: int = 0  # how often it was in the way, skipped ones included
    struck: int = 0

    def strikes(self, operation: Operation, offset: int, length: int) -> bool:
        """Whether it strikes this operation; counts the hit."""
        if operation is not self.operation or (self.count is not None and self.hits >= self.skip + self.count):
            return False
        touches = offset < self.offset + self.length and self.offset < offset + length
        if operation is not Operation.FLUSH and not touches:
            return False
        self.hits += 1
        strikes = self.hits > self.skip and (self.probability >= 1 or random.random() < self.probability)  # noqa: S311
        self.struck += strikes
        return strikes


class FaultDevice(Filter):
    """The device `below`, with faults. It shows no descriptor, so that every operation passes by here."""

    def __init__(self, below: Device, faults: Sequence[Fault] = ()) -> None:
        super().__init__(below)
        self._faults = list(faults)
        self._lock = Lock()

    def inject(self, fault: Fault) -> Fault:
        """Add a fault; returns it, so that it can be healed and its hits be read."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def heal(self, fault: Fault | None = None) -> None:
        """Take one fault away, or all."""
        with self._lock:
            self._faults = [] if fault is None else [f for f in self._faults if f is not fault]

    def _pass(self, operation: Operation, offset: int = 0, length: int = 0) -> None:
        with self._lock:
            struck = [fault for fault in self._faults if fault.strikes(operation, offset, length)]
        for fault in struck:
            if fault.delay:
                time.sleep(fault.delay)
            if fault.errno:
                raise OSError(fault.errno, os.strerror(fault.errno))

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._pass(Operation.READ, offset, sum(map(len, buffers)))
        self.below.preadv(buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self._pass(Operation.WRITE, offset, sum(map(len, buffers)))
        self.below.pwritev(buffers, offset)

    def flush(self) -> None:
        self._pass(Operation.FLUSH)
        self.below.flush()

    def truncate(self, size: int) -> None:
        self._pass(Operation.WRITE, min(size, self.size), abs(size - self.size))
        super().truncate(size)

    def discard(self, offset: int, length: int) -> None:
        self._pass(Operation.DISCARD, offset, length)
        self.below.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._pass(Operation.DISCARD, offset, length)
        self.below.write_zeroes(offset, length)

    # ---- as a layer of a stack

    def report(self) -> dict[str, object]:
        with self._lock:
            faults = list(self._faults)
        return {
            "text": "; ".join(map(_told, faults)) or "no faults",
            "counters": {"struck": sum(fault.struck for fault in faults)},
        }

    def actions(self) -> Mapping[str, Action]:
        return {
            "inject": Action(
                "Add a fault: what it strikes, where, how often, and by what.", self._inject, FaultOptions
            ),
            "heal": Action("Take all faults away.", self._heal, NoOptions),
        }

    def _inject(self, options: FaultOptions, progress: Progress) -> str:
        return _told(self.inject(_fault(options)))

    def _heal(self, options: NoOptions, progress: Progress) -> str:
        self.heal()
        return "no faults"


_ALL = Size(1 << 62)


@dataclass(frozen=True)
class FaultOptions:
    """A fault: see Fault."""

    operation: str  # read, write, flush or discard
    errno: str = "EIO"  # by its name; "": none, it is only slow
    offset: Size = Size(0)  # noqa: RUF009  (numbers, which cannot change)
    length: Size = _ALL
    delay: Duration = Duration(0)  # noqa: RUF009
    skip: int = 0
    count: int = 0  # 0: all
    probability: float = 1.0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.operation not in {each.value for each in Operation}:
            raise ValueError(f"operation is {', '.join(each.value for each in Operation)}, not {self.operation!r}")
        if self.errno and not self.errno.isdecimal() and not hasattr(numbers, self.errno):
            raise ValueError(f"errno is the name of an error, such as EIO, not {self.errno!r}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"a probability is more than 0 and at most 1, not {self.probability}")
        if min(self.skip, self.count) < 0:
            raise ValueError("skip and count are not negative")


def _fault(options: FaultOptions) -> Fault:
    given = asdict(options) | {"operation": Operation(options.operation), "count": options.count or None}
    name = options.errno
    return Fault(**given | {"errno": int(name) if name.isdecimal() else getattr(numbers, name) if name else 0})


def _told(fault: Fault) -> str:
    where = "" if fault.length >= _ALL else f" from {fault.offset} on for {fault.length} bytes"
    what = os.strerror(fault.errno) if fault.errno else f"{Duration(fault.delay)} slower"
    often = f", 1 in {1 / fault.probability:.4g}" if fault.probability < 1 else ""
    left = "" if fault.count is None else f", {max(0, fault.skip + fault.count - fault.hits)} more"
    return f"{fault.operation.value}{where}: {what}{often}{left}, struck {fault.struck}"


@dataclass(frozen=True)
class DelayOptions:
    """How much slower operations are."""

    read: Duration = Duration(0)  # noqa: RUF009  (numbers, which cannot change)
    write: Duration = Duration(0)  # noqa: RUF009
    flush: Duration = Duration(0)  # noqa: RUF009


class DelayDevice(FaultDevice):
    """The device `below`, slower."""

    def __init__(self, below: Device, options: DelayOptions) -> None:
        super().__init__(below)
        self._set(options)

    def _set(self, options: DelayOptions) -> None:
        delays = {Operation.READ: options.read, Operation.WRITE: options.write, Operation.FLUSH: options.flush}
        self._faults = [Fault(operation, delay=delay) for operation, delay in delays.items() if delay]

    def report(self) -> dict[str, object]:
        with self._lock:
            return {"text": ", ".join(f"{each.operation.value} {Duration(each.delay)}" for each in self._faults)}

    def actions(self) -> Mapping[str, Action]:
        return {"delay": Action("Change by how much operations are slower.", self._change, DelayOptions)}

    def _change(self, options: DelayOptions, progress: Progress) -> str:
        with self._lock:
            self._set(options)
        return str(self.report()["text"]) or "no delay"


def _open_faults(children: Sequence[Device], options: NoOptions, opening: Opening) -> Device:
    return FaultDevice(children[0])


def _open_delay(children: Sequence[Device], options: DelayOptions, opening: Opening) -> Device:
    return DelayDevice(children[0], options)


KINDS = (
    Kind("faults", "Makes operations fail, or be slow, as its action `inject` says: for tests.", _open_faults,
         example="faults(/srv/a.img)"),
    Kind("delay", "Makes operations slower.", _open_delay, DelayOptions, example="delay(read=5ms, write=5ms, /srv/a.img)"),
)  # fmt: skip
