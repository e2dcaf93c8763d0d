"""Task sets: order, ACA, QERR, TAS, limits (SAM-5). Jobs of the thread pool are held until a test lets them go."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.scsi import limits
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Attribute, Result, Status, Task
from blockyard.scsi.taskset import TaskSet
from tests.scsi.host import (
    TEST_UNIT_READY,
    Host,
    mode_select_6,
    mode_sense_6,
    parse_sense,
    read_10,
    ready_host,
    request_sense,
    synchronize_cache_16,
    target,
    write_10,
)

SIMPLE, ORDERED, HEAD, ACA = Attribute.SIMPLE, Attribute.ORDERED, Attribute.HEAD_OF_QUEUE, Attribute.ACA
BAD = read_10(1 << 31, 1)  # beyond the medium


class Pool:
    """An executor that runs nothing by itself."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Result], Callable[[Result], None]]] = []

    def submit(self, job: Callable[[], Result], done: Callable[[Result], None]) -> None:
        self.jobs.append((job, done))

    def release(self, index: int = 0) -> None:
        job, done = self.jobs.pop(index)
        done(job())


class Sent:
    """A command as its initiator sees it, and what a transport does with it."""

    def __init__(
        self, host: Host, cdb: bytes, attribute: int, *, data: bytes | None, complete: bool, naca: bool
    ) -> None:
        length = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}.get(cdb[0] >> 5, 6)
        cdb = cdb.ljust(length, b"\0")
        if naca:
            cdb = cdb[: length - 1] + b"\x04"
        self.result: Result | None = None
        self.aborted = False
        self.task = Task(host.nexus, cdb.ljust(16, b"\0"), attribute=attribute, data_out_length=len(data or b""))
        self.task.abort = self._abort
        self._ended: Callable[[], None] | None = None
        self._tasks = host.disk.tasks
        failure = host.unit.begin(self.task)
        if failure is not None:
            self._complete(failure)
        elif complete:
            self.data_is_there(data or b"")

    def data_is_there(self, data: bytes) -> None:
        assert self._tasks is not None
        self.task.data_out = data
        self._tasks.submit(self.task, lambda _, result: self._complete(result))

    def _complete(self, result: Result) -> None:
        assert self._tasks is not None
        assert self.result is None
        if self._ended is None:
            self.result = result
            self._tasks.end(self.task, result)
        else:
            self._tasks.end(self.task, None)
            self._ended()

    def _abort(self, by_other: bool) -> None:
        assert self._tasks is not None
        self.aborted = True

        def finish() -> None:
            if by_other and self.task.nexus.unit.queueing.report_aborted:
                self.result = Result(Status.TASK_ABORTED)

        if self._tasks.withdraw(self.task):
            finish()
        else:
            self._ended = finish

    @property
    def status(self) -> Status | None:
        return self.result.status if self.result else None

    @property
    def asc(self) -> int:
        assert self.result is not None
        return parse_sense(self.result.sense).asc


class Setting:
    """A disk with a held pool and three nexuses."""

    def __init__(self) -> None:
        self.device = FaultDevice(MemoryDevice(1 << 20))
        over = target(self.device)
        self.pool = Pool()
        self.one, self.two, self.three = (ready_host(over, initiator=f"iqn.test:{name}") for name in "abc")
        self.unit = self.one.disk
        self.tasks = self.unit.tasks = TaskSet(self.unit, self.pool)

    def control(self, **fields: int) -> None:
        """Change the Control mode page, and have every nexus know it."""
        places = {
            "tst": (2, 5, 0b111), "qam": (3, 4, 0b1111), "qerr": (3, 1, 0b11), "ua_intlck_ctrl": (4, 4, 0b11),
            "tas": (5, 6, 0b1),
        }  # fmt: skip
        page = bytearray(self.one.ok(mode_sense_6(0x0A, dbd=True))[4:])
        for name, value in fields.items():
            byte, shift, mask = places[name]
            page[byte] = page[byte] & ~(mask << shift) | value << shift
        data = bytes(4) + bytes(page)
        self.one.ok(mode_select_6(len(data)), data)
        for host in (self.one, self.two, self.three):
            host.nexus.clear_attention(Asc.MODE_PARAMETERS_CHANGED)

    def send(
        self,
        cdb: bytes = synchronize_cache_16(),
        attribute: int = SIMPLE,
        *,
        host: Host | None = None,
        data: bytes | None = None,
        complete: bool = True,
        naca: bool = False,
    ) -> Sent:
        return Sent(host or self.one, cdb, attribute, data=data, complete=complete, naca=naca)

    @property
    def running(self) -> int:
        return len(self.pool.jobs)

    def drain(self) -> None:
        while self.pool.jobs:
            self.pool.release()
        assert len(self.tasks) == 0
        assert self.unit.gate is None


