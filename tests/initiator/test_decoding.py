"""URLs, sense data and INQUIRY pages, without a target."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.initiator import InvalidName, PortalAddress, Sense, TargetUrl, decode_sense, inquiry, parse_url
from blockyard.initiator.errors import LoginError, ScsiError


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (
            "iscsi://192.0.2.1/iqn.2024-01.com.example:disk/0",
            TargetUrl(PortalAddress("192.0.2.1"), "iqn.2024-01.com.example:disk", 0),
        ),
        (
            "iscsi://host:3261/iqn.2024-01.com.example/255/",
            TargetUrl(PortalAddress("host", 3261), "iqn.2024-01.com.example", 255),
        ),
        (
            "iscsi://[::1]:860/eui.02004567A425678D/16383",
            TargetUrl(PortalAddress("::1", 860), "eui.02004567a425678d", 16383),
        ),
        ("iscsi://[::1]/naa.5200/1", TargetUrl(PortalAddress("::1"), "naa.5200", 1)),
        ("iscsi://me@host/iqn.a%3Ab/1", TargetUrl(PortalAddress("host"), "iqn.a:b", 1, "me")),
    ],
)
def test_urls(text: str, url: TargetUrl) -> None:
    assert parse_url(text) == url
    assert "@" not in str(url)


@pytest.mark.parametrize(
    "text",
    ["", "iscsi://", "iscsi://host", "iscsi://host/iqn.a", "iscsi://host/iqn.a/x", "iscsi://host/iqn.a/-1",
     "http://host/iqn.a/1", "iscsi://host/iqn.a/16384", "iscsi:///iqn.a/1", "iscsi://host/iqn.a/1/2", "iscsi://host:x/iqn.a/1",
     "iscsi://host/a b/1"],
)  # fmt: skip
def test_bad_urls(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_url(text)


@pytest.mark.parametrize("text", ["iscsi://me%hunter2@host", "iscsi://me%hunter2@host/iqn.a/1"])
def test_a_url_with_a_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(InvalidName) as raised:
        parse_url(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "sense", "text"),
    [
        (
            "70000500000000 0a 00000000 2400 00 c00002",
            Sense(5, 0x2400, None, (2, None)),
            "ILLEGAL REQUEST: invalid field in CDB (5/24/00), field at byte 2",
        ),
        (
            "f00003 00000123 0a 00000000 1100 00 000000",
            Sense(3, 0x1100, 0x123),
            "MEDIUM ERROR: unrecovered read error (3/11/00)",
        ),
        ("71000600000000 0a 00000000 2900 00 000000", Sense(6, 0x2900, deferred=True), None),
        (
            "72052600000000 08 02 06 0000 cd0010 00",
            Sense(5, 0x2600, None, (16, 5)),
            "ILLEGAL REQUEST: invalid field in parameter list (5/26/00), field at byte 16 bit 5",
        ),
        ("720e1d00000000 0c 00 0a 80 00 0000000100000000", Sense(0xE, 0x1D00, 1 << 32), None),
        ("73000000 00000000", Sense(0, 0, deferred=True), None),
        ("70", Sense(0, 0), "NO SENSE: no additional sense information (0/00/00)"),
        (
            "70000b00000000 0a 00000000 fe12 00 000000",
            Sense(0xB, 0xFE12),
            "ABORTED COMMAND: unknown condition (B/FE/12)",
        ),
        ("", None, None),
        ("7f00", None, None),
    ],
)
def test_sense(data: str, sense: Sense | None, text: str | None) -> None:
    assert decode_sense(bytes.fromhex(data)) == sense
    if text is not None:
        assert str(sense) == text


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x70", b"\x72"]))
def test_any_bytes_as_sense(data: bytes, kind: bytes) -> None:
    str(decode_sense(kind + data))


@given(st.binary(max_size=80), st.sampled_from([0x00, 0x80, 0x83, 0x86, 0xB0, 0xB1, 0xB2, 0xC0]), st.integers(0, 100))
def test_any_bytes_as_inquiry_data(body: bytes, page: int, length: int) -> None:
    json.dumps(inquiry.decode_standard(body))
    fields = inquiry.decode_page(bytes((0, page)) + length.to_bytes(2, "big") + body)
    assert (fields is None) is (page == 0xC0)
    json.dumps(fields)


def test_identification_page() -> None:
    designators = (
        b"\x02\x01\0\x08EXAMPLE \x01\x03\0\x08" + bytes.fromhex("5000c50012345678") + b"\x51\x94\0\x04\0\0\0\x07"
        b"\x53\x98\0\x14iqn.2024-01.test:x\0\0"
        b"\x01\x0a\0\x12\x10\0" + bytes(range(16))
    )
    page = b"\0\x83" + len(designators).to_bytes(2, "big") + designators
    assert inquiry.decode_page(page) == {
        "designators": [
            {"association": "logical unit", "type": "T10 vendor ID", "value": "EXAMPLE "},
            {"association": "logical unit", "type": "NAA", "value": "0x5000c50012345678"},
            {"association": "target port", "type": "relative target port", "value": 7, "protocol": "iSCSI"},
            {
                "association": "target port",
                "type": "SCSI name string",
                "value": "iqn.2024-01.test:x",
                "protocol": "iSCSI",
            },
            {"association": "logical unit", "type": "UUID", "value": "00010203-0405-0607-0809-0a0b0c0d0e0f"},
        ]
    }


def test_messages() -> None:
    assert str(ScsiError(b"\x28", 0x18, None)) == "command 0x28: RESERVATION CONFLICT"
    assert str(ScsiError(b"\x28", 0x55, None)) == "command 0x28: status 0x55"
    assert str(LoginError(0x0301)).startswith("login refused with status 0x0301: the target is not available")
    assert str(LoginError(0x7777)) == "login refused with status 0x7777"
