"""The login phase: stages, texts over several PDUs, and every way to be refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.initiator import InitiatorError, InitiatorLogin, LoginError
from blockyard.iscsi.login import COMMAND_WINDOW, MAX_REQUESTS, Authenticator, Found, LoginState, Moved, TargetLogin
from blockyard.iscsi.negotiation import (
    KEYS,
    NegotiationError,
    Pairs,
    Preferences,
    Stage,
    decode_text,
    encode_text,
)
from blockyard.iscsi.pdu import LoginRequest, LoginResponse, LoginStatus, decode

TARGET = "iqn.2024-01.com.example:disk"
INITIATOR = "iqn.1993-08.org.debian:01:abc"
PORTAL = "192.0.2.1:3260"
ISID = bytes.fromhex("00023d000001")
NAMES = [("InitiatorName", INITIATOR), ("SessionType", "Normal"), ("TargetName", TARGET)]
TSIH = 0x1234


class Node:
    """A target."""


class Targets:
    """A directory of one target, and of some that are away for the reason in their name."""

    def __init__(self, preferences: Preferences | None = None) -> None:
        self.preferences = preferences

    def find(self, name: str, portal: str) -> Found | Moved | LoginStatus:
        assert portal == PORTAL
        if name == TARGET:
            return Found(Node(), 7, self.preferences)
        reason = name.rpartition(":")[2].upper()
        if reason.startswith("MOVED"):
            return Moved("[2001:db8::5]:3261", reason.endswith("PERMANENTLY"))
        return LoginStatus[reason] if reason in LoginStatus.__members__ else LoginStatus.NOT_FOUND


def new_login(attach: Callable[[TargetLogin], int | LoginStatus] = lambda login: TSIH, **options: Any) -> TargetLogin:
    return TargetLogin(Targets(), PORTAL, attach=attach, **options)


def request(pairs: Pairs | bytes = b"", **fields: Any) -> LoginRequest:
    given: dict[str, Any] = {
        "csg": 1,
        "nsg": 3,
        "final": True,
        "isid": ISID,
        "itt": 5,
        "cid": 9,
        "cmd_sn": 100,
        "immediate": True,
    }
    if fields.get("continued"):
        given |= {"final": False, "nsg": 0}
    data = pairs if isinstance(pairs, bytes) else encode_text(pairs)
    return LoginRequest(data=data, **(given | fields))


def exchange(login: TargetLogin, pdu: LoginRequest) -> LoginResponse:
    """One request and its one response, by way of their bytes."""
    sent = decode(pdu.encode(), 0)
    assert isinstance(sent, LoginRequest)
    (response,) = login.receive(sent)
    received = decode(response.encode(), 0)
    assert isinstance(received, LoginResponse)
    assert received.itt == pdu.itt
    assert received.isid == pdu.isid
    return received


def pairs_of(response: LoginResponse) -> Pairs:
    return decode_text(response.data)


# ---- logins that succeed


def test_a_login_in_one_exchange() -> None:
    login = new_login(preferences=Preferences(target_alias="Disk"))
    offers = [("HeaderDigest", "CRC32C,None"), ("MaxRecvDataSegmentLength", "65536"), ("X-a", "b")]
    response = exchange(login, request(NAMES + offers))
    assert login.state is LoginState.FULL_FEATURE
    assert (response.final, response.csg, response.nsg, response.tsih, response.status) == (True, 1, 3, TSIH, 0)
    assert pairs_of(response) == [
        ("TargetAlias", "Disk"),
        ("TargetPortalGroupTag", "7"),
        ("HeaderDigest", "CRC32C"),
        ("X-a", "NotUnderstood"),
        ("MaxRecvDataSegmentLength", "262144"),
    ]
    parameters = login.parameters
    assert (parameters.initiator_name, parameters.target_name) == (INITIATOR, TARGET)
    assert parameters.header_digest
    assert parameters.peer_max_recv_data_segment_length == 65536
    assert parameters.max_recv_data_segment_length == 262144
    assert (login.isid, login.tsih, login.cid, login.cmd_sn, login.next_stat_sn) == (ISID, TSIH, 9, 100, 1)
    assert isinstance(login.target, Node)


@pytest.mark.parametrize(
    ("how", "status"),
    [("temporarily", LoginStatus.MOVED_TEMPORARILY), ("permanently", LoginStatus.MOVED_PERMANENTLY)],
)
@pytest.mark.parametrize("stage", [0, 1])
def test_a_target_that_is_to_be_had_elsewhere(how: str, status: LoginStatus, stage: int) -> None:
    """RFC 7143 §11.13.5, §13.8: the address comes without a portal group tag."""
    login = new_login()
    names = [*NAMES[:2], ("TargetName", f"iqn.2024-01.com.example:moved_{how}")]
    response = exchange(login, request(names, csg=stage, nsg=stage + 1 if stage == 0 else 3))
    assert response.status == status
    assert pairs_of(response) == [("TargetAddress", "[2001:db8::5]:3261")]
    assert login.state is LoginState.FAILED


def test_what_one_target_wishes_for() -> None:
    login = TargetLogin(Targets(Preferences(target_alias="Its own", initial_r2t=True)), PORTAL, attach=lambda login: 1)
    response = exchange(login, request([*NAMES, ("InitialR2T", "No")]))
    assert ("TargetAlias", "Its own") in pairs_of(response)
    assert ("InitialR2T", "Yes") in pairs_of(response)


def test_a_login_in_both_stages() -> None:
    login = new_login()
    response = exchange(login, request([*NAMES, ("AuthMethod", "CHAP,None")], csg=0, nsg=1))
    assert (response.final, response.csg, response.nsg, response.tsih) == (True, 0, 1, 0)
    assert pairs_of(response) == [("TargetPortalGroupTag", "7"), ("AuthMethod", "None")]
    response = exchange(login, request([("InitialR2T", "No")], final=False, nsg=0))
    assert (response.final, response.csg, response.nsg) == (False, 1, 0)
    assert pairs_of(response) == [("InitialR2T", "No"), ("MaxRecvDataSegmentLength", "262144")]
    response = exchange(login, request())
    assert (response.final, response.tsih, bytes(response.data), response.stat_sn) == (True, TSIH, b"", 2)
    assert login.state is LoginState.FULL_FEATURE
    assert not login.parameters.initial_r2t


def test_a_login_without_the_operational_stage() -> None:
    login = new_login()
    response = exchange(login, request(NAMES, csg=0, nsg=3))
    assert (response.final, response.csg, response.nsg, response.tsih) == (True, 0, 3, TSIH)
    assert login.parameters.max_recv_data_segment_length == 8192  # nothing was declared


@pytest.mark.parametrize("named", [False, True])
def test_a_discovery_login(named: bool) -> None:
    login = new_login()
    names = [("InitiatorName", INITIATOR), ("SessionType", "Discovery")] + [("TargetName", TARGET)] * named
    response = exchange(login, request(names))
    assert login.state is LoginState.FULL_FEATURE
    assert (("TargetPortalGroupTag", "7") in pairs_of(response)) is named
    assert (login.target is not None) is named


def test_numbers_of_the_responses() -> None:
    login = new_login(command_window=32)
    for stat_sn in range(3):
        response = exchange(login, request(NAMES if not stat_sn else b"", csg=1, nsg=0, final=False, cmd_sn=0xFFFFFFFF))
        assert (response.stat_sn, response.exp_cmd_sn, response.max_cmd_sn) == (stat_sn, 0xFFFFFFFF, 30)
        assert login.next_stat_sn == stat_sn + 1
    assert exchange(new_login(), request(NAMES)).max_cmd_sn == 100 + COMMAND_WINDOW - 1


def test_names_are_compared_normalised() -> None:
    login = new_login()
    exchange(login, request([("InitiatorName", INITIATOR.upper()), ("TargetName", TARGET.upper())]))
    assert login.state is LoginState.FULL_FEATURE
    assert login.parameters.initiator_name == INITIATOR


def test_text_of_several_requests() -> None:
    login = new_login()
    text = encode_text([*NAMES, ("InitiatorAlias", "x" * 200), ("ImmediateData", "No")])
    for at in range(0, len(text) - 50, 50):
        response = exchange(login, request(text[at : at + 50], continued=True))
        assert (response.final, response.continued, bytes(response.data), response.status) == (False, False, b"", 0)
        assert not login.named
    last = len(text) - len(text) % 50 if len(text) % 50 else len(text) - 50
    response = exchange(login, request(text[last:]))
    assert login.state is LoginState.FULL_FEATURE
    assert ("TargetPortalGroupTag", "7") in pairs_of(response)
    assert not login.parameters.immediate_data


def test_an_answer_of_several_responses() -> None:
    login = new_login()
    unknown = [(f"X-{number}", "1") for number in range(700)]  # the answers are longer than the offers
    text = encode_text(NAMES + unknown)
    response = exchange(login, request(text[:8192], continued=True))
    response = exchange(login, request(text[8192:]))
    received = b""
    while response.continued:
        assert len(response.data) == 8192
        assert not response.final
        received += bytes(response.data)
        assert login.state is LoginState.NEGOTIATING
        response = exchange(login, request())
    received += bytes(response.data)
    assert response.final
    answers = decode_text(received)
    assert answers[1:-1] == [(name, "NotUnderstood") for name, _ in unknown]
    assert login.state is LoginState.FULL_FEATURE


def test_a_login_replayed_says_the_same() -> None:
    requests = [request([*NAMES, ("AuthMethod", "None")], csg=0, nsg=1), request([("HeaderDigest", "CRC32C")])]
    said = [[exchange(login, pdu).encode() for pdu in requests] for login in (new_login(), new_login())]
    assert said[0] == said[1]


def test_libiscsi_says_again_who_it_is() -> None:
    """With a password that nobody has asked for, it begins the operational stage like the first one."""
    login = new_login()
    exchange(login, request([*NAMES, ("AuthMethod", "CHAP,None")], csg=0, nsg=1))
    exchange(login, request(NAMES))
    assert login.state is LoginState.FULL_FEATURE


# ---- logins that fail

Requests = Sequence[LoginRequest]
OPEN = request(NAMES, final=False, nsg=0)
SECURE = request(NAMES, csg=0, nsg=0, final=False)


@pytest.mark.parametrize(
    ("requests", "status"),
    [
        pytest.param([request(NAMES, version_min=1, version_max=2)], LoginStatus.UNSUPPORTED_VERSION, id="version"),
        pytest.param([request(NAMES[1:])], LoginStatus.MISSING_PARAMETER, id="no initiator name"),
        pytest.param([request(NAMES[:2])], LoginStatus.MISSING_PARAMETER, id="no target name"),
        pytest.param([request(NAMES[:1])], LoginStatus.MISSING_PARAMETER, id="normal by default"),
        pytest.param([request()], LoginStatus.MISSING_PARAMETER, id="nothing at all"),
        pytest.param([request([NAMES[0], ("TargetName", TARGET + "x")])], LoginStatus.NOT_FOUND, id="unknown target"),
        pytest.param([request([NAMES[0], ("TargetName", "a b")])], LoginStatus.NOT_FOUND, id="impossible target"),
        pytest.param(
            [request([NAMES[0], ("SessionType", "Discovery"), ("TargetName", TARGET + "x")])],
            LoginStatus.NOT_FOUND,
            id="discovery of an unknown target",
        ),
        pytest.param(
            [request([NAMES[0], ("TargetName", "iqn.2024-01.com.example:service_unavailable")])],
            LoginStatus.SERVICE_UNAVAILABLE,
            id="target away",
        ),
        pytest.param(
            [request([NAMES[0], ("TargetName", "iqn.2024-01.com.example:authorization_failure")])],
            LoginStatus.AUTHORIZATION_FAILURE,
            id="not for you",
        ),
        pytest.param(
            [request([NAMES[0], ("SessionType", "Boot")])], LoginStatus.SESSION_TYPE_UNSUPPORTED, id="session type"
        ),
        pytest.param(
            [request([*NAMES, ("AuthMethod", "CHAP")], csg=0, nsg=1)],
            LoginStatus.AUTHENTICATION_FAILURE,
            id="CHAP only",
        ),
        pytest.param([request(NAMES, csg=2)], LoginStatus.INITIATOR_ERROR, id="CSG 2"),
        pytest.param([request(NAMES, csg=3)], LoginStatus.INITIATOR_ERROR, id="CSG 3"),
        pytest.param([request(NAMES, nsg=2)], LoginStatus.INITIATOR_ERROR, id="NSG 2"),
        pytest.param([request(NAMES, nsg=1)], LoginStatus.INITIATOR_ERROR, id="NSG is CSG"),
        pytest.param([request(NAMES, csg=1, nsg=0)], LoginStatus.INITIATOR_ERROR, id="back to security"),
        pytest.param([request(NAMES, continued=True, final=True)], LoginStatus.INITIATOR_ERROR, id="T and C"),
        pytest.param([OPEN, request(csg=0, nsg=1)], LoginStatus.INITIATOR_ERROR, id="CSG goes back"),
        pytest.param([SECURE, request()], LoginStatus.INITIATOR_ERROR, id="CSG goes on alone"),
        pytest.param([OPEN, request(itt=6)], LoginStatus.INITIATOR_ERROR, id="another task tag"),
        pytest.param([OPEN, request(cid=1)], LoginStatus.INITIATOR_ERROR, id="another CID"),
        pytest.param([OPEN, request(isid=bytes(6))], LoginStatus.INITIATOR_ERROR, id="another ISID"),
        pytest.param([OPEN, request(tsih=1)], LoginStatus.INITIATOR_ERROR, id="another TSIH"),
        pytest.param([OPEN, request(cmd_sn=101)], LoginStatus.INITIATOR_ERROR, id="another CmdSN"),
        pytest.param([OPEN, request(version_max=1)], LoginStatus.INITIATOR_ERROR, id="another version"),
        pytest.param(
            [OPEN, request([("InitiatorName", INITIATOR + "x")])], LoginStatus.INITIATOR_ERROR, id="another name"
        ),
        pytest.param(
            [request([NAMES[0], NAMES[2]], final=False, nsg=0), request(NAMES[1:2])],
            LoginStatus.INITIATOR_ERROR,
            id="late session type",
        ),
        pytest.param([request(NAMES + NAMES[:1])], LoginStatus.INITIATOR_ERROR, id="name twice at once"),
        pytest.param(
            [request([*NAMES, ("InitialR2T", "No")], csg=0, nsg=1)], LoginStatus.INITIATOR_ERROR, id="too early"
        ),
        pytest.param([request([*NAMES, ("AuthMethod", "None")])], LoginStatus.INITIATOR_ERROR, id="too late"),
        pytest.param(
            [request([*NAMES, ("CHAP_N", "me")], csg=0, nsg=1)], LoginStatus.INITIATOR_ERROR, id="CHAP unasked"
        ),
        pytest.param([request([*NAMES, ("SendTargets", "All")])], LoginStatus.INITIATOR_ERROR, id="SendTargets"),
        pytest.param([request(b"InitiatorName")], LoginStatus.INITIATOR_ERROR, id="no text"),
        pytest.param([request(b"\xff=\xff\0")], LoginStatus.INITIATOR_ERROR, id="no UTF-8"),
        pytest.param([request(b"A=" + b"x" * 8000, continued=True)] * 9, LoginStatus.INITIATOR_ERROR, id="too much"),
        pytest.param(
            [OPEN] + [request(nsg=0, final=False)] * MAX_REQUESTS, LoginStatus.INITIATOR_ERROR, id="too often"
        ),
    ],
)
def test_refusals(requests: Requests, status: LoginStatus) -> None:
    login = new_login()
    for pdu in requests:
        assert login.state is LoginState.NEGOTIATING
        response = exchange(login, pdu)
    assert response.status == status
    assert (response.final, response.continued, bytes(response.data)) == (False, False, b"")
    assert login.state is LoginState.FAILED
    assert login.status == status
    assert login.failure
    with pytest.raises(RuntimeError):
        login.receive(request())


@pytest.mark.parametrize(
    ("tsih", "answer"), [(0, LoginStatus.OUT_OF_RESOURCES), (77, LoginStatus.SESSION_DOES_NOT_EXIST)]
)
def test_a_session_that_cannot_be_entered(tsih: int, answer: LoginStatus) -> None:
    seen = []

    def attach(login: TargetLogin) -> LoginStatus:
        seen.append((login.requested_tsih, login.parameters.target_name, login.state))
        return answer

    response = exchange(new_login(attach), request(NAMES, tsih=tsih))
    assert response.status == answer
    assert response.tsih == tsih
    assert seen == [(tsih, TARGET, LoginState.NEGOTIATING)]


def test_text_while_the_answer_is_incomplete() -> None:
    login = new_login()
    text = encode_text(NAMES + [(f"X-{number}", "1") for number in range(700)])
    exchange(login, request(text[:8192], continued=True))
    assert exchange(login, request(text[8192:])).continued
    assert exchange(login, request([("X-a", "1")])).status == LoginStatus.INITIATOR_ERROR


# ---- authentication has its place


class Password:
    """A method of the simplest kind in the place of CHAP: CHAP_N must be "friend", on the second question."""

    def __init__(self, methods: tuple[str, ...]) -> None:
        self.methods = methods
        self.done = False
        self.name = ""
        self.mutual = False

    def step(self, method: str, pairs: Pairs) -> Pairs:
        assert method == "CHAP"
        if ("CHAP_A", "5") in pairs:
            return [("CHAP_I", "1")]
        if pairs != [("CHAP_N", "friend")]:
            raise NegotiationError("wrong name", LoginStatus.AUTHENTICATION_FAILURE)
        self.done = True
        return []


def secured(*methods: str) -> TargetLogin:
    def authenticator(login: TargetLogin) -> Authenticator:
        assert login.parameters.initiator_name == INITIATOR
        assert login.target is not None
        return Password(methods)

    return new_login(authenticator=authenticator)


def test_authentication() -> None:
    login = secured("CHAP")
    response = exchange(login, request([*NAMES, ("AuthMethod", "CHAP,None")], csg=0, nsg=1))
    assert (response.final, pairs_of(response)) == (False, [("TargetPortalGroupTag", "7"), ("AuthMethod", "CHAP")])
    response = exchange(login, request([("CHAP_A", "5")], csg=0, nsg=0, final=False))
    assert pairs_of(response) == [("CHAP_I", "1")]
    response = exchange(login, request(csg=0, nsg=1))
    assert not response.final  # it has not ended
    response = exchange(login, request([("CHAP_N", "friend")], csg=0, nsg=3))
    assert (response.final, response.nsg) == (True, 3)
    assert login.parameters.auth_method == "CHAP"


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([request(NAMES)], id="straight to the operational stage"),
        pytest.param([request(NAMES, csg=0, nsg=3)], id="straight to full feature"),
        pytest.param([request([*NAMES, ("AuthMethod", "None")], csg=0, nsg=1)], id="None"),
        pytest.param(
            [
                request([*NAMES, ("AuthMethod", "CHAP")], csg=0, nsg=0, final=False),
                request([("CHAP_N", "foe")], csg=0, nsg=3),
            ],
            id="wrong",
        ),
    ],
)
def test_authentication_that_fails(requests: Requests) -> None:
    login = secured("CHAP")
    for pdu in requests:
        response = exchange(login, pdu)
    assert response.status == LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("pdu", [request(NAMES), request([*NAMES, ("AuthMethod", "None,CHAP")], csg=0, nsg=3)])
def test_authentication_that_is_optional(pdu: LoginRequest) -> None:
    login = secured("CHAP", "None")
    exchange(login, pdu)
    assert login.state is LoginState.FULL_FEATURE


# ---- with the initiator of our own


def link(initiator: InitiatorLogin, target: TargetLogin) -> None:
    """Let the two talk until the login is over. Raises what the initiator does."""
    pdu: LoginRequest | None = initiator.start()
    while pdu is not None:
        pdu = initiator.receive(exchange(target, pdu))


@pytest.mark.parametrize("security_stage", [False, True])
@pytest.mark.parametrize("segment", [20, 100, 8192])
def test_the_initiator_logs_in(security_stage: bool, segment: int) -> None:
    target = new_login()
    initiator = InitiatorLogin(INITIATOR, TARGET, isid=ISID, security_stage=security_stage, segment=segment)
    link(initiator, target)
    assert initiator.done
    assert target.state is LoginState.FULL_FEATURE
    assert initiator.tsih == TSIH
    assert initiator.exp_stat_sn == target.next_stat_sn
    assert initiator.parameters.target_portal_group_tag == 7
    assert initiator.parameters.max_burst_length == target.parameters.max_burst_length == 1048576


def test_the_initiator_hears_a_long_answer() -> None:
    target = new_login()
    offers = [(f"X-{number}", "1") for number in range(900)]
    initiator = InitiatorLogin(INITIATOR, TARGET, isid=ISID, offers=offers)
    link(initiator, target)
    assert [pair for pair in initiator.answers if pair[1] == "NotUnderstood"] == [
        (key, "NotUnderstood") for key, _ in offers
    ]


def test_the_initiator_says_why_it_was_refused() -> None:
    with pytest.raises(LoginError, match="0x0203: there is no such target") as raised:
        link(InitiatorLogin(INITIATOR, TARGET + "x", isid=ISID), new_login())
    assert raised.value.status == LoginStatus.NOT_FOUND


# ---- anything at all

_VALUES = st.one_of(
    st.sampled_from(
        ["Yes", "No", "None", "CHAP,None", "Normal", "Discovery", TARGET, INITIATOR, "512", "65536", "Reject"]
    ),
    st.text(max_size=10).filter(lambda text: "\0" not in text),
)
_TEXT = st.one_of(
    st.lists(st.tuples(st.sampled_from([*KEYS, "X-a"]), _VALUES), max_size=6).map(encode_text),
    st.lists(st.sampled_from([*NAMES, ("InitialR2T", "No"), ("HeaderDigest", "None")]), max_size=6).map(encode_text),
    st.binary(max_size=40),
)
_REQUESTS = st.builds(
    lambda data, csg, nsg, final, continued, same: request(
        data, csg=csg, nsg=nsg, final=final, continued=continued, itt=5 if same else 6
    ),
    _TEXT,
    st.sampled_from([0, 0, 1, 1, 2, 3]),
    st.sampled_from([0, 1, 3, 3, 2]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9).map(bool),
)


@settings(max_examples=300)
@given(st.booleans(), st.lists(_REQUESTS, max_size=5))
def test_a_target_survives_any_requests(introduced: bool, requests: list[LoginRequest]) -> None:
    login = new_login()
    for pdu in ([SECURE] if introduced else []) + requests:
        if login.state is not LoginState.NEGOTIATING:
            break
        response = exchange(login, pdu)
        assert bool(response.status) == (login.state.name == "FAILED")
        assert not (response.final and response.continued)
        assert not response.final or pdu.final
        assert len(response.data) <= 8192
    if login.state is LoginState.FULL_FEATURE:
        assert login.parameters.initiator_name
        assert login.parameters.discovery or login.target is not None


@given(
    st.binary(min_size=1, max_size=400),
    st.integers(1, 80),
)
def test_random_text_in_random_pieces(noise: bytes, size: int) -> None:
    login = new_login()
    text = encode_text(NAMES) + noise
    pieces = [text[at : at + size] for at in range(0, len(text), size)][: MAX_REQUESTS - 1]
    for piece in pieces[:-1]:
        assert exchange(login, request(piece, continued=True)).status == 0
    exchange(login, request(pieces[-1]))
    assert login.state is not LoginState.NEGOTIATING


@given(
    st.lists(st.tuples(st.sampled_from([*KEYS, "X-a"]), _VALUES), max_size=5),
    st.sampled_from(list(Stage)),
    st.sampled_from(list(Stage)),
    st.booleans(),
)
def test_an_initiator_survives_any_response(pairs: Pairs, csg: Stage, nsg: Stage, final: bool) -> None:
    initiator = InitiatorLogin(INITIATOR, TARGET, isid=ISID)
    pdu = initiator.start()
    response = LoginResponse(itt=pdu.itt, isid=ISID, csg=csg, nsg=nsg, final=final, tsih=TSIH, data=encode_text(pairs))
    try:
        initiator.receive(response)
        initiator.receive(response)
    except InitiatorError:
        return
    assert not initiator.done


@given(st.data())
def test_both_ends_agree_whatever_they_prefer(data: st.DataObject) -> None:
    lengths = st.sampled_from([512, 8192, 65536, (1 << 24) - 1])
    wishes = st.builds(
        Preferences,
        header_digest=st.sampled_from([("None",), ("CRC32C", "None")]),
        initial_r2t=st.booleans(),
        immediate_data=st.booleans(),
        max_recv_data_segment_length=lengths,
        max_burst_length=lengths,
        first_burst_length=lengths,
        max_outstanding_r2t=st.integers(1, 100),
    )
    target = new_login(preferences=data.draw(wishes))
    initiator = InitiatorLogin(
        INITIATOR,
        TARGET if data.draw(st.booleans()) else None,
        isid=ISID,
        preferences=data.draw(wishes),
        security_stage=data.draw(st.booleans()),
        segment=data.draw(st.sampled_from([40, 8192])),
    )
    link(initiator, target)
    mine, yours = initiator.parameters, target.parameters
    assert mine.max_recv_data_segment_length == yours.peer_max_recv_data_segment_length
    assert mine.peer_max_recv_data_segment_length == yours.max_recv_data_segment_length
    same = {"max_recv_data_segment_length": 0, "peer_max_recv_data_segment_length": 0}
    assert replace(mine, **same) == replace(yours, **same)  # type: ignore[arg-type]
