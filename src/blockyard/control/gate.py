"""The gate: who may log in at all, as control sees it.

It has the accounts from the state database, which workers get from here; it decides on discovery, which control serves
itself; and it hears of every login that ends, whichever process it was in: for the limits and for the event log.
"""

from __future__ import annotations

import base64
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from blockyard.control.errors import ControlError
from blockyard.control.events import EventLog
from blockyard.control.limits import Attempt, LoginLimits
from blockyard.control.state import State
from blockyard.control.users import Accounts, Users
from blockyard.iscsi.access import ANY_USER, AccessList, Rule, address_of
from blockyard.iscsi.admission import Admission, host_of
from blockyard.iscsi.chap import Account, TargetChap
from blockyard.iscsi.login import TargetLogin
from blockyard.iscsi.negotiation import NegotiationError
from blockyard.iscsi.pdu import LoginStatus
from blockyard.worker.admission import REFUSALS, Outcome
from blockyard.worker.configuration import Configuration
from blockyard.worker.handoff import Message

log = logging.getLogger(__name__)


class Gate:
    """One for a run of `blockyard serve`. Raises StateError when accounts cannot be read at first."""

    def __init__(self, state: State, configuration: Configuration, limits: LoginLimits | None = None) -> None:
        self.events = EventLog(state)
        self.limits = limits or LoginLimits()
        self._state = state
        self._admission = Admission(os.urandom)
        self._changes = state.changes()
        self._accounts = Users(state).load()
        self.failures: Counter[str] = (
            Counter()
        )  # refused logins by target; "discovery", and "unknown" for all that there is not
        self._untold = False  # users have changed, and workers are not told yet
        self._discovery = AccessList()
        self._targets: dict[str, AccessList] = {}
        self.configure(configuration)

    # ---- what it goes by

    def configure(self, configuration: Configuration) -> None:
        """Other rules hold from now on, for the users that there are now."""
        self._look()
        self._go_by(configuration)

    def _go_by(self, configuration: Configuration) -> None:
        self.configuration = configuration
        groups = {group: frozenset(users) for group, users in self._accounts.groups.items()}
        self._admission.policy = configuration.auth.policy
        self._admission.accounts = self._accounts.users
        self._discovery = AccessList(configuration.discovery.access, groups)
        self._targets = {name: AccessList(target.access, groups) for name, target in configuration.targets.items()}
        self._warn_of_unknown()

    def _warn_of_unknown(self) -> None:
        for name, access in {"discovery": self._discovery, **self._targets}.items():
            for rule in access.rules:
                for user in {*rule.users} - {ANY_USER} - self._accounts.users.keys():
                    log.warning(
                        "%s: a rule names the user %s, whom there is not: `blockyard user add` makes one", name, user
                    )
                for group in {*rule.groups} - self._accounts.groups.keys():
                    log.warning(
                        "%s: a rule names the group %s, which there is not: `blockyard group add` makes one",
                        name,
                        group,
                    )

    def refresh(self) -> bool:
        """Write pending events, and look whether users have changed: True when workers are to be told."""
        self.events.flush()
        self._look()
        if not self._untold:
            return False
        self._untold = False
        self._go_by(self.configuration)
        return True

    def _look(self) -> None:
        """Read the users again if another process has written anything."""
        try:
            changes = self._state.changes()
            if changes == self._changes:
                return
            self._changes = changes
            accounts = Users(self._state).load()
        except ControlError as error:
            log.error("users cannot be read, those known go on: %s", error)
            return
        if accounts != self._accounts:
            self._accounts = accounts
            self._untold = True

    def accounts_for(self, part: Configuration, *, final: bool) -> Message:
        """The message that tells a worker of the users whom its targets' rules speak of, and of no others.

        It is `final` when the worker has these rules already.
        """
        rules = [rule for target in part.targets.values() for rule in target.access]
        return _accounts_message(self._accounts, rules) | {"final": final}

    # ---- discovery

    def authenticator(self, login: TargetLogin) -> TargetChap | None:
        """What decides on AuthMethod in a discovery session. Raises NegotiationError for who is not let in."""
        if self.wait(login, ""):
            raise NegotiationError("too many logins have failed: wait", LoginStatus.SERVICE_UNAVAILABLE)
        return self._admission.authenticator(login, self._discovery)

    def refuses(self, login: TargetLogin) -> LoginStatus | None:
        """Why a discovery session is not granted; None when it is."""
        rule = self._discovery.decide(host_of(login), login.user, mutual=login.mutual)
        return None if isinstance(rule, Rule) else rule

    def shows(self, login: TargetLogin) -> Callable[[str], bool]:
        """Whether this discovery session is told of a target.

        A user of whom no target's rules speak is one for discovery only: it sees what the host could log in to.
        """
        host, user = host_of(login), login.user
        if user and not any(access.names(user) for access in self._targets.values()):
            user = ""
        return lambda name: name not in self._targets or self._targets[name].shows(host, user)

    # ---- logins

    def wait(self, login: TargetLogin, target: str) -> float:
        """How many seconds this host has to wait before it may log in to `target` ("": discovery) again."""
        return self.limits.wait(address_of(login.peer), target)

    def ended(self, login: TargetLogin) -> None:
        """A login has ended in this process."""
        self.heard(Outcome.of(login))

    def told(self, message: Message) -> None:
        """A worker tells how a login has ended."""
        self.heard(Outcome(**{name: value for name, value in message.items() if name != "type"}))

    def heard(self, outcome: Outcome) -> None:
        """A login has ended, here or in a worker."""
        attempt = Attempt(address_of(outcome.peer), outcome.initiator, outcome.user, outcome.target)
        if outcome.granted:
            if outcome.user:
                self.limits.succeeded(attempt)
            return
        if outcome.status not in REFUSALS:
            return
        self.failures[
            outcome.target if outcome.target in self._targets else "unknown" if outcome.target else "discovery"
        ] += 1
        seconds = self.limits.failed(attempt)
        where = outcome.target or "discovery"
        who = f"{outcome.initiator} as {outcome.user}" if outcome.user else outcome.initiator
        self.events.record(
            "login-failed",
            f"{who} from {outcome.peer} could not log in to {where}: {outcome.why}"
            + (f"; it has to wait {seconds:g} s" if seconds else ""),
            who=outcome.user or outcome.initiator,
            address=str(attempt.address or ""),
            target=outcome.target,
        )


def _accounts_message(accounts: Accounts, rules: list[Rule]) -> Message:
    """What a worker has to know for these rules."""
    groups = {group for rule in rules for group in rule.groups}
    wanted = {user for rule in rules for user in rule.users}
    wanted.update(user for group in groups for user in accounts.groups.get(group, ()))
    everybody = ANY_USER in wanted
    users = [user for name, user in accounts.users.items() if everybody or name in wanted]
    return {
        "type": "accounts",
        "users": [_account(user) for user in users],
        "groups": {group: accounts.groups.get(group, ()) for group in groups},
    }


def _account(user: Account) -> dict[str, Any]:
    back = None if user.target_secret is None else base64.b64encode(user.target_secret).decode()
    secret = base64.b64encode(user.secret).decode()
    return {"name": user.name, "secret": secret, "target_name": user.target_name, "target_secret": back}
