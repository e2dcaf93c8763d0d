"""iSNS messages: what a target says to a storage name server and hears from it, without a socket (RFC 4171).

A message is one or more PDUs of 12 bytes of header and a payload; the payload of all of them together is a list of
attributes (tag, length, value), behind a status in responses. Requests lay it out so (RFC 4171 §5.6):

    source attribute | message key attributes | delimiter | operating attributes

`encode` and `MessageReader` are the wire; `registration` and its like make the messages that a target needs.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

VERSION = 1
DEFAULT_PORT = 3205  # RFC 4171 §2
_HEADER = struct.Struct(">HHHHHH")  # version, function, payload length, flags, transaction, sequence
_MAX_PAYLOAD = 65532  # of one PDU: 16 bits, a multiple of 4 (RFC 4171 §5.1.3)
_MAX_MESSAGE = 16 << 20  # bytes: more than any answer to what is asked here can be

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Function(IntEnum):
    """Function identifiers (RFC 4171 §4.1.3); a response has bit 15 set as well."""

    REGISTER = 0x0001  # DevAttrReg
    QUERY = 0x0002  # DevAttrQry
    DEREGISTER = 0x0004  # DevDereg
    REGISTER_FOR_CHANGES = 0x0005  # SCNReg
    DEREGISTER_FOR_CHANGES = 0x0006  # SCNDereg
    STATE_CHANGE = 0x0008  # SCN
    STATUS_INQUIRY = 0x000D  # ESI


RESPONSE = 0x8000


class Flag(IntFlag):
    """Flags of a PDU (RFC 4171 §5.1.4)."""

    CLIENT = 0x8000
    SERVER = 0x4000
    AUTHENTICATION = 0x2000
    REPLACE = 0x1000
    LAST = 0x0800
    FIRST = 0x0400


class Status(IntEnum):
    """Status of a response (RFC 4171 §5.4)."""

    SUCCESSFUL = 0
    UNKNOWN_ERROR = 1
    MESSAGE_FORMAT_ERROR = 2
    INVALID_REGISTRATION = 3
    INVALID_QUERY = 5
    SOURCE_UNKNOWN = 6
    SOURCE_ABSENT = 7
    SOURCE_UNAUTHORIZED = 8
    NO_SUCH_ENTRY = 9
    VERSION_NOT_SUPPORTED = 10
    INTERNAL_ERROR = 11
    BUSY = 12
    OPTION_NOT_UNDERSTOOD = 13
    INVALID_DEREGISTRATION = 14
    MESSAGE_NOT_SUPPORTED = 15
    STATE_CHANGE_EVENT_REJECTED = 16
    STATE_CHANGE_REGISTRATION_REJECTED = 17
    ATTRIBUTE_NOT_IMPLEMENTED = 18
    ESI_NOT_AVAILABLE = 21
    INVALID_UPDATE = 22
    REGISTRATION_FEATURE_NOT_SUPPORTED = 27


class Tag(IntEnum):
    """Attributes (RFC 4171 §6.1)."""

    DELIMITER = 0
    ENTITY = 1
    ENTITY_PROTOCOL = 2
    TIMESTAMP = 4
    REGISTRATION_PERIOD = 6
    PORTAL_ADDRESS = 16
    PORTAL_PORT = 17
    ESI_INTERVAL = 19
    ESI_PORT = 20
    STATE_CHANGE_PORT = 23
    NODE_NAME = 32
    NODE_TYPE = 33
    NODE_ALIAS = 34
    STATE_CHANGE_BITMAP = 35
    GROUP_NODE_NAME = 48
    GROUP_PORTAL_ADDRESS = 49
    GROUP_PORTAL_PORT = 50
    GROUP_TAG = 51


ISCSI = 2  # Entity Protocol (RFC 4171 §6.2.2)
TARGET_NODE, INITIATOR_NODE = 0x1, 0x2  # iSCSI Node Type (RFC 4171 §6.4.2)


class Change(IntFlag):
    """What a state change notification is of (RFC 4171 §6.4.4)."""

    INITIATORS_AND_SELF = 0x80
    TARGETS_AND_SELF = 0x40
    MANAGEMENT = 0x20
    OBJECT_REMOVED = 0x10
    OBJECT_ADDED = 0x08
    OBJECT_UPDATED = 0x04
    DOMAIN_MEMBER_REMOVED = 0x02
    DOMAIN_MEMBER_ADDED = 0x01


class IsnsError(Exception):
    """What the peer sent is no iSNS message, or says that it refuses ours."""


Attribute = tuple[int, bytes]


@dataclass
class Message:
    """A whole message; `status` is None in a request."""

    function: int  # with RESPONSE for a response
    transaction: int
    attributes: Sequence[Attribute] = ()
    status: int | None = None
    flags: int = Flag.CLIENT

    @property
    def response(self) -> bool:
        return bool(self.function & RESPONSE)

    def get(self, tag: int) -> bytes | None:
        """The first value of an attribute."""
        return next((value for found, value in self.attributes if found == tag), None)


# ---- values


def text(value: str) -> bytes:
    """A text value: UTF-8 ended by a NUL; the padding to four bytes is not counted apart (RFC 4171 §6.1)."""
    data = value.encode() + b"\0"
    return data + bytes(-len(data) % 4)


def text_of(value: bytes) -> str:
    """A text value as text. Raises IsnsError."""
    try:
        return value.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise IsnsError(f"a text value is not UTF-8: {value[:64]!r}") from None


def number(value: int) -> bytes:
    return value.to_bytes(4, "big")


def address(value: IPAddress) -> bytes:
    """An address of 16 bytes; one of IPv4 is mapped into IPv6 (RFC 4171 §6.3.1)."""
    if isinstance(value, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + value.packed
    return value.packed


# ---- the wire


def encode(message: Message) -> bytes:
    """The PDUs of a message, back to back."""
    body = b"" if message.status is None else number(message.status)
    for tag, value in message.attributes:
        body += struct.pack(">II", tag, len(value)) + value + bytes(-len(value) % 4)
    pieces = [body[at : at + _MAX_PAYLOAD] for at in range(0, len(body), _MAX_PAYLOAD)] or [b""]
    out = b""
    for sequence, piece in enumerate(pieces):
        flags = int(message.flags)
        flags |= Flag.FIRST if sequence == 0 else 0
        flags |= Flag.LAST if sequence == len(pieces) - 1 else 0
        out += _HEADER.pack(VERSION, message.function, len(piece), flags, message.transaction, sequence) + piece
    return out


@dataclass
class MessageReader:
    """Puts the messages together that bytes are of."""

    _buffer: bytearray = field(default_factory=bytearray)
    _body: bytearray = field(default_factory=bytearray)
    _sequence: int = 0

    def feed(self, data: bytes) -> Iterable[Message]:
        """The messages that are complete with `data`. Raises IsnsError for what is no iSNS; the stream is lost then."""
        self._buffer += data
        messages = []
        while len(self._buffer) >= _HEADER.size:
            version, function, length, flags, transaction, sequence = _HEADER.unpack_from(self._buffer)
            if version != VERSION:
                raise IsnsError(f"iSNS version {version} is not known")
            end = _HEADER.size + length + self._authentication_length(flags, length)
            if len(self._buffer) < end:
                break
            piece = bytes(self._buffer[_HEADER.size : _HEADER.size + length])
            del self._buffer[:end]
            if bool(flags & Flag.FIRST) != (sequence == 0) or sequence != self._sequence:
                raise IsnsError("the PDUs of a message are not in order")
            if len(self._body) + length > _MAX_MESSAGE:
                raise IsnsError(f"a message is longer than {_MAX_MESSAGE} bytes")
            self._body += piece
            self._sequence += 1
            if flags & Flag.LAST:
                messages.append(_message(function, transaction, flags, bytes(self._body)))
                self._body.clear()
                self._sequence = 0
        return messages

    def _authentication_length(self, flags: int, length: int) -> int:
        """Bytes of the authentication block, which is told by its own second field and not looked at (RFC 4171 §5.5)."""
        at = _HEADER.size + length
        if not flags & Flag.AUTHENTICATION:
            return 0
        return int.from_bytes(self._buffer[at + 4 : at + 8], "big") if len(self._buffer) >= at + 8 else 8


def _message(function: int, transaction: int, flags: int, body: bytes) -> Message:
    status = None
    at = 0
    if function & RESPONSE:
        if len(body) < 4:
            raise IsnsError("a response has no status")
        status, at = int.from_bytes(body[:4], "big"), 4
    attributes = []
    while at < len(body):
        if at + 8 > len(body):
            raise IsnsError("an attribute is cut short")
        tag, length = struct.unpack_from(">II", body, at)
        if at + 8 + length > len(body):
            raise IsnsError(f"attribute {tag} is longer than its message")
        attributes.append((tag, body[at + 8 : at + 8 + length]))
        at += 8 + length + -length % 4
    return Message(function, transaction, attributes, status, flags)


# ---- what a target says


@dataclass(frozen=True)
class Portal:
    """A portal to be registered, and where at its address the server reaches us (0: nowhere)."""

    address: IPAddress
    port: int
    tag: int  # of its portal group
    service_port: int = 0  # TCP: status inquiries and state change notifications

    @property
    def key(self) -> tuple[Attribute, Attribute]:
        return (Tag.PORTAL_ADDRESS, address(self.address)), (Tag.PORTAL_PORT, number(self.port))


@dataclass(frozen=True)
class Node:
    """A target to be registered, with the portals that lead to it."""

    name: str
    alias: str = ""
    portals: tuple[Portal, ...] = ()


@dataclass(frozen=True)
class Entity:
    """All that one server has: a network entity with its portals and targets (RFC 4171 §6.2)."""

    identifier: str
    nodes: tuple[Node, ...]

    @property
    def portals(self) -> list[Portal]:
        return list(dict.fromkeys(portal for node in self.nodes for portal in node.portals))

    @property
    def source(self) -> Attribute:
        """Whom the messages are from: the first of the targets."""
        return Tag.NODE_NAME, text(self.nodes[0].name)


_DELIMITER: Attribute = (Tag.DELIMITER, b"")


def registration(entity: Entity, transaction: int, *, esi_interval: int, period: int, replace: bool) -> Message:
    """DevAttrReg of the whole entity (RFC 4171 §5.6.5.1); with `replace` in place of what is registered of it.

    `esi_interval` and `period` are in seconds; the registration ends by itself when the server has neither heard of us for
    `period` nor had its inquiries answered.
    """
    attributes: list[Attribute] = [
        entity.source,
        (Tag.ENTITY, text(entity.identifier)),
        _DELIMITER,
        (Tag.ENTITY, text(entity.identifier)),
        (Tag.ENTITY_PROTOCOL, number(ISCSI)),
        (Tag.REGISTRATION_PERIOD, number(period)),
    ]
    for portal in entity.portals:
        attributes += portal.key
        if portal.service_port:
            attributes += [
                (Tag.ESI_INTERVAL, number(esi_interval)),
                (Tag.ESI_PORT, number(portal.service_port)),
                (Tag.STATE_CHANGE_PORT, number(portal.service_port)),
            ]
    for node in entity.nodes:
        attributes += [(Tag.NODE_NAME, text(node.name)), (Tag.NODE_TYPE, number(TARGET_NODE))]
        if node.alias:
            attributes.append((Tag.NODE_ALIAS, text(node.alias)))
    for node in entity.nodes:
        for portal in entity.portals:  # a tag of no length says that this portal does not lead to this target (§3.4)
            attributes += [
                (Tag.GROUP_NODE_NAME, text(node.name)),
                (Tag.GROUP_PORTAL_ADDRESS, address(portal.address)),
                (Tag.GROUP_PORTAL_PORT, number(portal.port)),
                (Tag.GROUP_TAG, number(portal.tag) if portal in node.portals else b""),
            ]
    flags = Flag.CLIENT | (Flag.REPLACE if replace else 0)
    return Message(Function.REGISTER, transaction, attributes, flags=flags)


def deregistration(entity: Entity, transaction: int) -> Message:
    """DevDereg of the whole entity (RFC 4171 §5.6.5.4)."""
    attributes = [entity.source, _DELIMITER, (Tag.ENTITY, text(entity.identifier))]
    return Message(Function.DEREGISTER, transaction, attributes)


def change_registration(node: Node, transaction: int) -> Message:
    """SCNReg: have one target told of initiators that come and go (RFC 4171 §5.6.5.5)."""
    wanted = Change.INITIATORS_AND_SELF | Change.OBJECT_REMOVED | Change.OBJECT_ADDED | Change.OBJECT_UPDATED
    name = (Tag.NODE_NAME, text(node.name))
    return Message(
        Function.REGISTER_FOR_CHANGES, transaction, [name, name, _DELIMITER, (Tag.STATE_CHANGE_BITMAP, number(wanted))]
    )


def query(node: Node, transaction: int) -> Message:
    """DevAttrQry: the initiators that the server lets one target know of (RFC 4171 §5.6.5.2)."""
    attributes = [
        (Tag.NODE_NAME, text(node.name)),
        (Tag.NODE_TYPE, number(INITIATOR_NODE)),
        _DELIMITER,
        (Tag.NODE_NAME, b""),
    ]
    return Message(Function.QUERY, transaction, attributes)


def answer(request: Message) -> Message:
    """The response to what a server asks: an inquiry gets its attributes back, a notification whom it was for.

    Anything else is refused as not supported (RFC 4171 §5.7.5.8, §5.7.5.13).
    """
    function = request.function | RESPONSE
    if request.function == Function.STATUS_INQUIRY:
        return Message(function, request.transaction, list(request.attributes), Status.SUCCESSFUL)
    if request.function == Function.STATE_CHANGE:
        return Message(function, request.transaction, list(request.attributes[:1]), Status.SUCCESSFUL)
    return Message(function, request.transaction, (), Status.MESSAGE_NOT_SUPPORTED)


def changes(notification: Message) -> list[tuple[Change, str]]:
    """What a state change notification tells: the kind of change, and the name of the node (RFC 4171 §5.6.5.8)."""
    found = []
    bitmap = Change(0)
    for tag, value in notification.attributes[1:]:
        if tag == Tag.STATE_CHANGE_BITMAP and len(value) == 4:
            bitmap = Change(int.from_bytes(value, "big") & 0xFF)
        elif tag == Tag.NODE_NAME:
            found.append((bitmap, text_of(value)))
    return found
