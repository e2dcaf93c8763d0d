"""What the initiator asks for when something is missing, and that it does not ask for more (RFC 7143 §11.16)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from blockyard.initiator import PREFERENCES, Lun, PortalAddress, open_session
from blockyard.iscsi.pdu import DataIn, Reject, ScsiResponse, SnackRequest, SnackType, TextResponse
from tests.recovery.conftest import BLOCK
from tests.recovery.proxy import Act, Proxy, Seen, Way
from tests.recovery.target import ServedTarget
from tests.wire import INITIATOR, TARGET

BLOCKS = 12
Choice = Callable[[Any], bool]


@pytest.fixture
def lun(served: ServedTarget, request: pytest.FixtureRequest) -> Iterator[tuple[Lun, Proxy, list[Choice]]]:
    """A unit behind a proxy that drops, once each, the PDUs to the initiator that the choices in the list say yes to.

    The parameter is how soon the initiator looks after what makes no progress: not at all, within a test, unless it is said.
    """
    drops: list[Choice] = []

    def plan(seen: Seen) -> Act:
        if seen.place.way is Way.TO_INITIATOR:
            for choice in drops:
                if choice(seen.pdu):
                    drops.remove(choice)
                    return Act.DROP
        return Act.PASS

    preferences = replace(
        PREFERENCES,
        error_recovery_level=1,
        max_recv_data_segment_length=1024,
        max_burst_length=4096,
        first_burst_length=2048,
    )
    with Proxy(served.address, plan, digests=(False, False)) as proxy:
        session = open_session(
            PortalAddress("127.0.0.1", proxy.port), TARGET, initiator_name=INITIATOR, preferences=preferences, timeout=120,
            retry_after=getattr(request, "param", 120.0),
        )  # fmt: skip
        with Lun(session) as unit:
            unit.write(0, DATA)
            del proxy.seen[:]
            yield unit, proxy, drops


DATA = random.Random(3).randbytes(BLOCKS * BLOCK)


def snacks(proxy: Proxy) -> list[SnackRequest]:
    return [seen.pdu for seen in proxy.seen if isinstance(seen.pdu, SnackRequest)]


def rejects(proxy: Proxy) -> list[Reject]:
    return [seen.pdu for seen in proxy.seen if isinstance(seen.pdu, Reject)]


Unit = tuple[Lun, Proxy, list[Choice]]


def data_in(*numbers: int) -> list[Choice]:
    return [lambda pdu, number=number: isinstance(pdu, DataIn) and pdu.data_sn == number for number in numbers]  # type: ignore[misc]


def test_data_that_came_is_acknowledged(lun: Unit) -> None:
    """The A bit at the end of a burst is answered by DataACK, with the target's tag and LUN."""
    unit, proxy, _ = lun
    assert unit.read(0, BLOCKS) == DATA
    unit.session.ping()  # bytes move only while something is waited for
    (asked,) = [seen.pdu for seen in proxy.seen if isinstance(seen.pdu, DataIn) and seen.pdu.acknowledge]
    (ack,) = snacks(proxy)
    assert (ack.type, ack.beg_run, ack.run_length) == (SnackType.DATA_ACK, asked.data_sn + 1, 0)
    assert (ack.snack_tag, ack.lun) == (asked.ttt, asked.lun)
    assert not rejects(proxy)


def test_a_run_of_data_is_asked_for_once(lun: Unit) -> None:
    unit, proxy, drops = lun
    drops += data_in(1, 2)
    assert unit.read(0, BLOCKS) == DATA
    asked = [snack for snack in snacks(proxy) if snack.type == SnackType.DATA]
    assert [(snack.beg_run, snack.run_length) for snack in asked] == [(1, 2)]
    assert not rejects(proxy)


def test_data_at_the_end_is_missed_by_the_status(lun: Unit) -> None:
    """ExpDataSN of the response tells; the response is not acknowledged before the data has come."""
    unit, proxy, drops = lun
    drops += data_in(5)
    assert unit.read(0, BLOCKS) == DATA
    (snack,) = [snack for snack in snacks(proxy) if snack.type == SnackType.DATA]
    (response,) = [seen.pdu for seen in proxy.seen if isinstance(seen.pdu, ScsiResponse)]
    assert (snack.beg_run, snack.run_length) == (5, 1)
    assert snack.exp_stat_sn == response.stat_sn


def test_a_lost_status_is_asked_for_when_the_next_one_comes(lun: Unit) -> None:
    unit, proxy, drops = lun
    drops.append(lambda pdu: isinstance(pdu, ScsiResponse))
    exchanges = [unit.session.submit(0, bytes(6)) for _ in range(2)]
    assert [unit.session.wait(exchange).status for exchange in exchanges] == [0, 0]
    (lost,) = (seen.pdu for seen, act in proxy.harmed if act is Act.DROP)
    (snack,) = snacks(proxy)
    assert (snack.type, snack.beg_run, snack.run_length) == (SnackType.STATUS, lost.stat_sn, 1)
    assert not rejects(proxy)


def test_data_is_cut_anew_when_segments_have_another_length_by_now(lun: Unit) -> None:
    """R-Data SNACK: what is asked for again would be longer than what this side takes now."""
    unit, proxy, drops = lun
    drops += data_in(3, 4, 5)
    drops.append(lambda pdu: isinstance(pdu, ScsiResponse))
    exchange = unit.session.submit(0, b"\x28\0\0\0\0\0\0\0" + bytes([BLOCKS]) + b"\0", read_length=len(DATA))
    unit.session.set_segment_length(512)
    assert unit.session.wait(exchange).data == DATA
    (anew,) = [snack for snack in snacks(proxy) if snack.type == SnackType.R_DATA]
    assert anew.run_length == 0
    text = next(index for index, seen in enumerate(proxy.seen) if isinstance(seen.pdu, TextResponse))
    after = [seen.pdu for seen in proxy.seen[text:] if isinstance(seen.pdu, DataIn)]
    assert after
    assert max(len(pdu.data) for pdu in after) <= 512
    last = [seen.pdu for seen in proxy.seen if isinstance(seen.pdu, ScsiResponse)][-1]
    assert last.snack_tag == anew.snack_tag


def test_nothing_is_asked_for_without_need(lun: Unit) -> None:
    unit, proxy, _ = lun
    for number in range(8):
        unit.write(number, DATA[: 8 * BLOCK])
        assert unit.read(number, 8) == DATA[: 8 * BLOCK]
        unit.session.ping()
    assert all(snack.type == SnackType.DATA_ACK for snack in snacks(proxy))
    assert not rejects(proxy)


@pytest.mark.parametrize("lun", [0.05], indirect=True)
def test_what_is_lost_again_is_asked_for_again(lun: Unit) -> None:
    unit, proxy, drops = lun
    drops += data_in(2, 2, 2)
    assert unit.read(0, BLOCKS) == DATA
    asked = [snack for snack in snacks(proxy) if snack.type == SnackType.DATA]
    assert [(snack.beg_run, snack.run_length) for snack in asked][:3] == [(2, 1)] * 3
