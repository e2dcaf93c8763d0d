"""Schedules: what the words mean, in zones whose clocks are set; and what retention keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.pool.names import check_snapshot_name
from blockyard.pool.schedule import Retention, chosen, moment_of, parse, snapshot_name, zone

BERLIN = ZoneInfo("Europe/Berlin")  # clocks went forward on 2026-03-29 at 02:00 and back on 2026-10-25 at 03:00
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # by half an hour
RULES = (
    "every 1m", "every 15m", "every 7h", "every 2 days", "hourly", "hourly at :45", "daily", "daily at 02:30, 14:00",
    "weekly", "weekly on tue, friday at 23:59", "monthly", "monthly on last at 02:30", "monthly on 29, 31 at 00:00",
)  # fmt: skip
MOMENTS = st.integers(0, 4102444800)  # until 2100
ZONES = st.sampled_from([UTC, BERLIN, LORD_HOWE, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu")])


def at(text: str, where: ZoneInfo | None = None) -> float:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=where or UTC)).timestamp()


@pytest.mark.parametrize(
    ("rule", "after", "due"),
    [
        ("every 15m", "2026-01-01T10:00", "2026-01-01T10:15"),
        ("every 15m", "2026-01-01T10:14:59", "2026-01-01T10:15"),
        ("Every 6 hours", "2026-01-01T10:00", "2026-01-01T12:00"),
        ("hourly", "2026-01-01T10:00", "2026-01-01T11:00"),
        ("hourly at :15", "2026-01-01T10:14", "2026-01-01T10:15"),
        ("daily at 02:00", "2026-01-01T01:59", "2026-01-01T02:00"),
        ("daily at 02:00", "2026-01-01T02:00", "2026-01-02T02:00"),
        ("daily at 2:00 and 14:00", "2026-01-01T02:00", "2026-01-01T14:00"),
        ("weekly at 03:00", "2026-01-01T00:00", "2026-01-05T03:00"),
        ("weekly on monday, fri at 03:00", "2026-01-01T00:00", "2026-01-02T03:00"),
        ("monthly", "2026-01-01T00:00", "2026-02-01T00:00"),
        ("monthly on 15, last at 12:00", "2026-02-15T12:00", "2026-02-28T12:00"),
        ("monthly on 31", "2026-01-31T00:00", "2026-03-31T00:00"),
        ("monthly on 30", "2026-01-30T00:00", "2026-03-30T00:00"),
    ],
)
def test_when_it_is_due(rule: str, after: str, due: str) -> None:
    assert parse(rule).next_due(at(after), UTC) == at(due)
    assert parse(rule).next_due(at(due) - 1, UTC) == at(due)


@pytest.mark.parametrize(
    "text",
    ["", "often", "every", "every 0m", "every 10s", "every 15", "every 400d", "hourly at 15", "hourly on monday",
     "daily at 24:00", "daily at", "daily on monday", "weekly on", "weekly on t", "weekly on day", "monthly on 0",
     "monthly on 32", "yearly", "daily at 02:00 at 03:00"],
)  # fmt: skip
def test_what_says_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="says no time: write"):
        parse(text)


def test_clocks_that_are_set_forward() -> None:
    """02:30 does not come: it is an hour later on that day."""
    rule = parse("daily at 02:30")
    due = rule.next_due(at("2026-03-28T12:00", BERLIN), BERLIN)
    assert datetime.fromtimestamp(due, BERLIN).isoformat() == "2026-03-29T03:30:00+02:00"
    assert rule.next_due(due, BERLIN) == at("2026-03-30T02:30", BERLIN)


def test_clocks_that_are_set_back() -> None:
    """02:30 comes twice, and counts once."""
    rule = parse("daily at 02:30")
    due = rule.next_due(at("2026-10-24T12:00", BERLIN), BERLIN)
    assert datetime.fromtimestamp(due, UTC).isoformat() == "2026-10-25T00:30:00+00:00"
    assert rule.next_due(due, BERLIN) == at("2026-10-26T02:30", BERLIN)


def test_hours_and_intervals_go_on_when_clocks_are_set() -> None:
    for rule in ("hourly", "every 1h"):
        for start in ("2026-03-28T22:00Z", "2026-10-24T22:00Z"):
            due = at(start)
            for hour in range(6):
                due = parse(rule).next_due(due, BERLIN)
                assert due == at(start) + 3600 * (hour + 1)


def test_a_zone_that_is_shifted_by_minutes() -> None:
    due = parse("hourly").next_due(at("2026-01-01T00:00"), ZoneInfo("Asia/Kathmandu"))
    assert due == at("2026-01-01T00:15")  # 06:00 there


@given(rule=st.sampled_from(RULES), moment=MOMENTS, where=ZONES)
def test_what_is_due_is_the_same_wherever_one_looks_from(rule: str, moment: int, where: ZoneInfo) -> None:
    """No run is lost and none is done twice."""
    found = parse(rule)
    first = found.next_due(moment, where)
    second = found.next_due(first, where)
    assert moment < first < second
    assert found.next_due(first - 1, where) == first
    for between in ((first + second) // 2, second - 1):
        assert found.next_due(between, where) == second


@given(moment=MOMENTS, where=ZONES)
def test_daily_is_once_a_day(moment: int, where: ZoneInfo) -> None:
    rule = parse("daily at 02:30")
    days = []
    due: float = moment
    for _ in range(5):
        due = rule.next_due(due, where)
        days.append(datetime.fromtimestamp(due, where).date())
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(days))


# ---- retention


def hours(count: int, start: str = "2026-01-01T00:00") -> list[float]:
    return [at(start) + 3600 * number for number in range(count)]


def test_grandfather_father_son() -> None:
    times = hours(24 * 60)
    kept = set(times) - set(Retention(hourly=24, daily=7, weekly=4, monthly=12).expired(times, UTC))
    assert len(kept) <= 24 + 7 + 4 + 12
    shown = [datetime.fromtimestamp(moment, UTC) for moment in sorted(kept)]
    assert shown[0] == datetime(2026, 1, 31, 23, tzinfo=UTC), "the last of January"
    assert [moment.date().isoformat() for moment in shown if moment.date().isoformat() < "2026-02-23"] == [
        "2026-01-31", "2026-02-08", "2026-02-15", "2026-02-22",
    ]  # fmt: skip
    assert shown[-24:] == [datetime(2026, 3, 1, hour, tzinfo=UTC) for hour in range(24)]


def test_nothing_said_keeps_all() -> None:
    assert Retention().expired(hours(100), UTC) == []


def test_the_newest_always_stays() -> None:
    assert Retention(yearly=1).expired(hours(3), UTC) == hours(2)
    assert Retention(last=2).expired(hours(5), UTC) == hours(3)
    with pytest.raises(ValueError, match="0 or more"):
        Retention(last=-1)


def test_an_hour_that_clocks_show_twice_is_two() -> None:
    times = hours(4, "2026-10-24T23:00Z")
    assert Retention(hourly=4).expired(times, BERLIN) == []


def test_days_are_those_of_the_zone() -> None:
    times = [at("2026-01-01T22:30Z"), at("2026-01-01T23:30Z")]  # 23:30, and 00:30 of the next day, in Berlin
    assert Retention(daily=2).expired(times, BERLIN) == []
    assert Retention(daily=2).expired(times, UTC) == times[:1]


COUNTS = st.integers(0, 6)


@given(
    times=st.lists(MOMENTS, max_size=60),
    keep=st.builds(Retention, last=COUNTS, hourly=COUNTS, daily=COUNTS, weekly=COUNTS, monthly=COUNTS, yearly=COUNTS),
    where=ZONES,
)
def test_what_retention_keeps(times: list[int], keep: Retention, where: ZoneInfo) -> None:
    expired = keep.expired(times, where)
    kept = set(times) - set(expired)
    assert len(kept) <= max(1, keep.last + keep.hourly + keep.daily + keep.weekly + keep.monthly + keep.yearly) or (
        keep == Retention()
    )
    assert not times or max(times) in kept
    assert keep.expired(kept, where) == [], "what was kept once is not deleted for what was deleted"
    assert expired == sorted(expired)


@given(start=MOMENTS, steps=st.lists(st.integers(600, 200000), max_size=80), daily=st.integers(1, 5), where=ZONES)
def test_snapshots_that_come_one_by_one(start: int, steps: list[int], daily: int, where: ZoneInfo) -> None:
    """Deleting after each snapshot keeps the newest of so many days, as if it had been done once at the end."""
    keep = Retention(last=1, daily=daily)
    there: set[float] = set()
    every: set[float] = set()
    moment: float = start
    for step in steps:
        moment += step
        every.add(moment)
        there.add(moment)
        there -= set(keep.expired(there, where))
    assert there == every - set(keep.expired(every, where))


# ---- names


@given(moment=MOMENTS)
def test_names_say_when(moment: int) -> None:
    name = snapshot_name("hourly", moment)
    check_snapshot_name(name)
    assert moment_of("hourly", name) == moment
    assert moment_of("our", name) is None


def test_what_is_no_snapshot_of_a_schedule() -> None:
    for name in (
        "hourly",
        "hourly-",
        "hourly-2026-13-01T00:00:00Z",
        "hourly-2026-01-01",
        "hourly-monday-2026-01-01T00:00:00Z",
    ):
        assert moment_of("hourly", name) is None


def test_volumes_by_pattern() -> None:
    assert chosen(["vm2", "vm1", "db", "VM3"], ["vm*", "d?"]) == ["db", "vm1", "vm2"]
    assert chosen(["a", "b"], ["*"]) == ["a", "b"]
    assert chosen(["a"], []) == []


def test_zones() -> None:
    assert zone("") is UTC
    assert zone("Europe/Berlin") is BERLIN
    for name in ("Nowhere", "../etc/passwd", "Europe"):
        with pytest.raises(ValueError, match="no time zone"):
            zone(name)
