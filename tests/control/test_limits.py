"""Failed logins: who has to wait, for how long, and who has not."""

from __future__ import annotations

import ipaddress

import pytest

from blockyard.control import limits
from blockyard.control.limits import FORGOTTEN, FREE, LAST_WAIT, Attempt, LoginLimits

ATTACKER, HOST = ipaddress.ip_address("192.0.2.66"), ipaddress.ip_address("192.0.2.7")
INITIATOR, TARGET, OTHER = "iqn.test:i", "iqn.test:t", "iqn.test:other"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def attempt(address: limits.Address = ATTACKER, *, user: str = "alice", initiator: str = INITIATOR) -> Attempt:
    return Attempt(address, initiator, user, TARGET)


def test_the_wait_doubles_up_to_a_limit(clock: Clock) -> None:
    kept = LoginLimits(clock)
    waits = [kept.failed(attempt()) for _ in range(FREE + 12)]
    assert waits[:FREE] == [0.0] * FREE
    assert waits[FREE:] == [min(2.0**n, LAST_WAIT) for n in range(12)]
    assert kept.wait(ATTACKER, TARGET) == LAST_WAIT
    clock.now += LAST_WAIT
    assert kept.wait(ATTACKER, TARGET) == 0
    clock.now += FORGOTTEN
    assert kept.failed(attempt()) == 0


def test_nobody_is_locked_out_by_another_address(clock: Clock) -> None:
    kept = LoginLimits(clock)
    for _ in range(50):
        kept.failed(attempt())  # as alice, with the name of her initiator
    assert kept.wait(HOST, TARGET) == 0
    assert kept.wait(ATTACKER, OTHER) == 0  # a wrong password for one disk does not close the others
    kept.succeeded(attempt(HOST))
    assert kept.failed(attempt(HOST)) == 0  # and a success makes good what the attacker has spoilt
    assert kept.wait(ATTACKER, TARGET) > 0


def test_many_addresses_do_not_help(clock: Clock) -> None:
    kept = LoginLimits(clock)
    waits = [kept.failed(attempt(ipaddress.ip_address(f"192.0.2.{n}"), initiator=f"iqn.{n}")) for n in range(20)]
    assert waits[:FREE] == [0.0] * FREE
    assert waits[-1] == LAST_WAIT
    one_host = [
        kept.failed(Attempt(ipaddress.ip_address(f"2001:db8::{n:x}"), "", f"user-{n}", TARGET)) for n in range(6)
    ]
    assert one_host[-1] > 0
    assert kept.wait(ipaddress.ip_address("2001:db8::ffff"), TARGET) > 0  # the same /64
    assert kept.wait(ipaddress.ip_address("2001:db8:1::1"), TARGET) == 0


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ENTRIES", 100)
    kept = LoginLimits(clock)
    for n in range(1000):
        kept.failed(attempt(user=f"user-{n}", initiator=f"iqn.{n}"))
    assert len(kept._failures) <= 100
    assert len(kept._closed) <= 100
    assert kept.wait(ATTACKER, TARGET) == LAST_WAIT
