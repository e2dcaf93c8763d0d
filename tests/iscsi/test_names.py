"""iSCSI names and portal addresses."""

from __future__ import annotations

import ctypes
import ctypes.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.iscsi.names import (
    NAME_LIMIT,
    InvalidName,
    PortalAddress,
    normalise,
    normalise_target,
    parse_portal,
    split_moment,
    validate,
)


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("iqn.2024-01.com.example", "iqn.2024-01.com.example"),
        ("iqn.2024-01.com.example:disk.1", "iqn.2024-01.com.example:disk.1"),
        ("IQN.2024-01.COM.Example:Disk", "iqn.2024-01.com.example:disk"),
        ("iqn.1993-08.org.debian:01:a1b2c3", "iqn.1993-08.org.debian:01:a1b2c3"),
        ("iqn.1991-05.com.microsoft:host.example.com", "iqn.1991-05.com.microsoft:host.example.com"),
        ("iqn.2001-04.com.example:my_disk", "iqn.2001-04.com.example:my_disk"),
        ("iqn.2001-04.jp.example:ディスク", "iqn.2001-04.jp.example:ディスク"),
        ("iqn.2001-04.jp.example:\uff21", "iqn.2001-04.jp.example:a"),  # full width A: compatibility mapping
        ("iqn.2001-04.com.example:a\u00adb", "iqn.2001-04.com.example:ab"),  # soft hyphen: mapped to nothing
        ("eui.02004567A425678D", "eui.02004567a425678d"),
        ("naa.52004567BA64678D", "naa.52004567ba64678d"),
        ("naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"),
    ],
)
def test_valid_names_are_normalised(name: str, result: str) -> None:
    assert validate(name) == result
    assert normalise(result) == result


@pytest.mark.parametrize(
    "name",
    [
        "",
        "disk",
        "iqn",
        "iqn.",
        "iqn.2024.com.example",
        "iqn.2024-13.com.example",
        "iqn.2024-00.com.example",
        "iqn.24-01.com.example",
        "iqn.2024-01.",
        "iqn.2024-01.com.example:",
        "iqn.2024-01.com..example",
        "iqn.2024-01.-com.example",
        "iqn.2024-01.com.example:a b",
        "iqn.2024-01.com.example:a/b",
        "iqn.2024-01.com.example:a\n",
        "iqn.2024-01.com.example:a\0",
        "iqn.2024-01.com.example:a,b",
        "iqn.2024-01.com.example:\ud800",
        "iqn.2024-01.com.example:\u2028",
        "iqn.2024-01.com.example:a\u3002b",  # ideographic full stop (RFC 3722 §5)
        "iqn.2024-01.com.example:\u05d0",  # Hebrew beside Latin (RFC 3722 §6)
        "iqn.2024-01.com.example:\u0627",  # Arabic
        "iqn.2024-01.com.example:\u0221",  # not assigned in Unicode 3.2 (RFC 3722 §7)
        "iqn.2024-01.com.example:\ue000",  # private use
        "iqn.2024-01.com.example:\u202e",  # changes display properties
        "iqn.2024-01.com.example:\U000e0061",  # tagging
        "iqn.2024-01.com.example:" + "a" * NAME_LIMIT,
        "eui.02004567A425678",
        "eui.02004567A425678DA",
        "eui.02004567A425678X",
        "naa.5200",
        "naa.52004567BA64678D01",
    ],
)
def test_invalid_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        validate(name)


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("\u0130", "i\u0307"),  # I with a dot: folded into two characters
        ("\u00df", "ss"),
        ("\u2126", "\u03c9"),  # the sign of ohm: omega, in lower case
        ("\ufb01", "fi"),  # a ligature
        ("a\u0301", "\u00e1"),  # composed
        ("\u1e9e", None),  # capital sharp s: came after Unicode 3.2
        ("\u10a0", "\u10a0"),  # Georgian: its lower case came after Unicode 3.2
        ("\u05d0\u05d1", "\u05d0\u05d1"),
        ("\u05d01\u05d1", "\u05d01\u05d1"),  # digits have no direction
        ("\u05d01", None),
        ("\u05d0a\u05d1", None),
    ],
)
def test_what_the_profile_maps(name: str, result: str | None) -> None:
    """RFC 3722 with RFC 3454: tables B.1 and B.2, normalisation KC, tables C and A.1, and writing from right to left."""
    if result is None:
        with pytest.raises(InvalidName):
            normalise(name)
    else:
        assert normalise(name) == result


