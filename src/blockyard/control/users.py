"""Users who may log in by CHAP, and groups of them: in the state database, their secrets sealed (control/vault.py)."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

from blockyard.control.errors import ControlError
from blockyard.control.state import State
from blockyard.control.vault import Vault, open_vault
from blockyard.iscsi.access import ANY_USER
from blockyard.iscsi.chap import Account


class AccountError(ControlError):
    """A user or group cannot be what it is wanted to be."""

    exit_status = 6


def generate_secret() -> bytes:
    """A secret of 96 bits in 16 letters and digits: the least that is safe, and the most that Windows takes."""
    while (text := secrets.token_urlsafe(12)).startswith("-"):  # it would be taken for an option
        pass
    return text.encode()


@dataclass(frozen=True)
class Accounts:
    """All users by name, and the names of the members of each group."""

    users: dict[str, Account]
    groups: dict[str, tuple[str, ...]]


class Users:
    """Users and groups of one state directory. Every method raises StateError when that cannot be used."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._vault: Vault | None = None

    def load(self) -> Accounts:
        """All of them, with their secrets."""
        with self._state.transaction() as database:
            rows = database.execute("SELECT * FROM users ORDER BY name").fetchall()
            groups: dict[str, list[str]] = {
                name: [] for (name,) in database.execute("SELECT name FROM groups ORDER BY name")
            }
            for group, user in database.execute("SELECT grp, user FROM members ORDER BY user"):
                groups[group].append(user)
        users = {name: self._open(name, *rest) for name, *rest in rows}
        return Accounts(users, {name: tuple(members) for name, members in groups.items()})

    def add(self, account: Account, groups: Iterable[str] = ()) -> None:
        """Raises AccountError for a user that there is, secrets that are not safe together, and unknown groups."""
        if account.name in self.load().users:
            raise AccountError(f"there is a user {account.name} already: `blockyard user set` changes it")
        self._put(account, groups)

    def set(self, account: Account, groups: Iterable[str] = ()) -> None:
        """Put `account` in the place of the one with its name, and into more groups. Raises AccountError."""
        self.get(account.name)
        self._put(account, groups)

    def get(self, name: str) -> Account:
        account = self.load().users.get(name)
        if account is None:
            raise AccountError(f"there is no user {name}: `blockyard user list` shows all")
        return account

    def sealed(self, name: str) -> tuple[bytes, bytes | None]:
        """The secrets of a user as they are kept: others when they have been set anew. Raises AccountError."""
        self.get(name)
        with self._state.transaction() as database:
            row = database.execute("SELECT secret, target_secret FROM users WHERE name = ?", (name,)).fetchone()
        return row[0], row[1]

    def remove(self, name: str) -> None:
        self.get(name)
        with self._state.transaction() as database:
            database.execute("DELETE FROM members WHERE user = ?", (name,))
            database.execute("DELETE FROM users WHERE name = ?", (name,))

    def add_to_group(self, group: str, users: Iterable[str]) -> None:
        """Make the group if need be, and put users into it. Raises AccountError for one that does not exist."""
        if not group or not group.isprintable():
            raise AccountError("the name of a group is printable text")
        known = self.load().users
        users = list(users)
        for user in users:
            if user not in known:
                raise AccountError(f"there is no user {user}: `blockyard user add {user}` makes one")
        with self._state.transaction() as database:
            database.execute("INSERT OR IGNORE INTO groups VALUES (?)", (group,))
            database.executemany("INSERT OR IGNORE INTO members VALUES (?, ?)", [(group, user) for user in users])

    def remove_from_group(self, group: str, users: Iterable[str]) -> None:
        """Take users out of a group; without any, remove the group itself. Raises AccountError."""
        users = list(users)
        members = self.load().groups.get(group)
        if members is None:
            raise AccountError(f"there is no group {group}: `blockyard group list` shows all")
        for user in users:
            if user not in members:
                raise AccountError(f"{user} is not in the group {group}")
        with self._state.transaction() as database:
            database.executemany(
                "DELETE FROM members WHERE grp = ? AND user = ?", [(group, user) for user in users or members]
            )
            if not users:
                database.execute("DELETE FROM groups WHERE name = ?", (group,))

    def _put(self, account: Account, groups: Iterable[str]) -> None:
        accounts = self.load()
        for group in groups:
            if group not in accounts.groups:
                raise AccountError(f"there is no group {group}: `blockyard group add {group}` makes one")
        if account.name == ANY_USER:
            raise AccountError(f"{ANY_USER} stands for all users in the rules of access: no user can be called so")
        _check_together(account, accounts.users)
        vault = self._open_vault()
        sealed = vault.seal(account.secret, f"user {account.name}")
        back = None
        if account.target_secret is not None:
            back = vault.seal(account.target_secret, f"the target for user {account.name}")
        with self._state.transaction() as database:
            database.execute(
                "INSERT INTO users VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO UPDATE SET secret = ?2, target_name = ?3,"
                " target_secret = ?4",
                (account.name, sealed, account.target_name, back),
            )
            database.executemany("INSERT OR IGNORE INTO members VALUES (?, ?)", [(g, account.name) for g in groups])

    def _open(self, name: str, secret: bytes, target_name: str, target_secret: bytes | None) -> Account:
        vault = self._open_vault()
        account = Account(name, vault.open(secret, f"user {name}"))
        if target_secret is None:
            return account
        back = vault.open(target_secret, f"the target for user {name}")
        return replace(account, target_name=target_name, target_secret=back)

    def _open_vault(self) -> Vault:
        if self._vault is None:
            self._vault = open_vault(self._state.directory)
        return self._vault


def _check_together(account: Account, others: dict[str, Account]) -> None:
    """Raise AccountError when the target would prove itself to one user with the secret of another (reflection)."""
    for other in others.values():
        if other.name == account.name:
            continue
        for mine, theirs in ((account.secret, other.target_secret), (account.target_secret, other.secret)):
            if mine is not None and theirs is not None and hmac.compare_digest(mine, theirs):
                raise AccountError(
                    f"a secret of {account.name} is the one of {other.name} for the other direction: "
                    "the target would answer its own challenges (RFC 7143 §9.2.1)"
                )
