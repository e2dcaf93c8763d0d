"""CHAP: how initiator and target prove that they know a secret without sending it (RFC 7143 §12.1, RFC 1994).

Theory of operation. In the security stage four texts are exchanged; what stands in brackets is mutual CHAP, in
which the target proves itself too:

    initiator   CHAP_A=7,5                                          the algorithms that it knows
    target      CHAP_A=7 CHAP_I=i CHAP_C=challenge
    initiator   CHAP_N=name CHAP_R=response    [CHAP_I=j CHAP_C=challenge]
    target                                     [CHAP_N=its name CHAP_R=response]

where a response is the hash over identifier, secret and challenge. Both ends use the functions here;
`TargetChap` is the target's side of the exchange.

What must hold for it to be worth anything (RFC 7143 §9.2.1, §12.1.3):

* Secrets have at least 96 bits, and the two directions of one account never share one. Else the
  target could be made to answer its own challenge: `Challenges` also refuses one that was ours.
* Who fails learns nothing but that: an unknown name takes the same way as a wrong response.

No clock and no randomness of its own: challenges come from a function that is given from outside.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from blockyard.iscsi.negotiation import NegotiationError, Pairs, format_binary, parse_binary, parse_number
from blockyard.iscsi.pdu import LoginStatus

METHOD = "CHAP"  # the value of AuthMethod
MIN_SECRET = 12  # bytes: 96 bits (RFC 7143 §9.2.1)
MAX_SECRET = 255  # bytes; initiators stop earlier, Microsoft's at 16
NAME_LIMIT = 255  # bytes of CHAP_N (RFC 7143 §6.1, text-value)
_REMEMBERED = 4096  # challenges that are known for ours


class Algorithm(NamedTuple):
    """A hash that CHAP can use, under its number in IANA's registry of PPP authentication algorithms."""

    number: int  # the value of CHAP_A
    name: str
    hash: str  # what hashlib calls it
    length: int  # bytes of a response; a challenge of ours has as many


ALGORITHMS: dict[int, Algorithm] = {
    row.number: row
    for row in (
        Algorithm(8, "SHA3-256", "sha3_256", 32),
        Algorithm(7, "SHA-256", "sha256", 32),
        Algorithm(6, "SHA-1", "sha1", 20),
        Algorithm(5, "MD5", "md5", 16),
    )
}  # the strongest first: the order in which they are wished for


def available(numbers: Iterable[int] = tuple(ALGORITHMS)) -> tuple[int, ...]:
    """Those of `numbers` that this host's cryptography has and permits: one in FIPS mode has no MD5."""
    return tuple(number for number in numbers if number in ALGORITHMS and _works(ALGORITHMS[number]))


def _works(algorithm: Algorithm) -> bool:
    try:
        hashlib.new(algorithm.hash)
    except ValueError:
        return False
    return True


def respond(algorithm: int, identifier: int, secret: bytes, challenge: bytes) -> bytes:
    """The response to a challenge: the hash over identifier, secret and challenge (RFC 1994 §4.1)."""
    return hashlib.new(ALGORITHMS[algorithm].hash, bytes([identifier]) + secret + challenge).digest()


class WeakSecret(ValueError):
    """A secret cannot serve; the message says why, and never what it is."""


def check_secret(secret: bytes) -> bytes:
    """The secret, if it can serve (RFC 7143 §9.2.1). Raises WeakSecret."""
    if len(secret) < MIN_SECRET:
        raise WeakSecret(f"a CHAP secret has at least {MIN_SECRET} bytes (96 bits, RFC 7143 §9.2.1), not {len(secret)}")
    if len(secret) > MAX_SECRET:
        raise WeakSecret(f"a CHAP secret has at most {MAX_SECRET} bytes, not {len(secret)}")
    return secret


