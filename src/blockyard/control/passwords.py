"""Passwords at rest: scrypt (RFC 7914) with what it was made with, in the form `scrypt$LOG2_N$R$P$SALT$HASH`.

scrypt is in the standard library, where argon2 would be one more extension module to trust; both make guesses cost memory. The
parameters are those that OWASP's Password Storage Cheat Sheet gives (N=2^15, r=8, p=3: 32 MiB, about 0.2 s), and stand beside
each hash, so that they can grow. Each takes a core for that long and lets go of the interpreter, so that it belongs in a thread,
and few at a time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

MIN_PASSWORD = 12  # characters (NIST SP 800-63B-4 has 15 where nothing else is asked for, 8 with a second factor)
MAX_PASSWORD = 256
_LOG_N, _R, _P = 15, 8, 3
_SALT, _HASH = 16, 32  # bytes


def check_password(password: str) -> str | None:
    """Why this cannot be a password; None when it can."""
    if len(password) < MIN_PASSWORD:
        return f"a password has {MIN_PASSWORD} characters at least"
    if len(password) > MAX_PASSWORD:
        return f"a password has {MAX_PASSWORD} characters at most"
    if len(set(password)) < MIN_PASSWORD // 3:
        return "that is the same few characters again and again"
    return None


def hashed(password: str) -> str:
    """What is kept of a password. Takes a while."""
    salt = secrets.token_bytes(_SALT)
    return "$".join(
        ("scrypt", str(_LOG_N), str(_R), str(_P), _text(salt), _text(_scrypt(password, salt, _LOG_N, _R, _P)))
    )


def matches(password: str, kept: str) -> bool:
    """Whether it is the one that was kept. Takes as long as `hashed`. Raises ValueError for what was not made by that."""
    kind, log_n, r, p, salt, known = kept.split("$")
    if kind != "scrypt":
        raise ValueError(f"passwords are not kept by {kind}")
    found = _scrypt(password, base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(known))


# One that nobody knows: whoever claims to be somebody who is not there waits as long as others.
NOBODYS = "$".join(("scrypt", str(_LOG_N), str(_R), str(_P), "AAAAAAAAAAAAAAAAAAAAAA==", "A" * 43 + "="))


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    normal = unicodedata.normalize("NFKC", password).encode()  # however the keyboard composes letters (RFC 8265 §4.2)
    memory = 129 * r * (1 << log_n) + (1 << 20)  # OpenSSL counts all of its buffers against it
    return hashlib.scrypt(normal, salt=salt, n=1 << log_n, r=r, p=p, maxmem=memory, dklen=_HASH)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
