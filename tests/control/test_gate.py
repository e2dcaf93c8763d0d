"""Discovery with rules, limits and events: a real acceptor, and the initiator of our own."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from blockyard.control.acceptor import Acceptor
from blockyard.control.events import read_events
from blockyard.control.gate import Gate
from blockyard.control.limits import FREE, LoginLimits
from blockyard.control.portals import listen, parse_portal
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.initiator import LoginError, discover, open_session
from blockyard.initiator import parse_portal as parse_address
from blockyard.iscsi.access import Right, Rule
from blockyard.iscsi.chap import Account
from blockyard.iscsi.directory import Portal
from blockyard.iscsi.pdu import LoginStatus
from blockyard.worker.admission import Outcome
from blockyard.worker.configuration import Configuration, Discovery, PortalGroup, Target
from blockyard.worker.handoff import Message

INITIATOR = "iqn.2026-11.test:initiator"
ALICE = Account("alice", b"the secret of alice", "disks", b"the proof for alice")
BOB = Account("bob", b"the secret of bob")
SCOUT = Account("scout", b"for discovery only")
OPEN, ALICES, BOBS, REFUSED, ELSEWHERE = (
    f"iqn.2026-11.test:{name}" for name in ("open", "alices", "bobs", "refused", "elsewhere")
)
TARGETS: dict[str, tuple[Rule, ...]] = {
    OPEN: (),
    ALICES: (Rule(users=("alice",), mutual=True),),
    BOBS: (Rule(groups=("bobs",)),),
    REFUSED: (Rule(Right.REFUSE, initiators=("iqn.2026-11.test:*",)), Rule()),
    ELSEWHERE: (Rule(addresses=("192.0.2.0/24",)),),
}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path)
    users = Users(opened)
    for account in (ALICE, BOB, SCOUT):
        users.add(account)
    users.add_to_group("bobs", ["bob"])
    yield opened
    opened.close()


def configuration(*discovery: Rule) -> Configuration:
    targets = {name: Target(name, access=access) for name, access in TARGETS.items()}
    return Configuration(targets=targets, discovery=Discovery(discovery))


class _NoWorkers:
    async def hand_over(self, target: str, message: Message, fd: int) -> None:
        raise AssertionError("nothing is to be handed over")


def play(state: State, made: Configuration, scene: Callable[[str, Gate], None]) -> Gate:
    """Run `scene`, in a thread, with the address of an acceptor. Who has to wait waits to its end: time stands still."""
    gate = Gate(state, made, LoginLimits(lambda: 0.0))

    async def run() -> None:
        listener, portal = listen(parse_portal("127.0.0.1:0"))
        acceptor = Acceptor(_with(made, portal).directory(), _NoWorkers(), [listener], gate=gate)
        acceptor.start()
        try:
            await asyncio.to_thread(scene, str(portal), gate)
        finally:
            await acceptor.close()

    asyncio.run(run())
    return gate


def _with(made: Configuration, portal: Portal) -> Configuration:
    return replace(made, portal_groups={1: PortalGroup((str(portal),))})


def names(portal: str, account: Account | None = None) -> list[str]:
    return [target.name for target in discover(portal, initiator_name=INITIATOR, account=account)]


@pytest.mark.parametrize(
    ("discovery", "account", "expected"),
    [
        ((), None, [OPEN, ALICES, BOBS]),
        ((Rule(users=("*",)),), ALICE, [OPEN, ALICES]),
        ((Rule(users=("*",)),), BOB, [OPEN, BOBS]),
        ((Rule(users=("scout",)),), SCOUT, [OPEN, ALICES, BOBS]),
        ((Rule(initiators=("iqn.2026-11.test:*",)),), None, [OPEN, ALICES, BOBS]),
    ],
)
def test_discovery_shows_what_there_is_a_right_to(
    discovery: tuple[Rule, ...], account: Account | None, expected: list[str], state: State
) -> None:
    def scene(portal: str, gate: Gate) -> None:
        assert names(portal, account) == expected

    play(state, configuration(*discovery), scene)


@pytest.mark.parametrize(
    ("rule", "account", "status"),
    [
        (Rule(users=("scout",)), None, LoginStatus.AUTHENTICATION_FAILURE),
        (Rule(users=("scout",)), Account("scout", b"a wrong secret"), LoginStatus.AUTHENTICATION_FAILURE),
        (Rule(users=("scout",)), BOB, LoginStatus.AUTHORIZATION_FAILURE),
        (Rule(initiators=("iqn.elsewhere",)), None, LoginStatus.AUTHORIZATION_FAILURE),
    ],
)
def test_discovery_has_rules_of_its_own(rule: Rule, account: Account | None, status: LoginStatus, state: State) -> None:
    def scene(portal: str, gate: Gate) -> None:
        with pytest.raises(LoginError) as raised:
            names(portal, account)
        assert raised.value.status == status

    play(state, configuration(rule), scene).refresh()
    (event,) = read_events(state)
    assert (event.what, event.address, event.target) == ("login-failed", "127.0.0.1", "")
    assert event.who == (account.name if account else INITIATOR)
    assert "secret" not in json.dumps(event.as_dict())


def test_who_fails_too_often_has_to_wait(state: State) -> None:
    wrong = Account("alice", b"a wrong secret")

    def scene(portal: str, gate: Gate) -> None:
        for _ in range(FREE + 1):
            with pytest.raises(LoginError, match="0x0201"):
                names(portal, wrong)
        for account in (wrong, ALICE):
            with pytest.raises(LoginError) as raised:
                names(portal, account)
            assert raised.value.status == LoginStatus.SERVICE_UNAVAILABLE  # initiators try that again, later

    play(state, configuration(Rule(users=("*",))), scene).refresh()
    assert [event.text.endswith("wait 1 s") for event in read_events(state)] == [False] * FREE + [True]


def test_failures_in_workers_keep_hosts_from_being_handed_over(state: State) -> None:
    failure = Outcome(False, LoginStatus.AUTHENTICATION_FAILURE, "wrong", INITIATOR, "bob", "127.0.0.1:4", BOBS)

    def scene(portal: str, gate: Gate) -> None:
        for _ in range(FREE + 3):
            gate.told({"type": "login", **asdict(failure)})
        with pytest.raises(LoginError) as raised:
            open_session(parse_address(portal), BOBS, initiator_name=INITIATOR, account=BOB)
        assert raised.value.status == LoginStatus.SERVICE_UNAVAILABLE
        gate.told({"type": "login", **asdict(Outcome(True, 0, "", INITIATOR, "bob", "127.0.0.1:4", BOBS))})

    gate = play(state, configuration(), scene)
    assert gate.limits.wait(ipaddress.ip_address("127.0.0.1"), BOBS) == 0


def test_a_worker_learns_of_those_whom_its_targets_speak_of(state: State) -> None:
    made = configuration()
    gate = Gate(state, made)

    def told(*targets: str) -> tuple[list[str], dict[str, tuple[str, ...]]]:
        message = gate.accounts_for(Configuration(targets={name: made.targets[name] for name in targets}), final=True)
        return [user["name"] for user in message["users"]], message["groups"]

    assert told(OPEN) == ([], {})
    assert told(ALICES) == (["alice"], {})
    assert told(BOBS, OPEN) == (["bob"], {"bobs": ("bob",)})


def test_changes_by_others_are_noticed(state: State, tmp_path: Path) -> None:
    gate = Gate(state, configuration(Rule(users=("*",))))
    assert not gate.refresh()
    other = State(tmp_path)
    Users(other).remove("bob")
    other.close()
    assert gate.refresh()
    assert not gate.refresh()
    assert [user["name"] for user in gate.accounts_for(gate.configuration, final=True)["users"]] == ["alice"]
