"""Linux as initiator: CHAP in every form that open-iscsi has, and users with different rights on one target."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pytest

from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.iscsi.chap import Account
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN

HIDDEN = f"{IQN}-hidden"


@pytest.fixture
def serve(target: TargetFactory, network: Network, tmp_path: Path) -> TargetFactory:
    return partial(target, prefix=network.prefix, portals=[f"{HOST[0]}:3260"])


def add_users(directory: Path, accounts: Iterable[Account]) -> None:
    state = State(directory)
    for account in accounts:
        Users(state).add(account)
    state.close()


def test_iscsiadm_proves_itself_and_has_the_target_prove_itself(
    serve: TargetFactory, guest: Guest, tmp_path: Path
) -> None:
    user = Account("0xlinux", b"secret of linux!", "disks", b"proof for linux!")
    scout = Account("scout", b"secret of scout!")
    add_users(tmp_path / "state-0", (user, scout))
    serve(
        config=f"""
    [volumes.disk]
    path = "disk.img"
    size = "16M"
    [discovery]
    access = [{{users = ["scout"]}}]
    [targets."{IQN}"]
    luns = {{0 = "disk"}}
    access = [{{users = ["0xlinux"]}}]
    [targets."{HIDDEN}"]
    access = [{{initiators = ["iqn.2024-01.test.nobody"]}}]
    """
    )
    guest(
        "chap.sh",
        variables={
            "USER": user.name, "SECRET": "secret of linux!", "TARGET_USER": "disks", "TARGET_SECRET": "proof for linux!",
            "SCOUT": "scout", "SCOUT_SECRET": "secret of scout!", "HIDDEN": HIDDEN,
        },
    )  # fmt: skip


def test_users_share_a_target_with_luns_and_rights_of_their_own(
    serve: TargetFactory, guest: Guest, tmp_path: Path
) -> None:
    accounts = [Account(name, f"secret of {name}!!".encode()) for name in ("alice", "bob", "eve", "charlie")]
    add_users(tmp_path / "state-0", accounts)
    serve(
        config=f"""
    [volumes.one]
    path = "one.img"
    size = "64M"
    [volumes.two]
    path = "two.img"
    size = "16M"
    [targets."{IQN}"]
    luns = {{0 = "one"}}
    access = [
        {{users = ["alice"], luns = {{3 = "one", 5 = "two"}}}},
        {{users = ["bob"], right = "read-only"}},
        {{users = ["eve", "charlie"], right = "virtual-write"}},
    ]
    """
    )
    seen: dict[str, str] = {}

    def look(name: str) -> None:
        seen[name] = hashlib.sha256((tmp_path / "one.img").read_bytes()).hexdigest()

    variables: dict[str, str] = {}
    for account in accounts:
        variables |= {account.name.upper(): account.name, f"{account.name.upper()}_SECRET": account.secret.decode()}
    guest(
        "rights.sh",
        variables=variables,
        marks={name: partial(look, name) for name in ("before", "after")},
    )
    look("in the end")
    assert len(set(seen.values())) == 1, "virtual writes have changed the volume"
