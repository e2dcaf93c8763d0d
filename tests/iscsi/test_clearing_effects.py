"""What each event clears, and what it leaves alone (SAM-5, events and conditions; RFC 7143 appendix "Clearing Effects").

The table at the end is the specification: every event with every kind of state.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest

from blockyard.block.memory import MemoryDevice
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import (
    R2T,
    DataOut,
    ScsiCommand,
    ScsiResponse,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
)
from blockyard.scsi.durable import Durable
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.sense import Asc
from blockyard.scsi.target import Target
from blockyard.scsi.task import Status
from blockyard.scsi.taskset import TaskSet
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.iscsi.commands import command, logged_in, write_10
from tests.wire import TARGET, Rig, Wire, pieces

_UUID = UUID(int=7)
_OTHER = b"\x80\0\0\0\0\7"


class Bench:
    """A removable disk and two sessions, of which `a` is what everything happens to."""

    def __init__(self, directory: Path) -> None:
        self.device = MemoryDevice(1 << 20)
        self.durable = Durable(directory, _UUID)
        self.rig = Rig()
        self.power_on()
        self.a = logged_in(self.rig, ImmediateData="No")
        self.b = logged_in(self.rig, ImmediateData="No", isid=_OTHER)
        self.nexus = self._nexus(self.a)
        self.other = self._nexus(self.b)
        self.task: tuple[Wire, int] | None = None

    def power_on(self) -> None:
        """What a start of the process makes of the device and of what has outlived the last one."""
        identity = Identity(_UUID, "disk")
        self.unit = LogicalUnit(self.device, removable=True, identity=identity, durable=self.durable)
        self.unit.tasks = TaskSet(self.unit, self.rig.executor)
        self.rig.units = {0: self.unit}
        self.rig.node = TargetNode(TARGET, Target(TARGET, {0: self.unit}))

    def _nexus(self, wire: Wire) -> Nexus:
        assert wire.connection.session is not None
        return wire.connection.session.nexus(0)

    def good(self, cdb: bytes, data: bytes = b"") -> None:
        pdu = command(self.a, cdb.ljust(16, b"\0"), write=bool(data), edtl=len(data))
        self.a.send(pdu)
        while answers := self.a.receive():
            for answer in answers:
                if isinstance(answer, R2T):
                    self.a.send(_data(pdu, answer, data))
                else:
                    assert isinstance(answer, ScsiResponse)
                    assert answer.status == Status.GOOD, bytes(answer.data).hex()

    def begin_write(self, wire: Wire) -> None:
        """A write whose data is not sent."""
        pdu = command(wire, write_10(0, 1), write=True, edtl=512)
        wire.ask(pdu, R2T)
        self.task = wire, pdu.itt

    @property
    def has_task(self) -> bool:
        assert self.task is not None
        wire, itt = self.task
        session = wire.connection.session
        return session is not None and itt in session.commands and self.alive(self._nexus_of(wire))

    def _nexus_of(self, wire: Wire) -> Nexus:
        return self.nexus if wire is self.a else self.other

    def alive(self, nexus: Nexus) -> bool:
        """Whether the nexus is one of the unit's still."""
        return nexus in self.unit.nexuses

    def pending(self, nexus: Nexus, asc: Asc) -> bool:
        found = set()
        while self.alive(nexus) and (attention := nexus.take_attention()) is not None:
            found.add(attention.asc)
        return asc in found

    def manage(self, function: TaskFunction) -> None:
        request = TaskManagementRequest(
            final=True, immediate=True, function=function, itt=self.a.itt, cmd_sn=self.a.numbers.cmd_sn,
            referenced_task_tag=0xFFFFFFFF,
        )  # fmt: skip
        self.a.send(request)
        assert any(isinstance(answer, TaskManagementResponse) for answer in self.a.receive())


def _data(pdu: ScsiCommand, r2t: R2T, data: bytes) -> DataOut:
    return pieces(pdu.itt, r2t.ttt, data, 0, len(data), 262144)[0]


# ---- events


def _function(function: TaskFunction) -> Callable[[Bench], None]:
    return lambda bench: bench.manage(function)


def _lose_nexus(bench: Bench) -> None:
    assert bench.a.connection.session is not None
    bench.a.connection.session.close()


def _reinstate(bench: Bench) -> None:
    assert Wire(bench.rig).log_in().status == 0


def _power_cycle(bench: Bench) -> None:
    for wire in (bench.a, bench.b):
        assert wire.connection.session is not None
        wire.connection.session.close()
    bench.power_on()


EVENTS: dict[str, Callable[[Bench], None]] = {
    "power on": _power_cycle,
    "target cold reset": _function(TaskFunction.TARGET_COLD_RESET),
    "target warm reset": _function(TaskFunction.TARGET_WARM_RESET),
    "logical unit reset": _function(TaskFunction.LOGICAL_UNIT_RESET),
    "I_T nexus loss": _lose_nexus,
    "session reinstatement": _reinstate,
    "CLEAR TASK SET": _function(TaskFunction.CLEAR_TASK_SET),
    "ABORT TASK SET": _function(TaskFunction.ABORT_TASK_SET),
    "CLEAR ACA": _function(TaskFunction.CLEAR_ACA),
}

