"""Connections and sessions come and go in any order, in the middle of anything: nothing stays behind, nothing gets stuck."""

from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockyard.iscsi.connection import State
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.pdu import (
    R2T,
    DataOut,
    LogoutReason,
    LogoutRequest,
    NopOut,
    ScsiResponse,
    TaskFunction,
    TaskManagementRequest,
)
from blockyard.scsi.task import Status
from tests.iscsi.commands import TEST_UNIT_READY, acknowledge, command, read_10, write_10
from tests.wire import Rig, Wire

ACTIONS = (
    "write", "write", "write that waits", "write in a thread", "read", "data", "skip", "ping", "join", "join", "reinstate",
    "cut", "log out", "log out another", "recover", "reassign", "abort", "reset", "acknowledge", "tick", "session",
)  # fmt: skip
FUNCTIONS = (TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET, TaskFunction.LOGICAL_UNIT_RESET)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    level=st.sampled_from([0, 0, 1, 2]),
    script=st.lists(st.sampled_from(ACTIONS), min_size=5, max_size=60),
    random=st.randoms(use_true_random=False),
)
def test_nothing_stays_behind(tmp_path: Path, level: int, script: list[str], random: Random) -> None:
    preferences = Preferences(error_recovery_level=level, default_time2retain=20 if level == 2 else 0)
    with contextlib.closing(Rig.on_file(tmp_path / "disk", 1 << 20, preferences)) as rig:
        host = Host(rig, level, random)
        for action in script:
            host.act(action)
        host.check_it_serves()
        host.leave()
        assert not rig.node.sessions
        assert not rig.units[0].nexuses
        assert not rig.units[0].tasks
        assert not rig.executor.busy


class Host:
    """An initiator that means well and is not lucky."""

    def __init__(self, rig: Rig, level: int, random: Random) -> None:
        self.rig = rig
        self.level = level
        self.random = random
        self.now = 0.0
        self.asked: list[tuple[Wire, R2T]] = []
        self.sent: list[int] = []
        self.wires: list[Wire] = []
        self.session()

    def act(self, action: str) -> None:
        getattr(self, action.replace(" ", "_"))()
        for wire in self.wires:
            self.asked += [(wire, pdu) for pdu in wire.receive() if isinstance(pdu, R2T)]
        self.wires = [wire for wire in self.wires if wire.connection.state is State.FULL_FEATURE or wire.close()]  # type: ignore[func-returns-value]
        if not self.wires:
            self.session()

    @property
    def wire(self) -> Wire:
        return self.random.choice(self.wires)

    def session(self) -> None:
        wire = Wire(self.rig)
        keys = {"MaxConnections": "4", "ImmediateData": "Yes", "ErrorRecoveryLevel": str(self.level)}
        assert wire.log_in(**keys).status == 0
        self.wires.append(wire)

    def join(self) -> None:
        wire = Wire(self.rig, beside=self.wire, cid=self.random.randrange(6))
        wire.log_in()
        if wire.connection.state is State.FULL_FEATURE:
            self.wires.append(wire)

    def reinstate(self) -> None:
        old = self.wire
        wire = Wire(self.rig, beside=old, cid=old.cid)
        assert wire.log_in().status == 0
        self.wires.append(wire)

    def _write(self, *, data: bytes, fua: bool = False) -> None:
        wire = self.wire
        cdb = bytearray(write_10(8 * self.random.randrange(100), 8))
        cdb[1] = 0x08 if fua else 0
        pdu = command(wire, bytes(cdb), data, write=True, edtl=4096)
        self.sent.append(pdu.itt)
        wire.send(pdu)

    def write(self) -> None:
        self._write(data=bytes(4096))

    def write_that_waits(self) -> None:
        self._write(data=b"")

    def write_in_a_thread(self) -> None:
        self._write(data=bytes(4096), fua=True)

    def read(self) -> None:
        wire = self.wire
        wire.send(command(wire, read_10(0, 64), read=True, edtl=32768))

    def data(self) -> None:
        if self.asked:
            wire, r2t = self.asked.pop(self.random.randrange(len(self.asked)))
            if wire in self.wires:
                wire.send(
                    DataOut(
                        bytes(r2t.desired_length), final=True, itt=r2t.itt, ttt=r2t.ttt,
                        buffer_offset=r2t.buffer_offset,
                    )
                )  # fmt: skip

    def skip(self) -> None:
        """A command is lost on the way; all behind it are held until it is sent again."""
        wire = self.wire
        lost = command(wire, TEST_UNIT_READY)
        self.ping()
        self.wire.send(lost)

    def ping(self) -> None:
        wire = self.wire
        wire.send(NopOut(final=True, itt=wire.itt, ttt=0xFFFFFFFF, cmd_sn=wire.cmd_sn))

    def cut(self) -> None:
        self.wires.pop(self.random.randrange(len(self.wires))).close()

    def _log_out(self, reason: LogoutReason, wire: Wire, cid: int) -> None:
        wire.send(
            LogoutRequest(final=True, immediate=True, reason=reason, cid=cid, itt=wire.itt, cmd_sn=wire.numbers.cmd_sn)
        )

    def log_out(self) -> None:
        wire = self.wire
        self._log_out(LogoutReason.CLOSE_CONNECTION, wire, wire.cid)

    def log_out_another(self) -> None:
        self._log_out(LogoutReason.CLOSE_CONNECTION, self.wire, self.random.randrange(6))

    def recover(self) -> None:
        self._log_out(LogoutReason.RECOVERY, self.wire, self.random.randrange(6))

    def _manage(self, function: int, tag: int) -> None:
        wire = self.wire
        wire.send(
            TaskManagementRequest(
                final=True, immediate=True, function=function, itt=wire.itt, cmd_sn=wire.numbers.cmd_sn,
                referenced_task_tag=tag, ref_cmd_sn=wire.numbers.cmd_sn - 1,
            )
        )  # fmt: skip

    def reassign(self) -> None:
        for itt in self.sent[-8:]:
            self._manage(TaskFunction.TASK_REASSIGN, itt)

    def abort(self) -> None:
        self._manage(TaskFunction.ABORT_TASK, self.random.choice([*self.sent[-8:], 9999]))

    def reset(self) -> None:
        self._manage(self.random.choice(FUNCTIONS), 0xFFFFFFFF)

    def acknowledge(self) -> None:
        for wire in self.wires:
            acknowledge(wire)

    def tick(self) -> None:
        self.now += self.random.choice([1, 1, 1, 30])
        self.rig.node.tick(self.now)

    def check_it_serves(self) -> None:
        """After all that, on a connection of its own, a new session gets its answers."""
        self.session()
        wire = self.wires[-1]
        answers = []
        for _ in range(3):
            wire.send(command(wire, TEST_UNIT_READY))
            answers += [pdu.status for pdu in wire.receive() if isinstance(pdu, ScsiResponse)]
        assert answers == [Status.CHECK_CONDITION, Status.GOOD, Status.GOOD]

    def leave(self) -> None:
        for wire in self.wires:
            wire.close()
        for _ in range(2):
            self.now += 60
            self.rig.node.tick(self.now)
