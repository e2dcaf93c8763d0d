"""Moments as people write them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.pool.instant import check_bookmark, parse, parse_length, show, show_length

SECOND = 1_000_000_000
NOON = 1_795_348_800 * SECOND  # 2026-11-22T12:00:00Z
MARKS = {"monday": 17, "Before.Upgrade": 18, "twin": 19, "TWIN": 20}


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T12:00:01.5Z", NOON + 1_500_000_000),
        ("2026-11-22t12:00:01.5z", NOON + 1_500_000_000),
        ("2026-11-22T12:00:01.000000001Z", NOON + SECOND + 1),
        ("2026-11-22T12:00Z", NOON),
        ("2026-11-22 12:00:00Z", NOON),
        ("2026-11-22T13:00:00+01:00", NOON),
        ("2026-11-22T06:30:00-0530", NOON),
        ("2026-11-22T07:00:00-05", NOON),
        ("1970-01-01T00:00:00Z", 0),
        ("-5m", NOON - 300 * SECOND),
        ("-5M", NOON - 300 * SECOND),
        ("-10s", NOON - 10 * SECOND),
        ("-2h30m", NOON - 9000 * SECOND),
        ("-1d2h3m4s5ms", NOON - 93_784_005_000_000),
        ("-0.5s", NOON - SECOND // 2),
        ("-1.5h", NOON - 5400 * SECOND),
        ("-0s", NOON),
        ("now", NOON),
        ("monday", 17),
        ("before.upgrade", 18),
        ("TWIN", 20),
    ],
)
def test_what_is_a_moment(text: str, moment: int) -> None:
    assert parse(text, NOON, MARKS) == moment


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "2026-11-22T12:00:01.5Z"),
        ("tuesday", "no bookmark 'tuesday'"),
        ("Twin", "no bookmark"),
        ("5m", "no bookmark"),
        ("-", "no bookmark"),
        ("-5", "no bookmark"),
        ("-5y", "no bookmark"),
        ("--5m", "no bookmark"),
        ("2026-11-22", "no bookmark"),
        ("2026-11-22T12:00:01.5", "write 2026-11-22T12:00:01.5Z"),
        ("2026-02-30T12:00Z", "is no time"),
        ("2026-11-22T12:00:60Z", "is no time"),
        ("2026-11-22T24:00Z", "is no time"),
        ("2026-11-22T12:00+25:00", "is no time"),
        ("0000-01-01T00:00Z", "is no time"),
    ],
)
def test_what_is_none(text: str, why: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  (the message is what is looked at)
        parse(text, NOON, MARKS)
    assert why in str(error.value)


@given(st.text(alphabet="0123456789-+:.tTzZ dhms", max_size=30))
def test_nothing_else_happens(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse(text, NOON, {}), int)


@given(st.integers(0, 4_000_000_000 * SECOND))
def test_what_is_shown_can_be_read(moment: int) -> None:
    assert parse(show(moment), NOON, {}) == moment
    assert parse(show(moment).lower(), NOON, {}) == moment


@given(st.integers(0, 10**7))
def test_lengths_of_time(seconds: int) -> None:
    assert parse_length(show_length(seconds * SECOND + 5)) == seconds * SECOND
    assert (parse_length("1D12h"), parse_length("0.5s")) == (129_600 * SECOND, SECOND // 2)
    for text in ("", "5", "-5m", "5x", "m"):
        with pytest.raises(ValueError, match="length of time"):
            parse_length(text)


@pytest.mark.parametrize("name", ["monday", "2026", "v1.2_final-b", "a" * 64])
def test_names_of_bookmarks(name: str) -> None:
    check_bookmark(name)
    assert parse(name, NOON, {name: 5}) == 5


@pytest.mark.parametrize("name", ["", "-5m", "now", "NOW", "a b", "a/b", "a@b", "é", "a" * 65, "2026-11-22T12:00Z"])
def test_what_cannot_be_one(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name"):
        check_bookmark(name)
