"""Text, the table of keys, and the rules of negotiation."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.iscsi.negotiation import (
    KEYS,
    NegotiationError,
    Negotiator,
    Pairs,
    Parameters,
    Preferences,
    Role,
    Rule,
    Stage,
    TextAccumulator,
    decode_text,
    encode_text,
    format_binary,
    parse_binary,
    parse_number,
)
from blockyard.iscsi.pdu import LoginStatus

# ---- text and values


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        (b"", []),
        (b"A=1\0", [("A", "1")]),
        (b"A=1\0B=\0", [("A", "1"), ("B", "")]),
        (b"A=b=c\0", [("A", "b=c")]),
        (b"A=1\0\0\0\0", [("A", "1")]),
        ("InitiatorAlias=ü\0".encode(), [("InitiatorAlias", "ü")]),
        (b"X-com.example.key=1\0X#NodeArchitecture=a\0", [("X-com.example.key", "1"), ("X#NodeArchitecture", "a")]),
        (b"iSCSIProtocolLevel=1\0", [("iSCSIProtocolLevel", "1")]),
        (b"HeaderDigest=" + b",".join([b"x" * 255] * 3) + b"\0", [("HeaderDigest", ",".join(["x" * 255] * 3))]),
        (b"CHAP_R=0x" + b"0" * 2048 + b"\0", [("CHAP_R", "0x" + "0" * 2048)]),
    ],
)
def test_text(text: bytes, pairs: Pairs) -> None:
    assert decode_text(text) == pairs
    assert decode_text(encode_text(pairs)) == pairs


@pytest.mark.parametrize(
    "text",
    [
        b"A=1",
        b"A\0",
        b"=1\0",
        b"a=1\0",
        b"A b=1\0",
        b"A=\xff\0",
        b"A" * 64 + b"=1\0",
        b"InitiatorAlias=" + b"x" * 256 + b"\0",
        b"InitiatorAlias=" + b"x" * 200 + b"," + b"x" * 200 + b"\0",
        b"HeaderDigest=None," + b"x" * 256 + b"\0",
        b"CHAP_R=0x" + b"0" * 2049 + b"\0",
    ],
)
def test_malformed_text(text: bytes) -> None:
    with pytest.raises(NegotiationError) as raised:
        decode_text(text)
    assert raised.value.status == LoginStatus.INITIATOR_ERROR


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1", 1),
        ("16777215", 16777215),
        ("0x10", 16),
        ("0XfF", 255),
        (str(2**64 - 1), 2**64 - 1),
        ("0x0010", 16),
    ],
)
def test_numbers(text: str, number: int) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "01", "1 ", " 1", "0x", "1.0", "1e3", "ten", str(2**64), "0x1" + "0" * 16, "٣", "1_0"]
)
def test_no_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="not a number"):
        parse_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x00ff", b"\x00\xff"), ("0Xabc", b"\x0a\xbc"), ("0bAP8=", b"\x00\xff"), ("0BAP8=", b"\x00\xff")],
)
def test_binary_values(text: str, value: bytes) -> None:
    assert parse_binary(text) == value


@pytest.mark.parametrize("text", ["", "0x", "0b", "ff", "0xgg", "0b!", "0bAP8", "0x" + "00" * 1025])
def test_no_binary_values(text: str) -> None:
    with pytest.raises(ValueError, match="binary value"):
        parse_binary(text)


@given(st.binary(min_size=1, max_size=1024))
def test_binary_values_come_back(value: bytes) -> None:
    assert parse_binary(format_binary(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_text_or_an_error(data: bytes) -> None:
    try:
        pairs = decode_text(data)
    except NegotiationError:
        return
    assert decode_text(encode_text(pairs)) == pairs


# ---- text over several PDUs


@given(st.lists(st.tuples(st.just("X-k"), st.text("abc=,", max_size=60)), max_size=30), st.integers(1, 100))
def test_text_is_put_together_again(pairs: Pairs, size: int) -> None:
    sender, receiver = TextAccumulator(), TextAccumulator()
    sender.put(pairs)
    received: Pairs | None = None
    while received is None:
        assert not receiver.sending
        data, continued = sender.next_segment(size)
        assert len(data) <= size
        received = receiver.take(data, continued=continued)
        assert receiver.receiving is (received is None)
    assert received == pairs
    assert not sender.sending


def test_text_has_a_limit() -> None:
    text = TextAccumulator(limit=100)
    assert text.take(b"A=" + b"x" * 50, continued=True) is None
    with pytest.raises(NegotiationError, match="longer than 100"):
        text.take(b"x" * 50, continued=True)


def test_nobody_speaks_before_the_other_has_ended() -> None:
    text = TextAccumulator()
    text.put([("A", "1")])
    text.next_segment(2)
    with pytest.raises(NegotiationError, match="incomplete"):
        text.take(b"B=1\0", continued=False)
    assert text.take(b"", continued=False) == []
    text.reset()
    assert text.take(b"B=1\0", continued=False) == [("B", "1")]


# ---- the table


def test_every_parameter_is_a_key() -> None:
    attributes = {row.attribute for row in KEYS.values()} - {""}
    assert {field.name for field in fields(Parameters)} - {"peer_max_recv_data_segment_length"} == attributes
    assert {field.name for field in fields(Preferences)} <= attributes


def test_every_row_cites_its_section() -> None:
    for row in KEYS.values():
        assert re.fullmatch(r"1[23](\.\d+)+", row.section), row.name


@pytest.mark.parametrize(
    "wish",
    [
        {"max_recv_data_segment_length": 511},
        {"max_burst_length": 1 << 24},
        {"error_recovery_level": 3},
        {"header_digest": ()},
        {"header_digest": ("MD5",)},
        {"target_alias": "x" * 256},
        {"default_time2wait": 3601},
    ],
)
def test_impossible_preferences(wish: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(KEYS[name].name for name in KEYS if KEYS[name].attribute in wish))):
        Preferences(**wish)


# ---- answers of a target

YES, NO = "Yes", "No"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("HeaderDigest=CRC32C,None", "CRC32C"),
        ("HeaderDigest=None,CRC32C", "None"),
        ("HeaderDigest=X-com.example.digest,None", "None"),
        ("HeaderDigest=CRC32C", "CRC32C"),
        ("DataDigest=X-com.example.digest", "Reject"),
        ("DataDigest=", "Reject"),
        ("MaxConnections=8", "8"),
        ("MaxConnections=20", "16"),
        ("MaxConnections=0", "Reject"),
        ("InitialR2T=Yes", "Yes"),
        ("InitialR2T=No", "No"),
        ("InitialR2T=yes", "Reject"),
        ("InitialR2T=", "Reject"),
        ("ImmediateData=Yes", "Yes"),
        ("ImmediateData=No", "No"),
        ("MaxBurstLength=16776192", "1048576"),
        ("MaxBurstLength=262144", "262144"),
        ("MaxBurstLength=0x40000", "262144"),
        ("MaxBurstLength=511", "Reject"),
        ("MaxBurstLength=16777216", "Reject"),
        ("MaxBurstLength=big", "Reject"),
        ("FirstBurstLength=262144", "262144"),
        ("FirstBurstLength=65536", "65536"),
        ("FirstBurstLength=16777215", "262144"),
        ("DefaultTime2Wait=0", "2"),
        ("DefaultTime2Wait=20", "20"),
        ("DefaultTime2Wait=3601", "Reject"),
        ("DefaultTime2Retain=20", "0"),
        ("MaxOutstandingR2T=1", "1"),
        ("MaxOutstandingR2T=65535", "8"),
        ("DataPDUInOrder=No", "Yes"),
        ("DataSequenceInOrder=No", "Yes"),
        ("ErrorRecoveryLevel=2", "0"),
        ("ErrorRecoveryLevel=3", "Reject"),
        ("TaskReporting=FastAbort,RFC3720", "FastAbort"),
        ("TaskReporting=Slow", "Reject"),
        ("iSCSIProtocolLevel=2", "1"),
        ("iSCSIProtocolLevel=0", "0"),
        ("iSCSIProtocolLevel=32", "Reject"),
        ("IFMarker=Yes", "No"),
        ("OFMarker=No", "No"),
        ("IFMarkInt=1~65535", "Reject"),
        ("OFMarkInt=2048", "Reject"),
        ("X-com.example.key=1", "NotUnderstood"),
        ("NoSuchKey=1", "NotUnderstood"),
    ],
)
def test_a_target_answers(offer: str, answer: str) -> None:
    name, _, value = offer.partition("=")
    target = Negotiator(Role.TARGET, Preferences())
    before = replace(target.parameters)
    assert target.answer([(name, value)], Stage.OPERATIONAL) == [(name, answer)]
    if answer in ("Reject", "NotUnderstood"):
        assert target.parameters == before


@pytest.mark.parametrize("order", [0, 1])
def test_first_burst_follows_what_it_depends_on(order: int) -> None:
    target = Negotiator(Role.TARGET, Preferences())
    pairs = [("FirstBurstLength", "262144"), ("MaxBurstLength", "8192")]
    answers = target.answer(pairs[:: 1 - 2 * order], Stage.OPERATIONAL)
    assert dict(answers) == {"FirstBurstLength": "8192", "MaxBurstLength": "8192"}
    assert [name for name, _ in answers] == [name for name, _ in pairs[:: 1 - 2 * order]]


@pytest.mark.parametrize(("initial_r2t", "immediate_data"), list(product((YES, NO), repeat=2)))
def test_first_burst_is_irrelevant_when_there_is_none(initial_r2t: str, immediate_data: str) -> None:
    target = Negotiator(Role.TARGET, Preferences())
    pairs = [("FirstBurstLength", "1024"), ("ImmediateData", immediate_data), ("InitialR2T", initial_r2t)]
    answer = dict(target.answer(pairs, Stage.OPERATIONAL))["FirstBurstLength"]
    assert answer == ("Irrelevant" if (initial_r2t, immediate_data) == (YES, NO) else "1024")


def test_bursts_that_cannot_be_made_to_fit() -> None:
    target = Negotiator(Role.TARGET, Preferences())
    target.answer([("FirstBurstLength", "65536")], Stage.OPERATIONAL)
    with pytest.raises(NegotiationError, match="less than FirstBurstLength"):
        target.answer([("MaxBurstLength", "8192")], Stage.OPERATIONAL)


def test_a_default_first_burst_shrinks_with_the_burst() -> None:
    target = Negotiator(Role.TARGET, Preferences())
    target.answer([("MaxBurstLength", "8192")], Stage.OPERATIONAL)
    target.finish()
    assert target.parameters.first_burst_length == 8192


def test_a_discovery_session_has_keys_without_meaning() -> None:
    target = Negotiator(Role.TARGET, Preferences())
    target.answer([("SessionType", "Discovery")], Stage.OPERATIONAL)
    moot = {
        "MaxConnections": "1", "InitialR2T": NO, "ImmediateData": YES, "MaxBurstLength": "512",
        "FirstBurstLength": "512", "MaxOutstandingR2T": "1", "DataPDUInOrder": YES,
        "DataSequenceInOrder": YES, "TaskReporting": "RFC3720", "iSCSIProtocolLevel": "1",
    }  # fmt: skip
    assert target.answer(list(moot.items()), Stage.OPERATIONAL) == [(name, "Irrelevant") for name in moot]
    kept = [("HeaderDigest", "CRC32C"), ("DefaultTime2Wait", "3"), ("ErrorRecoveryLevel", "0")]
    assert target.answer(kept, Stage.OPERATIONAL) == kept


def test_declarations_are_not_answered() -> None:
    target = Negotiator(Role.TARGET, Preferences())
    declared = [("InitiatorAlias", "ä"), ("MaxRecvDataSegmentLength", "16777215"), ("X#NodeArchitecture", "Linux")]
    assert target.answer(declared, Stage.OPERATIONAL) == []
    assert target.parameters.initiator_alias == "ä"
    assert target.parameters.peer_max_recv_data_segment_length == 16777215
    assert target.declare_segment_length() == [("MaxRecvDataSegmentLength", "262144")]
    assert target.declare_segment_length() == []


@pytest.mark.parametrize(
    ("name", "value", "stage", "status"),
    [
        ("MaxRecvDataSegmentLength", "511", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
        ("MaxRecvDataSegmentLength", "x", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
        ("SessionType", "Other", Stage.SECURITY, LoginStatus.SESSION_TYPE_UNSUPPORTED),
        ("InitiatorName", "", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("InitiatorName", "a b", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("TargetName", "a b", Stage.SECURITY, LoginStatus.NOT_FOUND),
        ("TargetAlias", "x", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("TargetAddress", "x", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("TargetPortalGroupTag", "1", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("SendTargets", "All", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
        ("HeaderDigest", "None", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("AuthMethod", "None", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
        ("CHAP_A", "5", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
        ("CHAP_A", "5", Stage.SECURITY, LoginStatus.INITIATOR_ERROR),
        ("InitialR2T", "Irrelevant", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
        ("HeaderDigest", "Reject", Stage.OPERATIONAL, LoginStatus.INITIATOR_ERROR),
    ],
)
def test_what_a_target_cannot_take(name: str, value: str, stage: Stage, status: LoginStatus) -> None:
    with pytest.raises(NegotiationError) as raised:
        Negotiator(Role.TARGET, Preferences()).answer([(name, value)], stage)
    assert raised.value.status == status


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    "name", ["InitialR2T", "HeaderDigest", "MaxRecvDataSegmentLength", "IFMarker", "InitiatorAlias"]
)
def test_a_key_is_settled_once(name: str, together: bool) -> None:
    values = {"HeaderDigest": "None", "MaxRecvDataSegmentLength": "512"}
    pair = (name, values.get(name, "Yes"))
    target = Negotiator(Role.TARGET, Preferences())
    if not together:
        target.answer([pair], Stage.OPERATIONAL)
    with pytest.raises(NegotiationError, match="twice"):
        target.answer([pair, pair] if together else [pair], Stage.OPERATIONAL)


def test_comments_on_what_was_settled_are_let_pass() -> None:
    target = Negotiator(Role.TARGET, Preferences())
    target.declare("TargetPortalGroupTag", 1)
    target.answer([("FirstBurstLength", "512")], Stage.OPERATIONAL)
    comments = [("TargetPortalGroupTag", "Irrelevant"), ("FirstBurstLength", "Irrelevant"), ("X-a", "NotUnderstood")]
    assert target.answer(comments, Stage.OPERATIONAL) == []


# ---- full feature phase


def test_full_feature_phase() -> None:
    target = Negotiator(Role.TARGET, Preferences())
    target.finish()
    before = replace(target.parameters)
    for length in ("1024", "2048"):  # may be declared again and again
        assert target.answer_full_feature([("MaxRecvDataSegmentLength", length)]) == []
        assert target.parameters.peer_max_recv_data_segment_length == int(length)
    target.parameters.peer_max_recv_data_segment_length = 8192
    answers = target.answer_full_feature(
        [("InitialR2T", "No"), ("X-a", "1"), ("HeaderDigest", "None"), ("TargetAlias", "b")]
    )
    assert answers == [
        ("InitialR2T", "Reject"),
        ("X-a", "NotUnderstood"),
        ("HeaderDigest", "Reject"),
        ("TargetAlias", "Reject"),
    ]
    assert target.parameters == before


@pytest.mark.parametrize("pairs", [[("X-a", "1"), ("X-a", "2")], [("MaxRecvDataSegmentLength", "1")]])
def test_full_feature_errors(pairs: Pairs) -> None:
    with pytest.raises(NegotiationError):
        Negotiator(Role.TARGET, Preferences()).answer_full_feature(pairs)


# ---- the originator's side


@pytest.mark.parametrize(
    ("name", "wish", "answer", "result"),
    [
        ("HeaderDigest", ("CRC32C", "None"), "CRC32C", True),
        ("HeaderDigest", ("CRC32C", "None"), "None", False),
        ("HeaderDigest", ("CRC32C", "None"), "Reject", False),
        ("InitialR2T", False, "Yes", True),
        ("InitialR2T", False, "No", False),
        ("InitialR2T", True, "Reject", True),
        ("ImmediateData", True, "No", False),
        ("MaxBurstLength", 1048576, "65536", 65536),
        ("MaxBurstLength", 1048576, "Irrelevant", 262144),
        ("MaxBurstLength", 1048576, "NotUnderstood", 262144),
        ("DefaultTime2Wait", 2, "5", 5),
        ("MaxOutstandingR2T", 8, "1", 1),
        ("TaskReporting", ("RFC3720",), "RFC3720", "RFC3720"),
    ],
)
def test_an_initiator_takes_answers(name: str, wish: Any, answer: str, result: Any) -> None:
    initiator = Negotiator(Role.INITIATOR, replace(Preferences(), **{KEYS[name].attribute: wish}))
    initiator.offer(name)
    assert initiator.unanswered == {name}
    assert initiator.answer([(name, answer)], Stage.OPERATIONAL) == []
    assert not initiator.unanswered
    assert getattr(initiator.parameters, KEYS[name].attribute) == result


@pytest.mark.parametrize(
    ("name", "wish", "answer"),
    [
        ("HeaderDigest", ("CRC32C",), "None"),
        ("HeaderDigest", ("CRC32C",), "Reject"),
        ("InitialR2T", True, "No"),
        ("ImmediateData", False, "Yes"),
        ("ImmediateData", False, "Reject"),  # its default is Yes
        ("MaxBurstLength", 65536, "262144"),
        ("MaxBurstLength", 65536, "Irrelevant"),  # its default is more
        ("MaxBurstLength", 65536, "100"),
        ("MaxBurstLength", 65536, "x"),
        ("DefaultTime2Wait", 5, "2"),
    ],
)
def test_answers_that_an_initiator_cannot_take(name: str, wish: Any, answer: str) -> None:
    initiator = Negotiator(Role.INITIATOR, replace(Preferences(), **{KEYS[name].attribute: wish}))
    initiator.offer(name)
    with pytest.raises(NegotiationError):
        initiator.answer([(name, answer)], Stage.OPERATIONAL)


def test_optional_answers_and_missing_ones() -> None:
    initiator = Negotiator(Role.INITIATOR, Preferences(initial_r2t=True, immediate_data=False, max_burst_length=65536))
    initiator.offer("InitialR2T")
    initiator.offer("ImmediateData")
    initiator.finish()
    assert initiator.parameters.initial_r2t
    assert not initiator.parameters.immediate_data
    initiator.offer("MaxBurstLength")
    with pytest.raises(NegotiationError, match="default will not do"):
        initiator.finish()


def test_an_initiator_answers_a_targets_offers() -> None:
    initiator = Negotiator(Role.INITIATOR, Preferences())
    pairs = [("TargetAddress", "192.0.2.1:3260,1"), ("TargetAddress", "192.0.2.2:3260,1"), ("MaxBurstLength", "65536")]
    assert initiator.answer(pairs, Stage.OPERATIONAL) == [("MaxBurstLength", "65536")]
    assert initiator.parameters.max_burst_length == 65536
    with pytest.raises(NegotiationError, match="not the target's"):
        initiator.answer([("InitiatorName", "iqn.2024-01.com.example")], Stage.OPERATIONAL)


# ---- both ends

_DIGESTS = st.sampled_from([("None",), ("CRC32C", "None"), ("None", "CRC32C")])
_LENGTHS = st.sampled_from([512, 4096, 8192, 65536, 262144, 1048576, (1 << 24) - 1])
PREFERENCES = st.builds(
    Preferences,
    header_digest=_DIGESTS,
    data_digest=_DIGESTS,
    initial_r2t=st.booleans(),
    immediate_data=st.booleans(),
    max_recv_data_segment_length=_LENGTHS,
    max_burst_length=_LENGTHS,
    first_burst_length=_LENGTHS,
    default_time2wait=st.integers(0, 3600),
    default_time2retain=st.integers(0, 3600),
    max_outstanding_r2t=st.integers(1, 65535),
    data_pdu_in_order=st.booleans(),
    data_sequence_in_order=st.booleans(),
    error_recovery_level=st.integers(0, 2),
    max_connections=st.integers(1, 65535),
    task_reporting=st.sampled_from([("RFC3720",), ("FastAbort", "RFC3720"), ("ResponseFence", "FastAbort", "RFC3720")]),
    protocol_level=st.integers(0, 2),
)


@given(PREFERENCES, PREFERENCES, st.randoms(use_true_random=False))
def test_both_ends_agree(mine: Preferences, yours: Preferences, random: Any) -> None:
    initiator, target = Negotiator(Role.INITIATOR, mine), Negotiator(Role.TARGET, yours)
    offers = initiator.operational_offers()
    random.shuffle(offers)
    answers = target.answer(offers, Stage.OPERATIONAL) + target.declare_segment_length()
    random.shuffle(answers)
    initiator.answer(answers, Stage.OPERATIONAL)
    initiator.finish()
    target.finish()
    seen = replace(
        target.parameters,
        max_recv_data_segment_length=target.parameters.peer_max_recv_data_segment_length,
        peer_max_recv_data_segment_length=target.parameters.max_recv_data_segment_length,
    )
    assert initiator.parameters == seen
    assert seen.first_burst_length <= seen.max_burst_length
    for row in KEYS.values():  # the result is what the rule says, or the default where the key did not matter
        if row.rule in (Rule.MINIMUM, Rule.MAXIMUM) and row.name not in ("FirstBurstLength", "iSCSIProtocolLevel"):
            bound = min if row.rule is Rule.MINIMUM else max
            result = bound(getattr(mine, row.attribute), getattr(yours, row.attribute))
            if row.name == "MaxOutstandingR2T" and seen.error_recovery_level and seen.data_sequence_in_order:
                result = 1  # RFC 7143 §13.19
            assert getattr(seen, row.attribute) == result


KEY_NAMES = st.sampled_from([*KEYS, "X-com.example", "Unknown"])
VALUES = st.one_of(
    st.sampled_from(["Yes", "No", "None", "CRC32C", "CRC32C,None", "CHAP,None", "Reject", "Irrelevant", "Normal",
                     "Discovery", "iqn.2024-01.com.example:a", "0x200", "RFC3720"]),
    st.integers(-1, 1 << 25).map(str),
    st.text(max_size=20).filter(lambda text: "\0" not in text),
)  # fmt: skip
PAIRS = st.lists(st.tuples(KEY_NAMES, VALUES), max_size=8)


@given(
    st.sampled_from(Role), st.lists(st.tuples(PAIRS, st.sampled_from([Stage.SECURITY, Stage.OPERATIONAL])), max_size=4)
)
def test_nothing_but_negotiation_errors(role: Role, texts: list[tuple[Pairs, Stage]]) -> None:
    negotiator = Negotiator(role, Preferences())
    if role is Role.INITIATOR:
        negotiator.operational_offers()
    try:
        for pairs, stage in texts:
            for name, value in negotiator.answer(pairs, stage):
                assert name in dict(pairs)
                assert len(value) <= 255
        negotiator.finish()
        negotiator.answer_full_feature(texts[0][0] if texts else [])
    except NegotiationError:
        return
    assert 512 <= negotiator.parameters.first_burst_length <= negotiator.parameters.max_burst_length < 1 << 24
