"""Histograms of what commands take."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blockyard.scsi.traffic import BOUNDS, MOST, OTHERS, Ledger, Traffic


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


def test_initiators_are_told_apart_up_to_a_limit() -> None:
    ledger = Ledger()
    for number in range(MOST + 10):
        ledger.of(f"iqn.2024-01.test:{number},i,0x00023d000001").writes.add(1e-5, 1, 512)
    assert ledger.of("iqn.2024-01.test:3,i,0x2") is ledger.of("iqn.2024-01.test:3,i,0x3")
    told = ledger.as_dict()
    assert len(told) == MOST + 1
    assert told[OTHERS]["writes"]["bytes"] == 10 * 512  # type: ignore[index]


def test_who_has_done_nothing_is_not_told() -> None:
    ledger = Ledger()
    ledger.of("iqn.2024-01.test:idle")
    assert ledger.as_dict() == {}
