"""iSCSI names and portal addresses (RFC 7143 §4.2.7, RFC 3722, RFC 3980; §13.8).

`normalise` brings a name into the one form in which names are compared and kept; it is what a login
does to the names that it is given, and it lets odd names pass as long as they can do no harm.
`validate` is for names that are given out: it also demands one of the three forms of the RFC.
"""

from __future__ import annotations

import ipaddress
import re
import stringprep
import unicodedata
from dataclasses import dataclass

NAME_LIMIT = 223  # bytes in UTF-8 (RFC 7143 §4.2.7.1)
DEFAULT_PORT = 3260  # RFC 7143 §4.2.7.4; assigned by IANA

_DOMAIN = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_IQN = re.compile(rf"iqn\.[0-9]{{4}}-(?:0[1-9]|1[0-2])\.{_DOMAIN}(?:\.{_DOMAIN})*(?::.+)?\Z")
_EUI = re.compile(r"eui\.[0-9a-f]{16}\Z")
_NAA = re.compile(r"naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})\Z")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\Z")

# RFC 3722 §6.2: of ASCII only letters, digits, dash, dot and colon. The underscore is not among them, but is
# so widespread in the names that people give that refusing it would only do harm.
_ASCII = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-.:_")
_FULL_STOP = "\u3002"  # ideographic; too much like a dot (RFC 3722 §5)
_PROHIBITED = (
    stringprep.in_table_c12, stringprep.in_table_c22, stringprep.in_table_c3, stringprep.in_table_c4,
    stringprep.in_table_c5, stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8,
    stringprep.in_table_c9,
)  # fmt: skip


_MOMENT = re.compile(r"[a-z0-9.:_+-]+\Z")


class InvalidName(ValueError):
    """A text is not an iSCSI name, or not a portal address; the message says what is wrong with it."""


def normalise(name: str) -> str:
    """The name in the form in which names are compared: the stringprep profile of RFC 3722.

    Raises InvalidName for an empty name, one longer than 223 bytes, and for characters that no name has.
    """
    for c in name:
        if stringprep.in_table_a1(c):
            raise InvalidName(f"an iSCSI name cannot have the character {c!r}: {name!r}")
    mapped = "".join(map(_fold, name))
    result = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if not result:
        raise InvalidName("an iSCSI name cannot be empty")
    if len(result.encode("utf-8", "surrogatepass")) > NAME_LIMIT:
        raise InvalidName(f"an iSCSI name has at most {NAME_LIMIT} bytes: {result[:64]!r}…")
    for c in result:
        if c not in _ASCII if c.isascii() else c == _FULL_STOP or any(prohibited(c) for prohibited in _PROHIBITED):
            raise InvalidName(f"an iSCSI name cannot have the character {c!r}: {name!r}")
    _check_direction(result)
    return result


def normalise_target(name: str) -> str:
    """As `normalise`, for the name of a target, to which a moment may be added: iqn.2024-01.com.example:disk@-5m.

    Such names are ours alone: '@' is in no iSCSI name (RFC 3722 §6.2), so that none can be mistaken for one.
    """
    target, at, moment = name.partition("@")
    result = normalise(target) + at + moment.lower()
    if at and not _MOMENT.match(moment.lower()):
        raise InvalidName(f"what stands behind the @ is no moment: {name!r}")
    if len(result.encode()) > NAME_LIMIT:
        raise InvalidName(f"an iSCSI name has at most {NAME_LIMIT} bytes: {result[:64]!r}…")
    return result


def split_moment(name: str) -> tuple[str, str]:
    """A target's own name, and the moment that was added to it: "" for none."""
    target, _, moment = name.partition("@")
    return target, moment


def _fold(c: str) -> str:
    """A character without case: tables B.1 and B.2 of RFC 3454, which know Unicode 3.2.

    Python's B.2 follows the Unicode that it has, where more characters have a lower case.
    """
    if stringprep.in_table_b1(c):
        return ""
    folded = stringprep.map_table_b2(c)
    return c if any(map(stringprep.in_table_a1, folded)) else folded


def _check_direction(name: str) -> None:
    """RFC 3722 §6: text from right to left does not mix with text from left to right, and begins and ends the name.

    As every name of a standard form begins with Latin letters, such text can be in none of them.
    """
    rightward = [stringprep.in_table_d1(c) for c in name]
    if any(rightward) and not (rightward[0] and rightward[-1] and not any(map(stringprep.in_table_d2, name))):
        raise InvalidName(f"an iSCSI name cannot mix writing from right to left with other writing: {name!r}")


def validate(name: str) -> str:
    """The normalised name if it has one of the forms iqn., eui. and naa. (RFC 7143 §4.2.7.3 to §4.2.7.6).

    Raises InvalidName with an example of the form that was meant.
    """
    result = normalise(name)
    if result.startswith("eui."):
        if not _EUI.match(result):
            raise InvalidName(f"{name!r} is not an EUI-64 name: eui. and 16 hexadecimal digits")
    elif result.startswith("naa."):
        if not _NAA.match(result):
            raise InvalidName(f"{name!r} is not an NAA name: naa. and 16 or 32 hexadecimal digits")
    elif not _IQN.match(result):
        raise InvalidName(
            f"{name!r} is not an iSCSI name; it should look like iqn.2024-01.com.example:disk"
            " (a month in which you owned the domain, the domain reversed, and what you like)"
        )
    return result


@dataclass(frozen=True, slots=True)
class PortalAddress:
    """Where an iSCSI target listens: a host name or an IP address without brackets, and a TCP port."""

    host: str
    port: int = DEFAULT_PORT

    def __str__(self) -> str:
        """ADDR:PORT, or [ADDR]:PORT for IPv6: the form of TargetAddress without its tag (RFC 7143 §13.8)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_portal(text: str, port: int = DEFAULT_PORT) -> PortalAddress:
    """ADDR, ADDR:PORT, [V6] or [V6]:PORT; a bare IPv6 address is taken without brackets too.

    `port` is the one that is meant where none is named. A trailing ",TAG", as TargetAddress has it, is let pass. Raises
    InvalidName.
    """
    address = re.sub(r",[0-9]{1,5}\Z", "", text)
    bracketed = re.match(r"\[([^\]]*)\](?::(.*))?\Z", address)
    digits: str | None
    if bracketed:
        host, digits = _ipv6(bracketed[1], text), bracketed[2]
    elif address.count(":") > 1:
        host, digits = _ipv6(address, text), None
    else:
        host, colon, digits = address.partition(":")
        digits = digits if colon else None
        if not _HOST.match(host):
            raise InvalidName(f"{text!r} is not ADDRESS[:PORT]")
    return PortalAddress(host, port if digits is None else _port(digits, text))


def _ipv6(host: str, text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(host))
    except ValueError:
        raise InvalidName(f"{text!r} is not an IPv6 portal: [ADDRESS]:PORT") from None


def _port(digits: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > 65535:
        raise InvalidName(f"{text!r} has no port from 0 to 65535 after its colon")
    return int(digits)