def test_every_character_is_treated_as_libidn_does() -> None:
    """libidn has the profile of RFC 3722 too. The underscore is let pass here: it is in too many names."""
    found = ctypes.util.find_library("idn")
    assert found, "libidn is not installed: apt-get install libidn12"
    profile = ctypes.CDLL(found).stringprep_profile
    profile.argtypes = (ctypes.c_char_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_char_p, ctypes.c_int)
    no_unassigned = 4
    for code in range(1, 0x3400):
        if code == ord("_"):
            continue
        for name in (chr(code), f"iqn.a{chr(code)}b"):
            out = ctypes.c_void_p()
            failed = profile(name.encode(), ctypes.byref(out), b"iSCSI", no_unassigned)
            expected = None if failed or out.value is None else ctypes.string_at(out.value).decode()
            try:
                result = normalise(name)
            except InvalidName:
                result = ""
            assert result == (expected or ""), f"{name!r}"


def test_login_takes_names_of_no_standard_form() -> None:
    assert normalise("My-Host") == "my-host"


@given(st.text())
def test_normalising_is_idempotent_or_refuses(text: str) -> None:
    try:
        once = normalise(text)
    except InvalidName:
        return
    assert once
    assert len(once.encode()) <= NAME_LIMIT
    assert once == once.strip()
    assert normalise(once) == once


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("192.0.2.1", "192.0.2.1", 3260, "192.0.2.1:3260"),
        ("192.0.2.1:3261", "192.0.2.1", 3261, "192.0.2.1:3261"),
        ("192.0.2.1:3260,1", "192.0.2.1", 3260, "192.0.2.1:3260"),
        ("storage.example.com", "storage.example.com", 3260, "storage.example.com:3260"),
        ("[2001:DB8::1]", "2001:db8::1", 3260, "[2001:db8::1]:3260"),
        ("[2001:db8::1]:860", "2001:db8::1", 860, "[2001:db8::1]:860"),
        ("[2001:db8::1]:860,12", "2001:db8::1", 860, "[2001:db8::1]:860"),
        ("2001:db8::1", "2001:db8::1", 3260, "[2001:db8::1]:3260"),
        ("[::]", "::", 3260, "[::]:3260"),
        ("[fe80::1%eth0]:3260", "fe80::1%eth0", 3260, "[fe80::1%eth0]:3260"),
        ("127.0.0.1:0", "127.0.0.1", 0, "127.0.0.1:0"),
    ],
)
def test_portals(text: str, host: str, port: int, shown: str) -> None:
    portal = parse_portal(text)
    assert portal == PortalAddress(host, port)
    assert str(portal) == shown
    assert parse_portal(shown) == portal


@pytest.mark.parametrize(
    "text",
    ["", ":3260", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:x", "192.0.2.1:-1", "[::1", "[::1]3260", "[192.0.2.1]",
     "[]", "[::1]:", "a b", "http://a", "-a", "1:2:3", "192.0.2.1:٣٢٦٠"],
)  # fmt: skip
def test_bad_portals(text: str) -> None:
    with pytest.raises(InvalidName) as raised:
        parse_portal(text)
    assert repr(text) in str(raised.value)


@given(st.text())
def test_portals_of_any_text(text: str) -> None:
    try:
        portal = parse_portal(text)
    except InvalidName:
        return
    assert parse_portal(str(portal)) == portal


def test_a_moment_may_be_added_to_the_name_of_a_target() -> None:
    disk = "iqn.2024-01.com.example:disk"
    assert normalise_target("IQN.2024-01.com.Example:Disk@2026-11-22T12:00:01.5Z") == f"{disk}@2026-11-22t12:00:01.5z"
    assert normalise_target(disk) == disk
    assert split_moment(f"{disk}@-5m") == (disk, "-5m")
    assert split_moment(disk) == (disk, "")


@pytest.mark.parametrize("moment", ["@", "@ 5m", "@a@b", "@5/3", "@\u00e9", "@" + "5" * 200])
def test_what_cannot_be_a_moment(moment: str) -> None:
    with pytest.raises(InvalidName):
        normalise_target("iqn.2024-01.com.example:disk" + moment)


def test_no_other_name_has_an_at_sign() -> None:
    with pytest.raises(InvalidName):
        normalise("iqn.2024-01.com.example:disk@-5m")
    with pytest.raises(InvalidName):
        validate("iqn.2024-01.com.example:disk@-5m")
