"""Users, groups and their secrets: what is kept, how, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.control.errors import StateError
from blockyard.control.state import State
from blockyard.control.users import AccountError, Accounts, Users, generate_secret
from blockyard.control.vault import CREDENTIAL, KEY_FILE, Vault, open_vault
from blockyard.iscsi.chap import Account
from tests.waiting import LIMIT

ALICE = Account("alice", b"the secret of alice", "disks", b"the proof for alice")
BOB = Account("0xb0b", b"the secret of bob")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def users(state: State) -> Users:
    return Users(state)


def test_users_and_groups_last(users: Users, tmp_path: Path) -> None:
    users.add_to_group("ops", [])
    users.add(ALICE, ["ops"])
    users.add(BOB)
    users.add_to_group("all", ["alice", "0xb0b"])
    again = State(tmp_path)
    assert Users(again).load() == Accounts(
        {"0xb0b": BOB, "alice": ALICE}, {"all": ("0xb0b", "alice"), "ops": ("alice",)}
    )
    assert again.changes() == again.changes()
    again.close()


def test_another_process_that_writes_is_noticed(users: Users, state: State, tmp_path: Path) -> None:
    before = state.changes()
    users.add(ALICE)
    assert state.changes() == before  # one's own writing is no news
    other = State(tmp_path)
    Users(other).set(Account("alice", b"a new secret for alice"))
    other.close()
    assert state.changes() != before
    assert users.get("alice").secret == b"a new secret for alice"
    assert users.get("alice").target_secret is None


def test_users_come_and_go(users: Users) -> None:
    users.add(ALICE)
    users.add_to_group("ops", ["alice"])
    users.remove("alice")
    assert users.load() == Accounts({}, {"ops": ()})
    users.remove_from_group("ops", [])
    assert users.load() == Accounts({}, {})


def test_group_members_come_and_go(users: Users) -> None:
    users.add(ALICE)
    users.add(BOB)
    users.add_to_group("ops", ["alice", "0xb0b"])
    users.remove_from_group("ops", ["alice"])
    assert users.load().groups == {"ops": ("0xb0b",)}


def test_what_is_refused(users: Users) -> None:
    users.add(ALICE)
    users.add_to_group("ops", ["alice"])
    refused: list[tuple[Callable[[], None], str]] = [
        (lambda: users.add(ALICE), "already"),
        (lambda: users.set(BOB), "no user 0xb0b"),
        (lambda: users.remove("0xb0b"), "no user"),
        (lambda: users.add(BOB, ["nowhere"]), "no group nowhere"),
        (lambda: users.add_to_group("ops", ["0xb0b"]), "no user 0xb0b"),
        (lambda: users.add_to_group("", []), "printable"),
        (lambda: users.remove_from_group("nowhere", []), "no group"),
        (lambda: users.remove_from_group("ops", ["0xb0b"]), "not in the group"),
        (lambda: users.add(Account("*", b"secret of nobody")), "stands for all users"),
    ]
    for action, why in refused:
        with pytest.raises(AccountError, match=why):
            action()
    assert users.load() == Accounts({"alice": ALICE}, {"ops": ("alice",)})


@pytest.mark.parametrize(
    "account",
    [
        Account("mallory", b"the proof for alice"),
        Account("mallory", b"the secret of mallory", "disks", b"the secret of alice"),
    ],
)
def test_a_secret_serves_one_direction_only(users: Users, account: Account) -> None:
    """Else alice could have the target compute what mallory has to answer."""
    users.add(ALICE)
    with pytest.raises(AccountError, match="other direction") as raised:
        users.add(account)
    assert "proof for" not in str(raised.value)
    users.add(Account("carol", b"the secret of alice"))  # the same direction: unwise, but no hole


def test_secrets_are_encrypted_at_rest(users: Users, tmp_path: Path) -> None:
    users.add(ALICE)
    files = list(tmp_path.iterdir())
    assert {file.name for file in files} >= {"state.db", KEY_FILE}
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        content = file.read_bytes()
        for secret in (ALICE.secret, ALICE.target_secret):
            assert secret is not None
            assert secret not in content


def test_a_sealed_secret_is_of_no_use_elsewhere(users: Users, tmp_path: Path) -> None:
    users.add(ALICE)
    users.add(BOB)
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute(
            "UPDATE users SET secret = (SELECT secret FROM users WHERE name = '0xb0b') WHERE name = 'alice'"
        )
    database.close()
    with pytest.raises(StateError, match="secret of user alice cannot be decrypted"):
        users.load()


def test_without_its_key_there_is_no_secret(users: Users, state: State, tmp_path: Path) -> None:
    users.add(ALICE)
    (tmp_path / KEY_FILE).write_bytes(os.urandom(32))
    with pytest.raises(StateError, match=f"cannot be decrypted with the key in .*{KEY_FILE}"):
        Users(state).load()


def test_keys_that_cannot_be_used(tmp_path: Path) -> None:
    open_vault(tmp_path)
    key = tmp_path / KEY_FILE
    key.chmod(0o640)
    with pytest.raises(StateError, match="chmod 600"):
        open_vault(tmp_path)
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(StateError, match="5 bytes, not 32"):
        open_vault(tmp_path)
    with pytest.raises(StateError, match="cannot be made"):
        open_vault(tmp_path / "nowhere")


def test_the_key_may_be_a_credential_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / CREDENTIAL).write_bytes(bytes(32))
    (credentials / CREDENTIAL).chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    sealed = open_vault(tmp_path).seal(b"secret", "user x")
    assert Vault(bytes(32), tmp_path).open(sealed, "user x") == b"secret"
    assert not (tmp_path / KEY_FILE).exists()


def test_processes_agree_on_one_key(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from blockyard.control.vault import open_vault;"
        "print(open_vault(pathlib.Path(sys.argv[1])).seal(b'x', 'p').hex())"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) for _ in range(4)]
    sealed = [bytes.fromhex(process.communicate(timeout=LIMIT)[0].decode()) for process in running]
    vault = open_vault(tmp_path)
    assert [vault.open(one, "p") for one in sealed] == [b"x"] * 4
    assert len(set(sealed)) == 4
    assert [file.name for file in tmp_path.iterdir()] == [KEY_FILE]


def test_secrets_that_are_made_up() -> None:
    made = {generate_secret() for _ in range(200)}
    assert len(made) == 200
    assert {len(secret) for secret in made} == {16}
    assert not any(secret.startswith(b"-") for secret in made)
