"""What has to outlive the process, in an SQLite database in the state directory: names, identities, users, events, and the
configuration of a server that has it from nowhere else (control/revisions.py).

An initiator knows a disk by its identity (VPD page 83h) and a target by its name; were either new after a restart,
the initiator would see another disk. Several processes may use one state directory at a time.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from blockyard.control.errors import StateError

_SCHEMAS = (  # what each version of the database has added to the one before
    """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE volumes (key TEXT PRIMARY KEY, uuid TEXT NOT NULL UNIQUE) WITHOUT ROWID;
""",
    """
CREATE TABLE users (name TEXT PRIMARY KEY, secret BLOB NOT NULL, target_name TEXT NOT NULL, target_secret BLOB) WITHOUT ROWID;
CREATE TABLE groups (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE members (grp TEXT REFERENCES groups, user TEXT REFERENCES users, PRIMARY KEY (grp, user)) WITHOUT ROWID;
CREATE TABLE events (id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, severity TEXT NOT NULL, record TEXT NOT NULL);
""",
    """
CREATE TABLE ports (target TEXT, tag INTEGER, number INTEGER NOT NULL UNIQUE, PRIMARY KEY (target, tag)) WITHOUT ROWID;
""",
    """
CREATE TABLE accounts (name TEXT PRIMARY KEY, role TEXT NOT NULL, targets TEXT NOT NULL, \
enabled INTEGER NOT NULL DEFAULT 1, password TEXT NOT NULL, totp BLOB, totp_step INTEGER NOT NULL DEFAULT 0, \
created REAL NOT NULL, changed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE tokens (id TEXT PRIMARY KEY, account TEXT NOT NULL REFERENCES accounts, note TEXT NOT NULL, \
role TEXT NOT NULL, created REAL NOT NULL, expires REAL, used REAL, digest BLOB NOT NULL) WITHOUT ROWID;
""",
    """
CREATE TABLE revisions (
    number INTEGER PRIMARY KEY, time REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL, configuration TEXT NOT NULL
);
CREATE TABLE pending (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), who TEXT NOT NULL, configuration TEXT NOT NULL, tried INTEGER NOT NULL
);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
    before TEXT NOT NULL, after TEXT NOT NULL
);
""",
    """
