"""A worker's side of who may log in: the accounts that control has sent, the rules of its targets, and what it reports."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from blockyard.block.device import Device
from blockyard.block.overlay import Budget, OverlayDevice
from blockyard.iscsi.access import AccessList, Rule
from blockyard.iscsi.admission import Admission
from blockyard.iscsi.chap import NAME_LIMIT, Account, Policy, TargetChap
from blockyard.iscsi.login import LoginState, TargetLogin
from blockyard.iscsi.names import split_moment
from blockyard.iscsi.node import TargetNode
from blockyard.iscsi.pdu import LoginStatus
from blockyard.iscsi.permit import TargetAccess
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.target import LunMap
from blockyard.scsi.taskset import Executor
from blockyard.scsi.virtual import VirtualLunMap
from blockyard.worker.handoff import Message

REFUSALS = (LoginStatus.AUTHENTICATION_FAILURE, LoginStatus.AUTHORIZATION_FAILURE)


@dataclass(frozen=True)
class Outcome:
    """How a login ended, as control is told of it."""

    granted: bool
    status: int
    why: str
    initiator: str
    user: str  # proved when it was granted, else claimed
    peer: str
    target: str

    @classmethod
    def of(cls, login: TargetLogin) -> Outcome:
        granted = login.state is LoginState.FULL_FEATURE
        parameters = login.parameters
        return cls(
            granted=granted,
            status=login.status,
            why=login.failure,
            initiator=parameters.initiator_name,
            user=_printable(login.user if granted else login.claimed_user),
            peer=login.peer,
            target="" if parameters.discovery else split_moment(parameters.target_name)[0],
        )


def _printable(name: str) -> str:
    """A name that anybody may have made up, fit for a log."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:NAME_LIMIT])


class WorkerAdmission:
    """Decides on logins in a worker. `tell` sends a message to control."""

    def __init__(self, executor: Executor, tell: Callable[[Message], None]) -> None:
        self._executor = executor
        self._tell = tell
        self._admission = Admission(os.urandom)
        self._groups: Mapping[str, frozenset[str]] = {}
        self._nodes: dict[str, tuple[TargetNode, tuple[Rule, ...], Mapping[str, PrimaryUnit]]] = {}
        self._budgets: dict[tuple[str, str], Budget] = {}  # of virtual writes, by target and rule
        self._overlays: Path | None = None  # where the files of overlays are, which have no names

    def configure(self, policy: Policy, overlays: Path | None) -> None:
        self._admission.policy = policy
        self._overlays = overlays

    def guard(self, node: TargetNode, rules: tuple[Rule, ...], volumes: Mapping[str, PrimaryUnit]) -> None:
        """These rules hold for a target from now on; sessions that they do not permit as they are end."""
        self._nodes[node.name] = node, rules, volumes
        node.grant(self._access(node, rules, volumes), self._admission.accounts.__contains__)

    def forget(self, name: str) -> None:
        """The target of that name is not served any more."""
        self._nodes.pop(name, None)
        self._budgets = {key: budget for key, budget in self._budgets.items() if key[0] != name}

    def take_accounts(self, message: Message) -> None:
        """Users and groups have changed. Sessions whose right is gone with that end, if the rules stay as they are."""
        self._admission.accounts = {user["name"]: _account(user) for user in message["users"]}
        self._groups = {group: frozenset(users) for group, users in message["groups"].items()}
        for node, rules, volumes in self._nodes.values():
            access = self._access(node, rules, volumes)
            if message["final"]:
                node.grant(access, self._admission.accounts.__contains__)
            else:  # other rules follow, and it is they that sessions are measured by
                node.access = access

    def authenticator(self, login: TargetLogin) -> TargetChap | None:
        """What decides on AuthMethod. Raises NegotiationError for who is not let in whatever he proves."""
        if not isinstance(login.target, TargetNode):
            return None
        return self._admission.authenticator(login, login.target.access.rules)

    def ended(self, login: TargetLogin) -> None:
        """A login has ended: control is told of proofs, good and bad, and of who has no right."""
        outcome = Outcome.of(login)
        if outcome.user or outcome.status in REFUSALS:
            self._tell({"type": "login", **asdict(outcome)})

    def _access(self, node: TargetNode, rules: tuple[Rule, ...], volumes: Mapping[str, PrimaryUnit]) -> TargetAccess:
        access = AccessList(rules, self._groups)
        return TargetAccess(node.scsi.luns, access, volumes, partial(self._cover, node.name), node.access)

    def _cover(self, target: str, luns: LunMap, rule: Rule) -> LunMap:
        budget = self._budgets.setdefault((target, repr(rule)), Budget(rule.virtual_write_limit))

        def cover(device: Device) -> Device:
            if self._overlays is not None:
                self._overlays.mkdir(mode=0o700, exist_ok=True)
            return OverlayDevice(device, budget=budget, directory=self._overlays)

        return VirtualLunMap(luns, cover, self._executor)


def _account(data: dict[str, Any]) -> Account:
    back = data["target_secret"]
    return Account(
        data["name"],
        base64.b64decode(data["secret"]),
        data["target_name"],
        None if back is None else base64.b64decode(back),
    )
