"""Admission: what accounts, the policy of CHAP and an access list come to in a login (RFC 7143 §9.2, §11.13.5).

When the names are known, `Admission` gives the login its authenticator, or refuses an initiator that nothing could let
in. What the login then grants is for the access list of its target to say (iscsi/permit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from blockyard.iscsi.access import AccessList, Host, address_of
from blockyard.iscsi.chap import METHOD, Account, Challenges, Policy, TargetChap
from blockyard.iscsi.login import TargetLogin
from blockyard.iscsi.negotiation import NegotiationError
from blockyard.iscsi.pdu import LoginStatus


def host_of(login: TargetLogin) -> Host:
    """Who it is that logs in, as far as that needs no proof."""
    return Host(login.parameters.initiator_name, address_of(login.peer))


class Admission:
    """Accounts and policy of one process. Both may change at any time, and hold for logins that begin later.

    `entropy` returns so many random bytes: os.urandom, except in tests.
    """

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self.accounts: Mapping[str, Account] = {}
        self.policy = Policy()
        self._challenges = Challenges(entropy)

    def authenticator(self, login: TargetLogin, access: AccessList) -> TargetChap | None:
        """What decides on AuthMethod in this login; None where nobody has to prove anything.

        Raises NegotiationError for an initiator that no proof would let in.
        """
        methods = access.methods(host_of(login))
        if not methods:
            raise NegotiationError(
                f"no rule gives {login.parameters.initiator_name} from {login.peer} a right",
                LoginStatus.AUTHORIZATION_FAILURE,
            )
        if METHOD not in methods:
            return None
        return TargetChap(self.accounts.get, self._challenges, self.policy, methods=methods)