@pytest.fixture
def s() -> Setting:
    setting = Setting()
    for host in (setting.one, setting.two, setting.three):  # requests of the tests' own go without a transport
        host.unit.tasks = setting.tasks
    return setting


@pytest.fixture(autouse=True)
def _direct_commands_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Host.send` runs a command without a transport: it leaves the task set as it goes."""
    send = Host.send

    def and_end(self: Host, cdb: bytes, data_out: bytes = b"") -> Result:
        result = send(self, cdb, data_out)
        if self.unit.tasks is not None and self.last is not None:
            self.unit.tasks.end(self.last, result)
        return result

    monkeypatch.setattr(Host, "send", and_end)


# ---- order (SAM-5, task attributes)


def test_simple_commands_run_side_by_side(s: Setting) -> None:
    sent = [s.send() for _ in range(5)]
    assert s.running == 5
    assert s.unit.gate is None
    s.pool.release(3)
    assert [bool(one.result) for one in sent] == [False, False, False, True, False]
    s.drain()


def test_an_ordered_command_waits_and_holds_back(s: Setting) -> None:
    s.send()
    ordered = s.send(attribute=ORDERED)
    after = s.send(host=s.two)
    assert s.running == 1
    assert s.unit.gate is not None
    s.pool.release()
    assert (s.running, ordered.result, after.result) == (1, None, None)
    s.pool.release()
    assert ordered.status == Status.GOOD
    assert s.running == 1
    s.drain()


def test_what_runs_at_once_keeps_the_order_too(s: Setting) -> None:
    s.send()
    ordered = s.send(TEST_UNIT_READY, ORDERED)
    later = s.send(TEST_UNIT_READY)
    assert (ordered.result, later.result) == (None, None)
    s.pool.release()
    assert (ordered.status, later.status) == (Status.GOOD, Status.GOOD)
    s.drain()


def test_a_head_of_queue_command_overtakes(s: Setting) -> None:
    s.send()
    ordered = s.send(attribute=ORDERED)
    simple = s.send()
    head = s.send(attribute=HEAD)
    assert s.running == 2
    s.pool.release(1)
    assert head.status == Status.GOOD
    assert (ordered.result, simple.result) == (None, None)
    s.drain()


def test_simple_commands_wait_for_head_of_queue_ones(s: Setting) -> None:
    s.send(attribute=HEAD)
    simple = s.send()
    assert s.running == 1
    s.pool.release()
    assert s.running == 1
    s.pool.release()
    assert simple.status == Status.GOOD


def test_exclusive_commands_run_alone_and_do_not_starve(s: Setting) -> None:
    s.send()
    exclusive = s.send(bytes([0x1B, 0, 0, 0, 1, 0]))  # START STOP UNIT
    later = [s.send(host=s.two) for _ in range(3)]
    head = s.send(attribute=HEAD)
    assert s.running == 2
    s.pool.release(1)
    assert head.status == Status.GOOD
    assert s.running == 1
    s.pool.release()
    assert s.running == 1
    s.pool.release()
    assert exclusive.status == Status.GOOD
    assert s.running == len(later)
    s.drain()


def test_data_that_is_to_come_counts_for_its_own_nexus_only(s: Setting) -> None:
    """A host that dies in the midst of a write must not hold up the others."""
    write = s.send(write_10(0, 1), data=bytes(512), complete=False)
    own = s.send(attribute=ORDERED)
    other = s.send(attribute=ORDERED, host=s.two)
    exclusive = s.send(bytes([0x1B, 0, 0, 0, 1, 0]), host=s.three)
    assert s.running == 1
    s.pool.release()
    assert other.status == Status.GOOD
    s.pool.release()
    assert exclusive.status == Status.GOOD
    assert own.result is None
    write.data_is_there(bytes(512))
    s.pool.release()
    s.pool.release()
    assert (write.status, own.status) == (Status.GOOD, Status.GOOD)
    s.drain()


def test_an_ordered_write_holds_back_its_nexus_while_its_data_comes(s: Setting) -> None:
    ordered = s.send(write_10(0, 1), ORDERED, data=bytes(512), complete=False)
    own, other = s.send(), s.send(host=s.two)
    assert s.running == 1
    s.pool.release()
    assert (own.result, other.status) == (None, Status.GOOD)
    ordered.data_is_there(bytes(512))
    s.drain()
    assert own.status == Status.GOOD


def test_a_waiting_command_that_is_withdrawn_holds_nothing_back(s: Setting) -> None:
    s.send()
    ordered = s.send(attribute=ORDERED)
    s.send()
    assert s.running == 1
    assert s.tasks.withdraw(ordered.task)
    assert s.running == 2
    assert not s.tasks.withdraw(ordered.task)
    s.drain()


def test_restricted_reordering_keeps_the_order_within_a_nexus(s: Setting) -> None:
    s.control(qam=0)
    first, second, other = s.send(), s.send(), s.send(host=s.two)
    assert s.running == 2
    assert s.unit.gate is not None
    s.pool.release()
    assert (first.status, second.result) == (Status.GOOD, None)
    s.drain()
    assert other.status == Status.GOOD


def test_a_task_set_for_each_nexus(s: Setting) -> None:
    s.control(tst=1)
    s.send()
    own = s.send(attribute=ORDERED)
    s.send(attribute=ORDERED, host=s.two)
    s.send(host=s.three)
    assert s.running == 3
    assert own.result is None
    s.drain()


def test_priority_decides_what_starts_first(s: Setting) -> None:
    s.one.nexus.priority, s.two.nexus.priority = 0xF, 1
    s.send(attribute=ORDERED)
    late = [s.send(host=host) for host in (s.three, s.one, s.two)]
    s.pool.release()
    order = []
    while s.pool.jobs:
        s.pool.release()
        order.append(next(index for index, one in enumerate(late) if one.result and index not in order))
    assert order == [2, 1, 0]


def test_a_thousand_waiting_commands_end_without_recursion(s: Setting) -> None:
    s.send(attribute=ORDERED)
    chance = random.Random(1)
    waiting = [s.send(TEST_UNIT_READY, chance.choice([SIMPLE, ORDERED])) for _ in range(1000)]
    s.pool.release()
    assert all(one.status == Status.GOOD for one in waiting)
    s.drain()


# ---- limits


def test_too_many_commands(s: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TASKS", 3)
    sent = [s.send() for _ in range(3)]
    assert s.send().status == Status.TASK_SET_FULL
    assert s.send(host=s.two).status == Status.BUSY
    s.pool.release()
    assert s.send(host=s.two).status is None
    s.drain()
    assert all(one.status == Status.GOOD for one in sent)


# ---- auto contingent allegiance (SAM-5)


def establish_aca(s: Setting) -> None:
    assert s.send(BAD, naca=True).status == Status.CHECK_CONDITION


def test_aca_lets_only_aca_commands_of_its_nexus_pass(s: Setting) -> None:
    establish_aca(s)
    assert s.unit.gate is not None
    assert s.send(TEST_UNIT_READY).status == Status.ACA_ACTIVE
    assert s.send(TEST_UNIT_READY, HEAD).status == Status.ACA_ACTIVE
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.BUSY
    assert s.send(TEST_UNIT_READY, host=s.two, naca=True).status == Status.ACA_ACTIVE
    assert s.send(request_sense(), ACA).status == Status.GOOD
    assert s.send(TEST_UNIT_READY).status == Status.ACA_ACTIVE
    s.tasks.clear_aca(s.two.nexus)  # not its own
    assert s.send(TEST_UNIT_READY).status == Status.ACA_ACTIVE
    s.tasks.clear_aca(s.one.nexus)
    assert s.send(TEST_UNIT_READY).status == Status.GOOD
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.GOOD
    assert s.unit.gate is None


def test_preempt_and_abort_of_another_nexus_passes(s: Setting) -> None:
    establish_aca(s)
    sent = s.send(bytes([0x5F, 0x05, 0, 0, 0, 0, 0, 0, 0x18, 0]), host=s.two, data=bytes(24), complete=False)
    assert sent.status is None or sent.status != Status.BUSY


def test_without_naca_nothing_is_established(s: Setting) -> None:
    assert s.send(BAD).status == Status.CHECK_CONDITION
    assert s.send(TEST_UNIT_READY).status == Status.GOOD


def test_an_aca_command_without_aca_condition(s: Setting) -> None:
    assert s.send(TEST_UNIT_READY, ACA).asc == Asc.INVALID_MESSAGE_ERROR


def test_one_aca_command_at_a_time(s: Setting) -> None:
    establish_aca(s)
    first = s.send(attribute=ACA)
    assert s.send(TEST_UNIT_READY, ACA).status == Status.ACA_ACTIVE
    s.pool.release()
    assert first.status == Status.GOOD
    assert s.send(TEST_UNIT_READY, ACA).status == Status.GOOD


def test_waiting_commands_are_blocked_until_it_is_cleared(s: Setting) -> None:
    s.send(attribute=ORDERED)
    waiting = [s.send(), s.send(host=s.two)]
    establish_aca(s)
    s.pool.release()
    assert s.running == 0
    aca = s.send(attribute=ACA)
    assert s.running == 1
    s.pool.release()
    assert aca.status == Status.GOOD
    s.tasks.clear_aca(s.one.nexus)
    assert s.running == 2
    s.drain()
    assert all(one.status == Status.GOOD for one in waiting)


def test_an_aca_command_that_fails(s: Setting) -> None:
    establish_aca(s)
    assert s.send(BAD, ACA, naca=True).status == Status.CHECK_CONDITION
    assert s.send(TEST_UNIT_READY).status == Status.ACA_ACTIVE
    assert s.send(BAD, ACA).status == Status.CHECK_CONDITION  # without NACA it clears the condition
    assert s.send(TEST_UNIT_READY).status == Status.GOOD


def test_each_nexus_has_its_own_aca_with_task_sets_of_their_own(s: Setting) -> None:
    s.control(tst=1)
    establish_aca(s)
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.GOOD
    assert s.send(BAD, host=s.two, naca=True).status == Status.CHECK_CONDITION
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.ACA_ACTIVE
    s.tasks.clear_aca(s.two.nexus)
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.GOOD
    assert s.send(TEST_UNIT_READY).status == Status.ACA_ACTIVE


def test_aca_goes_before_a_unit_attention(s: Setting) -> None:
    establish_aca(s)
    s.one.nexus.establish(Asc.CAPACITY_DATA_HAS_CHANGED)
    assert s.send(TEST_UNIT_READY).status == Status.ACA_ACTIVE
    assert s.send(TEST_UNIT_READY, ACA).asc == Asc.CAPACITY_DATA_HAS_CHANGED


@pytest.mark.parametrize("end", ["reset", "detach"])
def test_what_ends_it(s: Setting, end: str) -> None:
    establish_aca(s)
    if end == "reset":
        s.unit.reset()
        for host in (s.one, s.two):
            host.nexus.take_attention()
    else:
        s.unit.detach(s.one.nexus)
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.GOOD


# ---- QERR and TAS


def attention(host: Host) -> int | None:
    found = host.nexus.take_attention()
    return None if found is None else found.asc


@pytest.mark.parametrize("tas", [0, 1])
@pytest.mark.parametrize(("qerr", "tst", "aborted"), [(0, 0, ""), (1, 0, "12"), (3, 0, "1"), (1, 1, "1"), (3, 1, "1")])
def test_an_error_aborts_what_qerr_says(s: Setting, qerr: int, tst: int, tas: int, aborted: str) -> None:
    s.control(qerr=qerr, tst=tst, tas=tas)
    head = s.send(attribute=ORDERED)
    own = s.send()
    collecting = s.send(write_10(0, 1), data=bytes(512), complete=False)
    other = s.send(host=s.two)
    assert s.send(BAD).status == Status.CHECK_CONDITION
    assert (head.aborted, own.aborted, collecting.aborted) == ("1" in aborted,) * 3
    assert other.aborted == ("2" in aborted)
    s.drain() if aborted else None
    assert own.result is None  # of the nexus that failed itself: no status
    if other.aborted:
        assert other.status == (Status.TASK_ABORTED if tas else None)
    assert attention(s.two) == (Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR if other.aborted and not tas else None)
    assert attention(s.one) is None
    assert attention(s.three) is None


def test_an_error_of_a_command_that_ran(s: Setting) -> None:
    s.control(qerr=1)
    running = s.send(host=s.two)
    failed = s.send(read_10(0, 1))
    s.device.inject(Fault(Operation.READ, errno=errno.EIO))
    s.pool.release(1)
    assert failed.status == Status.CHECK_CONDITION
    assert running.aborted
    assert running.result is None
    s.drain()
    assert running.status == Status.TASK_ABORTED


# ---- unit attention interlock


def test_interlock_keeps_a_unit_attention_until_request_sense(s: Setting) -> None:
    s.control(ua_intlck_ctrl=2)
    s.one.nexus.establish(Asc.CAPACITY_DATA_HAS_CHANGED)
    for _ in range(3):
        assert s.send(TEST_UNIT_READY).asc == Asc.CAPACITY_DATA_HAS_CHANGED
    assert s.one.ok(request_sense())[12:14] == b"\x2a\x09"
    assert s.send(TEST_UNIT_READY).status == Status.GOOD


@pytest.mark.parametrize(("control", "asc"), [(0, None), (2, None), (3, Asc.PREVIOUS_BUSY_STATUS)])
def test_a_status_without_sense_is_told_again(s: Setting, control: int, asc: Asc | None) -> None:
    s.control(ua_intlck_ctrl=control)
    establish_aca(s)
    assert s.send(TEST_UNIT_READY, host=s.two).status == Status.BUSY
    s.tasks.clear_aca(s.one.nexus)
    assert attention(s.two) == asc


def test_no_reset_hides_a_more_thorough_one(s: Setting) -> None:
    s.one.nexus.establish(Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
    s.one.nexus.establish(Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    assert attention(s.one) == Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED
    assert attention(s.one) is None


def test_request_sense_reports_what_test_unit_ready_would(s: Setting) -> None:
    s.one.nexus.establish(Asc.MODE_PARAMETERS_CHANGED)
    assert parse_sense(s.one.ok(request_sense()))[:2] == (SenseKey.UNIT_ATTENTION, Asc.MODE_PARAMETERS_CHANGED)
    assert s.send(TEST_UNIT_READY).status == Status.GOOD


# ---- what stands below is changed


def test_who_changes_what_stands_below_waits_for_who_does_already(s: Setting) -> None:
    order: list[str] = []
    running = s.send()
    for name in ("one", "two"):
        s.tasks.pause(lambda name=name: order.append(name))  # type: ignore[misc]
    assert not order
    s.pool.release()
    assert (bool(running.result), order) == (True, ["one"])
    sent = s.send()
    s.tasks.go_on()
    assert (order, s.running) == (["one", "two"], 0)
    s.tasks.go_on()
    assert (s.running, sent.result) == (1, None)
    s.drain()
