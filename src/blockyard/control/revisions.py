"""The configuration of a managed server, in the state database: each that has held, by its number.

A change is written down as pending before anything is done for it, and becomes a revision when all of it is done. Whoever is
killed in between leaves the pending one: the next start finishes it, once; if that does not work out or is killed too,
the revision before holds. So what is configured is what was before the change or what it was to be, never a part of it.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockyard.block import records
from blockyard.block.records import RecordError
from blockyard.control import audit
from blockyard.control.difference import changed, differences
from blockyard.control.errors import Conflict, StateError, UsageError
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration

RETAINED = 200  # revisions
_ARGUMENTS = "serve_arguments"  # the name of the setting
_SHOWN, _LENGTH = 3, 80  # changes that the summary of a revision names, and characters of each


@dataclass(frozen=True)
class Revision:
    """A configuration that has held, from `time` (seconds since the epoch) on."""

    number: int
    time: float
    who: str
    what: str  # the changes in short, for people
    configuration: Configuration


@dataclass(frozen=True)
class Pending:
    """A change that was begun."""

    who: str
    configuration: Configuration
    tried: bool  # a start has tried to finish it already


class Revisions:
    """Those of one state directory. Every method raises StateError when it cannot be used."""

    def __init__(self, state: State) -> None:
        self._state = state

    def current(self) -> Revision | None:
        """The one that holds; None before the first start."""
        with self._state.transaction() as database:
            return self._latest(database)

    def at(self, number: int) -> Revision:
        """Raises UsageError for one that there is not."""
        with self._state.transaction() as database:
            row = database.execute("SELECT * FROM revisions WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise UsageError(f"there is no revision {number}: `blockyard config history` lists those that are kept")
        return self._revision(row)

    def history(self, last: int) -> list[Revision]:
        """The last ones, in their order."""
        with self._state.transaction() as database:
            rows = database.execute("SELECT * FROM revisions ORDER BY number DESC LIMIT ?", (last,)).fetchall()
        return [self._revision(row) for row in reversed(rows)]

    def put(
        self,
        configuration: Configuration,
        who: str,
        *,
        expected: int | None = None,
        arguments: Mapping[str, object] | None = None,
    ) -> Revision:
        """Make it the one that holds; no new revision where it is already. Nothing is pending then.

        `arguments` are those of `serve` that it was made with. Raises Conflict when the one that holds is not that with the
        number `expected`.
        """
        with self._state.transaction() as database:
            latest = self._latest(database)
            check_expected(expected, 0 if latest is None else latest.number)
            if arguments is not None:
                database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (_ARGUMENTS, json.dumps(arguments)))
            return self._put(database, latest, configuration, who)

    def arguments(self) -> dict[str, Any]:
        """Those of `serve` at its last start."""
        with self._state.transaction() as database:
            row = database.execute("SELECT value FROM settings WHERE name = ?", (_ARGUMENTS,)).fetchone()
        return {} if row is None else dict(json.loads(row[0]))

    # ---- changes step by step

    def begin(self, configuration: Configuration, who: str) -> None:
        """This is going to be done."""
        with self._state.transaction() as database:
            database.execute("INSERT OR REPLACE INTO pending VALUES (1, ?, ?, 0)", (who, _text(configuration)))

    def commit(self) -> Revision:
        """What is pending is done."""
        with self._state.transaction() as database:
            who, text = database.execute("SELECT who, configuration FROM pending").fetchone()
            return self._put(database, self._latest(database), self._configuration(text), who)

    def abandon(self) -> None:
        """What is pending will not be."""
        with self._state.transaction() as database:
            database.execute("DELETE FROM pending")

    def unfinished(self) -> Pending | None:
        """The change that somebody who was killed had begun. It counts as tried from now on."""
        with self._state.transaction() as database:
            row = database.execute("SELECT who, configuration, tried FROM pending").fetchone()
            database.execute("UPDATE pending SET tried = 1")
        return None if row is None else Pending(row[0], self._configuration(row[1]), bool(row[2]))

    # ---- what the database has

    def _latest(self, database: sqlite3.Connection) -> Revision | None:
        row = database.execute("SELECT * FROM revisions ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else self._revision(row)

    def _put(
        self, database: sqlite3.Connection, latest: Revision | None, configuration: Configuration, who: str
    ) -> Revision:
        database.execute("DELETE FROM pending")
        if latest is not None and latest.configuration == configuration:
            return latest
        before = Configuration() if latest is None else latest.configuration
        lines = differences(before, configuration)
        number = 1 if latest is None else latest.number + 1
        made = Revision(number, time.time(), who, summary(lines), configuration)
        database.execute(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?)",
            (made.number, made.time, who, made.what, _text(configuration)),
        )
        database.execute("DELETE FROM revisions WHERE number <= ?", (number - RETAINED,))
        old, new = changed(before, configuration)
        audit.write(database, audit.Entry(who, f"configuration {number}: {made.what}", old, new, made.time))
        return made

    def _revision(self, row: Sequence[Any]) -> Revision:
        number, when, who, what, text = row
        return Revision(number, when, who, what, self._configuration(text))

    def _configuration(self, text: str) -> Configuration:
        try:
            return records.read(Configuration, json.loads(text))
        except RecordError as error:
            raise StateError(
                f"{self._state.directory}: this Blockyard does not understand the configuration there ({error}): "
                "use the one that wrote it, or restore a backup with `blockyard state restore`"
            ) from error


def check_expected(expected: int | None, number: int) -> None:
    """Raises Conflict when somebody has made other changes since revision `expected`."""
    if expected is not None and expected != number:
        raise Conflict(f"revision {expected} does not hold any more, but {number}: look at it, then try again")


def summary(lines: Sequence[str]) -> str:
    """What differs, in short."""
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return ", ".join(line if len(line) <= _LENGTH else f"{line[: _LENGTH - 1]}…" for line in lines[:_SHOWN]) + more


def _text(configuration: Configuration) -> str:
    return json.dumps(records.write(configuration))
