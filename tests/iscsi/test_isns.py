"""iSNS messages: both ways over the wire, and what a target says."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.iscsi import isns
from blockyard.iscsi.isns import (
    RESPONSE,
    Change,
    Entity,
    Flag,
    Function,
    IsnsError,
    Message,
    MessageReader,
    Node,
    Portal,
    Status,
    Tag,
)

V4 = ipaddress.ip_address("192.0.2.1")
NODE = Node("iqn.2024-01.test:a", "Alias", (Portal(V4, 3260, 1, 4000),))

messages = st.builds(
    Message,
    st.sampled_from(Function),
    st.integers(0, 0xFFFF),
    st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.binary(max_size=70000)), max_size=4),
)


@given(messages, st.integers(1, 5000))
def test_a_message_comes_back_whole_however_it_is_cut(message: Message, size: int) -> None:
    data = isns.encode(message)
    reader = MessageReader()
    found = [m for at in range(0, len(data), size) for m in reader.feed(data[at : at + size])]
    (back,) = found
    assert (back.function, back.transaction, back.status) == (message.function, message.transaction, None)
    assert list(back.attributes) == list(message.attributes)


@given(st.lists(messages, min_size=2, max_size=3))
def test_several_messages_at_once(several: list[Message]) -> None:
    found = list(MessageReader().feed(b"".join(map(isns.encode, several))))
    assert [list(m.attributes) for m in found] == [list(m.attributes) for m in several]


@given(st.binary(max_size=400))
def test_nonsense_is_refused_or_waits_for_more(data: bytes) -> None:
    reader = MessageReader()
    try:
        for message in reader.feed(b"\x00\x01" + data):
            isns.answer(message)
            isns.changes(message)
    except IsnsError:
        pass


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes.fromhex("0002 0001 0000 8c00 0001 0000"), "version 2"),
        (bytes.fromhex("0001 0001 0000 8c00 0001 0001"), "not in order"),
        (bytes.fromhex("0001 0001 0000 8800 0001 0000"), "not in order"),
        (bytes.fromhex("0001 8001 0000 4c00 0001 0000"), "no status"),
        (bytes.fromhex("0001 0001 0004 8c00 0001 0000 00000020"), "cut short"),
        (bytes.fromhex("0001 0001 0008 8c00 0001 0000 00000020 00000004"), "longer than its message"),
    ],
)
def test_what_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(IsnsError, match=why):
        MessageReader().feed(data)


def test_an_authentication_block_is_passed_over() -> None:
    block = bytes.fromhex("00000001 00000010 0000000000000000")
    head = bytes.fromhex("0001 8001 0004 6c00 0007 0000 00000000")
    reader = MessageReader()
    assert list(reader.feed(head + block[:6])) == []
    (message,) = reader.feed(block[6:])
    assert (message.transaction, message.status) == (7, Status.SUCCESSFUL)


def test_a_response_has_its_status() -> None:
    message = Message(Function.QUERY | RESPONSE, 3, [(Tag.NODE_NAME, isns.text("iqn.2024-01.test:b"))], Status.BUSY)
    (back,) = MessageReader().feed(isns.encode(message))
    assert (back.response, back.status) == (True, Status.BUSY)
    assert isns.text_of(back.get(Tag.NODE_NAME) or b"") == "iqn.2024-01.test:b"
    assert back.get(Tag.ENTITY) is None


def test_addresses_have_16_bytes() -> None:
    assert isns.address(V4) == bytes(10) + b"\xff\xff\xc0\x00\x02\x01"
    v6 = ipaddress.ip_address("2001:db8::1")
    assert isns.address(v6) == v6.packed


def test_a_registration_names_every_group_of_every_target() -> None:
    other = Portal(V4, 3261, 2)
    entity = Entity("host", (NODE, Node("iqn.2024-01.test:b", "", (other,))))
    message = isns.registration(entity, 1, esi_interval=60, period=900, replace=True)
    assert message.flags & Flag.REPLACE
    groups = [value for tag, value in message.attributes if tag == Tag.GROUP_TAG]
    assert groups == [isns.number(1), b"", b"", isns.number(2)]
    assert [value for tag, value in message.attributes if tag == Tag.ESI_PORT] == [isns.number(4000)]
    assert [tag for tag, _ in message.attributes].index(Tag.DELIMITER) == 2
    assert not isns.registration(entity, 1, esi_interval=60, period=900, replace=False).flags & Flag.REPLACE


def test_answers() -> None:
    inquiry = Message(Function.STATUS_INQUIRY, 9, [(Tag.TIMESTAMP, bytes(8)), (Tag.ENTITY, isns.text("host"))])
    answer = isns.answer(inquiry)
    assert (answer.function, answer.transaction, answer.status) == (0x800D, 9, Status.SUCCESSFUL)
    assert list(answer.attributes) == list(inquiry.attributes)
    assert isns.answer(Message(Function.REGISTER, 9)).status == Status.MESSAGE_NOT_SUPPORTED


def test_changes() -> None:
    name = isns.text("iqn.2024-01.test:host")
    notification = Message(
        Function.STATE_CHANGE,
        1,
        [
            (Tag.NODE_NAME, isns.text(NODE.name)),
            (Tag.TIMESTAMP, bytes(8)),
            (Tag.STATE_CHANGE_BITMAP, isns.number(0x08)),
            (Tag.NODE_NAME, name),
            (Tag.STATE_CHANGE_BITMAP, isns.number(0x10)),
            (Tag.NODE_NAME, name),
        ],
    )
    host = "iqn.2024-01.test:host"
    assert isns.changes(notification) == [(Change.OBJECT_ADDED, host), (Change.OBJECT_REMOVED, host)]
    assert list(isns.answer(notification).attributes) == [(Tag.NODE_NAME, isns.text(NODE.name))]


def test_text_that_is_none() -> None:
    with pytest.raises(IsnsError, match="UTF-8"):
        isns.text_of(b"\xff\0")
