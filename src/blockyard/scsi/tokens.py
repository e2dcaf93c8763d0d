"""ROD tokens: 512 bytes that stand for blocks as they were at a moment, for whoever shows them (SPC-5, SBC-4).

A disk here has no snapshots, so a token's data is what lies on the medium, for as long as nobody changes it: the types
that are made are those of *point in time copy — change vulnerable*. The first write into its ranges revokes a token, and
who copied by it before is told so (TOKEN REVOKED), so that the copy is made otherwise: what a token yields is
the data of the moment when it was made, or an error. While a unit has tokens its writes take the slow road, where
they are compared with them; tokens that are not used expire within minutes.

A token is a bearer's: it carries the right to read what it stands for, as the standard has it. It cannot be guessed (its
identifier is random) nor altered (HMAC-SHA-256 under a key that never leaves the process).
"""

from __future__ import annotations

import hmac
import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blockyard.scsi import limits
from blockyard.scsi.designators import unit_designators
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey

if TYPE_CHECKING:
    from blockyard.scsi.unit import LogicalUnit

SERVICE_ACTIONS = frozenset({0x10, 0x11})  # POPULATE TOKEN, WRITE USING TOKEN
LENGTH = 512
_TOKEN_LENGTH = LENGTH - 8  # ROD TOKEN LENGTH
POINT_IN_TIME, CHANGE_VULNERABLE, ANY_POINT_IN_TIME = 0x00800000, 0x00800001, 0x0080FFFF
ZERO = 0xFFFF0001  # block device zero ROD token: anybody can make it, it stands for zeros
# ROD TYPE; whether such tokens are made here; are used here; PREFERENCE INDICATOR
SUPPORTED = (
    (POINT_IN_TIME, True, True, 2),
    (CHANGE_VULNERABLE, True, True, 1),
    (ANY_POINT_IN_TIME, True, True, 3),
    (ZERO, False, True, 4),
)
_MAC_LENGTH = 32
_CANCELLED = Asc.INVALID_TOKEN_OPERATION_TOKEN_CANCELLED


@dataclass(frozen=True, order=True)
class Range:
    """A run of blocks."""

    lba: int
    count: int


