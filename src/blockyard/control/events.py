"""Events: what happened that an administrator may want to look up later, kept in the state database.

A log line is for the moment; an event is a record with fields, found again by `blockyard events`. Events go to the normal log
too. They are written together, about once a second, so that a flood of them costs a transaction and not thousands; of
what comes too fast and of what is too old, only the number is left.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blockyard.control.catalogue import CATALOGUE, Severity
from blockyard.control.errors import ControlError
from blockyard.control.state import State

log = logging.getLogger(__name__)

RETAINED = 10_000  # events
PENDING = 1_000  # that may wait to be written


@dataclass(frozen=True)
class Event:
    """One event. `who` is a user or an initiator, `target` and `address` are empty where there is none."""

    severity: Severity
    what: str  # which kind: one of the catalogue
    text: str  # for people
    who: str = ""
    address: str = ""
    target: str = ""
    time: float = 0.0  # seconds since the epoch
    id: int = 0  # ascending; 0 until it is in the database

    def as_dict(self) -> dict[str, object]:
        """For JSON, with the time as RFC 3339 has it."""
        return {**vars(self), "time": stamp(self.time)}


def stamp(seconds: float) -> str:
    """A time in seconds since the epoch as RFC 3339 has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


class EventLog:
    """Takes events, and writes them to the database when `flush` is called."""

    def __init__(self, state: State, *, clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._pending: list[Event] = []
        self._lost = 0
        self.written: Callable[[], None] = lambda: None  # is called when there are new ones in the database
        self.recorded: Counter[Severity] = Counter()  # since the server began, those that were lost too

    def record(self, what: str, text: str, *, who: str = "", address: str = "", target: str = "") -> None:
        """Something of a kind of the catalogue has happened. Raises KeyError for another one."""
        severity = CATALOGUE[what].severity
        fields = {"event": what, "who": who, "address": address, "target": target}
        log.log(severity.level, "%s", text, extra={"fields": {name: value for name, value in fields.items() if value}})
        self.recorded[severity] += 1
        if len(self._pending) >= PENDING:
            self._lost += 1
            return
        self._pending.append(Event(severity, what, text, who, address, target, self._clock()))

    def hear(self, what: str, text: str) -> None:
        """What a worker tells, which may be of another version than this process."""
        if what in CATALOGUE:
            self.record(what, text)
        else:
            self.record("unknown-event", f"{what}: {text}")

    def flush(self) -> None:
        """Write what has been recorded. A database that cannot be written to is told in the log, and tried again."""
        if not self._pending:
            return
        events = list(self._pending)
        if self._lost:
            text = f"{self._lost} events came too fast to be kept"
            events.append(Event(Severity.WARNING, "events-lost", text, time=self._clock()))
        try:
            self._write(events)
        except ControlError as error:
            log.error("events cannot be written: %s", error)
            return
        self._pending.clear()
        self._lost = 0
        self.written()

    def _write(self, events: list[Event]) -> None:
        rows = [(event.time, event.severity, json.dumps(_record(event))) for event in events]
        with self._state.transaction() as database:
            database.executemany("INSERT INTO events (time, severity, record) VALUES (?, ?, ?)", rows)
            database.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (RETAINED,))


def _record(event: Event) -> dict[str, str]:
    fields = {
        "what": event.what,
        "text": event.text,
        "who": event.who,
        "address": event.address,
        "target": event.target,
    }
    return {name: value for name, value in fields.items() if value}


def next_events(state: State, after: int, most: int) -> list[Event]:
    """The first events with an `id` greater than `after`. Raises StateError."""
    rows = state.rows("SELECT id, time, severity, record FROM events WHERE id > ? ORDER BY id LIMIT ?", (after, most))
    return [_event(*row) for row in rows]


def known_ids(state: State) -> tuple[int, int]:
    """The id of the oldest event that is kept, and that of the newest that there has been. Raises StateError."""
    with state.transaction() as database:
        (oldest,) = database.execute("SELECT min(id) FROM events").fetchone()
        newest = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    last = 0 if newest is None else newest[0]
    return last + 1 if oldest is None else oldest, last


def _event(number: int, when: float, severity: str, record: str) -> Event:
    return Event(Severity(severity), **json.loads(record), time=when, id=number)


def read_events(state: State, *, after: int = 0, last: int | None = None) -> Iterator[Event]:
    """Events in their order: those with an `id` greater than `after`, of these the `last` ones."""
    rows = state.rows(
        "SELECT * FROM (SELECT id, time, severity, record FROM events WHERE id > ? ORDER BY id DESC LIMIT ?) ORDER BY id",
        (after, -1 if last is None else last),
    )
    for row in rows:
        yield _event(*row)