CREATE TABLE logins (cookie BLOB PRIMARY KEY, account TEXT NOT NULL, since REAL NOT NULL, began REAL NOT NULL, \
seen REAL NOT NULL, address TEXT NOT NULL, id TEXT NOT NULL) WITHOUT ROWID;
""",
)
_VERSION = len(_SCHEMAS)
_MAX_PORT = 65535  # relative target port identifiers have 16 bits, and 0 is none (SPC-5)
_BUSY_TIMEOUT = 10.0  # seconds to wait for another process that writes
_AUTHORITY = "iqn.2026-11.org.blockyard"


def default_directory() -> Path:
    """$XDG_STATE_HOME/blockyard, or ~/.local/state/blockyard (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # the specification has relative paths ignored
        return Path(base) / "blockyard"
    return Path.home() / ".local" / "state" / "blockyard"


class State:
    """The database `state.db` in `directory`, which is created with mode 0700 when it is missing.

    Every method raises StateError when the database cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "state.db"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _create(self._path)
        except FileExistsError:
            raise StateError(f"{directory} is not a directory: name one with --state") from None
        except OSError as error:
            raise StateError(f"{self._path}: {error.strerror}: name another directory with --state") from error
        with self._explained():
            self._database = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None)
        try:
            with self._explained():
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.execute("PRAGMA foreign_keys = ON")
                self._upgrade()
        except StateError:
            self._database.close()
            raise

    @property
    def units_directory(self) -> Path:
        """Where logical units keep what outlives the process (scsi/durable.py)."""
        return self.directory.absolute() / "units"

    def close(self) -> None:
        self._database.close()

    def default_target_name(self) -> str:
        """The name of the target where none is asked for: made up once, of the host's name and a few random digits."""
        with self.transaction():
            self._database.execute(
                "INSERT OR IGNORE INTO settings VALUES ('target_name', ?)",
                (f"{_AUTHORITY}:{_host_label()}-{secrets.token_hex(3)}",),
            )
            row = self._database.execute("SELECT value FROM settings WHERE name = 'target_name'").fetchone()
        return str(row[0])

    def setting(self, name: str) -> str | None:
        with self.transaction():
            row = self._database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def set_setting(self, name: str, value: str) -> None:
        with self.transaction():
            self._database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def volume_uuid(self, key: str) -> uuid.UUID:
        """The identity of the volume that is kept under `key`; a new one the first time."""
        return self.volume_uuids([key])[key]

    def volume_uuids(self, keys: Iterable[str], *, new: Iterable[str] = ()) -> dict[str, uuid.UUID]:
        """The identities of volumes by their keys. Those in `new` stand in an old one's place, and get one of their own."""
        found = {}
        with self.transaction():
            self._database.executemany("DELETE FROM volumes WHERE key = ?", ((_text(key),) for key in new))
            for key in keys:
                text = _text(key)
                self._database.execute("INSERT OR IGNORE INTO volumes VALUES (?, ?)", (text, str(uuid.uuid4())))
                row = self._database.execute("SELECT uuid FROM volumes WHERE key = ?", (text,)).fetchone()
                found[key] = uuid.UUID(row[0])
        return found

    def keep_volume_uuids(self, uuids: Mapping[str, str]) -> None:
        """These are the identities of volumes by their keys, whatever was there."""
        with self.transaction():
            rows = ((_text(key), identity) for key, identity in uuids.items())
            self._database.executemany("INSERT OR REPLACE INTO volumes VALUES (?, ?)", rows)

    def relative_ports(self, ports: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The relative target port identifier of each port: of a target and a portal group. Once given, they stay."""
        with self.transaction():
            rows = self._database.execute("SELECT target, tag, number FROM ports")
            known = {(target, tag): number for target, tag, number in rows}
            free = iter(sorted(set(range(1, _MAX_PORT + 1)) - set(known.values())))
            new = {port: next(free, 0) for port in ports if port not in known}
            if 0 in new.values():
                raise StateError(
                    f"{self._path}: {_MAX_PORT} ports of targets have been served already: no number is left"
                )
            self._database.executemany("INSERT INTO ports VALUES (?, ?, ?)", ((*port, new[port]) for port in new))
        return known | new

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """What one SELECT finds. It sees one state of the database, and nobody waits for it, nor it for anybody."""
        with self._explained():
            return self._database.execute(statement, values).fetchall()

    def changes(self) -> int:
        """A number that is another one after some other process has written to the database."""
        with self._explained():
            return int(self._database.execute("PRAGMA data_version").fetchone()[0])

    def _upgrade(self) -> None:
        with self.transaction():
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise StateError(
                    f"{self._path} was written by a later Blockyard: use that, or name another directory with --state"
                )
            for schema in _SCHEMAS[version:]:
                for statement in filter(str.strip, schema.split(";")):
                    self._database.execute(statement)
            if version < _VERSION:
                self._database.execute(f"PRAGMA user_version = {_VERSION}")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What is done to the database inside happens as a whole, or when an exception leaves it, not at all."""
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                if self._database.in_transaction:  # some errors end it by themselves
                    self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:  # locked, read-only, disk full
            raise StateError(f"{self._path}: {error}: name another directory with --state") from error
        except (sqlite3.DatabaseError, ValueError, UnicodeDecodeError) as error:
            raise StateError(
                f"{self._path} is damaged ({error}): move it away and start again; "
                "initiators will then see the volumes as new disks"
            ) from error


def _create(path: Path) -> None:
    """Make the file, for nobody else to read, if it is missing.

    A file that is there is not even opened: closing it would end the locks that this process has on it by other connections
    (fcntl(2)). Another process would take itself for the last one then, and put the log of the database away while it is in use.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _text(path: str) -> str:
    """A path that is not UTF-8 as text that is."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _host_label() -> str:
    """The host's name in the characters that an iSCSI name may have (RFC 7143 §4.2.7.1, RFC 3722)."""
    return re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:63] or "host"
