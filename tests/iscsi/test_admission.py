"""Logins to a target with rules: both ends talk for real, in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.memory import MemoryDevice
from blockyard.initiator.errors import LoginError
from blockyard.initiator.login import InitiatorLogin
from blockyard.iscsi.access import AccessList, Right, Rule
from blockyard.iscsi.admission import Admission
from blockyard.iscsi.chap import Account, Policy
from blockyard.iscsi.login import Found, LoginState, TargetLogin
from blockyard.iscsi.negotiation import decode_text, encode_text
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import LoginRequest, LoginStatus
from blockyard.iscsi.permit import TargetAccess
from blockyard.iscsi.session import Session
from blockyard.scsi.lun import encode_lun
from blockyard.scsi.target import Target
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.host import UUID_1

TARGET = "iqn.2026-11.test:target"
INITIATOR = "iqn.2026-11.test:initiator"
ALICE = Account("alice", b"the secret of alice", "disks", b"the proof for alice")
BOB = Account("0xbob", b"the secret of bob")


class House:
    """One target with rules, and the accounts of alice and 0xbob."""

    def __init__(self, rules: Sequence[Rule], policy: Policy | None = None) -> None:
        self.volumes = {
            name: LogicalUnit(MemoryDevice(1 << 16), identity=Identity(UUID_1, name)) for name in ("one", "two")
        }
        self.node = TargetNode(TARGET, Target(TARGET, {0: self.volumes["one"]}))
        self.admission = Admission(os.urandom)
        self.admission.accounts = {account.name: account for account in (ALICE, BOB)}
        self.admission.policy = policy or Policy()
        self.ended: list[TargetLogin] = []
        self.access(rules)

    def access(self, rules: Sequence[Rule]) -> TargetAccess:
        self.node.access = TargetAccess(self.node.scsi.luns, AccessList(rules, {"ops": ("alice",)}), self.volumes)
        return self.node.access

    def find(self, name: str, portal: str) -> Found:
        return Found(self.node, 1)

    def attach(self, login: TargetLogin) -> int | LoginStatus:
        session = self.node.attach(login)
        return session if isinstance(session, LoginStatus) else session.tsih

    def log_in(
        self,
        account: Account | None = None,
        *,
        algorithms: Sequence[int] = (8, 7, 6, 5),
        peer: str = "192.0.2.7:40000",
        initiator: str = INITIATOR,
        isid: bytes = b"\x80\0\0\0\0\1",
    ) -> Session:
        """Raises LoginError."""
        entered: list[Session] = []

        def attach(login: TargetLogin) -> int | LoginStatus:
            tsih = self.attach(login)
            entered.extend(session for session in self.node.sessions.values() if session.tsih == tsih)
            return tsih

        ours = TargetLogin(
            self, "192.0.2.1:3260", peer=peer, attach=attach, ended=self.ended.append,
            authenticator=lambda login: self.admission.authenticator(login, login.target.access.rules),
        )  # fmt: skip
        theirs = InitiatorLogin(initiator, TARGET, isid=isid, account=account, algorithms=algorithms)
        pdu: LoginRequest | None = theirs.start()
        while pdu is not None:
            (response,) = ours.receive(pdu)
            pdu = theirs.receive(response)
        return entered[0]

    def refusal(self, account: Account | None = None, *, initiator: str = INITIATOR) -> LoginStatus:
        with pytest.raises(LoginError) as raised:
            self.log_in(account, initiator=initiator)
        assert self.ended[-1].state is LoginState.FAILED
        return LoginStatus(raised.value.status)


def test_without_rules_everybody_has_everything() -> None:
    session = House([]).log_in()
    assert session.permit.rule.right == Right.FULL
    assert session.permit.luns.inventory() == [encode_lun(0)]


@pytest.mark.parametrize("algorithm", [5, 6, 7, 8])
@pytest.mark.parametrize("account", [ALICE, BOB])
def test_users_log_in_with_every_algorithm(account: Account, algorithm: int) -> None:
    house = House([Rule(users=("alice", "0xbob"))])
    session = house.log_in(account, algorithms=(algorithm,))
    assert session.permit.user == account.name
    assert session.permit.mutual == (account is ALICE)
    assert [(login.user, login.status) for login in house.ended] == [(account.name, LoginStatus.SUCCESS)]


def test_each_user_has_rights_and_luns_of_its_own() -> None:
    house = House(
        [Rule(users=("alice",), luns={7: "two", 300: "one"}), Rule(Right.READ_ONLY, users=("*",), luns={0: "two"})]
    )
    alice = house.log_in(ALICE, isid=b"\x80\0\0\0\0\1")
    bob = house.log_in(BOB, isid=b"\x80\0\0\0\0\2")
    assert alice.permit.luns.inventory() == [encode_lun(7), encode_lun(300)]
    assert alice.nexus(encode_lun(7)).unit is bob.nexus(encode_lun(0)).unit is house.volumes["two"]
    assert (alice.nexus(encode_lun(7)).read_only, bob.nexus(encode_lun(0)).read_only) == (False, True)
    assert alice.nexus(encode_lun(0)).unit.tasks is None


def test_who_is_refused_and_how() -> None:
    rules = [Rule(Right.REFUSE, initiators=("*:evil",)), Rule(users=("0xbob",)), Rule(users=("alice",), mutual=True)]
    house = House(rules)
    assert house.refusal() == LoginStatus.AUTHENTICATION_FAILURE
    assert house.refusal(BOB, initiator="iqn.2026-11.test:evil") == LoginStatus.AUTHORIZATION_FAILURE
    assert house.refusal(Account("0xbob", b"not his secret")) == LoginStatus.AUTHENTICATION_FAILURE
    assert house.ended[-1].claimed_user == "0xbob"
    assert house.ended[-1].user == ""
    assert house.refusal(Account("alice", ALICE.secret)) == LoginStatus.AUTHENTICATION_FAILURE  # not mutual
    assert house.log_in(ALICE).permit.user == "alice"
    house.access([Rule(users=("0xbob",))])
    assert house.refusal(ALICE) == LoginStatus.AUTHORIZATION_FAILURE


def test_a_target_that_answers_with_the_wrong_secret_is_not_believed() -> None:
    house = House([Rule(users=("alice",))])
    with pytest.raises(Exception, match="prove"):
        house.log_in(Account("alice", ALICE.secret, "disks", b"another proof"))


def test_md5_can_be_forbidden() -> None:
    house = House([Rule(groups=("ops",))], Policy((8, 7)))
    with pytest.raises(LoginError) as raised:
        house.log_in(ALICE, algorithms=(5, 6))
    assert raised.value.status == LoginStatus.AUTHENTICATION_FAILURE
    assert house.log_in(ALICE, algorithms=(5, 7)).permit.user == "alice"


def test_nobody_takes_over_another_users_session() -> None:
    house = House([Rule(users=("*",))])
    session = house.log_in(ALICE)
    assert house.refusal(BOB) == LoginStatus.AUTHORIZATION_FAILURE
    assert house.node.sessions[session.initiator, session.isid, 1] is session
    again = house.log_in(ALICE)  # session reinstatement (RFC 7143 §6.3.5)
    assert list(house.node.sessions.values()) == [again]


@pytest.mark.parametrize(
    ("rules", "goes_on"),
    [
        ([Rule(users=("alice",), luns={0: "two"})], True),
        ([Rule(Right.FULL, addresses=("192.0.2.0/24",), luns={0: "two"})], True),
        ([Rule(Right.READ_ONLY, users=("alice",), luns={0: "two"})], False),
        ([Rule(users=("alice",))], False),
        ([Rule(users=("0xbob",), luns={0: "two"})], False),
        ([Rule(Right.REFUSE)], False),
    ],
)
def test_a_session_goes_on_under_new_rules_that_give_it_the_same(rules: Sequence[Rule], goes_on: bool) -> None:
    house = House([Rule(users=("alice",), luns={0: "two"})])
    permit = house.log_in(ALICE).permit
    assert house.access(rules).renews(permit) is goes_on


def test_a_session_ends_with_its_user() -> None:
    house = House([Rule(users=("alice",))])
    permit = house.log_in(ALICE).permit
    assert house.node.access.renews(permit, {"alice"}.__contains__)
    assert not house.node.access.renews(permit, {"bob"}.__contains__)


# ---- whatever an initiator sends, it does not get in without the secret


KEYS = st.one_of(
    st.sampled_from(
        [
            ("AuthMethod", "CHAP"), ("AuthMethod", "None,CHAP"), ("AuthMethod", "None"), ("CHAP_A", "5"), ("CHAP_A", "7,8"),
            ("CHAP_N", "alice"), ("CHAP_N", "disks"), ("CHAP_N", ""), ("CHAP_I", "0"), ("CHAP_C", "0x" + "00" * 16),
            ("CHAP_R", "0x" + "00" * 16), ("CHAP_R", "0x"), ("HeaderDigest", "None"), ("CHAP_I", "<theirs>"),
            ("CHAP_C", "<theirs>"), ("CHAP_R", "<theirs>"), ("CHAP_N", "<theirs>"), ("CHAP_R", "<their challenge>"),
        ]
    ),
    st.tuples(st.sampled_from(["CHAP_N", "CHAP_R", "CHAP_C", "CHAP_I", "CHAP_A"]), st.text(max_size=8)),
)  # fmt: skip
REQUESTS = st.lists(
    st.tuples(st.lists(KEYS, max_size=4), st.sampled_from([(0, 0), (0, 1), (0, 3), (1, 3), (1, 1)])),
    min_size=1,
    max_size=7,
)


@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_nobody_gets_in_by_other_means(requests: list[tuple[list[tuple[str, str]], tuple[int, int]]]) -> None:
    """Neither by leaving steps out nor by saying what the target has said, here or in another connection."""
    house = House([Rule(users=("*",))])
    names = [("InitiatorName", INITIATOR), ("SessionType", "Normal"), ("TargetName", TARGET)]
    logins = [
        TargetLogin(
            house, "192.0.2.1:3260", peer="192.0.2.7:1", attach=house.attach,
            authenticator=lambda login: house.admission.authenticator(login, login.target.access.rules),
        )
        for _ in range(2)
    ]  # fmt: skip
    heard: dict[str, str] = {}
    for number, (pairs, (csg, nsg)) in enumerate(requests):
        for login in logins:
            if login.state is not LoginState.NEGOTIATING:
                continue
            said = [(key, _filled(value, heard, key)) for key, value in (names if not login.named else []) + pairs]
            data = encode_text(said)
            (response,) = login.receive(
                LoginRequest(isid=bytes(6), itt=1, cmd_sn=1, csg=csg, nsg=nsg, final=nsg > csg, data=data)
            )
            heard.update(decode_text(response.data) if not response.status else [])
            assert not house.node.sessions, number


def _filled(value: str, heard: dict[str, str], key: str) -> str:
    if value == "<their challenge>":
        return heard.get("CHAP_C", "0x00")
    return heard.get(key, "0x00") if value == "<theirs>" else value
