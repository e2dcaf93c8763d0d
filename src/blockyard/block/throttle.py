"""Limits on what goes through a layer: operations and bytes a second, with bursts, changeable while it is in use.

Each limit is a bucket that a second fills with what a second may have, and that holds `burst` seconds of it: what has not been
used for a while may be used at once. An operation goes ahead when no bucket is in debt, and puts them into debt by all that it
takes (the virtual scheduling of the generic cell rate algorithm, ITU-T I.371): large ones pass, and those that follow pay for
them. Who has to wait waits in the order of arrival, in his own thread; what need not wait keeps its short road.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

from blockyard.block.actions import Action, Progress
from blockyard.block.device import Device
from blockyard.block.filter import Filter
from blockyard.block.layers import Kind, Opening
from blockyard.block.roads import road
from blockyard.block.size import Duration, Size

_UNLIMITED = Size(0)


@dataclass(frozen=True)
class ThrottleOptions:
    """Limits; 0 is none."""

    iops: int = 0  # operations a second
    rate: Size = _UNLIMITED  # bytes a second
    read_iops: int = 0
    read_rate: Size = _UNLIMITED
    write_iops: int = 0
    write_rate: Size = _UNLIMITED
    burst: Duration = Duration(1)  # noqa: RUF009  (a number, which cannot change)

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if min(self.iops, self.read_iops, self.write_iops) < 0:
            raise ValueError("so many operations a second cannot be: 0 is no limit")
        if not 0 < self.burst <= 3600:
            raise ValueError("burst is more than 0 and at most an hour")


@dataclass(frozen=True)
class ThrottleChange:
    """New limits; what is not given stays."""

    iops: int | None = None
    rate: Size | None = None
    read_iops: int | None = None
    read_rate: Size | None = None
    write_iops: int | None = None
    write_rate: Size | None = None
    burst: Duration | None = None


class _Bucket:
    """What may be used, `rate` of it a second."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._paid = 0.0  # the time at which what has been used will be paid for

    def wait(self, now: float) -> float:
        """Seconds until something may be used; 0 or less: now."""
        return self._paid - self._burst - now

    def use(self, amount: float, now: float) -> None:
        self._paid = max(self._paid, now) + amount / self._rate


class _Direction:
    """The buckets that reads, or writes, go through: of operations, and of bytes."""

    def __init__(self, operations: Sequence[_Bucket], bytes_: Sequence[_Bucket]) -> None:
        self.all = (*operations, *bytes_)
        self._operations = operations
        self._bytes = bytes_

    def use(self, length: int, now: float) -> None:
        for bucket in self._operations:
            bucket.use(1, now)
        for bucket in self._bytes:
            bucket.use(length, now)


class ThrottleDevice(Filter):
    """The device `below`, no faster than `limits` say."""

    def __init__(self, below: Device, limits: ThrottleOptions) -> None:
        super().__init__(below)
        self._condition = threading.Condition()
        self._waiting: deque[object] = deque()  # in order of arrival
        self._delayed = 0
        self._waited = 0.0  # seconds, of all together
        self._let_go = False
        self._set(limits)
        self._read_below, self._write_below = road(below)
        if below.fd >= 0 or below.quick is not None:
            self.quick = self

    def _set(self, limits: ThrottleOptions) -> None:
        self._limits = limits

        def bucket(rate: int) -> list[_Bucket]:
            return [_Bucket(rate, limits.burst)] if rate else []

        operations, bytes_ = bucket(limits.iops), bucket(limits.rate)
        self._reads = _Direction([*operations, *bucket(limits.read_iops)], [*bytes_, *bucket(limits.read_rate)])
        self._writes = _Direction([*operations, *bucket(limits.write_iops)], [*bytes_, *bucket(limits.write_rate)])

    # ---- the short road (block/device.py, Quick): for what need not wait

    def read(self, buffers: Sequence[memoryview], offset: int, length: int) -> bool:
        """Read at once, if that may be and can be."""
        if not self._may(self._reads) or not self._read_below(buffers, offset, length):
            return False
        with self._condition:
            self._reads.use(length, time.monotonic())
        return True

    def write(self, data: memoryview, offset: int) -> bool:
        """Write at once, if that may be and can be."""
        if not self._may(self._writes) or not self._write_below(data, offset):
            return False
        with self._condition:
            self._writes.use(len(data), time.monotonic())
        return True

    def _may(self, direction: _Direction) -> bool:
        if self._waiting:
            return False
        now = time.monotonic()
        return all(bucket.wait(now) <= 0 for bucket in direction.all)

    # ---- the long road

    def _pass(self, reading: bool, length: int) -> None:
        """Wait until it is this one's turn."""
        with self._condition:
            direction = self._reads if reading else self._writes
            if not direction.all:
                return
            ticket, began = object(), time.monotonic()
            self._waiting.append(ticket)
            while not self._let_go:
                direction = self._reads if reading else self._writes  # limits may have changed meanwhile
                left = max((bucket.wait(time.monotonic()) for bucket in direction.all), default=0.0)
                if self._waiting[0] is ticket and left <= 0:
                    break
                self._condition.wait(left if self._waiting[0] is ticket else None)
            now = time.monotonic()
            direction.use(length, now)
            self._waiting.remove(ticket)
            self._delayed += 1
            self._waited += now - began
            self._condition.notify_all()

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._pass(True, sum(map(len, buffers)))
        self.below.preadv(buffers, offset)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self._pass(False, sum(map(len, buffers)))
        self.below.pwritev(buffers, offset)

    def discard(self, offset: int, length: int) -> None:
        self._pass(False, 0)
        self.below.discard(offset, length)

    def write_zeroes(self, offset: int, length: int) -> None:
        self._pass(False, 0)
        self.below.write_zeroes(offset, length)

    # ---- administration

    def report(self) -> dict[str, object]:
        given = {name: value for name, value in asdict(self._limits).items() if value and name != "burst"}
        limits = " ".join(f"{name}={value}" for name, value in given.items())
        return {
            "text": limits or "no limit",
            "gauges": {"waiting": len(self._waiting)},
            "counters": {"delayed": self._delayed, "seconds_waited": round(self._waited, 3)},
        }

    def actions(self) -> Mapping[str, Action]:
        return {"throttle": Action("Change the limits; what is not given stays.", self._change, ThrottleChange)}

    def _change(self, change: ThrottleChange, progress: Progress) -> str:
        given = {name: value for name, value in asdict(change).items() if value is not None}
        limits = replace(self._limits, **given)
        with self._condition:
            self._set(limits)
            self._condition.notify_all()
        told = [field.name for field in fields(limits) if getattr(limits, field.name) != field.default]
        self.label = (
            f"throttle({', '.join(f'{name}={getattr(limits, name)}' for name in told)})" if told else "throttle"
        )
        return str(self.report()["text"])

    def detach(self) -> None:
        """Those who still wait need not any more."""
        with self._condition:
            self._let_go = True
            self._condition.notify_all()


def _open(children: Sequence[Device], options: ThrottleOptions, opening: Opening) -> Device:
    return ThrottleDevice(children[0], options)


KINDS = (
    Kind("throttle", "Limits operations and bytes a second.", _open, ThrottleOptions,
         example="throttle(iops=500, rate=50M, /srv/a.img)"),
)  # fmt: skip
