"""Histograms of what commands take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.scsi.traffic import BOUNDS, MOST, OTHERS, Ledger, Pair, Traffic, pair


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50), st.integers(0, 1 << 20)), max_size=50))
def test_every_command_is_in_the_bucket_of_its_time(batches: list[tuple[float, int, int]]) -> None:
    traffic = Traffic()
    for seconds, commands, length in batches:
        before = list(traffic.buckets)
        traffic.add(seconds, commands, length)
        (bucket,) = (number for number, count in enumerate(traffic.buckets) if count != before[number])
        assert bucket == len(BOUNDS) or seconds < BOUNDS[bucket] + 1e-6
        assert bucket == 0 or seconds >= BOUNDS[bucket - 1] * (1 - 1e-9) - 1e-6
    assert sum(traffic.buckets) == sum(commands for _, commands, _ in batches)
    assert traffic.bytes == sum(length for *_, length in batches)


def _of(ledger: Ledger, initiator: str) -> Pair:
    found = pair()
    ledger.open(initiator, found)
    return found


def test_initiators_are_told_apart_up_to_a_limit() -> None:
    ledger = Ledger()
    for number in range(MOST + 10):
        _of(ledger, f"iqn.2024-01.test:{number},i,0x00023d000001").writes.add(1e-5, 1, 512)
    _of(ledger, "iqn.2024-01.test:3,i,0x2").writes.add(1e-5, 1, 512)
    told = ledger.by_initiator()
    assert len(told) == MOST + 1
    assert told[OTHERS].writes.bytes == 10 * 512
    assert told["iqn.2024-01.test:3"].writes.bytes == 2 * 512


def test_what_was_done_stays_when_a_nexus_is_over() -> None:
    ledger = Ledger()
    first, second = _of(ledger, "a,i,0x1"), _of(ledger, "a,i,0x2")
    first.reads.add(1e-3, 3, 3 * 512)
    second.reads.add(1e-5, 1, 512)
    rest = ledger.close("a,i,0x1", first)
    rest.reads.add(1e-3, 1, 512)  # a command that was under way
    told = ledger.by_initiator()["a"].reads
    assert (sum(told.buckets), told.bytes) == (5, 5 * 512)
    assert told.seconds == pytest.approx(4e-3 + 1e-5)
    ledger.close("a,i,0x2", second)
    assert sum(ledger.by_initiator()["a"].reads.buckets) == 5


def test_who_has_done_nothing_is_not_told() -> None:
    ledger = Ledger()
    _of(ledger, "iqn.2024-01.test:idle")
    assert ledger.as_dict() == {}
