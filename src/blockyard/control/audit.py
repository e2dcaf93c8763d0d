"""The audit log: every change that somebody has made, with what was there before and after, in the state database.

Unlike events (control/events.py), of which a flood loses some, an entry is written in the transaction of the change that it
tells of: there is none without the other. Secrets are not written (control/redaction.py).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from blockyard.control.events import stamp
from blockyard.control.redaction import redacted
from blockyard.control.state import State

RETAINED = 100_000  # entries


@dataclass(frozen=True)
class Entry:
    """What somebody has changed. `before` and `after` are plain data; None where there was or is nothing."""

    who: str
    what: str  # for people: "volume db resized", "configuration: 3 changes"
    before: Any = None
    after: Any = None
    time: float = 0.0  # seconds since the epoch
    id: int = 0

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "time": stamp(self.time)}


def write(database: sqlite3.Connection, entry: Entry) -> None:
    """Within a transaction of State's; the time is that of now unless the entry has one."""
    before, after = (json.dumps(redacted(data), default=str) for data in (entry.before, entry.after))
    database.execute(
        "INSERT INTO audit (time, who, what, before, after) VALUES (?, ?, ?, ?, ?)",
        (entry.time or time.time(), entry.who, entry.what, before, after),
    )
    database.execute("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?", (RETAINED,))


def record(state: State, entry: Entry) -> None:
    """Something was changed that is no part of a transaction. Raises StateError."""
    with state.transaction() as database:
        write(database, entry)


def read(state: State, *, after: int = 0, last: int | None = None) -> Iterator[Entry]:
    """Entries in their order: those with an `id` greater than `after`, of these the `last` ones."""
    with state.transaction() as database:
        rows = database.execute(
            "SELECT * FROM (SELECT id, time, who, what, before, after FROM audit WHERE id > ? ORDER BY id DESC LIMIT ?)"
            " ORDER BY id",
            (after, -1 if last is None else last),
        ).fetchall()
    for number, when, who, what, old, new in rows:
        yield Entry(who, what, json.loads(old), json.loads(new), when, number)
