"""Who is logged in to the console: sessions that a browser holds a cookie of.

They are in memory: a server that was restarted asks for the password again. A session ends when nothing has come for a while,
when it is too old however busy it is, and when its account was changed.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

IDLE, ABSOLUTE = 30 * 60.0, 12 * 3600.0  # seconds
_EACH = 20  # sessions of one account; the one that was idle longest goes
_MOST = 2000


@dataclass
class Login:
    """A session of the console."""

    account: str
    csrf: str  # what proves that a change comes from the console's own pages
    since: float  # seconds since the epoch: what accounts are changed by
    began: float  # of the clock
    seen: float
    address: str
    id: str  # for people: it opens nothing


class Logins:
    """`clock` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logins: dict[bytes, Login] = {}  # by the hash of the cookie: a copy of the memory opens nothing

    def begin(self, account: str, address: str) -> tuple[str, Login]:
        """A new session, and its cookie."""
        self._expire()
        mine = sorted((login.seen, key) for key, login in self._logins.items() if login.account == account)
        for _, key in mine[: max(0, len(mine) - _EACH + 1)]:
            del self._logins[key]
        if len(self._logins) >= _MOST:
            del self._logins[min(self._logins, key=lambda key: self._logins[key].seen)]
        cookie, now = secrets.token_urlsafe(32), self._clock()
        login = Login(account, secrets.token_urlsafe(32), time.time(), now, now, address, secrets.token_hex(6))
        self._logins[_key(cookie)] = login
        return cookie, login

    def find(self, cookie: str) -> Login | None:
        """The session of a cookie, which has been seen just now."""
        key = _key(cookie)
        login = self._logins.get(key)
        if login is None:
            return None
        if self._over(login):
            del self._logins[key]
            return None
        login.seen = self._clock()
        return login

    def end(self, cookie: str) -> None:
        self._logins.pop(_key(cookie), None)

    def end_of(self, account: str, *, but: Login | None = None) -> None:
        """End all sessions of an account, but for one."""
        self._logins = {key: each for key, each in self._logins.items() if each.account != account or each is but}

    def left(self, login: Login) -> float:
        """The seconds that are left to a session if nothing comes any more."""
        return min(login.seen + IDLE, login.began + ABSOLUTE) - self._clock()

    def _over(self, login: Login) -> bool:
        return self.left(login) <= 0

    def _expire(self) -> None:
        self._logins = {key: login for key, login in self._logins.items() if not self._over(login)}


def _key(cookie: str) -> bytes:
    return hashlib.sha256(cookie.encode()).digest()
