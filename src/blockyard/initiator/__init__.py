"""A small iSCSI initiator on blocking sockets, for tools, tests and whatever else has to talk to a target.

    from blockyard.initiator import connect, discover

    for target in discover("192.0.2.1"):
        print(target.name, *target.portals)

    with connect("iscsi://192.0.2.1:3260/iqn.2024-01.com.example:disk/0") as lun:
        print(lun.capacity(), lun.read(lba=0, blocks=8))

`connect` gives a Lun with everyday commands, whose `session` takes any command, several at a time. It can have several
connections (`connections=4`), authenticate itself (`account=Account("user", b"secret…")`), and come back when it was lost
(`recover=True`; see recovery.py for that, and for ErrorRecoveryLevel 1 and 2).
Sockets raise OSError, and TimeoutError after `timeout` seconds of silence; everything else that goes
wrong is an InitiatorError.
"""

from __future__ import annotations

import re
import socket
from typing import Any

from blockyard.initiator.connection import Connection
from blockyard.initiator.discovery import DiscoveredTarget, discover_targets
from blockyard.initiator.errors import (
    InitiatorError,
    LoginError,
    ProtocolError,
    Redirected,
    Rejected,
    ScsiError,
    SessionLost,
)
from blockyard.initiator.exchange import Exchange, Response
from blockyard.initiator.login import DIGEST_CHOICES, PREFERENCES, InitiatorLogin
from blockyard.initiator.lun import Capacity, Lun
from blockyard.initiator.opening import open_session
from blockyard.initiator.sense import Sense, decode_sense
from blockyard.initiator.session import Session
from blockyard.initiator.url import TargetUrl, parse_url
from blockyard.iscsi.chap import Account, WeakSecret
from blockyard.iscsi.names import InvalidName, PortalAddress, parse_portal
from blockyard.scsi.sense import SenseKey
from blockyard.scsi.task import Status

__all__ = [
    "DIGEST_CHOICES",
    "PREFERENCES",
    "Account",
    "Capacity",
    "Connection",
    "DiscoveredTarget",
    "Exchange",
    "InitiatorError",
    "InitiatorLogin",
    "InvalidName",
    "LoginError",
    "Lun",
    "PortalAddress",
    "ProtocolError",
    "Redirected",
    "Rejected",
    "Response",
    "ScsiError",
    "Sense",
    "SenseKey",
    "Session",
    "SessionLost",
    "Status",
    "TargetUrl",
    "WeakSecret",
    "connect",
    "decode_sense",
    "default_initiator_name",
    "discover",
    "open_session",
    "parse_portal",
    "parse_url",
]


def default_initiator_name() -> str:
    """A name for this host's initiator, the same at every call (RFC 7143 §4.2.7.1)."""
    host = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower()) or "localhost"
    return f"iqn.2026-11.org.blockyard:initiator.{host[:128]}"


def connect(url: str, *, initiator_name: str | None = None, account: Account | None = None, **options: Any) -> Lun:
    """Log in to the target of an iscsi:// URL. `options` are those of open_session: timeout, preferences, isid, …

    `account` is name and secret for CHAP, and the target's for mutual CHAP. Raises InvalidName for a bad URL, also for
    one whose user is not that of the account; OSError, TimeoutError or an InitiatorError when there is no session.
    """
    where = parse_url(url)
    if where.user and (account is None or account.name != where.user):
        raise InvalidName(f"the URL names the user {where.user!r}: the account with its secret has to be given besides")
    name = initiator_name or default_initiator_name()
    return Lun(open_session(where.portal, where.target, initiator_name=name, account=account, **options), where.lun)


def discover(portal: str, *, initiator_name: str | None = None, **options: Any) -> list[DiscoveredTarget]:
    """The targets behind a portal, ADDR[:PORT]. `options` are those of open_session, errors those of connect."""
    return discover_targets(parse_portal(portal), initiator_name=initiator_name or default_initiator_name(), **options)
