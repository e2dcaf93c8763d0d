"""The road to a server elsewhere: its API (docs/api.md), over HTTPS. What `blockyard --url` goes by.

A certificate that no known authority has signed is trusted when it is given (`cacert`), or when its key is the one that was seen
before (`pin`, as `blockyard serve` prints it and curl has it). Plain HTTP is for this machine alone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from blockyard.control.errors import ControlError, UsageError

_PATIENCE = 120.0  # seconds
_LONGEST = 64 << 20  # bytes of an answer


class Unreachable(ControlError):
    """The server cannot be asked, or is not the one that was meant."""

    exit_status = 7


class Remote:
    """A server by its URL. Raises UsageError for what is no way to one, or would show the token to others."""

    def __init__(self, url: str, token: Path | None, cacert: Path | None = None, pin: str | None = None) -> None:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError(f"{url} is no URL of a server, such as https://storage.example.com:3261")
        if parts.scheme == "http" and not _is_here(parts.hostname):
            raise UsageError(f"{url}: plain HTTP would show the token to everybody on the way: use https")
        self._host, self._secure = parts.hostname, parts.scheme == "https"
        self._port = parts.port or 3261
        self._base = parts.path.rstrip("/")
        self._token = None if token is None else read_token(token)
        self._cacert, self._pin = cacert, pin

    def ask(self, command: str, arguments: dict[str, object]) -> Any:
        """What a command answers. Raises ControlError with what the server says; Unreachable."""
        status, answer = self._post(f"{self._base}/api/v1/commands/{quote(command)}", arguments)
        try:
            found = json.loads(answer)
        except ValueError:
            raise Unreachable(f"{self._host}:{self._port} is no Blockyard: it answers {status}") from None
        if status == 200:
            return found["result"]
        refusal = ControlError(str(found.get("detail") or found.get("title") or f"it answers {status}"))
        refusal.exit_status = int(found.get("exit_status", ControlError.exit_status))
        raise refusal

    def _post(self, path: str, arguments: dict[str, object]) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.request("POST", path, json.dumps(arguments), headers)
                answer = connection.getresponse()
                return answer.status, answer.read(_LONGEST)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{self._host}:{self._port}: its certificate cannot be trusted ({error.verify_message}): give it by --cacert, or "
                "what `blockyard serve` prints there by --pin"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self._host}:{self._port} cannot be asked: {error}") from None

    def _connect(self) -> http.client.HTTPConnection:
        """A connection to the server that is meant. Raises OSError, Unreachable."""
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=_PATIENCE)
        context = ssl.create_default_context(cafile=None if self._cacert is None else str(self._cacert))
        if self._pin is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=_PATIENCE, context=context)
        connection.connect()
        if self._pin is not None:
            found = pin_of(connection.sock.getpeercert(True) or b"")
            if not hmac.compare_digest(found, self._pin):
                connection.close()
                raise Unreachable(f"{self._host}:{self._port} is not the server that was meant: its key is {found}")
        return connection


def pin_of(certificate: bytes) -> str:
    """What a client pins of a certificate (DER): SHA-256 of its SubjectPublicKeyInfo (RFC 7469 §2.4), as curl writes it."""
    from cryptography import x509  # noqa: PLC0415  # this takes longer than most commands, of which few come here
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    public = x509.load_der_x509_certificate(certificate).public_key()
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return f"sha256//{base64.b64encode(hashlib.sha256(public.public_bytes(*form)).digest()).decode()}"


def read_token(path: Path) -> str:
    """The token in a file that nobody else can read. Raises UsageError."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {getattr(error, 'strerror', None) or 'there is no token in it'}") from None
    if mode & 0o077:
        raise UsageError(f"{path} can be read by others: chmod 600 {path}")
    return text


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
