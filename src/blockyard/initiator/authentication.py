"""The initiator's side of CHAP (RFC 7143 §12.1.3); what both sides share is in iscsi/chap.py."""

from __future__ import annotations

import hmac
import os
from collections.abc import Iterable

from blockyard.iscsi.chap import ALGORITHMS, Account, Challenge, Challenges, Response, available, respond
from blockyard.iscsi.negotiation import NegotiationError, Pairs, parse_number

_CHALLENGES = Challenges(os.urandom)  # of this process: one that comes back on another connection is known for ours


class InitiatorChap:
    """One exchange: `step` takes the CHAP keys of a text of the target's and returns the initiator's.

    `account` is this side's name and secret, and the target's where it is to prove itself too (mutual CHAP).
    `algorithms` are offered in that order, as far as this host has them; tgtd, for one, takes 7 for SHA-1, so that
    it needs (5,).
    """

    def __init__(self, account: Account, algorithms: Iterable[int] = tuple(ALGORITHMS)) -> None:
        self.proved = False  # this side has said all that it has to
        self.done = False
        self._account = account
        self._offered = available(algorithms)
        self._begun = False
        self._algorithm = 0
        self._challenge: Challenge | None = None

    def step(self, pairs: Pairs) -> Pairs:
        """Raises NegotiationError when the target breaks the rules, or does not prove who it is."""
        if not self._begun:
            if not self._offered:
                raise NegotiationError("this host has none of the CHAP algorithms that it is to offer")
            self._begun = True
            return [("CHAP_A", ",".join(map(str, self._offered)))]
        if not self.proved:
            return self._prove(pairs)
        if not self.done:
            self._check(pairs)
        elif pairs:
            raise NegotiationError("CHAP goes on after its end")
        return []

    def _prove(self, pairs: Pairs) -> Pairs:
        theirs = Challenge.of(pairs)
        if theirs is None:
            raise NegotiationError("CHAP_I and CHAP_C are missing")
        try:
            self._algorithm = parse_number(dict(pairs)["CHAP_A"])
        except (KeyError, ValueError):
            raise NegotiationError("CHAP_A is missing, or not a number") from None
        if self._algorithm not in self._offered:
            raise NegotiationError(f"CHAP_A is {self._algorithm}, which was not offered")
        if _CHALLENGES.made(theirs):
            raise NegotiationError("a challenge of this initiator was sent back to it (reflection attack)")
        account = self._account
        self.proved = True
        answer = Response(account.name, respond(self._algorithm, theirs.identifier, account.secret, theirs.value))
        if account.target_secret is None:
            self.done = True
            return answer.pairs()
        self._challenge = _CHALLENGES.new(self._algorithm)
        return answer.pairs() + self._challenge.pairs()

    def _check(self, pairs: Pairs) -> None:
        """The target's own proof."""
        assert self._challenge is not None
        assert self._account.target_secret is not None
        response = Response.of(pairs)
        challenge = self._challenge
        expected = respond(self._algorithm, challenge.identifier, self._account.target_secret, challenge.value)
        right = hmac.compare_digest(expected, response.value)
        if not right or response.name != self._account.target_name:
            raise NegotiationError("the target does not prove who it is: its CHAP name or secret is another")
        self.done = True
