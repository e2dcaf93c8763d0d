"""Access lists: which rule holds for whom, what has to be proved, and what discovery shows."""

from __future__ import annotations

import ipaddress

import pytest

from blockyard.iscsi.access import AccessList, Host, Right, Rule, address_of
from blockyard.iscsi.pdu import LoginStatus

HOST = Host("iqn.2024-01.com.example:web1", ipaddress.ip_address("192.0.2.7"))
V6 = Host("iqn.1991-05.com.microsoft:win", ipaddress.ip_address("2001:db8::7"))
FULL, READ, VIRTUAL, REFUSE = Right
AUTHENTICATION, AUTHORIZATION = LoginStatus.AUTHENTICATION_FAILURE, LoginStatus.AUTHORIZATION_FAILURE
GROUPS = {"ops": ("alice", "bob"), "empty": ()}


def right(rules: list[Rule], host: Host = HOST, user: str = "", *, mutual: bool = False) -> str | LoginStatus:
    decided = AccessList(rules, GROUPS).decide(host, user, mutual=mutual)
    return decided.right if isinstance(decided, Rule) else decided


def methods(rules: list[Rule], host: Host = HOST) -> tuple[str, ...]:
    return AccessList(rules, GROUPS).methods(host)


def test_no_rules_let_everybody_in() -> None:
    assert right([]) == FULL
    assert methods([]) == ("None",)
    assert AccessList().shows(HOST, "")


@pytest.mark.parametrize(
    ("rule", "host", "matches"),
    [
        (Rule(initiators=("iqn.2024-01.com.example:web1",)), HOST, True),
        (Rule(initiators=("iqn.2024-01.com.example:web",)), HOST, False),
        (Rule(initiators=("iqn.2024-01.com.example:*",)), HOST, True),
        (Rule(initiators=("iqn.2024-01.com.example:web[0-9]",)), HOST, True),
        (Rule(initiators=("iqn.2024-01.com.example:web?", "eui.*")), V6, False),
        (Rule(addresses=("192.0.2.7",)), HOST, True),
        (Rule(addresses=("192.0.2.0/24",)), HOST, True),
        (Rule(addresses=("192.0.3.0/24", "2001:db8::/32")), HOST, False),
        (Rule(addresses=("192.0.3.0/24", "2001:db8::/32")), V6, True),
        (Rule(addresses=("0.0.0.0/0",)), V6, False),
        (Rule(addresses=("::/0",)), V6, True),
        (Rule(addresses=("::/0",)), Host("iqn.x", None), False),
        (Rule(initiators=("iqn.2024-01.*",), addresses=("198.51.100.0/24",)), HOST, False),
    ],
)
def test_names_and_addresses(rule: Rule, host: Host, matches: bool) -> None:
    assert right([rule], host) == (FULL if matches else AUTHORIZATION)
    assert methods([rule], host) == (("None",) if matches else ())
    assert AccessList([rule]).shows(host, "") is matches


def test_the_first_rule_that_matches_decides() -> None:
    rules = [
        Rule(REFUSE, addresses=("192.0.2.66",)),
        Rule(FULL, initiators=("iqn.2024-01.com.example:db*",)),
        Rule(READ, addresses=("192.0.2.0/24",)),
        Rule(REFUSE),
        Rule(FULL),
    ]
    assert right(rules) == READ
    assert right(rules, Host("iqn.2024-01.com.example:db1", HOST.address)) == FULL
    assert right(rules, Host("iqn.2024-01.com.example:db1", ipaddress.ip_address("192.0.2.66"))) == AUTHORIZATION
    assert right(rules, V6) == AUTHORIZATION


def test_a_rule_with_users_makes_authentication_necessary() -> None:
    rules = [Rule(FULL, users=("carol",)), Rule(READ, groups=("ops",))]
    assert methods(rules) == ("CHAP",)
    assert right(rules) == AUTHENTICATION
    assert right(rules, user="carol") == FULL
    assert right(rules, user="bob") == READ
    assert right(rules, user="mallory") == AUTHORIZATION
    assert right([Rule(VIRTUAL, users=("*",))], user="mallory") == VIRTUAL
    assert right([Rule(groups=("empty", "unknown"))], user="bob") == AUTHORIZATION


def test_who_need_not_authenticate_still_may() -> None:
    rules = [Rule(FULL, users=("carol",)), Rule(READ)]
    assert methods(rules) == ("CHAP", "None")
    assert right(rules) == READ
    assert right(rules, user="carol") == FULL
    assert right(rules, user="bob") == READ


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([Rule(READ), Rule(FULL, users=("carol",))], ("None",)),  # nobody comes to the second
        ([Rule(FULL, users=("carol",)), Rule(REFUSE)], ("CHAP",)),
        ([Rule(REFUSE, users=("carol",)), Rule(FULL)], ("None",)),
        ([Rule(REFUSE, users=("carol",))], ()),
        ([Rule(REFUSE), Rule(FULL, users=("carol",))], ()),
    ],
)
def test_authentication_is_asked_for_where_it_can_lead_to_a_right(rules: list[Rule], expected: tuple[str, ...]) -> None:
    assert methods(rules) == expected


def test_mutual_authentication_can_be_demanded() -> None:
    rules = [Rule(users=("carol",), mutual=True)]
    assert right(rules, user="carol") == AUTHENTICATION
    assert right(rules, user="carol", mutual=True) == FULL


def test_discovery_shows_what_the_user_may_log_in_to() -> None:
    access = AccessList([Rule(users=("carol",), mutual=True), Rule(REFUSE, users=("bob",))], GROUPS)
    assert access.shows(HOST, "")
    assert access.shows(HOST, "carol")
    assert not access.shows(HOST, "bob")
    assert not access.shows(HOST, "dave")


def test_which_users_rules_speak_of() -> None:
    access = AccessList([Rule(users=("carol", "*")), Rule(groups=("ops",))], GROUPS)
    assert [user for user in ("alice", "carol", "*", "dave") if access.names(user)] == ["alice", "carol", "*"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"right": "rw"}, "full, read-only, virtual-write, refuse"),
        ({"initiators": ("IQN.2024-01.com.example:Web",)}, "'iqn.2024-01.com.example:web'"),
        ({"initiators": ("",)}, "lower case"),
        ({"addresses": ("192.0.2.7/24",)}, "host bits set"),
        ({"addresses": ("web1",)}, "neither an IP address nor a network"),
        ({"mutual": True}, "users or groups"),
    ],
)
def test_rules_that_make_no_sense(arguments: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Rule(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("192.0.2.7:3260", "192.0.2.7"),
        ("[2001:db8::7]:40000", "2001:db8::7"),
        ("[::ffff:192.0.2.7]:1", "192.0.2.7"),
        ("[fe80::1%eth0]:1", "fe80::1"),
        ("", None),
    ],
)
def test_addresses_of_peers(peer: str, address: str | None) -> None:
    assert str(address_of(peer)) == str(address)