# ---- kinds of state: how it comes about, and whether it is there


class State:
    def __init__(self, make: Callable[[Bench], None], there: Callable[[Bench], bool]) -> None:
        self.make = make
        self.there = there


def _select(page: str, save: bool = False) -> Callable[[Bench], None]:
    data = bytes(4) + bytes.fromhex(page)
    return lambda bench: bench.good(bytes([0x15, 0x10 | save, 0, 0, len(data)]), data)


def _register(aptpl: bool) -> Callable[[Bench], None]:
    parameters = struct.pack(">8xQ4xBxxx", 0xABC, aptpl)
    return lambda bench: bench.good(bytes([0x5F, 0x00, 0, 0, 0, 0, 0, 0, 24, 0]), parameters)


def _establish_aca(bench: Bench) -> None:
    beyond = struct.pack(">BxIxHB6x", 0x28, 1 << 30, 1, 0x04)
    assert bench.a.ask(command(bench.a, beyond, read=True, edtl=512), ScsiResponse).status == Status.CHECK_CONDITION


def _has_aca(bench: Bench) -> bool:
    assert bench.unit.tasks is not None
    return bool(bench.unit.tasks.contingent)


def _write_cache_off(bench: Bench) -> bool:
    return not bench.unit.mode.get(0x08, "wce")


def _registered(bench: Bench) -> bool:
    return bool(bench.unit.reservations.state.keys)


_CACHING_OFF = "0812" + "00" * 18

STATES = {
    "mode parameters": State(_select(_CACHING_OFF), _write_cache_off),
    "saved mode parameters": State(_select(_CACHING_OFF, save=True), _write_cache_off),
    "own unit attention": State(
        lambda bench: bench.nexus.establish(Asc.CAPACITY_DATA_HAS_CHANGED),
        lambda bench: bench.pending(bench.nexus, Asc.CAPACITY_DATA_HAS_CHANGED),
    ),
    "another's unit attention": State(
        lambda bench: bench.other.establish(Asc.CAPACITY_DATA_HAS_CHANGED),
        lambda bench: bench.pending(bench.other, Asc.CAPACITY_DATA_HAS_CHANGED),
    ),
    "prevention of removal": State(
        lambda bench: bench.good(bytes([0x1E, 0, 0, 0, 1, 0])), lambda bench: bench.unit.tray.locked
    ),
    "RESERVE": State(
        lambda bench: bench.good(bytes([0x16, 0, 0, 0, 0, 0])),
        lambda bench: bench.unit.reservations.reserved_by is not None,
    ),
    "registration": State(_register(aptpl=False), _registered),
    "registration with APTPL": State(_register(aptpl=True), _registered),
    "ACA": State(_establish_aca, _has_aca),
    "own task": State(lambda bench: bench.begin_write(bench.a), lambda bench: bench.has_task),
    "another's task": State(lambda bench: bench.begin_write(bench.b), lambda bench: bench.has_task),
    "priority": State(
        lambda bench: bench.good(bytes([0xA4, 0x0E, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]), bytes([5]) + bytes(7)),
        lambda bench: bench.alive(bench.nexus) and bench.nexus.priority == 5,
    ),
    "echo buffer": State(
        lambda bench: bench.good(bytes([0x3B, 0x0A, 0, 0, 0, 0, 0, 0, 4, 0]), b"echo"),
        lambda bench: bool(bench.unit.buffers.echo),
    ),
    "timestamp": State(
        lambda bench: bench.good(bytes([0xA4, 0x0F, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0]), bytes(12)),
        lambda bench: bench.unit.clock.origin == 2,
    ),
    "identifying information": State(
        lambda bench: bench.good(bytes([0xA4, 0x06, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]), b"name"),
        lambda bench: bench.durable.load("identifying-information") is not None,
    ),
    "log counters": State(
        lambda bench: bench.good(bytes([0x35] + [0] * 9)), lambda bench: bench.unit.counters.other_ops > 0
    ),
    "ejected medium": State(
        lambda bench: bench.good(bytes([0x1B, 0, 0, 0, 2, 0])), lambda bench: not bench.unit.tray.loaded
    ),
}

_OF_NEXUS = {"own unit attention", "prevention of removal", "RESERVE", "ACA", "own task", "priority", "echo buffer"}
_OF_UNIT = _OF_NEXUS | {"mode parameters", "another's unit attention", "another's task"}

CLEARS: dict[str, set[str]] = {
    "power on": _OF_UNIT | {"registration", "timestamp", "log counters", "ejected medium"},
    "target cold reset": _OF_UNIT,
    "target warm reset": _OF_UNIT,
    "logical unit reset": _OF_UNIT,
    "I_T nexus loss": _OF_NEXUS,
    "session reinstatement": _OF_NEXUS,
    "CLEAR TASK SET": {"own task", "another's task"},
    "ABORT TASK SET": {"own task"},
    "CLEAR ACA": {"ACA"},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_what_an_event_clears(event: str, state: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    kind = STATES[state]
    kind.make(bench)
    assert kind.there(bench) or "unit attention" in state  # to look for those takes them
    if "unit attention" in state:
        kind.make(bench)
    EVENTS[event](bench)
    assert kind.there(bench) != (state in CLEARS[event])
    bench.rig.close()
