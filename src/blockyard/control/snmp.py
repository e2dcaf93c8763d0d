"""Events as SNMP notifications (RFC 3416 §4.2.6, §4.2.7): traps, or informs, which a receiver acknowledges, by v2c or v3.

What they have stands in BLOCKYARD-MIB (packaging/monitoring). pysnmp, which the extra blockyard[snmp] brings, encodes and
sends them. A trap of SNMPv3 is secured by keys of the sender's own engine (RFC 3414 §1.5.1): its name is made of the host's, and
what it counts as its boots is when the process began, so that nothing has to be kept.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Any

from blockyard.control.events import Event
from blockyard.control.syslog import ENTERPRISE
from blockyard.control.webhook import first_line
from blockyard.worker.receivers import Snmp

PATIENCE, ATTEMPTS = 3.0, 2  # seconds for an acknowledgement, and again
_ROOT = (1, 3, 6, 1, 4, 1, ENTERPRISE, 1)
_LONGEST = 1024  # bytes of a text
_BEGAN = int(time.time())
_BOOTS_SINCE = 1_600_000_000  # so that they fit into 31 bits until 2088


def engine_id(host: str) -> bytes:
    """Of the engine of this host (RFC 3411, SnmpEngineID: an enterprise, and text)."""
    return struct.pack(">IB", 1 << 31 | ENTERPRISE, 4) + host.encode()[:27]


class SnmpSender:
    """Sends events one by one."""

    together = 1
    interval = 0.0

    def __init__(self, receiver: Snmp) -> None:
        self._receiver = receiver

    def send(self, events: list[Event]) -> None:
        """Raises OSError."""
        asyncio.run(self._send(events))

    def close(self) -> None: ...

    async def _send(self, events: list[Event]) -> None:
        import pysnmp.hlapi.v3arch.asyncio as snmp  # noqa: PLC0415
        from pysnmp.error import PySnmpError  # noqa: PLC0415

        engine = _engine(snmp)
        kind = "inform" if self._receiver.acknowledged else "trap"
        try:
            auth, place = self._auth(snmp), self._receiver.place
            to = (snmp.Udp6TransportTarget if ":" in place[0] else snmp.UdpTransportTarget).create
            target = await to(place, timeout=PATIENCE, retries=ATTEMPTS - 1)
            for event in events:
                found = await snmp.send_notification(
                    engine, auth, target, snmp.ContextData(), kind, _notification(snmp, event)
                )
                if found[0] or found[1]:
                    raise OSError(f"{self._receiver.to}: {found[0] or found[1].prettyPrint()}")
        except PySnmpError as error:
            raise OSError(f"{self._receiver.to}: {type(error).__name__}") from None
        finally:
            engine.close_dispatcher()

    def _auth(self, snmp: Any) -> Any:
        receiver = self._receiver
        if receiver.version == "2c":
            return snmp.CommunityData(first_line(receiver.community_file) if receiver.community_file else "public")
        protocols = {"authProtocol": snmp.USM_AUTH_HMAC192_SHA256, "privProtocol": snmp.USM_PRIV_CFB128_AES}
        keys = first_line(receiver.authentication_file), first_line(receiver.privacy_file)
        return snmp.UsmUserData(receiver.user, *keys, **protocols)


def _engine(snmp: Any) -> Any:
    from pysnmp.proto.rfc1902 import OctetString  # noqa: PLC0415

    engine = snmp.SnmpEngine(OctetString(engine_id(socket.gethostname())))
    builder = engine.get_mib_builder()
    boots, clock = builder.import_symbols("__SNMP-FRAMEWORK-MIB", "snmpEngineBoots", "snmpEngineTime")
    boots.syntax = boots.syntax.clone(_BEGAN - _BOOTS_SINCE)
    clock.syntax = clock.syntax.clone(_BEGAN)
    return engine


def _notification(snmp: Any, event: Event) -> Any:
    from pysnmp.proto.rfc1902 import OctetString, Unsigned32  # noqa: PLC0415

    texts = (event.what, event.text, event.who, event.address, event.target)
    values = [
        Unsigned32(event.id & 0xFFFFFFFF),
        OctetString(_moment(event.time)),
        *(OctetString(_text(each)) for each in texts),
    ]
    notification = snmp.NotificationType(snmp.ObjectIdentity((*_ROOT, 0, event.severity.rank + 1)))
    objects = [((*_ROOT, 1, number, 0), value) for number, value in enumerate(values, 1)]
    return notification.add_varbinds(*((snmp.ObjectIdentity(name), value) for name, value in objects))


def _text(text: str) -> bytes:
    return text.encode(errors="replace")[:_LONGEST].decode(errors="ignore").encode()


def _moment(seconds: float) -> bytes:
    """DateAndTime (RFC 2579), in UTC."""
    at = time.gmtime(seconds)
    return struct.pack(">H6Bc2B", *at[:6], int(seconds % 1 * 10), b"+", 0, 0)
