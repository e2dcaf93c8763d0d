"""Persistent reservations against a model of SPC-4 5.13 that shares nothing with the code under test."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.task import Result, Status
from tests.scsi.cluster import (
    ALL_TG_PT,
    CLEAR,
    EA,
    EAAR,
    EARO,
    MOVE,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RESERVE,
    WEAR,
    WERO,
    do,
    full_status,
    generation,
    join,
    keys,
    pr_out,
    reservation,
    shared_disk,
    transport_id,
)
from tests.scsi.host import TEST_UNIT_READY, Host, parse_sense, read_16, write_16

NAMES = ("a", "b", "c")
PORTS = (1, 2)
REGISTRANTS = (WERO, EARO, WEAR, EAAR)
ALL = (WEAR, EAAR)
OK, CONFLICT, BAD = "good", "conflict", "illegal request"

who = st.tuples(st.sampled_from(NAMES), st.sampled_from(PORTS))
some_key = st.sampled_from((0, 1, 2, 3))
some_type = st.sampled_from((1, 3, 5, 6, 7, 8, 1, 3, 5, 6, 7, 8, 2))


def outcome(result: Result) -> str:
    if result.status == Status.CHECK_CONDITION:
        assert parse_sense(result.sense).key == SenseKey.ILLEGAL_REQUEST
        return BAD
    return {Status.GOOD: OK, Status.RESERVATION_CONFLICT: CONFLICT}[Status(result.status)]


class Model(RuleBasedStateMachine):
    """Three initiators through two target ports each; any of them does anything."""

    def __init__(self) -> None:
        super().__init__()
        target = shared_disk()
        self.hosts: dict[tuple[str, int], Host] = {(n, p): join(target, n, p) for n in NAMES for p in PORTS}
        self.key: dict[tuple[str, int], int] = {}  # of who is registered
        self.holder: tuple[str, int] | None = None
        self.type = 0
        self.generation = 0
        self.expected: dict[tuple[str, int], list[Asc]] = {it: [] for it in self.hosts}

    # ---- the model's own words

    def tell(self, told: object, asc: Asc, but: tuple[str, int]) -> None:
        for it in list(told):  # type: ignore[call-overload]
            if it != but and asc not in self.expected[it]:
                self.expected[it].append(asc)

    def holding(self, it: tuple[str, int]) -> bool:
        return (it in self.key and self.type in ALL) or (self.type != 0 and it == self.holder)

    def free(self) -> None:
        self.type, self.holder = 0, None

    def give(self, it: tuple[str, int], kind: int) -> None:
        self.type, self.holder = kind, None if kind in ALL else it

    def drop(self, gone: list[tuple[str, int]]) -> None:
        """Registrations go, and with the holder's or the last one the reservation."""
        for it in gone:
            del self.key[it]
        if self.type in ALL and not self.key:
            self.free()
        if self.type and self.type not in ALL and self.holder not in self.key:
            self.free()

    def check(self, it: tuple[str, int], result: Result, wanted: str) -> bool:
        assert outcome(result) == wanted
        return wanted == OK

    def settle(self, it: tuple[str, int]) -> Host:
        """The host, with its pending unit attentions taken and compared."""
        host = self.hosts[it]
        while self.expected[it]:
            sense = parse_sense(host.send(TEST_UNIT_READY).sense)
            assert (sense.key, sense.asc) == (SenseKey.UNIT_ATTENTION, self.expected[it].pop(0))
        return host

    # ---- service actions

    @rule(it=who, key=some_key, new=some_key, every_port=st.booleans())
    def register(self, it: tuple[str, int], key: int, new: int, every_port: bool) -> None:
        result = do(self.settle(it), REGISTER, key, new, flags=ALL_TG_PT * every_port)
        wrong = key != self.key.get(it, 0)
        others = [(it[0], port) for port in PORTS if port != it[1]] if every_port else []
        if new and not wrong:
            wrong = any(self.key.get(other, key) not in (key, new) for other in others)
        if self.check(it, result, CONFLICT if wrong else OK):
            self._registered(it, new, others)

    @rule(it=who, key=some_key, new=some_key, every_port=st.booleans())
    def register_and_ignore(self, it: tuple[str, int], key: int, new: int, every_port: bool) -> None:
        result = do(self.settle(it), REGISTER_AND_IGNORE, key, new, flags=ALL_TG_PT * every_port)
        others = [(it[0], port) for port in PORTS if port != it[1]] if every_port else []
        if self.check(it, result, OK):
            self._registered(it, new, others)

    def _registered(self, it: tuple[str, int], new: int, others: list[tuple[str, int]]) -> None:
        if new:
            for one in (it, *others):
                self.key[one] = new
        elif it in self.key:
            kind = self.type
            self.drop([one for one in (it, *others) if self.key.get(one) == self.key[it]])
            if kind in REGISTRANTS and not self.type:
                self.tell(self.key, Asc.RESERVATIONS_RELEASED, it)
        else:
            return
        self.generation += 1

    @rule(it=who, key=some_key, kind=some_type)
    def reserve(self, it: tuple[str, int], key: int, kind: int) -> None:
        result = do(self.settle(it), RESERVE, key, kind=kind)
        if self.key.get(it) != key:
            wanted = CONFLICT
        elif kind == 2:
            wanted = BAD
        else:
            wanted = OK if not self.type or (self.holding(it) and kind == self.type) else CONFLICT
        if self.check(it, result, wanted) and not self.type:
            self.give(it, kind)

    @rule(it=who, key=some_key, kind=some_type)
    def release(self, it: tuple[str, int], key: int, kind: int) -> None:
        result = do(self.settle(it), RELEASE, key, kind=kind)
        holding = self.holding(it)
        wanted = CONFLICT if self.key.get(it) != key else BAD if holding and kind != self.type else OK
        if self.check(it, result, wanted) and holding:
            if self.type in REGISTRANTS:
                self.tell(self.key, Asc.RESERVATIONS_RELEASED, it)
            self.free()

    @rule(it=who, key=some_key)
    def clear(self, it: tuple[str, int], key: int) -> None:
        result = do(self.settle(it), CLEAR, key)
        if self.check(it, result, OK if self.key.get(it) == key else CONFLICT):
            self.tell(self.key, Asc.RESERVATIONS_PREEMPTED, it)
            self.key.clear()
            self.free()
            self.generation += 1

    @rule(it=who, key=some_key, victim=some_key, kind=some_type, abort=st.booleans())
    def preempt(self, it: tuple[str, int], key: int, victim: int, kind: int, abort: bool) -> None:
        result = do(self.settle(it), PREEMPT_AND_ABORT if abort else PREEMPT, key, victim, kind=kind)
        if self.key.get(it) != key:
            self.check(it, result, CONFLICT)
            return
        matching = [one for one in self.key if self.key[one] == victim]
        takes = (self.type in ALL and not victim) or (self.holder is not None and self.key[self.holder] == victim)
        if takes:
            if not self.check(it, result, BAD if kind == 2 else OK):
                return
            lost = list(self.key) if self.type in ALL else matching
            self.tell(lost, Asc.REGISTRATIONS_PREEMPTED, it)
            for one in lost:
                if one != it:
                    del self.key[one]
            if kind != self.type:
                self.tell(self.key, Asc.RESERVATIONS_RELEASED, it)
            self.give(it, kind)
        elif self.holder is not None and not victim:
            self.check(it, result, BAD)
            return
        else:
            if not self.check(it, result, OK if matching else CONFLICT):
                return
            self.tell(matching, Asc.REGISTRATIONS_PREEMPTED, it)
            self.drop(matching)
        self.generation += 1

    @rule(it=who, to=who, key=some_key, new=some_key, unregister=st.booleans())
    def move(self, it: tuple[str, int], to: tuple[str, int], key: int, new: int, unregister: bool) -> None:
        tid = transport_id(f"iqn.test:{to[0]}")
        data = key.to_bytes(8, "big") + new.to_bytes(8, "big") + bytes([0, unregister << 1]) + to[1].to_bytes(2, "big")
        data += len(tid).to_bytes(4, "big") + tid
        result = self.settle(it).send(pr_out(MOVE, length=len(data)), data)
        if it not in self.key:
            wanted = CONFLICT
        elif not self.type:
            wanted = BAD
        elif self.holder != it or self.key[it] != key:
            wanted = CONFLICT
        else:
            wanted = BAD if not new or to[0] == it[0] else OK
        if self.check(it, result, wanted):
            self.key[to] = new
            self.holder = to
            if unregister:
                del self.key[it]
            self.generation += 1

    @rule(it=who)
    def log_out_and_in(self, it: tuple[str, int]) -> None:
        host = self.settle(it)
        host.unit.detach(host.nexus)
        self.hosts[it] = join(host.target, it[0], it[1])

    @rule(it=who)
    def reset(self, it: tuple[str, int]) -> None:
        self.hosts[it].unit.reset()
        for pending in self.expected.values():
            pending[:] = [Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED]

    # ---- what all of them see

    @rule(it=who)
    def access(self, it: tuple[str, int]) -> None:
        host = self.settle(it)
        allowed = not self.type or self.holding(it) or (self.type in REGISTRANTS and it in self.key)
        assert (host.send(write_16(0, 1), bytes(512)).status == Status.GOOD) == allowed
        assert (host.send(read_16(0, 1)).status == Status.GOOD) == (allowed or self.type not in (EA, EARO, EAAR))
        assert (
            host.nexus.gate is None
        ) == allowed  # and so the short cut is open for those alone who may do everything

    @invariant()
    def reported(self) -> None:
        host = self.settle(("a", 1))
        assert generation(host) == self.generation
        assert sorted(keys(host)) == sorted(self.key.values())
        shown = None if not self.type else (0 if self.holder is None else self.key[self.holder], self.type)
        assert reservation(host) == shown
        status = {(entry.initiator, entry.relative_port): entry for entry in full_status(host)}
        assert len(status) == len(self.key)
        for (name, port), key in self.key.items():
            entry = status[f"iqn.test:{name},i,0x00023d000000", port]
            holds = self.holding((name, port))
            assert (entry.key, entry.holds, entry.kind) == (key, holds, self.type if holds else 0)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
