"""The file of the history: an SQLite database of its own, with room for so much and no more.

A row has a window of up to 64 objects of a kind, which have their places there for as long as they exist: column by column, as
32-bit floats, deflated, as what is idle takes next to nothing then. So a look writes one place of the file for each 64
objects, and whoever wants one object's graph reads 1/32 of it at most. Rows that are too old make room for new ones.

The file may be lost: it is written without waiting for the disk, which a killed process does not harm. One that is damaged
is set aside, and a new one begun. The lock is held over SQLite's I/O; whoever calls is in a thread for that.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
import threading
import zlib
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from blockyard.control.history.sampling import Point, Values
from blockyard.control.history.series import COLUMNS, MOST, NONE, RESOLUTIONS, Resolution, SeriesName

log = logging.getLogger(__name__)

T = TypeVar("T")
Tell = Callable[[str, str], None]  # kind of event, text; from any thread

NAME = "history.db"
ASIDE = "history.db.damaged"
_VERSION = 1
_TOGETHER = 64  # objects in a row
_SCHEMA = """
CREATE TABLE series (
    kind TEXT, name TEXT, place INTEGER NOT NULL, began INTEGER NOT NULL, seen INTEGER NOT NULL,
    PRIMARY KEY (kind, name), UNIQUE (kind, place)
) WITHOUT ROWID;
CREATE TABLE points (
    kind TEXT, shelf INTEGER, step INTEGER, time INTEGER, data BLOB NOT NULL, PRIMARY KEY (kind, shelf, step, time)
) WITHOUT ROWID;
"""
_FORGET = "DELETE FROM points WHERE kind = ? AND shelf = ? AND step = ? AND"
_PAGE = 16384  # bytes: a row without a rowid stays in one page where it takes less than a quarter of it
_CACHE = -4096  # KiB of pages
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_ERROR}


class Series(NamedTuple):
    """What there are points of. `began` and `seen`: the first and about the last, in seconds since 1970."""

    name: SeriesName
    began: int
    seen: int


class _Place(NamedTuple):
    place: int
    began: int
    seen: int


class Store:
    """The history of a state directory. `tell` records an event. For one process at a time."""

    def __init__(self, directory: Path, tell: Tell) -> None:
        self._path = directory / NAME
        self._tell = tell
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._places: dict[str, dict[str, _Place]] = {}
        self._full: set[str] = set()  # kinds for which it was told that there is no room

    def close(self) -> None:
        with self._lock:
            self._close()

    def write(self, points: Iterable[Point], now: float) -> None:
        """Keep these, and nothing that is older than it may be. Raises OSError."""

        def work(database: sqlite3.Connection) -> None:
            database.execute("BEGIN IMMEDIATE")
            with database:
                for point in points:
                    for kind, found in point.values.items():
                        values = {_text(name): each for name, each in found.items()}
                        self._write(database, kind, point, values, now)

        self._do(work)

    def read(self, series: SeriesName, resolution: Resolution, begin: float, end: float) -> list[tuple[int, Values]]:
        """The points from `begin` up to but not with `end`, in their order. Raises OSError or LookupError."""

        def work(database: sqlite3.Connection) -> list[tuple[int, Values]]:
            found = self._places[series.kind].get(_text(series.name))
            if found is None:
                raise LookupError(str(series))
            shelf, at = divmod(found.place, _TOGETHER)
            first = max(begin, found.began - resolution.step)  # the place may have been another one's before
            rows = database.execute(
                "SELECT time, data FROM points WHERE kind = ? AND shelf = ? AND step = ? "
                "AND time >= ? AND time < ? ORDER BY time",
                (series.kind, shelf, resolution.step, first, end),
            )
            return [(time, values) for time, data in rows if (values := _unpacked(data, len(COLUMNS[series.kind]), at))]

        return self._do(work)

    def series(self) -> list[Series]:
        """All that there may be points of. Raises OSError."""

        def work(database: sqlite3.Connection) -> list[Series]:
            return [
                Series(SeriesName(kind, name), place.began, place.seen)
                for kind, places in self._places.items()
                for name, place in sorted(places.items())
            ]

        return self._do(work)

    # ---- rows

    def _write(
        self, database: sqlite3.Connection, kind: str, point: Point, values: dict[str, Values], now: float
    ) -> None:
        step, span = point.resolution
        shelves: dict[int, array[float]] = {}
        for name, each in values.items():
            place = self._place(database, kind, name, point.time, values)
            if place is not None:
                shelf, at = divmod(place, _TOGETHER)
                row = shelves.setdefault(shelf, array("f", [NONE]) * (_TOGETHER * len(each)))
                row[at::_TOGETHER] = array("f", each)
        for shelf, row in shelves.items():
            which = (kind, shelf, step)
            database.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?, ?)", (*which, point.time, _packed(row)))
        last = max((each.place for each in self._places[kind].values()), default=-1) // _TOGETHER
        for shelf in range(last + 1):
            which = (kind, shelf, step)
            database.execute(f"{_FORGET} time < ?", (*which, point.time - span))
            database.execute(f"{_FORGET} time > ?", (*which, max(now, point.time) + step))  # of a clock that was wrong
        if point.resolution is RESOLUTIONS[-1]:
            self._seen(database, kind, values, point.time)

    def _place(
        self, database: sqlite3.Connection, kind: str, name: str, time: int, present: dict[str, Values]
    ) -> int | None:
        """Where an object has its values; None where there is no more room."""
        places = self._places[kind]
        found = places.get(name)
        if found is not None:
            return found.place
        if len(places) < MOST[kind]:
            taken = {each.place for each in places.values()}
            free = next(number for number in range(MOST[kind]) if number not in taken)
        else:
            gone = [(each.seen, other) for other, each in places.items() if other not in present]
            if not gone:
                if kind not in self._full:
                    log.warning("the history has room for %d %ss: the others are left out", MOST[kind], kind)
                    self._full.add(kind)
                return None
            _, other = min(gone)
            free = places.pop(other).place
            database.execute("DELETE FROM series WHERE kind = ? AND name = ?", (kind, other))
        places[name] = _Place(free, time, time)
        database.execute("INSERT INTO series VALUES (?, ?, ?, ?, ?)", (kind, name, *places[name]))
        return free

    def _seen(self, database: sqlite3.Connection, kind: str, present: Iterable[str], time: int) -> None:
        places = self._places[kind]
        for name in places.keys() & set(present):
            places[name] = places[name]._replace(seen=time)
        rows = [(time, kind, name) for name in present]
        database.executemany("UPDATE series SET seen = ? WHERE kind = ? AND name = ?", rows)

    # ---- the file

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """With the database; with a new one where that is damaged. Raises OSError."""
        with self._lock:
            try:
                return self._attempt(work)
            except sqlite3.DatabaseError as error:
                if _code(error) not in _DAMAGED:
                    raise OSError(f"{self._path}: {error}") from None
                self._set_aside(error)
            try:
                return self._attempt(work)
            except sqlite3.Error as error:
                raise OSError(f"{self._path}: {error}") from None

    def _attempt(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._database is None:
            self._database = self._open()
        try:
            return work(self._database)
        except sqlite3.Error:
            self._close()  # and with it what was begun
            raise

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        with contextlib.ExitStack() as undo:
            undo.callback(database.close)
            for name, value in (("page_size", _PAGE), ("journal_mode", "WAL"), ("synchronous", "NORMAL"),
                                ("cache_size", _CACHE)):  # fmt: skip
                database.execute(f"PRAGMA {name} = {value}")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT")
            elif version != _VERSION:
                raise _damage(f"it is of version {version}")
            (said,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise _damage(said)
            self._places = {kind: {} for kind in COLUMNS}
            for kind, name, place, began, seen in database.execute("SELECT kind, name, place, began, seen FROM series"):
                if kind in self._places and 0 <= place < MOST[kind]:
                    self._places[kind][name] = _Place(place, began, seen)
            undo.pop_all()
        return database

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _set_aside(self, error: sqlite3.Error) -> None:
        self._close()
        self._path.replace(self._path.with_name(ASIDE))
        for suffix in ("-wal", "-shm"):
            self._path.with_name(NAME + suffix).unlink(missing_ok=True)
        text = f"the history was damaged ({error}) and begins anew: what there was is in {self._path.with_name(ASIDE)}"
        self._tell("history-damaged", text)


def _damage(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _code(error: sqlite3.Error) -> int:
    """The primary code: an extended one has more above it (https://www.sqlite.org/rescode.html)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


def _text(name: str) -> str:
    """SQLite wants UTF-8, which a name made of a file's need not be."""
    return name.encode("utf-8", "backslashreplace").decode()


def _packed(row: array[float]) -> bytes:
    if sys.byteorder == "big":
        row = array("f", row)
        row.byteswap()
    return zlib.compress(row.tobytes(), 1)


def _unpacked(data: bytes, columns: int, at: int) -> Values:
    """Of one object; nothing where it has none there, or where that is damaged."""
    try:
        row = array("f", zlib.decompress(data))
    except (zlib.error, ValueError):
        log.warning("a row of the history is damaged, and left out")
        return ()
    if sys.byteorder == "big":
        row.byteswap()
    if len(row) != columns * _TOGETHER:
        return ()
    values = tuple(row[at::_TOGETHER])
    return values if any(value == value for value in values) else ()  # noqa: PLR0124 - not all are NaN
