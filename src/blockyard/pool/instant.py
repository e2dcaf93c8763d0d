"""Moments as people write them.

    2026-11-22T12:00:01.5Z        a date and a time of day, with its offset from UTC: Z, +01:00, -0530
    -5m   -10s   -2h30m   -1d     so long ago: days, hours, minutes, seconds, milliseconds (ms)
    monday                        a bookmark
    now

Capitals make no difference, as names of iSCSI targets have none. A time without an offset is refused: whose local time it is
nobody could tell, and a wrong moment is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone

_SECOND = 1_000_000_000  # nanoseconds
_UNITS = {
    "d": 86400 * _SECOND, "h": 3600 * _SECOND, "m": 60 * _SECOND, "s": _SECOND, "ms": 1_000_000,
}  # fmt: skip
_AGO = re.compile(r"-(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|[dhms]))+\Z")
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ms|[dhms])")
_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[t ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"(z|[+-][0-9]{2}:?(?:[0-9]{2})?)?\Z"
)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z", re.IGNORECASE)
_FORMS = "a moment is written as 2026-11-22T12:00:01.5Z, as -5m or -2h30m, or as the name of a bookmark"


def parse(text: str, now: int, bookmarks: Mapping[str, int]) -> int:
    """Nanoseconds since 1970 of the moment that `text` means, when it is `now` and these bookmarks are set.

    Raises ValueError that says what is wrong with it.
    """
    if text in bookmarks:
        return bookmarks[text]
    lower = text.lower()
    if lower == "now":
        return now
    if _AGO.match(lower):
        return now - sum(_length(*part) for part in _PART.findall(lower))
    if found := _DATE.match(lower):
        return _date(text, *found.groups())
    alike = [time for name, time in bookmarks.items() if name.lower() == lower]
    if len(alike) != 1:
        raise ValueError(f"there is no bookmark {text!r}; {_FORMS}")
    return alike[0]


def parse_length(text: str) -> int:
    """Nanoseconds in a length of time: 24h, 90m, 1d12h. Raises ValueError."""
    if not _AGO.match(f"-{text.lower()}"):
        raise ValueError(f"{text!r} is not a length of time: 24h, 90m, 1d12h")
    return sum(_length(*part) for part in _PART.findall(text.lower()))


def show_length(nanoseconds: int) -> str:
    """A length of time, whole seconds of it, to be read again by `parse_length`."""
    rest, shown = nanoseconds // _SECOND, ""
    for unit in "dhms":
        count, rest = divmod(rest, _UNITS[unit] // _SECOND)
        shown += f"{count}{unit}" if count else ""
    return shown or "0s"


def check_bookmark(name: str) -> None:
    """Raises ValueError for what cannot be the name of a bookmark, or would be taken for another moment."""
    lower = name.lower()
    if not _NAME.match(name) or lower == "now" or _DATE.match(lower):
        raise ValueError(
            f"{name!r} cannot be the name of a bookmark: that is up to 64 letters, digits, dots, dashes and underscores,"
            " begins with a letter or digit, and is no time"
        )


def show(time: int) -> str:
    """A moment (nanoseconds since 1970) as a date, to be read again by `parse`."""
    seconds, rest = divmod(time, _SECOND)
    fraction = f"{rest:09}".rstrip("0")
    date = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{date}.{fraction}Z" if fraction else f"{date}Z"


def _length(whole: str, fraction: str, unit: str) -> int:
    return int(whole) * _UNITS[unit] + int(fraction.ljust(9, "0") or 0) * _UNITS[unit] // _SECOND


def _date(text: str, *parts: str | None) -> int:
    *numbers, fraction, offset = parts
    year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
    if offset is None:
        raise ValueError(f"{text} says not how far from UTC it is: write {text}Z, or {text}+01:00 and the like")
    try:
        date = datetime(year, month, day, hour, minute, second, tzinfo=_zone(offset))
    except ValueError as error:
        raise ValueError(f"{text} is no time: {error}") from None
    seconds = (date - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * _SECOND + int((fraction or "").ljust(9, "0"))


def _zone(offset: str) -> timezone:
    if offset == "z":
        return UTC
    digits = offset[1:].replace(":", "").ljust(4, "0")
    distance = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-distance if offset[0] == "-" else distance)
