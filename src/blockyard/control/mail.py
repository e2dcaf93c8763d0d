"""Events by e-mail (RFC 5321): what came in a while is one mail, so that a flood of events is none of mails."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

from blockyard.control.catalogue import CATALOGUE
from blockyard.control.events import Event, stamp
from blockyard.control.webhook import first_line
from blockyard.worker.receivers import Mail

PATIENCE = 20.0  # seconds for each step
_LINES = 200  # events that are told one by one
_SUBJECT = 120  # characters of an event's text in it


class MailSender:
    """Sends events in one mail."""

    together = 10_000

    def __init__(self, receiver: Mail) -> None:
        self._receiver = receiver
        self.interval = float(receiver.digest)

    def send(self, events: list[Event]) -> None:
        """Raises OSError."""
        receiver = self._receiver
        try:
            with self._connected() as server:
                if receiver.security == "starttls":
                    server.starttls(context=self._context())
                if receiver.user:
                    server.login(receiver.user, first_line(receiver.password_file))
                server.send_message(mail(events, receiver))
        except smtplib.SMTPResponseException as error:
            said = (
                error.smtp_error.decode(errors="replace") if isinstance(error.smtp_error, bytes) else error.smtp_error
            )
            raise OSError(f"{receiver.server} answers {error.smtp_code} {said}") from None
        except smtplib.SMTPException as error:
            raise OSError(f"{receiver.server}: {error}") from None

    def close(self) -> None: ...

    def _connected(self) -> smtplib.SMTP:
        host, port = self._receiver.place
        if self._receiver.security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=PATIENCE, context=self._context())
        return smtplib.SMTP(host, port, timeout=PATIENCE)

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._receiver.authority or None)


def mail(events: list[Event], receiver: Mail) -> EmailMessage:
    """The mail about events: the worst one in its subject, all of them in it, and what to do about each kind."""
    host = socket.gethostname()
    worst = max(events, key=lambda event: event.severity.rank)
    more = f" (and {len(events) - 1} more)" if len(events) > 1 else ""
    message = EmailMessage()
    message["Subject"] = re.sub(r"\s+", " ", f"[{host}] {worst.severity}: {worst.text[:_SUBJECT]}{more}")
    message["From"] = receiver.sender
    message["To"] = ", ".join(receiver.to)
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=receiver.sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # so that absence notices do not answer (RFC 3834)
    lines = [f"{stamp(event.time)}  {event.severity:7}  {event.what}\n    {event.text}" for event in events[:_LINES]]
    if len(events) > _LINES:
        lines.append(f"… and {len(events) - _LINES} more: `blockyard events` has them.")
    kinds = {event.what: None for event in events}
    lines += ["", "What they mean:", ""]
    lines += [f"{what}: {kind.meaning} {kind.action}" for what in kinds if (kind := CATALOGUE.get(what)) is not None]
    message.set_content("\n".join(lines))
    return message
