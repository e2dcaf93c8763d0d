"""Events to a web server: a POST of JSON for each, signed as the Standard Webhooks specification has it
(https://github.com/standard-webhooks/standard-webhooks), for which there are libraries in most languages.

The signature is over the event's identity, the time and the body, so that nobody can send an old one again. Redirects are not
followed: they could take an event, and the signature that goes with it, where nobody has said it may go.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import time
from pathlib import Path

from blockyard import __version__
from blockyard.control.events import Event
from blockyard.control.message_registry import payload
from blockyard.worker.receivers import REDFISH, Webhook, split_url

PATIENCE = 10.0  # seconds
_MOST = 64 << 10  # bytes of an answer, of which nothing is used
_PREFIX = "whsec_"  # of a key in base64


class WebhookSender:
    """Sends events one by one."""

    together = 1
    interval = 0.0

    def __init__(self, receiver: Webhook) -> None:
        self._receiver = receiver

    def send(self, events: list[Event]) -> None:
        """Raises OSError, in whose text there is no secret."""
        for event in events:
            self._post(event)

    def close(self) -> None: ...

    def _post(self, event: Event) -> None:
        receiver = self._receiver
        try:
            parts = split_url(receiver.url or first_line(receiver.url_file))
        except ValueError as error:
            raise OSError(f"{receiver.url_file}: {error}") from None
        if receiver.form == REDFISH:
            body = json.dumps(payload(event.as_dict(), receiver.context)).encode()
        else:
            body = json.dumps({**event.as_dict(), "host": socket.gethostname()}).encode()
        identity = (
            f"{socket.gethostname()}-{event.id}-{event.time * 1000:.0f}"  # numbers begin anew with a new database
        )
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"blockyard/{__version__}",
            "webhook-id": identity,
            "webhook-timestamp": str(int(time.time())),
        }
        if receiver.secret_file:
            key = signing_key(first_line(receiver.secret_file))
            headers["webhook-signature"] = signature(key, identity, headers["webhook-timestamp"], body)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._connection(parts.scheme, parts.hostname or "", parts.port)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            answer.read(_MOST)
        except http.client.HTTPException as error:
            raise OSError(f"{parts.hostname} does not speak HTTP: {type(error).__name__}") from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            more = ", and redirects are not followed" if 300 <= answer.status < 400 else ""
            raise OSError(f"{parts.hostname} answers with status {answer.status}{more}")

    def _connection(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=PATIENCE)
        context = ssl.create_default_context(cafile=self._receiver.authority or None)
        return http.client.HTTPSConnection(host, port, timeout=PATIENCE, context=context)


def first_line(path: str) -> str:
    """What stands in a file of a secret. Raises OSError."""
    with Path(path).open(encoding="utf-8", errors="replace") as file:
        found = file.readline(_MOST).strip()
    if not found:
        raise OSError(f"{path}: its first line is empty")
    return found


def signing_key(text: str) -> bytes:
    """The key that a line stands for. Raises OSError."""
    if not text.startswith(_PREFIX):
        return text.encode()
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        raise OSError(f"what follows {_PREFIX} in the file of the secret is not base64") from None


def signature(key: bytes, identity: str, when: str, body: bytes) -> str:
    digest = hmac.digest(key, b".".join((identity.encode(), when.encode(), body)), hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()