class Rod:
    """Blocks of a unit as they were when its token was made. `gone` says why it cannot be used any more."""

    def __init__(self, unit: LogicalUnit, ranges: Sequence[Range], timeout: int, kind: int) -> None:
        self.unit = unit
        self.ranges = tuple(each for each in ranges if each.count)
        self.bytes = sum(each.count for each in ranges) << unit.shift
        self.timeout = timeout
        self.kind = kind
        self.identifier = os.urandom(8)
        self.used = time.monotonic()
        self.gone: Asc | None = None

    def touches(self, lba: int, count: int) -> bool:
        return any(lba < each.lba + each.count and each.lba < lba + count for each in self.ranges)

    def pieces(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Where the bytes from `offset` on lie in the unit: positions and lengths."""
        found = []
        for each in self.ranges:
            start, size = each.lba << self.unit.shift, each.count << self.unit.shift
            if offset < size and length:
                taken = min(size - offset, length)
                found.append((start + offset, taken))
                length -= taken
                offset = 0
            else:
                offset -= min(size, offset)
        return found


class TokenStore:
    """All ROD tokens of one process. Tokens of another, and of one that has ended, are unknown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._key = os.urandom(32)
        self._clock = clock
        self._rods: dict[bytes, Rod] = {}  # by identifier, the one used last at the end

    def create(self, rod: Rod) -> bytes:
        """A token for `rod`."""
        self.expire()
        while len(self._rods) >= limits.TOKENS:
            known = self._rods.values()
            self._retire(next((each for each in known if each.gone is not None), next(iter(known))), _CANCELLED)
        rod.used = self._clock()
        self._rods[rod.identifier] = rod
        rod.unit.rods = (*rod.unit.rods, rod)
        rod.unit.update()
        return self._encode(rod)

    def _encode(self, rod: Rod) -> bytes:
        unit = rod.unit
        identification = unit_designators(unit.identity)[0]
        token = bytearray(LENGTH)
        struct.pack_into(">IHH8s", token, 0, rod.kind, 0, _TOKEN_LENGTH, rod.identifier)
        struct.pack_into(">BBH", token, 16, 0xE4, 0, 0)  # CREATOR LOGICAL UNIT DESCRIPTOR
        token[20 : 20 + len(identification)] = identification
        token[48:64] = rod.bytes.to_bytes(16, "big")
        # DEVICE TYPE SPECIFIC DATA (SBC-4): block length, no protection, exponent, LBPME and LBPRZ
        provisioning = 0xC0 if unit.thin else 0
        struct.pack_into(">IBBB", token, 96, unit.block_size, 0, 0, provisioning | unit.physical_exponent)
        token[128 : 128 + len(identification)] = identification  # TARGET DEVICE DESCRIPTOR
        token[-_MAC_LENGTH:] = self._mac(bytes(token[:-_MAC_LENGTH]))
        return bytes(token)

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")

    def find(self, token: bytes) -> Rod:
        """What a token stands for. Raises CheckCondition when it is none, or is one no more."""
        if int.from_bytes(token[6:8], "big") != _TOKEN_LENGTH:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH)
        if int.from_bytes(token[:4], "big") not in {kind for kind, _, used, _ in SUPPORTED if used}:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
        rod = self._rods.get(bytes(token[8:16]))
        if rod is None:
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)
        if not hmac.compare_digest(self._mac(bytes(token[:-_MAC_LENGTH])), bytes(token[-_MAC_LENGTH:])):
            raise _invalid(Asc.INVALID_TOKEN_OPERATION_TOKEN_CORRUPT)
        self.use(rod)
        return rod

    def use(self, rod: Rod) -> None:
        """Somebody uses it now. Raises CheckCondition when it is gone."""
        self.expire()
        if rod.gone is not None:
            raise _invalid(rod.gone)
        rod.used = self._clock()
        self._rods[rod.identifier] = self._rods.pop(rod.identifier)

    def delete(self, rod: Rod) -> None:
        """Its user has no use for it any more (DEL_TKN)."""
        rod.gone = rod.gone or Asc.INVALID_TOKEN_OPERATION_TOKEN_DELETED
        self.expire()

    def expire(self) -> None:
        """Let units go whose tokens were revoked or have not been used for their time; called now and then.

        What has become of a token is remembered for as long again.
        """
        now = self._clock()
        for rod in list(self._rods.values()):
            idle = now - rod.used
            if idle >= 2 * rod.timeout:
                self._retire(rod, Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
            elif idle >= rod.timeout or rod.gone is not None:
                rod.gone = rod.gone or Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED
                self._release(rod)

    def _retire(self, rod: Rod, why: Asc) -> None:
        rod.gone = rod.gone or why
        self._rods.pop(rod.identifier, None)
        self._release(rod)

    def _release(self, rod: Rod) -> None:
        unit = rod.unit
        if rod in unit.rods:
            unit.rods = tuple(each for each in unit.rods if each is not rod)
            unit.update()

    def management(self, unit: LogicalUnit) -> list[bytes]:
        """The ROD management tokens of what is valid of one unit: the first 96 bytes of each token (SPC-5)."""
        self.expire()
        return [self._encode(rod)[:96] for rod in unit.rods if rod.gone is None]


def revoke(unit: LogicalUnit, lba: int, count: int) -> None:
    """Blocks of `unit` are about to change: tokens that stand for them are good for nothing. From any thread."""
    for rod in unit.rods:
        if rod.gone is None and rod.touches(lba, count):
            rod.gone = Asc.INVALID_TOKEN_OPERATION_TOKEN_REVOKED


def _invalid(asc: Asc) -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, asc)