@dataclass(frozen=True, slots=True)
class Account:
    """Who may log in by CHAP: a name and a secret; and what the target answers to prove itself to that very user."""

    name: str
    secret: bytes = field(repr=False)
    target_name: str = ""
    target_secret: bytes | None = field(default=None, repr=False)  # None: there is no mutual CHAP for this one

    def __post_init__(self) -> None:
        """Raises WeakSecret; ValueError for a name that cannot be sent."""
        for name in (self.name, self.target_name):
            if len(name.encode()) > NAME_LIMIT or not name.isprintable():
                raise ValueError(f"a CHAP name has at most {NAME_LIMIT} bytes of printable text: {name[:64]!r}")
        if not self.name:
            raise ValueError("a CHAP name cannot be empty")
        check_secret(self.secret)
        if self.target_secret is None:
            return
        check_secret(self.target_secret)
        if hmac.compare_digest(self.secret, self.target_secret):
            raise WeakSecret("the secrets of both directions must differ (RFC 7143 §9.2.1)")
        if not self.target_name:
            raise ValueError("mutual CHAP needs a name for the target")


# ---- the keys


@dataclass(frozen=True, slots=True)
class Challenge:
    """CHAP_I and CHAP_C: what one side asks the other."""

    identifier: int
    value: bytes

    def pairs(self) -> Pairs:
        return [("CHAP_I", str(self.identifier)), ("CHAP_C", format_binary(self.value))]

    @classmethod
    def of(cls, pairs: Pairs) -> Challenge | None:
        """The challenge in `pairs`; None when there is none. Raises NegotiationError for half of one, or a wrong one."""
        keys = dict(pairs)
        if "CHAP_I" not in keys and "CHAP_C" not in keys:
            return None
        try:
            identifier, value = parse_number(keys["CHAP_I"]), parse_binary(keys["CHAP_C"])
        except KeyError as error:
            raise NegotiationError(f"{error.args[0]} is missing (RFC 7143 §12.1.3)") from None
        except ValueError as error:
            raise NegotiationError(f"CHAP_I or CHAP_C: {error}") from None
        if identifier > 0xFF or not value:
            raise NegotiationError("CHAP_I is one byte, and CHAP_C not empty (RFC 7143 §12.1.3)")
        return cls(identifier, value)


@dataclass(frozen=True, slots=True)
class Response:
    """CHAP_N and CHAP_R: who one is, and the proof of it.

    The name is a text-value: one that begins with 0x or 0b is just that name, and no constant (RFC 7143 §6.1, §12.1.3).
    """

    name: str
    value: bytes

    def pairs(self) -> Pairs:
        return [("CHAP_N", self.name), ("CHAP_R", format_binary(self.value))]

    @classmethod
    def of(cls, pairs: Pairs) -> Response:
        """The response in `pairs`. Raises NegotiationError when it is not there, or makes no sense."""
        keys = dict(pairs)
        try:
            return cls(keys["CHAP_N"], parse_binary(keys["CHAP_R"]))
        except KeyError as error:
            raise NegotiationError(f"{error.args[0]} is missing (RFC 7143 §12.1.3)") from None
        except ValueError as error:
            raise NegotiationError(f"CHAP_R: {error}") from None


def parse_algorithms(text: str) -> tuple[int, ...]:
    """The numbers in a CHAP_A of the initiator's, in its order. Raises NegotiationError."""
    try:
        return tuple(parse_number(item) for item in text.split(","))
    except ValueError as error:
        raise NegotiationError(f"CHAP_A: {error}") from None


# ---- the target's side


@dataclass(frozen=True, slots=True)
class Policy:
    """Which algorithms will do, most wanted first, and whose order decides: the initiator's, or this one."""

    algorithms: tuple[int, ...] = tuple(ALGORITHMS)
    ours_first: bool = False

    def choose(self, offered: tuple[int, ...]) -> int | None:
        """The algorithm to use, None when there is none in common."""
        usable = available(self.algorithms)
        order, others = (usable, offered) if self.ours_first else (offered, usable)
        return next((number for number in order if number in others), None)


