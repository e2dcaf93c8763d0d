"""Text negotiation: key=value pairs, the table of keys, and the rules of agreement (RFC 7143 §6.1, §6.2, §13).

Theory of operation. `KEYS` has a row for every key: who may send it, when, what its values are and
which result function applies. A `Negotiator` knows one side's `Preferences` and turns what the peer
sends into answers and into `Parameters`, which start at the RFC's defaults. It serves both sides:
a key that comes in is the answer to an offer of ours if one stands out, else an offer of the peer's
or its declaration. Three rules hold throughout:

* An offer with a value that is not admissible is answered Reject, and the key keeps its value
  (§6.2.2); a *declaration* that makes no sense cannot be answered and ends the login.
* A key is negotiated or declared once in a login (§6.3).
* Keys are settled in the order of the table, answers are given in the order of the offers: so what
  depends on other keys (FirstBurstLength) comes out the same in whatever order they were sent.

Nothing here knows a PDU, except that `TextAccumulator` cuts text into data segments and puts it
together again (the C bit, §6.2).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from enum import Enum, IntEnum
from typing import Any

from blockyard.iscsi.names import InvalidName, normalise, normalise_target
from blockyard.iscsi.pdu import Buffer, LoginStatus

Pairs = list[tuple[str, str]]

LOGIN_SEGMENT = 8192  # MaxRecvDataSegmentLength of both sides until the login is over (RFC 7143 §13.12)
TEXT_LIMIT = 64 << 10  # bytes of text in one request; §6.1 demands 8192, and 64 KiB for long authentication items
VALUE_LIMIT = 255  # bytes of a simple value (RFC 7143 §6.1)
BINARY_LIMIT = 1024  # bytes of a binary value: the longest CHAP_C and CHAP_R (RFC 7143 §12.1.3)

REJECT = "Reject"
IRRELEVANT = "Irrelevant"
NOT_UNDERSTOOD = "NotUnderstood"
RESERVED_ANSWERS = frozenset((REJECT, IRRELEVANT, NOT_UNDERSTOOD))

# RFC 7143 §6.1 wants a capital first; its own iSCSIProtocolLevel and the X# keys of §13.26 go beyond that.
_KEY_NAME = re.compile(r"(?:[A-Z]|iSCSI)[A-Za-z0-9.+@_#-]{0,62}\Z")
_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,19})\Z")
_HEX = re.compile(r"0[xX][0-9a-fA-F]{1,16}\Z")


class NegotiationError(Exception):
    """The peer breaks the rules so that the two sides cannot agree.

    `status` is what a target ends the login with, `answer` the keys that it says beside.
    """

    def __init__(
        self, message: str, status: LoginStatus = LoginStatus.INITIATOR_ERROR, answer: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.answer = answer


# ---- text and values (RFC 7143 §6.1)


def encode_text(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The pairs as text: each `key=value` in UTF-8, ended by a NUL."""
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


def decode_text(text: Buffer) -> Pairs:
    """The pairs in `text`, in order. Raises NegotiationError for what is not key=value text.

    NULs beyond the one that ends each pair are let pass: some initiators count their padding as text.
    """
    if len(text) and text[-1] != 0:
        raise NegotiationError("the text does not end with NUL (RFC 7143 §6.1)")
    return [_decode_pair(item) for item in bytes(text).split(b"\0") if item]


def _decode_pair(item: bytes) -> tuple[str, str]:
    try:
        key, equals, value = item.decode("utf-8").partition("=")
    except UnicodeDecodeError:
        raise NegotiationError(f"the text is not UTF-8: {item[:64]!r}") from None
    if not equals or not _KEY_NAME.match(key):
        raise NegotiationError(f"not a key=value pair: {item[:64]!r}")
    row = KEYS.get(key)
    limit = 2 * BINARY_LIMIT + 2 if row is not None and row.rule is Rule.AUTHENTICATION else VALUE_LIMIT
    values = value.split(",") if row is None or row.rule is Rule.LIST else [value]
    if any(len(single.encode()) > limit for single in values):
        raise NegotiationError(f"the value of {key} is longer than {limit} bytes")
    return key, value


def parse_number(text: str) -> int:
    """A numerical value, decimal or hexadecimal, below 2**64. Raises ValueError."""
    if _DECIMAL.match(text):
        number = int(text)
        if number < 1 << 64:
            return number
    elif _HEX.match(text):
        return int(text, 16)
    raise ValueError(f"{text!r} is not a number")


