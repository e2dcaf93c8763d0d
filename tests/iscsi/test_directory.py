"""Which target is reached by which portals, and what discovery tells of that."""

from __future__ import annotations

import pytest

from blockyard.iscsi.directory import Directory, Entry, portal_from
from blockyard.iscsi.login import Found, Moved
from blockyard.iscsi.pdu import LoginStatus

ONE, TWO, BOTH, AWAY = (f"iqn.2026-11.test:{name}" for name in ("one", "two", "both", "away"))
MOVED = Moved("192.0.2.99:3260")


def make_directory() -> Directory:
    entries = [
        Entry(ONE, (1,)),
        Entry(TWO, (2,)),
        Entry(BOTH, (2, 1)),
        Entry(AWAY, (1, 2), MOVED, frozenset({"192.0.2.1:3260"})),
    ]
    groups = {
        1: [portal_from("192.0.2.1:3260"), portal_from("[2001:db8::1]:3260")],
        2: [portal_from("192.0.2.2:3260"), portal_from("0.0.0.0:3261")],
    }
    return Directory(entries, groups)


@pytest.mark.parametrize(
    ("arrived", "tag"),
    [
        ("192.0.2.1:3260", 1),
        ("[2001:db8::1]:3260", 1),
        ("192.0.2.2:3260", 2),
        ("198.51.100.7:3261", 2),
        ("[2001:db8::1]:3261", None),
        ("198.51.100.7:3260", None),
    ],
)
def test_the_group_of_a_portal(arrived: str, tag: int | None) -> None:
    assert make_directory().group_of(portal_from(arrived)) == tag


def test_a_target_is_found_on_the_portals_of_its_groups_only() -> None:
    directory = make_directory()
    first, second = portal_from("192.0.2.1:3260"), portal_from("192.0.2.2:3260")
    assert directory.find(ONE, first) == Found(directory.targets[ONE], 1)
    assert directory.find(ONE, second) is LoginStatus.NOT_FOUND
    assert directory.find(TWO, first) is LoginStatus.NOT_FOUND
    assert directory.find(BOTH, first) == Found(directory.targets[BOTH], 1)
    assert directory.find(BOTH, second) == Found(directory.targets[BOTH], 2)
    assert directory.find("iqn.2026-11.test:nowhere", first) is LoginStatus.NOT_FOUND


def test_a_target_that_has_moved_for_those_who_come_by_one_portal() -> None:
    directory = make_directory()
    assert directory.find(AWAY, portal_from("192.0.2.1:3260")) == MOVED
    assert directory.find(AWAY, portal_from("192.0.2.2:3260")) == Found(directory.targets[AWAY], 2)


def test_discovery_tells_each_portal_with_its_group() -> None:
    answer = make_directory().send_targets(None, portal_from("192.0.2.2:3260"))
    assert answer == [
        ("TargetName", ONE),
        ("TargetAddress", "192.0.2.1:3260,1"),
        ("TargetAddress", "[2001:db8::1]:3260,1"),
        ("TargetName", TWO),
        ("TargetAddress", "192.0.2.2:3260,2"),
        ("TargetAddress", "192.0.2.2:3261,2"),
        ("TargetName", BOTH),
        ("TargetAddress", "192.0.2.2:3260,2"),
        ("TargetAddress", "192.0.2.2:3261,2"),
        ("TargetAddress", "192.0.2.1:3260,1"),
        ("TargetAddress", "[2001:db8::1]:3260,1"),
        ("TargetName", AWAY),
        ("TargetAddress", "192.0.2.2:3260,2"),
        ("TargetAddress", "192.0.2.1:3260,1"),
        ("TargetAddress", "[2001:db8::1]:3260,1"),
        ("TargetAddress", "192.0.2.2:3261,2"),
    ]


def test_a_target_that_cannot_be_reached_is_not_told_of() -> None:
    directory = Directory([Entry(ONE, (1,))], {1: [portal_from("127.0.0.1:3260")], 2: [portal_from("192.0.2.1:3260")]})
    assert directory.send_targets(None, portal_from("192.0.2.1:3260")) == []
    assert directory.send_targets(ONE, portal_from("127.0.0.1:3260")) == [
        ("TargetName", ONE),
        ("TargetAddress", "127.0.0.1:3260,1"),
    ]


@pytest.mark.parametrize("asked", ["iqn.2026-11.TEST:One", ONE])
def test_names_are_compared_in_their_normal_form(asked: str) -> None:
    assert make_directory().send_targets(asked, portal_from("192.0.2.1:3260"))[0] == ("TargetName", ONE)


@pytest.mark.parametrize("asked", ["", "iqn.2026-11.test:nowhere", "iqn. "])
def test_what_is_not_there(asked: str) -> None:
    assert make_directory().send_targets(asked, portal_from("192.0.2.1:3260")) == []