class Challenges:
    """Makes challenges, and knows the last few thousand of them again (reflection, RFC 7143 §9.2.1).

    `entropy` returns so many random bytes: os.urandom, except in tests.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.decoy = entropy(16)  # a secret that nobody knows: what an unknown name is checked against
        self._entropy = entropy
        self._made: OrderedDict[bytes, None] = OrderedDict()

    def new(self, algorithm: int) -> Challenge:
        identifier, *value = self._entropy(1 + ALGORITHMS[algorithm].length)
        challenge = Challenge(identifier, bytes(value))
        self._made[challenge.value] = None
        if len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        return challenge

    def made(self, challenge: Challenge) -> bool:
        """Whether a challenge is one of ours."""
        return challenge.value in self._made


class TargetChap:
    """The target's side of one exchange (iscsi.login.Authenticator).

    `find` returns the account of a name, None for one that does not exist; `methods` are the values of
    AuthMethod that will do. `name` is what the initiator says it is called, for the log until `done`, and then the
    user that it has proved to be.
    """

    def __init__(
        self,
        find: Callable[[str], Account | None],
        challenges: Challenges,
        policy: Policy | None = None,
        *,
        methods: tuple[str, ...] = (METHOD,),
    ) -> None:
        self.methods = methods
        self.name = ""
        self.done = False
        self.mutual = False  # the target has proved itself too
        self._find = find
        self._challenges = challenges
        self._policy = policy or Policy()
        self._algorithm = 0
        self._challenge: Challenge | None = None

    def step(self, method: str, pairs: Pairs) -> Pairs:
        """Take the CHAP keys of one text; return those of the answer. Raises NegotiationError."""
        if len(dict(pairs)) < len(pairs):
            raise NegotiationError("a CHAP key is there twice in one text (RFC 7143 §6.1)")
        if self.done:
            raise NegotiationError("CHAP goes on after its end (RFC 7143 §12.1.3)")
        if self._challenge is None:
            return self._begin(pairs)
        return self._finish(pairs, self._challenge)

    def _begin(self, pairs: Pairs) -> Pairs:
        _only(pairs, ("CHAP_A",))
        offered = parse_algorithms(dict(pairs)["CHAP_A"])
        algorithm = self._policy.choose(offered)
        if algorithm is None:
            raise _failure(f"none of the CHAP algorithms {', '.join(map(str, offered))} is allowed")
        self._algorithm = algorithm
        self._challenge = self._challenges.new(algorithm)
        return [("CHAP_A", str(algorithm)), *self._challenge.pairs()]

    def _finish(self, pairs: Pairs, ours: Challenge) -> Pairs:
        _only(pairs, ("CHAP_N", "CHAP_R"), ("CHAP_I", "CHAP_C"))
        response, theirs = Response.of(pairs), Challenge.of(pairs)
        self.name = response.name
        account = self._find(response.name)
        secret = self._challenges.decoy if account is None else account.secret
        expected = respond(self._algorithm, ours.identifier, secret, ours.value)
        if not hmac.compare_digest(expected, response.value) or account is None:
            raise _failure("CHAP: unknown name or wrong response")
        answer = [] if theirs is None else self._prove(account, theirs)
        self.mutual = theirs is not None
        self.done = True
        return answer

    def _prove(self, account: Account, theirs: Challenge) -> Pairs:
        """The target's own proof, with the secret that it has for this very user."""
        if self._challenges.made(theirs):
            raise _failure("CHAP: a challenge of this target was sent back to it (reflection attack)")
        if account.target_secret is None:
            raise _failure(f"CHAP: the target is to prove itself, but has no secret for {account.name}")
        value = respond(self._algorithm, theirs.identifier, account.target_secret, theirs.value)
        return Response(account.target_name, value).pairs()


def _only(pairs: Pairs, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    """Raise NegotiationError unless all the keys are there that this step needs, and no others."""
    names = {name for name, _ in pairs}
    for name in needed:
        if name not in names:
            raise NegotiationError(f"{name} is missing (RFC 7143 §12.1.3)")
    wrong = names.difference(needed, optional)
    if wrong:
        raise NegotiationError(f"{min(wrong)} does not belong in this step of CHAP (RFC 7143 §12.1.3)")


def _failure(why: str) -> NegotiationError:
    return NegotiationError(why, LoginStatus.AUTHENTICATION_FAILURE)
