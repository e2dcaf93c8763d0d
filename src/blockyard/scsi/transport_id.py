"""TransportIDs of iSCSI: how parameter data names initiator ports (SPC-4 7.6.4.6).

An initiator port is known here by its name: that of its node, ",i,0x" and its ISID in twelve hexadecimal digits.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator

_ISCSI = 0x05
_DEVICE, _PORT = 0x00, 0x40  # FORMAT CODE: the name of a node, which means all its ports, or of one port
_SEPARATOR = ",i,0x"
_PORT_NAME = re.compile(r"([^,]+),i,0x([0-9a-f]{1,12})\Z")
_SHORTEST = 20


def encode(initiator: str) -> bytes:
    """The TransportID of an initiator port."""
    name = initiator.encode() + b"\0"
    name = name.ljust(max(_SHORTEST, len(name) + -len(name) % 4), b"\0")
    return struct.pack(">BxH", _ISCSI | _PORT, len(name)) + name


def split(data: bytes) -> Iterator[bytes]:
    """The TransportIDs in a list of them. Raises ValueError where one is cut short."""
    while data:
        length = 4 + int.from_bytes(data[2:4], "big")
        if len(data) < max(4, length):
            raise ValueError("a TransportID is cut short")
        yield data[:length]
        data = data[length:]


def ports(data: bytes, known: Iterable[str]) -> set[str]:
    """The initiator ports that a TransportID names; of a node, those that are `known`.

    Raises ValueError for what is not a TransportID of iSCSI, and for a node without known ports.
    """
    if len(data) < 4 + _SHORTEST or len(data) % 4 or data[0] & 0x3F != _ISCSI:
        raise ValueError("this is not an iSCSI TransportID")
    name = data[4:].partition(b"\0")[0].decode().lower()
    form = data[0] & 0xC0
    if form == _PORT:
        match = _PORT_NAME.match(name)
        if match is None:
            raise ValueError(f"{name!r} does not name an initiator port")
        return {f"{match[1]}{_SEPARATOR}{match[2]:0>12}"}
    found = {port for port in known if port.partition(_SEPARATOR)[0] == name} if form == _DEVICE else set()
    if not found:
        raise ValueError(f"no port of {name!r} is known")
    return found
