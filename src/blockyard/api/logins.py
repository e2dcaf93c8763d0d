"""Who is logged in to the console: sessions that a browser holds a cookie of.

They are in the state database, so that they go on when the server starts again, and in memory, so that a request does not wait
for that. A session ends when nothing has come for a while, when it is too old however busy it is, and when its account was
changed. What is kept is a hash of the cookie; the token that proves changes is made of the cookie, and is kept nowhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from blockyard.control.errors import StateError
from blockyard.control.state import State

IDLE, ABSOLUTE = 30 * 60.0, 12 * 3600.0  # seconds
_NOTED = 60.0  # seconds between two notes of when a session was seen last
_EACH = 20  # sessions of one account; the one that was idle longest goes
_MOST = 2000


@dataclass
class Login:
    """A session of the console. Times are seconds since the epoch."""

    account: str
    since: float  # when its account had been changed last: another time is the end of it, whatever clocks do meanwhile
    began: float
    seen: float
    noted: float  # what of that is in the database
    address: str
    id: str  # for people: it opens nothing
    csrf: str = ""  # what proves that a change comes from the console's own pages


class Logins:
    """For one thread. `state` is asked for when it is needed first; methods raise StateError where it cannot be used."""

    def __init__(self, state: Callable[[], State], clock: Callable[[], float] = time.time) -> None:
        self._state = state
        self._clock = clock
        self._read: dict[bytes, Login] | None = None

    @property
    def _logins(self) -> dict[bytes, Login]:
        """By the hashes of their cookies: a copy of the memory or of the database opens nothing."""
        if self._read is None:
            with self._state().transaction() as database:
                rows = database.execute(
                    "SELECT cookie, account, since, began, seen, address, id FROM logins"
                ).fetchall()
            self._read = {
                cookie: Login(account, since, began, seen, seen, address, number)
                for cookie, account, since, began, seen, address, number in rows
            }
        return self._read

    def begin(self, account: str, since: float, address: str) -> tuple[str, Login]:
        """A new session of an account that was changed then, and its cookie."""
        over = [key for key, login in self._logins.items() if self._over(login)]
        there = {key: login for key, login in self._logins.items() if key not in over}
        mine = sorted((login.seen, key) for key, login in there.items() if login.account == account)
        over += [key for _, key in mine[: max(0, len(mine) - _EACH + 1)]]
        if len(there) >= _MOST:
            over.append(min(there, key=lambda key: there[key].seen))
        self._forget(over)
        cookie, now = secrets.token_urlsafe(32), self._clock()
        login = Login(account, since, now, now, now, address, secrets.token_hex(6), _csrf(cookie))
        with self._state().transaction() as database:
            database.execute(
                "INSERT INTO logins VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_key(cookie), account, login.since, now, now, address, login.id),
            )
        self._logins[_key(cookie)] = login
        return cookie, login

    def find(self, cookie: str) -> Login | None:
        """The session of a cookie, which has been seen just now."""
        key = _key(cookie)
        login = self._logins.get(key)
        if login is None:
            return None
        with contextlib.suppress(StateError):  # a full disk is no reason to let nobody in who could make room
            if self._over(login):
                self._forget([key])
                return None
            login.csrf = login.csrf or _csrf(cookie)
            login.seen = self._clock()
            if login.seen - login.noted > _NOTED:
                self._note(key, login)
        return self._logins.get(key)

    def with_id(self, number: str) -> Login | None:
        """The session that people know by that; this is no sign of life of it."""
        found = next((login for login in self._logins.values() if login.id == number), None)
        return None if found is None or self._clock() >= found.began + ABSOLUTE else found

    def renew(self, login: Login, since: float) -> None:
        """A change of its account at that time does not end this session."""
        login.since = since
        for key, each in self._logins.items():
            if each is login:
                self._note(key, login)

    def end(self, cookie: str) -> None:
        self._forget([_key(cookie)])

    def end_of(self, account: str, *, but: Login | None = None) -> None:
        """End all sessions of an account, but for one."""
        self._forget([key for key, each in self._logins.items() if each.account == account and each is not but])

    def left(self, login: Login) -> float:
        """The seconds that are left to a session if nothing comes any more."""
        return min(login.seen + IDLE, login.began + ABSOLUTE) - self._clock()

    def _over(self, login: Login) -> bool:
        return self.left(login) <= 0

    def _note(self, key: bytes, login: Login) -> None:
        login.noted = login.seen
        with self._state().transaction() as database:
            database.execute("UPDATE logins SET since = ?, seen = ? WHERE cookie = ?", (login.since, login.seen, key))

    def _forget(self, keys: Iterable[bytes]) -> None:
        gone = [key for key in keys if self._logins.pop(key, None) is not None]
        if gone:
            with self._state().transaction() as database:
                database.executemany("DELETE FROM logins WHERE cookie = ?", [(key,) for key in gone])


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()


def _csrf(cookie: str) -> str:
    """Whoever has it does not have the cookie (HMAC is one-way), and pages of other sites have neither."""
    return hmac.new(cookie.encode(), b"csrf", hashlib.sha256).hexdigest()
