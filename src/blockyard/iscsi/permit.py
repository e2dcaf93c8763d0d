"""Permits: what a session may do, by the rule of its target's access list that it was let in by (iscsi/access.py).

A target has one `TargetAccess`, and each session its `Permit`. When the rules change, `renews` says what has become of a
permit: its session may go on, or has to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from blockyard.iscsi.access import AccessList, Host, Right, Rule
from blockyard.iscsi.admission import host_of
from blockyard.iscsi.login import TargetLogin
from blockyard.iscsi.pdu import LoginStatus
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.target import LunMap

Cover = Callable[[LunMap, Rule], LunMap]  # what a session with the right of virtual write sees of a LUN map


@dataclass(frozen=True)
class Permit:
    """What one session may do, and who it was given to."""

    luns: LunMap
    rule: Rule = Rule()  # noqa: RUF009  (it never changes)
    host: Host = Host("", None)  # noqa: RUF009
    user: str = ""  # "": not authenticated
    mutual: bool = False

    @property
    def read_only(self) -> bool:
        return self.rule.right == Right.READ_ONLY

    def fits(self, login: TargetLogin) -> bool:
        """Whether a login is by the same user, so that it may join or replace the session (RFC 7143 §6.3.1, §6.3.5)."""
        return login.user == self.user


NO_PERMIT = Permit(LunMap({}))  # of a discovery session: there is nothing to see


class TargetAccess:
    """Who may do what with one target.

    `luns` is the target's own LUN map, `volumes` has the logical units that rules with maps of their own name. The maps
    of `earlier` rules go on in those that have the same LUNs, so that sessions which see through them are told of changes.
    """

    def __init__(
        self,
        luns: LunMap,
        rules: AccessList | None = None,
        volumes: Mapping[str, PrimaryUnit] | None = None,
        cover: Cover = lambda luns, rule: luns,
        earlier: TargetAccess | None = None,
    ) -> None:
        self.rules = rules or AccessList()
        self._luns = luns
        self._cover = cover
        self._maps = [self._map(rule, volumes or {}, earlier) for rule in self.rules.rules]

    def _map(self, rule: Rule, volumes: Mapping[str, PrimaryUnit], earlier: TargetAccess | None) -> LunMap:
        """What a rule lets see. A volume that is just being replaced is not there."""
        if not rule.luns:
            return self._luns
        units = {lun: volumes[volume] for lun, volume in rule.luns.items() if volume in volumes}
        rules = zip(earlier.rules.rules, earlier._maps, strict=True) if earlier is not None else ()
        for other, luns in rules:
            if other.luns == rule.luns:
                luns.change(units)
                return luns
        return LunMap(units)

    def permit(self, login: TargetLogin) -> Permit | LoginStatus:
        """What a login is granted, or why it is not."""
        return self._permit(host_of(login), login.user, mutual=login.mutual)

    def _permit(self, host: Host, user: str, *, mutual: bool) -> Permit | LoginStatus:
        rule = self.rules.decide(host, user, mutual=mutual)
        if isinstance(rule, LoginStatus):
            return rule
        luns = next(
            (luns for other, luns in zip(self.rules.rules, self._maps, strict=True) if other is rule), self._luns
        )
        if rule.right == Right.VIRTUAL_WRITE:
            luns = self._cover(luns, rule)
        return Permit(luns, rule, host, user, mutual)

    def renews(self, permit: Permit, known: Callable[[str], bool] = lambda user: True) -> bool:
        """Whether the session of a permit that was given under earlier rules may go on as it is; `known` are the users."""
        user = permit.user if known(permit.user) else ""
        rule = self.rules.decide(permit.host, user, mutual=permit.mutual)
        return isinstance(rule, Rule) and rule.right == permit.rule.right and rule.luns == permit.rule.luns
