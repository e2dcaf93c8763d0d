"""The same request again: what watches a server asks for the same things all day, in the same words.

A request that has come before, byte for byte, has the answer that it had, as long as that would come out the same: nothing of
what it was made of has changed, or is older than it may be (context.py), and who asks may still ask. So nothing is parsed,
looked up or put into JSON for it.

That is for the unix socket and for tokens. A console's cookie has its session's life with it, and a browser has the stream.
Requests are found by their hashes, so that a copy of the memory opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from blockyard.api.context import Context
from blockyard.api.rates import KNOWN
from blockyard.control.errors import ControlError
from blockyard.control.roles import NOBODY, Identity

LONGEST = 4096  # bytes of a request that is remembered
_ANSWER = 32 << 10  # bytes of an answer that is
_MOST = 128  # requests; of more, all are forgotten: who asks so many different things does not watch


@dataclass
class Repeat:
    """A request that may come again, and its answer when that is there."""

    key: bytes
    user: str  # who has asked, where the kernel knows
    who: Identity = NOBODY
    changes: int = 0  # Context.changes when it was looked at
    until: float = 0.0  # in time.monotonic; 0: its answer holds for this once
    answer: bytes = b""

    def allow(self, who: Identity, changes: int, until: float) -> None:
        """Its answer may be given again, if nothing changes. A console's cookie lives by being looked at."""
        if not who.by.startswith("session"):
            self.who, self.changes, self.until = who, changes, until


class Repeats:
    """Those that come by one door."""

    def __init__(self, here: Context) -> None:
        self._here = here
        self._kept: dict[bytes, Repeat] = {}

    def answer(self, user: str, request: bytes, now: float) -> bytes | None:
        """What the same request was answered; None where it has to be looked at. `now` is of time.monotonic."""
        repeat = self._kept.get(blake2b(request).digest())
        if repeat is None or now >= repeat.until or repeat.user != user or repeat.changes != self._here.changes():
            return None
        return repeat.answer if user or self._admits(repeat.who) else None

    def _admits(self, who: Identity) -> bool:
        """Whether somebody with a token still is who he was, and may make a request now, which is counted."""
        try:
            if who != self._here.accounts.of_token_id(who.by.removeprefix("token ")):
                return False
        except ControlError:
            return False
        return not self._here.rates.take(who.by, KNOWN)

    def begin(self, user: str, request: bytes) -> Repeat:
        """A request that is going to be answered."""
        return Repeat(blake2b(request).digest(), user)

    def keep(self, repeat: Repeat, answer: bytes) -> None:
        """It has been answered so."""
        if not repeat.until or len(answer) > _ANSWER or not answer.startswith(b"HTTP/1.1 200 "):
            return
        if len(self._kept) >= _MOST:
            self._kept.clear()
        repeat.answer = answer
        self._kept[repeat.key] = repeat
