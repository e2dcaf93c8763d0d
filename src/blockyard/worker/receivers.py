"""Where events are delivered to: the tables below [events] of the configuration. Control delivers (control/delivery.py)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

_FACILITIES = ("daemon", *(f"local{number}" for number in range(8)))
_SYSLOG_PORTS = {"udp": 514, "tcp": 601, "tls": 6514}  # RFC 5426, RFC 6587 §3.4 (IANA), RFC 5425
PLAIN, REDFISH = "plain", "redfish"  # forms of webhooks
JOURNAL = "/run/systemd/journal/socket"
_ADDRESS = re.compile(r"[^\s@<>,;:\"]+@[^\s@<>,;:\"]+")


def split_server(text: str, port: int) -> tuple[str, int]:
    """Host and port of HOST[:PORT], an IPv6 address in brackets. Raises ValueError."""
    try:
        parts = urlsplit(f"//{text}")
        host, found = parts.hostname, parts.port
    except ValueError:
        host, found = None, None
    if not host or parts.path or parts.username is not None or "?" in text or "#" in text:
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return host, port if found is None else found


@dataclass(frozen=True)
class Receiver:
    """What all have: which events they get."""

    severity: str = "info"  # so severe at least: info, warning or error
    kinds: tuple[str, ...] = ()  # names of kinds (docs/events.md), with * and ? for any; none: all

    def check(self) -> None:
        """Raises ValueError."""
        if self.severity not in ("info", "warning", "error"):
            raise ValueError(f"severity is info, warning or error, not {self.severity!r}")


@dataclass(frozen=True)
class Syslog(Receiver):
    """A syslog daemon (RFC 5424), or systemd's journal."""

    name: str = ""
    to: str = "unix:/dev/log"  # unix:PATH, udp://HOST[:PORT], tcp://HOST[:PORT], tls://HOST[:PORT], journal[:PATH]
    facility: str = "daemon"
    authority: str = ""  # PEM file: who signs the certificate of a tls:// one; "": those that the system trusts

    def __post_init__(self) -> None:
        """Raises ValueError."""
        self.check()
        if self.facility not in _FACILITIES:
            raise ValueError(f"facility is one of {', '.join(_FACILITIES)}, not {self.facility!r}")
        self.place  # noqa: B018 - it raises

    @property
    def place(self) -> tuple[str, str, int]:
        """By what, host or path, port. Raises ValueError."""
        way, _, rest = self.to.partition(":")
        if way == "journal":
            return way, rest or JOURNAL, 0
        if way == "unix" and rest.startswith("/"):
            return way, rest, 0
        if way in _SYSLOG_PORTS and rest.startswith("//"):
            return way, *split_server(rest[2:], _SYSLOG_PORTS[way])
        raise ValueError(f"to is unix:PATH, udp://HOST, tcp://HOST, tls://HOST or journal, not {self.to!r}")


@dataclass(frozen=True)
class Webhook(Receiver):
    """An HTTPS server that gets each event as JSON."""

    name: str = ""
    url: str = ""
    url_file: str = ""  # instead: the file whose first line is the URL, for one that is a secret itself
    secret_file: str = ""  # the file whose first line is the key of signatures; "": they are not signed
    authority: str = ""  # PEM file: who signs the server's certificate; "": those that the system trusts
    form: str = PLAIN  # of what is sent: plain, or redfish, as subscriptions of its EventService get it
    context: str = ""  # what a redfish one is sent with each event, to know it by

    def __post_init__(self) -> None:
        """Raises ValueError."""
        self.check()
        if self.form not in (PLAIN, REDFISH):
            raise ValueError(f"form is {PLAIN} or {REDFISH}, not {self.form!r}")
        if bool(self.url) == bool(self.url_file):
            raise ValueError("say where to: one of url and url_file")
        if self.url:
            split_url(self.url)


def split_url(url: str) -> SplitResult:
    """The URL of a webhook in parts. Raises ValueError, without the URL in it, which may be a secret."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("that is not a URL") from None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None:
        raise ValueError("the URL is to be https://HOST[:PORT]/PATH, without user and password")
    if re.search(r"[^!-~]", url):
        raise ValueError("the URL has characters that are to be written with % (RFC 3986 §2.1)")
    if parts.scheme == "http" and not _here(host):
        raise ValueError("the URL is to be https: others could read along; http is for this machine itself only")
    return parts


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Mail(Receiver):
    """People, by e-mail; at most one in `digest` seconds, with all that has come since the last."""

    name: str = ""
    server: str = ""  # HOST[:PORT]
    sender: str = ""
    to: tuple[str, ...] = ()
    security: str = "starttls"  # starttls, tls, or none
    user: str = ""
    password_file: str = ""  # the file whose first line is the password of `user`
    authority: str = ""  # PEM file: who signs the server's certificate; "": those that the system trusts
    digest: int = 60
    severity: str = "warning"

    def __post_init__(self) -> None:
        """Raises ValueError."""
        self.check()
        if self.security not in ("starttls", "tls", "none"):
            raise ValueError(f"security is starttls, tls or none, not {self.security!r}")
        self.place  # noqa: B018 - it raises
        if not self.to:
            raise ValueError("to is empty: name those who are to get it")
        for address in (self.sender, *self.to):
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"{address!r} is not an address: write for example storage@example.com")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file belong together: give both, or neither")
        if self.user and self.security == "none":
            raise ValueError("a password goes only to a server with security: starttls or tls")
        if self.digest < 0:
            raise ValueError(f"digest is a number of seconds, not {self.digest}")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port. Raises ValueError."""
        return split_server(self.server, {"starttls": 587, "tls": 465, "none": 25}[self.security])


@dataclass(frozen=True)
class Snmp(Receiver):
    """A network management station (SNMP)."""

    name: str = ""
    to: str = ""  # HOST[:PORT]
    version: str = "2c"  # 2c, or 3: authentication by SHA-256, privacy by AES-128
    acknowledged: bool = True  # informs, which are sent again until they are; else traps
    community_file: str = ""  # of 2c: the file whose first line is the community; "": it is public
    user: str = ""  # of 3, and the files whose first lines are the pass phrases
    authentication_file: str = ""
    privacy_file: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        self.check()
        self.place  # noqa: B018 - it raises
        if self.version not in ("2c", "3"):
            raise ValueError(f"version is 2c or 3, not {self.version!r}")
        secured = (self.user, self.authentication_file, self.privacy_file)
        if self.version == "3" and (not all(secured) or self.community_file):
            raise ValueError("version 3 needs user, authentication_file and privacy_file, and has no community")
        if self.version == "2c" and any(secured):
            raise ValueError("user, authentication_file and privacy_file are of version 3")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port. Raises ValueError."""
        return split_server(self.to, 162)


AnyReceiver = Syslog | Webhook | Mail | Snmp


@dataclass(frozen=True)
class Receivers:
    """All of them, by their names."""

    syslog: dict[str, Syslog] = field(default_factory=dict)
    webhook: dict[str, Webhook] = field(default_factory=dict)
    mail: dict[str, Mail] = field(default_factory=dict)
    snmp: dict[str, Snmp] = field(default_factory=dict)

    @property
    def by_place(self) -> dict[str, AnyReceiver]:
        """By the names that they go by in events and in the state database: syslog.central …"""
        found: dict[str, AnyReceiver] = {}
        found |= {f"syslog.{name}": each for name, each in self.syslog.items()}
        found |= {f"webhook.{name}": each for name, each in self.webhook.items()}
        found |= {f"mail.{name}": each for name, each in self.mail.items()}
        found |= {f"snmp.{name}": each for name, each in self.snmp.items()}
        return found