def parse_binary(text: str, limit: int = BINARY_LIMIT) -> bytes:
    """A binary value, hexadecimal (0x) or base64 (0b), of at most `limit` bytes. Raises ValueError."""
    form, digits = text[:2].lower(), text[2:]
    try:
        if form == "0x" and digits:
            value = binascii.unhexlify(digits if len(digits) % 2 == 0 else "0" + digits)
        elif form == "0b" and digits:
            value = base64.b64decode(digits, validate=True)
        else:
            raise ValueError("neither 0x… nor 0b…")
    except ValueError as error:
        raise ValueError(f"{text[:64]!r} is not a binary value: {error}") from None
    if len(value) > limit:
        raise ValueError(f"a binary value of {len(value)} bytes is longer than {limit}")
    return value


def format_binary(value: bytes) -> str:
    """`value` as a hexadecimal constant, the form that every implementation reads."""
    return "0x" + value.hex()


class TextAccumulator:
    """Text that does not fit in one PDU, in both directions (the C bit: RFC 7143 §6.2, §11.10.2, §11.12.2).

    While one side's text is incomplete, the other sends PDUs without text to let it go on.
    """

    def __init__(self, limit: int = TEXT_LIMIT) -> None:
        self._limit = limit
        self._received = bytearray()
        self._to_send = b""

    @property
    def receiving(self) -> bool:
        """Whether the peer's text is incomplete."""
        return bool(self._received)

    @property
    def sending(self) -> bool:
        """Whether text of our own waits to be sent."""
        return bool(self._to_send)

    def take(self, data: Buffer, *, continued: bool) -> Pairs | None:
        """Take the data segment of a PDU; return all pairs once they are complete, None while `continued` is set.

        Raises NegotiationError for text that is too long, malformed, or sent while ours is incomplete.
        """
        if self._to_send and (len(data) or continued):
            raise NegotiationError("text was sent while the answer to the last was incomplete (RFC 7143 §6.2)")
        if len(self._received) + len(data) > self._limit:
            raise NegotiationError(f"the text is longer than {self._limit} bytes")
        self._received += data
        if continued:
            return None
        text = bytes(self._received)
        self._received.clear()
        return decode_text(text)

    def put(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Queue pairs to be sent."""
        self._to_send += encode_text(pairs)

    def next_segment(self, size: int = LOGIN_SEGMENT) -> tuple[bytes, bool]:
        """The next data segment, of at most `size` bytes, and whether more follow (the value of the C bit)."""
        segment, self._to_send = self._to_send[:size], self._to_send[size:]
        return segment, bool(self._to_send)

    def reset(self) -> None:
        """Forget what was received and what was to be sent (RFC 7143 §6.2: a negotiation that is reset)."""
        self._received.clear()
        self._to_send = b""


# ---- the table


class Role(Enum):
    INITIATOR = "initiator"
    TARGET = "target"


class Stage(IntEnum):
    """Stages of a login as CSG and NSG number them (RFC 7143 §11.12.3)."""

    SECURITY = 0
    OPERATIONAL = 1
    FULL_FEATURE = 3


class Use(Enum):
    """When a key may be sent (RFC 7143 §13)."""

    INITIALIZE_ONLY = "IO"  # in the login of any connection
    LEADING_ONLY = "LO"  # in the login of a session's first connection
    FULL_FEATURE_ONLY = "FFPO"
    ALL = "ALL"


class Rule(Enum):
    """How an offer and the responder's own preference make the result (RFC 7143 §6.2)."""

    AND = "AND"
    OR = "OR"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    LIST = "list"  # the first of the originator's values that the responder supports
    NUMBER = "number, declared"
    TEXT = "text, declared"
    NAME = "iSCSI name, declared"
    AUTHENTICATION = "authentication"  # belongs to the exchange that AuthMethod has chosen
    REFUSED = "refused"  # obsolete: answered with a constant


_TASK_REPORTING = ("FastAbort", "ResponseFence", "RFC3720")
_DECLARED = (Rule.NUMBER, Rule.TEXT, Rule.NAME)
BOTH = frozenset(Role)
INITIATOR = frozenset((Role.INITIATOR,))
TARGET = frozenset((Role.TARGET,))


@dataclass(slots=True)
class Parameters:
    """What two sides have agreed upon, or declared: an attribute for each key, at first its default (RFC 7143 §13).

    Lengths are in bytes, times in seconds. `max_recv_data_segment_length` is what this side takes,
    the one of `peer_…` what the other does.
    """

    auth_method: str = "None"
    header_digest: bool = False
    data_digest: bool = False
    max_connections: int = 1
    session_type: str = "Normal"
    initiator_name: str = ""
    initiator_alias: str = ""
    target_name: str = ""
    target_alias: str = ""
    target_address: str = ""
    target_portal_group_tag: int = 0
    initial_r2t: bool = True
    immediate_data: bool = True
    max_recv_data_segment_length: int = 8192
    peer_max_recv_data_segment_length: int = 8192
    max_burst_length: int = 262144
    first_burst_length: int = 65536
    default_time2wait: int = 2
    default_time2retain: int = 20
    max_outstanding_r2t: int = 1
    data_pdu_in_order: bool = True
    data_sequence_in_order: bool = True
    error_recovery_level: int = 0
    task_reporting: str = "RFC3720"
    protocol_level: int = 1
    node_architecture: str = ""

    @property
    def discovery(self) -> bool:
        return self.session_type == "Discovery"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What one side wishes for, or can do at most; the defaults are the target's.

    A list names the values that are supported, most wanted first. 256 KiB for a data segment and for a first burst
    let an initiator send a whole usual WRITE in one PDU, which doubles its speed. A burst of 1 MiB keeps R2Ts rare
    while it bounds what one command can make its peer hold ready.
    """

    auth_method: tuple[str, ...] = ("None",)
    header_digest: tuple[str, ...] = ("CRC32C", "None")
    data_digest: tuple[str, ...] = ("CRC32C", "None")
    max_connections: int = 16
    initial_r2t: bool = False
    immediate_data: bool = True
    max_recv_data_segment_length: int = 262144
    max_burst_length: int = 1048576
    first_burst_length: int = 262144
    default_time2wait: int = 2
    default_time2retain: int = 0
    max_outstanding_r2t: int = 8
    data_pdu_in_order: bool = True
    data_sequence_in_order: bool = True
    error_recovery_level: int = 0
    task_reporting: tuple[str, ...] = _TASK_REPORTING
    protocol_level: int = 1
    initiator_alias: str = ""
    target_alias: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError for a wish that the key cannot have."""
        for field in fields(self):
            row, value = _BY_ATTRIBUTE[field.name], getattr(self, field.name)
            if isinstance(value, int) and not row.span[0] <= value <= row.span[1]:
                raise ValueError(f"{row.name} must be from {row.span[0]} to {row.span[1]}, not {value}")
            if isinstance(value, tuple) and (not value or not set(value) <= set(row.values)):
                raise ValueError(f"{row.name} can be {', '.join(row.values)}, not {', '.join(value) or 'nothing'}")
            if isinstance(value, str) and (len(value.encode()) > VALUE_LIMIT or "\0" in value):
                raise ValueError(f"{row.name} must be at most {VALUE_LIMIT} bytes, without NUL")


def _in_discovery(parameters: Parameters) -> bool:
    return parameters.discovery


def _no_first_burst(parameters: Parameters) -> bool:
    return parameters.discovery or (parameters.initial_r2t and not parameters.immediate_data)


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table."""

    name: str
    section: str  # of RFC 7143
    attribute: str  # of Parameters; "" where nothing is kept
    rule: Rule
    use: Use
    senders: frozenset[Role] = BOTH
    security: bool = False  # may be sent in the SecurityNegotiation stage (§12)
    span: tuple[int, int] = (0, 1)  # the least and the greatest number
    values: tuple[str, ...] = ()  # of a list, or the answer to a refused key
    moot: Callable[[Parameters], bool] = lambda parameters: False  # the key is Irrelevant under these parameters

    @property
    def declared(self) -> bool:
        return self.rule in _DECLARED

    def parse(self, text: str) -> Any:
        """The value in `text`: bool, int, or str. Raises ValueError when it is not one that the key can have."""
        if self.rule in (Rule.AND, Rule.OR):
            if text not in ("Yes", "No"):
                raise ValueError(f"{text!r} is neither Yes nor No")
            return text == "Yes"
        if self.rule in (Rule.MINIMUM, Rule.MAXIMUM, Rule.NUMBER):
            number = parse_number(text)
            if not self.span[0] <= number <= self.span[1]:
                raise ValueError(f"{number} is not from {self.span[0]} to {self.span[1]}")
            return number
        if self.rule is Rule.NAME:
            return normalise_target(text) if self.name == "TargetName" else normalise(text)
        if self.values and text not in self.values:
            raise ValueError(f"{text!r} is none of {', '.join(self.values)}")
        return text


_IO, _LO, _FFPO, _ALL = Use
_I, _T = INITIATOR, TARGET
_LENGTH = (512, (1 << 24) - 1)  # bytes
_COUNT = (1, 65535)
_SECONDS = (0, 3600)
_SESSIONS = ("Discovery", "Normal")
_METHODS = ("KRB5", "SRP", "CHAP", "None")
_DIGESTS = ("CRC32C", "None")

# In the order in which keys are settled: FirstBurstLength and MaxOutstandingR2T depend on what stands before them.
KEYS: dict[str, Key] = {
    row.name: row
    for row in (
        Key("SessionType", "13.21", "session_type", Rule.TEXT, _LO, _I, security=True, values=_SESSIONS),
        Key("InitiatorName", "13.5", "initiator_name", Rule.NAME, _IO, _I, security=True),
        Key("InitiatorAlias", "13.7", "initiator_alias", Rule.TEXT, _ALL, _I, security=True),
        Key("TargetName", "13.4", "target_name", Rule.NAME, _IO, _I, security=True),
        Key("TargetAlias", "13.6", "target_alias", Rule.TEXT, _ALL, _T, security=True),
        Key("TargetAddress", "13.8", "target_address", Rule.TEXT, _ALL, _T, security=True),
        Key("TargetPortalGroupTag", "13.9", "target_portal_group_tag", Rule.NUMBER, _IO, _T, True, (0, 65535)),
        Key("SendTargets", "13.3", "", Rule.TEXT, _FFPO, _I),
        Key("AuthMethod", "12.1", "auth_method", Rule.LIST, _IO, security=True, values=_METHODS),
        Key("CHAP_A", "12.1.3", "", Rule.AUTHENTICATION, _IO, security=True),
        Key("CHAP_I", "12.1.3", "", Rule.AUTHENTICATION, _IO, security=True),
        Key("CHAP_C", "12.1.3", "", Rule.AUTHENTICATION, _IO, security=True),
        Key("CHAP_N", "12.1.3", "", Rule.AUTHENTICATION, _IO, security=True),
        Key("CHAP_R", "12.1.3", "", Rule.AUTHENTICATION, _IO, security=True),
        Key("HeaderDigest", "13.1", "header_digest", Rule.LIST, _IO, values=_DIGESTS),
        Key("DataDigest", "13.1", "data_digest", Rule.LIST, _IO, values=_DIGESTS),
        Key("ErrorRecoveryLevel", "13.20", "error_recovery_level", Rule.MINIMUM, _LO, span=(0, 2)),
        Key("MaxConnections", "13.2", "max_connections", Rule.MINIMUM, _LO, span=_COUNT, moot=_in_discovery),
        Key("InitialR2T", "13.10", "initial_r2t", Rule.OR, _LO, moot=_in_discovery),
        Key("ImmediateData", "13.11", "immediate_data", Rule.AND, _LO, moot=_in_discovery),
        Key("MaxRecvDataSegmentLength", "13.12", "max_recv_data_segment_length", Rule.NUMBER, _ALL, span=_LENGTH),
        Key("MaxBurstLength", "13.13", "max_burst_length", Rule.MINIMUM, _LO, span=_LENGTH, moot=_in_discovery),
        Key("FirstBurstLength", "13.14", "first_burst_length", Rule.MINIMUM, _LO, span=_LENGTH, moot=_no_first_burst),
        Key("DefaultTime2Wait", "13.15", "default_time2wait", Rule.MAXIMUM, _LO, span=_SECONDS),
        Key("DefaultTime2Retain", "13.16", "default_time2retain", Rule.MINIMUM, _LO, span=_SECONDS),
        Key("DataPDUInOrder", "13.18", "data_pdu_in_order", Rule.OR, _LO, moot=_in_discovery),
        Key("DataSequenceInOrder", "13.19", "data_sequence_in_order", Rule.OR, _LO, moot=_in_discovery),
        Key("MaxOutstandingR2T", "13.17", "max_outstanding_r2t", Rule.MINIMUM, _LO, span=_COUNT, moot=_in_discovery),
        Key("TaskReporting", "13.23", "task_reporting", Rule.LIST, _LO, values=_TASK_REPORTING, moot=_in_discovery),
        Key("iSCSIProtocolLevel", "13.24", "protocol_level", Rule.MINIMUM, _LO, span=(0, 31), moot=_in_discovery),
        Key("X#NodeArchitecture", "13.26", "node_architecture", Rule.TEXT, _LO),
        # RFC 7143 §13.25 lets the markers be answered No, which old initiators understand better than Reject.
        Key("IFMarker", "13.25", "", Rule.REFUSED, _IO, values=("No",)),
        Key("OFMarker", "13.25", "", Rule.REFUSED, _IO, values=("No",)),
        Key("IFMarkInt", "13.25", "", Rule.REFUSED, _IO, values=(REJECT,)),
        Key("OFMarkInt", "13.25", "", Rule.REFUSED, _IO, values=(REJECT,)),
    )
}  # fmt: skip

_ORDER = {name: position for position, name in enumerate(KEYS)}
_BY_ATTRIBUTE = {row.attribute: row for row in KEYS.values() if row.attribute}


def _text(value: Any) -> str:
    """A value as it stands behind the equals sign."""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)


def _combine(rule: Rule, one: Any, other: Any) -> Any:
    """The result function of two booleans or numbers: symmetrical, so that both sides find the same."""
    match rule:
        case Rule.AND:
            return one and other
        case Rule.OR:
            return one or other
        case Rule.MINIMUM:
            return min(one, other)
    return max(one, other)


class Negotiator:
    """One side of the negotiation on one connection."""

    def __init__(self, role: Role, preferences: Preferences, parameters: Parameters | None = None) -> None:
        self.role = role
        self.preferences = preferences
        self.parameters = parameters or Parameters()
        self.leading = True  # whether this is the login of a session's first connection (RFC 7143 §13, "LO")
        self._peer = Role.TARGET if role is Role.INITIATOR else Role.INITIATOR
        self._offered: dict[str, Any] = {}  # keys that wait for the peer's answer
        self._settled: set[str] = set()  # keys that have been negotiated, or that the peer has declared
        self._declared: set[str] = set()  # keys that this side has declared

    @property
    def unanswered(self) -> Collection[str]:
        """Our offers that the peer has not answered."""
        return self._offered.keys()

    # ---- this side's turn

    def declare(self, name: str, value: str | int) -> tuple[str, str]:
        """The pair that declares a key of this side's; it is taken note of in `parameters`."""
        row = KEYS[name]
        setattr(self.parameters, row.attribute, value)
        self._declared.add(name)
        return name, _text(value)

    def declare_segment_length(self) -> Pairs:
        """The declaration of MaxRecvDataSegmentLength, unless it has been made (RFC 7143 §13.12)."""
        if "MaxRecvDataSegmentLength" in self._declared:
            return []
        return [self.declare("MaxRecvDataSegmentLength", self.preferences.max_recv_data_segment_length)]

    def offer(self, name: str) -> tuple[str, str]:
        """The pair that offers what this side prefers for a key."""
        value = getattr(self.preferences, KEYS[name].attribute)
        self._offered[name] = value
        return name, _text(value)

    def operational_offers(self, *, leading: bool = True) -> Pairs:
        """Everything that an initiator opens the operational stage with; less on a connection that joins a session.

        TaskReporting and iSCSIProtocolLevel are newer than many targets: left out where the default is wanted.
        """
        if self.parameters.discovery:
            return [*self.declare_segment_length(), self.offer("HeaderDigest"), self.offer("DataDigest")]
        offers = self.declare_segment_length()
        for row in KEYS.values():
            operational = row.rule in (Rule.AND, Rule.OR, Rule.MINIMUM, Rule.MAXIMUM, Rule.LIST) and not row.security
            if operational and not self._dispensable(row) and (leading or row.use is not Use.LEADING_ONLY):
                offers.append(self.offer(row.name))
        return offers

    def _dispensable(self, row: Key) -> bool:
        wanted = getattr(self.preferences, row.attribute)
        if row.name == "FirstBurstLength":  # would be Irrelevant if the target agreed, which it must
            return self.preferences.initial_r2t and not self.preferences.immediate_data
        if row.name == "TaskReporting":
            return bool(wanted == (Parameters().task_reporting,))
        return bool(row.name == "iSCSIProtocolLevel" and wanted == Parameters().protocol_level)

    # ---- the peer's turn

    def answer(self, pairs: Pairs, stage: Stage) -> Pairs:
        """Take the pairs that the peer sent in a stage of the login; return the answers to its offers.

        Raises NegotiationError; the login is over then.
        """
        answers: dict[str, str] = {}
        for name, value in sorted(pairs, key=lambda pair: _ORDER.get(pair[0], len(_ORDER))):
            row = KEYS.get(name)
            if row is not None and name in self._offered:
                self._check_stage(row, stage)
                self._take_answer(row, value)
            elif value in RESERVED_ANSWERS:
                self._take_comment(name)
            elif row is None:
                answers[name] = NOT_UNDERSTOOD
            else:
                self._check_stage(row, stage)
                self._check_first(row)
                answer = self._take_offer(row, value)
                if answer is not None:
                    answers[name] = answer
        return [(name, answers.pop(name)) for name, _ in pairs if name in answers]

    def answer_full_feature(self, pairs: Pairs) -> Pairs:
        """Take the pairs of a text negotiation in full feature phase, SendTargets apart (RFC 7143 §6.4).

        What can only be negotiated at login is answered Reject and keeps its value. Raises NegotiationError.
        """
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise NegotiationError("a key is there twice in one text")
        answers = []
        for name, value in pairs:
            row = KEYS.get(name)
            if row is None:
                answer = None if value in RESERVED_ANSWERS else NOT_UNDERSTOOD
            elif row.use is not Use.ALL or self._peer not in row.senders:
                answer = REJECT
            else:
                answer = self._take_offer(row, value)
            if answer is not None:
                answers.append((name, answer))
        return answers

    def finish(self) -> None:
        """The login is over: settle what was left unanswered (RFC 7143 §6.2.2) and what depends on several keys.

        Raises NegotiationError when a default that is now in force is not what this side can do.
        """
        for name in list(self._offered):
            row, wanted = KEYS[name], self._offered[name]
            if (row.rule, wanted) in ((Rule.AND, False), (Rule.OR, True)):  # the answer was optional
                del self._offered[name]
                setattr(self.parameters, row.attribute, wanted)
            else:
                self._take_answer(row, IRRELEVANT)
        # Both may be defaults, or only the burst negotiated: RFC 7143 §13.14 wants the first no longer than any.
        parameters = self.parameters
        parameters.first_burst_length = min(parameters.first_burst_length, parameters.max_burst_length)
        if self._recovers_in_order and self.role is Role.TARGET:  # it is the target that sends R2Ts
            parameters.max_outstanding_r2t = 1

    # ---- rules

    def _check_stage(self, row: Key, stage: Stage) -> None:
        if self._peer not in row.senders:
            raise NegotiationError(f"{row.name} is not the {self._peer.value}'s to send (RFC 7143 §{row.section})")
        if row.use is Use.FULL_FEATURE_ONLY:
            raise NegotiationError(f"{row.name} cannot be sent during login (RFC 7143 §{row.section})")
        if stage is Stage.SECURITY and not row.security:
            raise NegotiationError(f"{row.name} cannot be sent in the security stage (RFC 7143 §12)")
        if stage is Stage.OPERATIONAL and (row.name == "AuthMethod" or row.rule is Rule.AUTHENTICATION):
            raise NegotiationError(f"{row.name} can only be sent in the security stage (RFC 7143 §12)")

    def _check_first(self, row: Key) -> None:
        if row.name == "TargetAddress":  # the one key that may be declared repeatedly (RFC 7143 §6.3)
            return
        if row.name in self._settled:
            raise NegotiationError(f"{row.name} was sent twice (RFC 7143 §6.3)")
        self._settled.add(row.name)

    def _take_comment(self, name: str) -> None:
        """Irrelevant and the like: some initiators say it of what we declared or answered. It is no offer (§6.2)."""
        if name in KEYS and name not in self._declared and name not in self._settled:
            raise NegotiationError(f"{name} was answered though it had not been offered")

    def _take_offer(self, row: Key, value: str) -> str | None:
        """Settle an offer or a declaration of the peer's; return the answer, None where none is due."""
        if row.declared:
            self._take_declaration(row, value)
            return None
        if row.rule is Rule.REFUSED:
            return row.values[0]
        if row.rule is Rule.AUTHENTICATION:
            raise NegotiationError(f"{row.name} was sent without AuthMethod=CHAP (RFC 7143 §12.1)")
        if row.moot(self.parameters):
            return IRRELEVANT
        if row.use is Use.LEADING_ONLY and not self.leading:
            return REJECT
        if row.rule is Rule.LIST:
            return self._choose(row, value)
        try:
            result = _combine(row.rule, row.parse(value), getattr(self.preferences, row.attribute))
        except ValueError:
            return REJECT
        if row.name == "FirstBurstLength":
            result = min(result, self.parameters.max_burst_length)
        if row.name == "MaxOutstandingR2T" and self._recovers_in_order:
            result = 1
        if row.name == "MaxBurstLength" and "FirstBurstLength" in self._settled:
            self._check_bursts(result)
        setattr(self.parameters, row.attribute, result)
        return _text(result)

    @property
    def _recovers_in_order(self) -> bool:
        """Whether only the last R2T can be repeated, so that there may be no other (RFC 7143 §13.19)."""
        return bool(self.parameters.error_recovery_level) and self.parameters.data_sequence_in_order

    def _check_bursts(self, max_burst: int) -> None:
        """FirstBurstLength was settled in an earlier text: it cannot be made to fit any more (RFC 7143 §13.14)."""
        if self.parameters.first_burst_length > max_burst and not _no_first_burst(self.parameters):
            raise NegotiationError(
                f"MaxBurstLength={max_burst} is less than FirstBurstLength={self.parameters.first_burst_length}"
            )

    def _choose(self, row: Key, value: str) -> str:
        """List negotiation: the originator's order decides (RFC 7143 §6.2.1)."""
        supported = getattr(self.preferences, row.attribute)
        for item in value.split(","):
            if item in supported:
                self._set_choice(row, item)
                return item
        return REJECT

    def _set_choice(self, row: Key, item: str) -> None:
        digest = isinstance(getattr(self.parameters, row.attribute), bool)
        setattr(self.parameters, row.attribute, item == "CRC32C" if digest else item)

    def _take_declaration(self, row: Key, value: str) -> None:
        attribute = row.attribute
        if row.name == "MaxRecvDataSegmentLength":
            attribute = "peer_max_recv_data_segment_length"
        try:
            setattr(self.parameters, attribute, row.parse(value))
        except (ValueError, InvalidName) as error:
            raise NegotiationError(
                f"{row.name}: {error}", _REFUSALS.get(row.name, LoginStatus.INITIATOR_ERROR)
            ) from None

    def _take_answer(self, row: Key, value: str) -> None:
        """Settle an offer of our own by the peer's answer."""
        wanted = self._offered.pop(row.name)
        self._settled.add(row.name)
        if value in RESERVED_ANSWERS:
            self._take_refusal(row, value, wanted)
            return
        if row.rule is Rule.LIST:
            if value not in wanted:
                raise NegotiationError(f"{row.name}={_text(wanted)} was answered {value}, which was not offered")
            self._set_choice(row, value)
            return
        try:
            result = row.parse(value)
        except ValueError as error:
            raise NegotiationError(f"{row.name}: {error}") from None
        if _combine(row.rule, result, wanted) != result:
            raise NegotiationError(f"{row.name}={_text(wanted)} was answered {value}, which the rule does not allow")
        setattr(self.parameters, row.attribute, result)

    def _take_refusal(self, row: Key, value: str, wanted: Any) -> None:
        """Reject and the like leave the key at its default, which this side may not be able to live with (§6.2)."""
        if row.moot(self.parameters):
            return
        default = getattr(self.parameters, row.attribute)
        if row.rule is Rule.LIST:
            acceptable = ("None" if default is False else default) in wanted
        else:
            acceptable = _combine(row.rule, default, wanted) == default
        if not acceptable:
            raise NegotiationError(f"{row.name}={_text(wanted)} was answered {value}; the default will not do")


_REFUSALS = {
    "SessionType": LoginStatus.SESSION_TYPE_UNSUPPORTED,
    "TargetName": LoginStatus.NOT_FOUND,  # no target has a name that is not one
}
