"""Schedules of snapshots: when the next is due, and which of those that there are may go. Nothing here has a clock.

A rule is a few words:

    every 15m, every 6h              at multiples of that since 1970 in UTC: as far apart on any day
    hourly, hourly at :15            in each hour, at that minute
    daily at 02:00                   also several times: daily at 02:00, 14:00
    weekly on monday at 02:00        also several days: weekly on monday, friday at 02:00
    monthly on 1 at 02:00            also several days, and `last`: monthly on 1, 15, last at 02:00

Without `at` it is 00:00, without `on` monday or the 1st. These are times of the schedule's zone. On a day on which clocks are set
forward a time that does not come is as much later; where they are set back and it comes twice, it counts once, the first time. A
day of the month that a month does not have is left out.

Who has missed runs takes one snapshot for all of them: what is due after the last run has been due by now.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

_UNITS = {"m": 60, "h": 3600, "d": 86400}
_DAYS = [name.lower() for name in calendar.day_name]
_LAST = 0  # in the place of a day of a month: the last one
_HORIZON = (
    70  # days: in any so many there is a day of every rule but those for the 29th to 31st, which get two months more
)
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_STAMP_LENGTH = len("2026-01-01T00:00:00Z")


def zone(name: str) -> tzinfo:
    """A time zone: Europe/Berlin, UTC. Raises ValueError."""
    if name in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}: write for example Europe/Berlin, or UTC") from None


# ---- when


@dataclass(frozen=True)
class Rule:
    """When snapshots are due; see the head of this module. Either `interval`, in seconds, or times of days."""

    interval: int = 0
    offset: int = -1  # minute of every hour, or -1
    times: tuple[time, ...] = ()
    weekdays: tuple[int, ...] = ()  # 0: Monday
    days: tuple[int, ...] = ()  # of a month

    def next_due(self, after: float, where: tzinfo) -> float:
        """The first time that is later, in seconds since 1970."""
        if self.interval:
            return (int(after // self.interval) + 1) * self.interval
        if self.offset >= 0:
            return next(found for found in self._minutes(after, where) if found > after)
        today = datetime.fromtimestamp(after, where).date()
        return min(found for found in self._around(today, where) if found > after)

    def _minutes(self, after: float, where: tzinfo) -> Iterator[float]:
        """Times at which clocks show that minute. Each minute is looked at: some zones are shifted by 30 or 45."""
        start = after // 60 * 60 - 60
        for step in range(4 * 60):
            moment = start + step * 60
            if datetime.fromtimestamp(moment, where).minute == self.offset:
                yield moment

    def _around(self, today: date, where: tzinfo) -> Iterator[float]:
        """The times of the first days that there are from shortly before `today` on."""
        found = 0
        for step in range(-2, 2 * _HORIZON):
            day = today + step * timedelta(days=1)
            if self._is_on(day):
                found += step > 1
                for at in self.times:
                    yield datetime.combine(day, at, where).astimezone(UTC).timestamp()
            if found:
                return

    def _is_on(self, day: date) -> bool:
        if self.weekdays:
            return day.weekday() in self.weekdays
        if self.days:
            is_last = (day + timedelta(days=1)).month != day.month
            return day.day in self.days or (is_last and _LAST in self.days)
        return True


_RULE = re.compile(r"(?P<kind>[a-z]+)(?:\s+on\s+(?P<on>.+?))?(?:\s+at\s+(?P<at>.+))?")
_EVERY = re.compile(r"every\s+(\d+)\s*([mhd])(?:in(?:ute)?s?|ours?|ays?)?")
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_MINUTE = re.compile(r":([0-5]\d)")


def parse(text: str) -> Rule:
    """A rule of its words. Raises ValueError, saying what would be right."""
    words = " ".join(text.lower().split())
    if match := _EVERY.fullmatch(words):
        interval = int(match[1]) * _UNITS[match[2]]
        if not 60 <= interval <= 366 * 86400:
            raise _wrong(text)
        return Rule(interval=interval)
    match = _RULE.fullmatch(words)
    if match is None:
        raise _wrong(text)
    kind, on, at = match["kind"], match["on"], match["at"]
    if kind == "hourly" and on is None:
        return Rule(offset=int(_matched(_MINUTE, at or ":00", text)[1]))
    times = tuple(
        sorted(
            {
                time(int(found[1]), int(found[2]))
                for found in (_matched(_TIME, one, text) for one in _list(at or "00:00"))
            }
        )
    )
    if kind == "daily" and on is None:
        return Rule(times=times)
    if kind == "weekly":
        return Rule(times=times, weekdays=tuple(sorted({_weekday(one, text) for one in _list(on or "monday")})))
    if kind == "monthly":
        return Rule(times=times, days=tuple(sorted({_day(one, text) for one in _list(on or "1")})))
    raise _wrong(text)


def _wrong(text: str) -> ValueError:
    return ValueError(
        f"{text!r} says no time: write `every 15m`, `hourly`, `daily at 02:00`, `weekly on monday at 02:00` or "
        "`monthly on 1, last at 02:00`"
    )


def _list(text: str) -> list[str]:
    return [one for one in re.split(r"\s*,\s*|\s+and\s+|\s+", text) if one]


def _matched(pattern: re.Pattern[str], text: str, whole: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise _wrong(whole)
    return match


def _weekday(text: str, whole: str) -> int:
    found = [number for number, name in enumerate(_DAYS) if len(text) >= 2 and name.startswith(text)]
    if len(found) != 1:
        raise _wrong(whole)
    return found[0]


def _day(text: str, whole: str) -> int:
    if text == "last":
        return _LAST
    if not text.isdecimal() or not 1 <= int(text) <= 31:
        raise _wrong(whole)
    return int(text)


# ---- which are kept


@dataclass(frozen=True)
class Retention:
    """How many snapshots are kept: the `last` ones, and the newest of each of so many hours, days, weeks …

    Of hours, days, weeks and so on those count that have a snapshot. A snapshot that any of these keeps is kept. Nothing
    but zeros keeps all.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if min(self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly) < 0:
            raise ValueError("a number of snapshots to keep is 0 or more")

    def expired(self, times: Iterable[float], where: tzinfo) -> list[float]:
        """Which of the snapshots of these times may go, the oldest first. The newest always stays."""
        newest_first = sorted(set(times), reverse=True)
        periods = (self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        if not (self.last or any(periods)):
            return []
        kept = set(newest_first[: max(1, self.last)])
        for count, period in zip(periods, _PERIODS, strict=True):
            seen: set[object] = set()
            for moment in newest_first:
                if len(seen) == count:
                    break
                which = period(datetime.fromtimestamp(moment, where))
                if which not in seen:
                    seen.add(which)
                    kept.add(moment)
        return [moment for moment in reversed(newest_first) if moment not in kept]


_PERIODS: tuple[Callable[[datetime], object], ...] = (
    lambda when: when.timestamp() // 3600,  # one that clocks show twice is two
    lambda when: when.date(),
    lambda when: when.isocalendar()[:2],
    lambda when: (when.year, when.month),
    lambda when: when.year,
)


# ---- names


def snapshot_name(schedule: str, moment: float) -> str:
    """What a snapshot of a schedule is called."""
    return f"{schedule}-{datetime.fromtimestamp(moment, UTC).strftime(_STAMP)}"


def moment_of(schedule: str, snapshot: str) -> float | None:
    """The time in the name of a snapshot of a schedule; None for a snapshot that is not one of it."""
    prefix, stamp = snapshot[:-_STAMP_LENGTH], snapshot[-_STAMP_LENGTH:]
    if prefix != f"{schedule}-":
        return None
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def chosen(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern (vm*, db-?) is for, in order."""
    return sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns))
