"""Time-based one-time passwords as telephones show them (RFC 6238, with what all of them can: SHA-1, 6 digits, 30 seconds).

These are ten lines over the standard library's HMAC; a package for them would be a larger thing to trust than what it does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from urllib.parse import quote

PERIOD = 30  # seconds
_DIGITS = 6
_SECRET = 20  # bytes: as long as the hash (RFC 4226 §4, R6)
_DRIFT = 1  # periods that a clock may be wrong by (RFC 6238 §5.2)


def new_secret() -> bytes:
    return secrets.token_bytes(_SECRET)


def code(secret: bytes, step: int) -> str:
    """The code of a period (RFC 4226 §5.3)."""
    digest = hmac.new(secret, step.to_bytes(8, "big"), hashlib.sha1).digest()
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**_DIGITS).zfill(_DIGITS)


def verified(secret: bytes, given: str, now: float, last: int) -> int | None:
    """The period that a code is of, None if it is of none around now. One is good once: those up to `last` have been used."""
    here = int(now // PERIOD)
    for step in range(here - _DRIFT, here + _DRIFT + 1):
        if step > last and hmac.compare_digest(code(secret, step).encode(), given.encode()):
            return step
    return None


def uri(secret: bytes, account: str, issuer: str) -> str:
    """What a telephone takes as a QR code (the key URI format of Google Authenticator, which all others know)."""
    text = base64.b32encode(secret).decode().rstrip("=")
    return f"otpauth://totp/{quote(issuer)}:{quote(account)}?secret={text}&issuer={quote(issuer)}"
