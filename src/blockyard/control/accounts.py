"""Accounts: people and programs that log in here, to the API and the console; and their tokens.

They are something else than the users of CHAP (control/users.py), who log in to targets. All is in the state database: of
passwords and tokens only hashes, the secrets of one-time passwords sealed (control/vault.py). A token is
`blockyard_ID_SECRET`; its secret has 256 random bits, so that one round of SHA-256 is enough for it, and it can be looked at with
each request.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from blockyard.control import passwords, totp
from blockyard.control.errors import ControlError, StateError
from blockyard.control.roles import Identity, Role
from blockyard.control.state import State
from blockyard.control.vault import open_vault

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z")
_TOKEN = re.compile(r"blockyard_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")
_USED = 60.0  # seconds between two notes of when a token was used last


class AccountError(ControlError):
    """An account or token cannot be what it is wanted to be."""

    exit_status = 6


class NoSuchAccount(AccountError):
    """There is no account or token like that."""


@dataclass(frozen=True)
class Account:
    """One account, without what it proves itself by."""

    name: str
    role: Role
    targets: tuple[str, ...] = ()  # of an owner
    enabled: bool = True
    totp: bool = False  # whether it is asked for one-time passwords
    created: float = 0.0
    changed: float = 0.0  # when its password, role or second factor was changed: console sessions from before end

    @property
    def identity(self) -> Identity:
        return Identity(self.name, self.role, frozenset(self.targets))


@dataclass(frozen=True)
class Token:
    """A token of an account, without its secret. It is what the account is, or less."""

    id: str
    account: str
    note: str
    role: Role
    created: float
    expires: float | None
    used: float | None


class Accounts:
    """The accounts and tokens of one state directory. Every method raises StateError when that cannot be used.

    They are kept in memory, and read again when another process has changed the database. For one thread.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._seen: int | None = None
        self._accounts: dict[str, Account] = {}
        self._hashes: dict[str, str] = {}
        self._tokens: dict[str, Token] = {}
        self._digests: dict[str, bytes] = {}

    # ---- looking

    def _look(self) -> None:
        changes = self._state.changes()
        if changes == self._seen:
            return
        with self._state.transaction() as database:
            rows = database.execute(
                "SELECT name, role, targets, enabled, totp IS NOT NULL, created, changed, password FROM accounts ORDER BY name"
            ).fetchall()
            tokens = database.execute(
                "SELECT id, account, note, role, created, expires, used, digest FROM tokens ORDER BY created"
            ).fetchall()
        self._seen = changes
        self._accounts = {
            row[0]: Account(row[0], Role(row[1]), tuple(json.loads(row[2])), bool(row[3]), bool(row[4]), *row[5:7])
            for row in rows
        }
        self._hashes = {row[0]: row[7] for row in rows}
        self._tokens = {row[0]: Token(row[0], row[1], row[2], Role(row[3]), row[4], row[5], row[6]) for row in tokens}
        self._digests = {row[0]: row[7] for row in tokens}

    def all(self) -> list[Account]:
        self._look()
        return list(self._accounts.values())

    def get(self, name: str) -> Account:
        """Raises NoSuchAccount."""
        self._look()
        if name not in self._accounts:
            raise NoSuchAccount(f"there is no account {name}: `blockyard account list` shows all")
        return self._accounts[name]

    def find(self, name: str) -> Account | None:
        """The account of that name, if it may be used."""
        self._look()
        account = self._accounts.get(name)
        return account if account is not None and account.enabled else None

    # ---- proofs

    def password_hash(self, name: str) -> str:
        """What the password of an account is compared with (passwords.matches); something for every name."""
        self._look()
        return self._hashes.get(name, passwords.NOBODYS)

    def take_code(self, name: str, code: str, now: float | None = None) -> bool:
        """Whether a one-time password is right; it is used up then."""
        with self._state.transaction() as database:
            row = database.execute("SELECT totp, totp_step FROM accounts WHERE name = ?", (name,)).fetchone()
            if row is None or row[0] is None:
                return False
            secret = open_vault(self._state.directory).open(row[0], _purpose(name))
            step = totp.verified(secret, code, time.time() if now is None else now, row[1])
            if step is None:
                return False
            database.execute("UPDATE accounts SET totp_step = ? WHERE name = ?", (step, name))
        return True

    def of_token(self, text: str, now: float | None = None) -> Identity | None:
        """Who a token stands for."""
        match = _TOKEN.match(text)
        if match is None:
            return None
        self._look()
        digest = self._digests.get(match[1])
        if digest is None or not hmac.compare_digest(digest, _digest(match[2])):
            return None
        return self._holder(match[1], now)

    def of_token_id(self, number: str) -> Identity | None:
        """Who the token with this ID stands for, after somebody has proved to have it."""
        self._look()
        return self._holder(number)

    def _holder(self, number: str, now: float | None = None) -> Identity | None:
        now = time.time() if now is None else now
        token = self._tokens.get(number)
        account = None if token is None else self._accounts.get(token.account)
        if (
            token is None
            or account is None
            or not account.enabled
            or (token.expires is not None and now >= token.expires)
        ):
            return None
        if token.used is None or now - token.used > _USED:
            with contextlib.suppress(StateError):  # a full disk is no reason to let nobody in
                self._note_use(token, now)
        role = min(token.role, account.role, key=lambda each: each.rank)
        return replace(account.identity, role=role, by=f"token {token.id}")

    def holds(self, number: str) -> bool:
        """Whether the token with this ID may be used."""
        self._look()
        token = self._tokens.get(number)
        return token is not None and (token.expires is None or time.time() < token.expires)

    def _note_use(self, token: Token, now: float) -> None:
        self._tokens[token.id] = replace(token, used=now)
        with self._state.transaction() as database:
            database.execute("UPDATE tokens SET used = ? WHERE id = ?", (now, token.id))

    # ---- changes

    def confirm_totp(self, name: str, secret: bytes, code: str, now: float | None = None) -> bool:
        """Ask for one-time passwords of a new secret from now on, where `code` is one."""
        step = totp.verified(secret, code, time.time() if now is None else now, 0)
        if step is not None:
            self.set_totp(name, secret, step)
        return step is not None

    def add(self, name: str, role: Role, password_hash: str, targets: Collection[str] = ()) -> Account:
        """Raises AccountError for one that there is, and for what cannot be."""
        self._look()
        if not _NAME.match(name):
            raise AccountError(
                "the name of an account has 1 to 64 letters, digits and . _ @ -, and begins with one of the first two"
            )
        if name in self._accounts:
            raise AccountError(f"there is an account {name} already")
        _check_targets(role, targets)
        now = time.time()
        with self._state.transaction() as database:
            database.execute(
                "INSERT INTO accounts (name, role, targets, password, created, changed) VALUES (?, ?, ?, ?, ?, ?)",
                (name, role, json.dumps(sorted(targets)), password_hash, now, now),
            )
        return self._changed(name)

    def set(
        self,
        name: str,
        *,
        role: Role | None = None,
        targets: Collection[str] | None = None,
        enabled: bool | None = None,
        password_hash: str | None = None,
    ) -> Account:
        """Change what is said. Raises AccountError; where it would leave no admin, too."""
        old = self.get(name)
        new = replace(
            old,
            role=old.role if role is None else role,
            targets=old.targets if targets is None else tuple(sorted(targets)),
            enabled=old.enabled if enabled is None else enabled,
        )
        if new.role is not Role.OWNER and targets is None:
            new = replace(new, targets=())
        _check_targets(new.role, new.targets)
        if not (new.enabled and new.role is Role.ADMIN):
            self._check_not_last(name)
        with self._state.transaction() as database:
            database.execute(
                "UPDATE accounts SET role = ?, targets = ?, enabled = ?, password = ?, changed = ? WHERE name = ?",
                (
                    new.role,
                    json.dumps(new.targets),
                    new.enabled,
                    password_hash or self._hashes[name],
                    time.time(),
                    name,
                ),
            )
        return self._changed(name)

    def remove(self, name: str) -> None:
        """With its tokens. Raises AccountError."""
        self.get(name)
        self._check_not_last(name)
        with self._state.transaction() as database:
            database.execute("DELETE FROM tokens WHERE account = ?", (name,))
            database.execute("DELETE FROM accounts WHERE name = ?", (name,))
        self._seen = None

    def _check_not_last(self, name: str) -> None:
        admins = {each.name for each in self._accounts.values() if each.role is Role.ADMIN and each.enabled}
        if admins == {name}:
            raise AccountError(f"{name} is the last account that may administer: make another one first")

    def set_totp(self, name: str, secret: bytes | None, step: int = 0) -> Account:
        """Ask for one-time passwords from now on, or no more. Those up to `step` have been used."""
        self.get(name)
        sealed = None if secret is None else open_vault(self._state.directory).seal(secret, _purpose(name))
        with self._state.transaction() as database:
            database.execute(
                "UPDATE accounts SET totp = ?, totp_step = ?, changed = ? WHERE name = ?",
                (sealed, step, time.time(), name),
            )
        return self._changed(name)

    def _changed(self, name: str) -> Account:
        self._seen = None
        return self.get(name)

    # ---- tokens

    def tokens(self, account: str | None = None) -> list[Token]:
        self._look()
        return [token for token in self._tokens.values() if account in (None, token.account)]

    def get_token(self, number: str) -> Token:
        """Raises NoSuchAccount."""
        self._look()
        if number not in self._tokens:
            raise NoSuchAccount(f"there is no token {number}: `blockyard token list` shows all")
        return self._tokens[number]

    def add_token(self, account: str, note: str, role: Role | None, lifetime: float | None) -> tuple[Token, str]:
        """A new token, and its text, which nobody can look up later. Raises AccountError."""
        of = self.get(account)
        role = of.role if role is None else role
        if role.rank > of.role.rank or (of.role is Role.OWNER) != (role is Role.OWNER):
            raise AccountError(f"{account} is {of.role}: a token of it cannot be {role}")
        number, secret, now = secrets.token_hex(6), secrets.token_urlsafe(32), time.time()
        expires = None if lifetime is None else now + lifetime
        with self._state.transaction() as database:
            database.execute(
                "INSERT INTO tokens (id, account, note, role, created, expires, digest) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, account, note, role, now, expires, _digest(secret)),
            )
        self._seen = None
        return self.get_token(number), f"blockyard_{number}_{secret}"

    def revoke(self, number: str) -> None:
        """Raises NoSuchAccount."""
        self.get_token(number)
        with self._state.transaction() as database:
            database.execute("DELETE FROM tokens WHERE id = ?", (number,))
        self._seen = None


def _check_targets(role: Role, targets: Collection[str]) -> None:
    if role is Role.OWNER and not targets:
        raise AccountError("an owner is the owner of something: name targets")
    if role is not Role.OWNER and targets:
        raise AccountError(f"targets are for owners: {role} is for all of them")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _purpose(name: str) -> str:
    return f"one-time passwords of {name}"
