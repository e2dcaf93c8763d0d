"""A state directory in one file, and back: a tar archive, for nobody else to read.

    manifest.json   what made it, when and where, and what is in it
    state.db        the database as it was at one moment (sqlite3.Connection.backup), though somebody serves with it
    units/…         what logical units keep: reservations, saved mode pages, journals, each file as it was when it was copied
    secrets.key, api.key, api.crt, keys/…
                    the key to the sealed secrets, that of the API's certificate, and the passphrases of encrypted disks that the
                    server keeps: only where they were asked for

Without the keys the archive is of little use to a thief, as what is sealed stays so; the secrets of users and one-time passwords
are of none to its owner either, unless he has the key from elsewhere.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import secrets
import shutil
import socket
import sqlite3
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockyard import __version__
from blockyard.control.administration import alone
from blockyard.control.errors import ControlError, StateError, UsageError
from blockyard.control.events import stamp
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.control.vault import KEY_FILE
from blockyard.worker.job_numbers import carry_over

_FORMAT = 1  # of the archive
_MANIFEST, _DATABASE, _UNITS = "manifest.json", "state.db", "units"
_KEYS = (KEY_FILE, "api.key", "api.crt")
_DISKS = "keys"  # the directory of passphrases of encrypted disks (control/making.py)
_LARGEST = 1 << 20  # bytes of a manifest


def back_up(directory: Path, file: Path, *, with_keys: bool) -> dict[str, Any]:
    """Write the archive; what is in it. A server may run meanwhile. Raises ControlError, also for a file that is there."""
    if not (directory / _DATABASE).exists():
        raise UsageError(f"{directory} is no state directory: name it with --state")
    draft = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    try:
        if file.exists():
            raise UsageError(f"{file} exists already: a backup takes no other's place")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            manifest = _write(directory, out, with_keys=with_keys)
            out.flush()
            os.fsync(out.fileno())
        os.rename(draft, file)
    except OSError as error:
        raise ControlError(f"{file}: {error.strerror or error}: no backup was made") from error
    finally:
        draft.unlink(missing_ok=True)
    return manifest


def _write(directory: Path, out: io.BufferedIOBase | Any, *, with_keys: bool) -> dict[str, Any]:
    keys = list(_keys_in(directory)) if with_keys else []
    with tempfile.TemporaryDirectory(prefix="blockyard-") as scratch, tarfile.open(fileobj=out, mode="w:gz") as archive:
        copy = Path(scratch) / _DATABASE
        _copy_database(directory / _DATABASE, copy)
        manifest = {
            "format": _FORMAT, "version": __version__, "time": stamp(time.time()), "host": socket.gethostname(),
            "keys": keys,
        }  # fmt: skip
        _add(archive, _MANIFEST, json.dumps(manifest, indent=2).encode())
        archive.add(copy, _DATABASE, filter=_private)
        for path in sorted((directory / _UNITS).rglob("*")) if (directory / _UNITS).is_dir() else ():
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                if path.is_file():
                    _add(archive, str(path.relative_to(directory)), path.read_bytes())
        for name in keys:
            _add(archive, name, (directory / name).read_bytes())
    return manifest


def _keys_in(directory: Path) -> Iterator[str]:
    yield from (name for name in _KEYS if (directory / name).exists())
    yield from sorted(f"{_DISKS}/{path.name}" for path in (directory / _DISKS).glob("*.key"))


def _copy_database(source: Path, copy: Path) -> None:
    """As a whole, at one moment. Raises StateError."""
    try:
        with (
            contextlib.closing(sqlite3.connect(source)) as old,
            contextlib.closing(sqlite3.connect(copy)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise StateError(f"{source} cannot be copied: {error}") from error


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), int(time.time())
    archive.addfile(_private(info), io.BytesIO(data))


def _private(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mode, info.uid, info.gid, info.uname, info.gname = 0o600, 0, 0, "", ""
    return info


def restore(directory: Path, file: Path, *, without_users: bool) -> dict[str, Any]:
    """Make the state directory what it was when the archive was written; what was in that. What was there is kept beside.

    Raises ControlError: for an archive that is none, or damaged; while a server runs; and where there is no key to the secrets in
    it. Then nothing has changed.
    """
    directory = directory.absolute()
    draft = directory.with_name(f".{directory.name}.{secrets.token_hex(6)}")
    try:
        draft.mkdir(mode=0o700, parents=True)
        try:
            manifest = _unpack(file, draft)
            for name in _keys_in(directory):  # the ones that are here, where the archive has none
                if not (draft / name).exists():
                    (draft / name).parent.mkdir(mode=0o700, exist_ok=True)
                    shutil.copy2(directory / name, draft / name)
            carry_over(directory / _UNITS, draft / _UNITS)
            _check(draft, without_users=without_users)
            _put_in_place(draft, directory)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ControlError(f"{error.filename or directory}: {error.strerror or error}: nothing was restored") from error
    return manifest


def _unpack(file: Path, draft: Path) -> dict[str, Any]:
    try:
        with gzip.open(file) as whole:  # its checksum stands at the end, which tarfile does not look at
            while whole.read(_LARGEST):
                pass
        with tarfile.open(file, "r:gz") as archive:
            first = archive.next()
            if first is None or first.name != _MANIFEST or first.size > _LARGEST:
                raise UsageError(f"{file} is no backup of Blockyard")
            content = archive.extractfile(first)
            assert content is not None
            manifest = json.loads(content.read())
            if not isinstance(manifest, dict) or manifest.get("format") is None:
                raise UsageError(f"{file} is no backup of Blockyard")
            if manifest.get("format") != _FORMAT:
                raise UsageError(f"{file} was written by another version of Blockyard: {manifest.get('version')}")
            for member in archive:
                if member.name == _MANIFEST:
                    continue
                if not (member.isfile() and _is_ours(member.name)):
                    raise UsageError(f"{file} has {member.name!r} in it, which is in no backup of Blockyard")
                place = draft / member.name
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                data = archive.extractfile(member)
                assert data is not None
                with os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
                    shutil.copyfileobj(data, out)
                    os.fsync(out.fileno())
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError) as error:
        raise UsageError(f"{file} cannot be read as a backup: {error}") from error
    if not (draft / _DATABASE).exists():
        raise UsageError(f"{file} has no database in it")
    return manifest


def _is_ours(name: str) -> bool:
    parts = Path(name).parts
    units = len(parts) > 1 and parts[0] == _UNITS and ".." not in parts
    disks = len(parts) == 2 and parts[0] == _DISKS and parts[1].endswith(".key")
    return name in (_DATABASE, *_KEYS) or units or disks


def _check(draft: Path, *, without_users: bool) -> None:
    """That a server can begin with it. Raises StateError."""
    with contextlib.closing(State(draft)) as state:
        with state.transaction() as database:
            database.execute("DELETE FROM logins")  # who has logged out since then is not to be in again
        if without_users:
            with state.transaction() as database:
                database.execute("DELETE FROM members")
                database.execute("DELETE FROM users")
                database.execute("UPDATE accounts SET totp = NULL")
        try:
            Users(state).load()
        except StateError as error:
            raise StateError(
                f"{error}: put the {KEY_FILE} that belongs to the backup into the state directory first, or do without users "
                "and one-time passwords by --without-users"
            ) from None


def _put_in_place(draft: Path, directory: Path) -> None:
    """Swap the two, and keep the old one's files beside. Raises StateError while somebody serves."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(directory):
        kept = directory / f"before-restore-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"
        kept.mkdir(mode=0o700)
        names = (_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm", _UNITS, _DISKS, *_KEYS)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.rename(directory / name, kept / name)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.rename(draft / name, directory / name)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
