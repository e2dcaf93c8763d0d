"""The target's side of the login phase, without a socket (RFC 7143 §6.3, §11.12, §11.13).

Theory of operation. Login requests go in by `receive`, one at a time, and login responses come out.
The requests of one login make a sequence of texts, each of one or more PDUs (the C bit); each text is
answered by one of our own. Two things move on independently: the text, and the stage:

    SECURITY (0) ──► OPERATIONAL (1) ──► FULL_FEATURE (3)      0 → 3 is allowed as well

The stage moves when both sides set the T bit, the target only in answer to the initiator's, and
only when nothing stands in the way: text still to be sent, or an authentication that has not ended.

A login is deterministic: no clock and no random number of its own, so that a second TargetLogin
that is fed the same bytes says the same. The acceptor relies on it when it hands a connection to a
worker, which replays what the acceptor has read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple, Protocol

from blockyard.iscsi.negotiation import (
    KEYS,
    REJECT,
    NegotiationError,
    Negotiator,
    Pairs,
    Parameters,
    Preferences,
    Role,
    Rule,
    Stage,
    TextAccumulator,
    encode_text,
)
from blockyard.iscsi.pdu import LoginRequest, LoginResponse, LoginStatus

VERSION = 0  # of the protocol: the only one there is (RFC 7143 §11.12.4)
MAX_REQUESTS = 64  # login requests on one connection; the longest authentication takes a dozen
COMMAND_WINDOW = 128  # commands that a session may have in progress; MaxCmdSN - ExpCmdSN + 1 when it has none
_IDENTITY = ("SessionType", "InitiatorName", "TargetName")  # in the first text or never (RFC 7143 §6.3.1)
_STAGES = tuple(Stage)
_MASK = 0xFFFFFFFF


class LoginState(Enum):
    NEGOTIATING = "negotiating"
    FULL_FEATURE = "full feature"
    FAILED = "failed"


class Found(NamedTuple):
    """What a directory answers: a target, and the portal group by which the login reaches it."""

    target: Any
    portal_group: int  # its tag
    preferences: Preferences | None = None  # what this target wishes for, where it differs from others


class Moved(NamedTuple):
    """What a directory answers when the target is to be had elsewhere (RFC 7143 §11.13.5)."""

    address: str  # of a portal, as TargetAddress has it, without a tag
    permanently: bool = False


class Directory(Protocol):
    """Where a login looks its target up."""

    def find(self, name: str, portal: str, /) -> Found | Moved | LoginStatus:
        """The target of that normalised name on `portal` ("ADDR:PORT"), or why there is none."""


class Authenticator(Protocol):
    """What proves who the initiator is, in the security stage (RFC 7143 §6.3.2, §9.2, §12)."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The values of AuthMethod that will do, "None" among them if that will."""

    @property
    def done(self) -> bool:
        """Whether the exchange of the method that was chosen has come to its good end."""

    @property
    def name(self) -> str:
        """What the initiator says that its user is called, proved once `done`; "" while it has not."""

    @property
    def mutual(self) -> bool:
        """Whether the target has proved itself too."""

    def step(self, method: str, pairs: Pairs) -> Pairs:
        """Take the keys of one text that belong to `method`, return those to be sent back.

        Raises NegotiationError, with LoginStatus.AUTHENTICATION_FAILURE for a proof that fails.
        """


def _nobody_asks(login: TargetLogin) -> Authenticator | None:
    return None


class TargetLogin:
    """The login phase of one connection.

    It came in on `portal` from `peer`. `directory` finds the target. `attach` is called with this object when the
    login is about to be granted, and returns the TSIH of the session that it enters, or why it may not (RFC 7143 §6.3.1).
    `authenticator` is called once the names are known, and returns what decides on AuthMethod; None lets everybody in.
    It raises NegotiationError for an initiator that is not let in whatever it proves. `ended` is called when the login is
    over, well or not.
    """

    def __init__(
        self,
        directory: Directory,
        portal: str,
        *,
        peer: str = "",
        attach: Callable[[TargetLogin], int | LoginStatus],
        preferences: Preferences | None = None,
        authenticator: Callable[[TargetLogin], Authenticator | None] = _nobody_asks,
        ended: Callable[[TargetLogin], None] = lambda login: None,
        command_window: int = COMMAND_WINDOW,
    ) -> None:
        self.portal = portal
        self.peer = peer
        self.state = LoginState.NEGOTIATING
        self.status = LoginStatus.SUCCESS
        self.failure = ""  # why the login failed, for the log
        self.named = (
            False  # whether the first text is complete, and with it InitiatorName, SessionType and TargetName known
        )
        self.target: Any = None  # what the directory found; None in a discovery session that names no target
        self.portal_group = 0  # the tag of the one by which the target is reached
        self.isid = bytes(6)
        self.requested_tsih = 0  # 0: a new session is asked for
        self.tsih = 0  # of the session, once the login has been granted
        self.cid = 0
        self.cmd_sn = 0  # what the first non-immediate command will carry
        self.next_stat_sn = 0
        self.negotiator = Negotiator(Role.TARGET, preferences or Preferences())
        self._directory = directory
        self._attach = attach
        self._make_authenticator = authenticator
        self._ended = ended
        self._authenticator: Authenticator | None = None
        self._window = command_window
        self._text = TextAccumulator()
        self._identity: Pairs = []  # what the first text has said who it is
        self._stage = Stage.SECURITY
        self._first: LoginRequest | None = None
        self._requests = 0

    @property
    def parameters(self) -> Parameters:
        return self.negotiator.parameters

    @property
    def claimed_user(self) -> str:
        """What the initiator says that its user is called, whether or not it has proved that; "" when it said nothing."""
        return self._authenticator.name if self._authenticator is not None else ""

    @property
    def user(self) -> str:
        """Whom the initiator has proved to be; "" without authentication."""
        return self.claimed_user if self._authenticator is not None and self._authenticator.done else ""

    @property
    def mutual(self) -> bool:
        """Whether the target has proved itself to the initiator."""
        return self._authenticator is not None and self._authenticator.mutual

    def receive(self, request: LoginRequest) -> list[LoginResponse]:
        """Take one login request; return the responses to it, numbered. `state` tells whether the login is over.

        Raises nothing for what an initiator may have sent; RuntimeError when the login is over already.
        """
        if self.state is not LoginState.NEGOTIATING:
            raise RuntimeError("the login is over")
        try:
            self._check_header(request)
            response = self._respond(request)
        except NegotiationError as error:
            self.state = LoginState.FAILED
            self.status = error.status
            self.failure = str(error)
            response = self._new_response(request)
            response.status = error.status
            response.data = encode_text(error.answer)
        self.next_stat_sn = (self.next_stat_sn + 1) & _MASK
        if self.state is not LoginState.NEGOTIATING:
            self._ended(self)
        return [response]

    # ---- the header

    def _check_header(self, request: LoginRequest) -> None:
        self._requests += 1
        if self._first is None:
            self._take_first(request)
        elif not _same_login(request, self._first):
            raise NegotiationError("ISID, TSIH, CID, CmdSN, version or task tag changed in the login (RFC 7143 §11.12)")
        if self._requests > MAX_REQUESTS:
            raise NegotiationError(f"the login takes more than {MAX_REQUESTS} requests")
        if request.csg != self._stage:
            raise NegotiationError(f"CSG is {request.csg} in stage {int(self._stage)} (RFC 7143 §11.12.3)")
        if request.final and request.continued:
            raise NegotiationError("T and C are both set (RFC 7143 §11.12.2)")
        if request.final and (request.nsg <= request.csg or request.nsg not in _STAGES):
            raise NegotiationError(f"there is no way from stage {request.csg} to {request.nsg} (RFC 7143 §11.12.3)")

    def _take_first(self, request: LoginRequest) -> None:
        self._first = LoginRequest()
        self._first.bhs[:] = request.bhs
        self.isid = request.isid
        self.requested_tsih = request.tsih
        self.negotiator.leading = not request.tsih
        self.cid = request.cid
        self.cmd_sn = request.cmd_sn
        if request.version_min > VERSION:
            raise NegotiationError(
                f"the initiator speaks version {request.version_min} at least, this target {VERSION}",
                LoginStatus.UNSUPPORTED_VERSION,
            )
        if request.csg not in (Stage.SECURITY, Stage.OPERATIONAL):
            raise NegotiationError(f"a login cannot begin in stage {request.csg} (RFC 7143 §6.3.1)")
        self._stage = Stage(request.csg)

    def _new_response(self, request: LoginRequest) -> LoginResponse:
        return LoginResponse(
            isid=request.isid,
            tsih=self.tsih or request.tsih,
            itt=request.itt,
            csg=self._stage,
            version_max=VERSION,
            version_active=VERSION,
            stat_sn=self.next_stat_sn,
            exp_cmd_sn=self.cmd_sn,
            max_cmd_sn=(self.cmd_sn + self._window - 1) & _MASK,
        )

    # ---- the text

    def _respond(self, request: LoginRequest) -> LoginResponse:
        released = self._text.sending  # this request has nothing to say: it lets our text go on (RFC 7143 §6.2)
        pairs = self._text.take(request.data, continued=request.continued)
        if pairs is None:
            return self._new_response(request)
        if not released:
            self._text.put(self._answer(pairs))
        data, continued = self._text.next_segment()
        stage = self._stage
        moves = request.final and not continued and self._may_leave()
        if moves:
            self._enter(Stage(request.nsg))
        response = self._new_response(request)
        response.data = data
        response.continued = continued
        response.csg = stage
        response.final = moves
        response.nsg = request.nsg if moves else 0
        return response

    def _answer(self, pairs: Pairs) -> Pairs:
        answers: Pairs = []
        identity = [pair for pair in pairs if pair[0] in _IDENTITY]
        if not self.named:
            self.negotiator.answer(identity, self._stage)
            self._identity = identity
            answers += self._identify()
        elif any(pair not in self._identity for pair in identity):  # libiscsi says the same again in the next stage
            raise NegotiationError(f"{identity[0][0]} comes after the first text (RFC 7143 §6.3.1)")
        proofs = [pair for pair in pairs if self._authenticating and _is_proof(pair[0])]
        negotiated = self.negotiator.answer([pair for pair in pairs if pair not in identity + proofs], self._stage)
        if ("AuthMethod", REJECT) in negotiated:
            raise NegotiationError("none of the offered AuthMethods will do", LoginStatus.AUTHENTICATION_FAILURE)
        answers += negotiated
        if proofs and self._authenticator is not None:
            answers += self._authenticator.step(self.parameters.auth_method, proofs)
        if self._stage is Stage.OPERATIONAL:
            self._require_authenticated()
            answers += self.negotiator.declare_segment_length()
        return answers

    def _identify(self) -> Pairs:
        """The first text is there: find the target, and say what the first response must (RFC 7143 §6.3.1, §13.9)."""
        self.named = True
        parameters = self.parameters
        if not parameters.initiator_name:
            raise NegotiationError("InitiatorName is missing", LoginStatus.MISSING_PARAMETER)
        answers: Pairs = []
        if parameters.target_name:
            self.target, self.portal_group, preferences = self._find(parameters.target_name)
            self.negotiator.preferences = preferences or self.negotiator.preferences
            if self.negotiator.preferences.target_alias:
                answers.append(self.negotiator.declare("TargetAlias", self.negotiator.preferences.target_alias))
            answers.append(self.negotiator.declare("TargetPortalGroupTag", self.portal_group))
        elif not parameters.discovery:
            raise NegotiationError("TargetName is missing", LoginStatus.MISSING_PARAMETER)
        self._authenticator = self._make_authenticator(self)
        if self._authenticator is not None:
            methods = self._authenticator.methods
            self.negotiator.preferences = replace(self.negotiator.preferences, auth_method=methods)
        return answers

    def _find(self, name: str) -> Found:
        found = self._directory.find(name, self.portal)
        if isinstance(found, Moved):
            status = LoginStatus.MOVED_PERMANENTLY if found.permanently else LoginStatus.MOVED_TEMPORARILY
            answer = [("TargetAddress", found.address)]
            raise NegotiationError(f"{name} is to be had at {found.address}: {status.name}", status, answer)
        if isinstance(found, LoginStatus):
            raise NegotiationError(f"no target {name} for this initiator on {self.portal}: {found.name}", found)
        return found

    # ---- the stages

    @property
    def _authenticating(self) -> bool:
        return self._stage is Stage.SECURITY and self.parameters.auth_method != "None"

    def _require_authenticated(self) -> None:
        if self._authenticator is None:
            return
        method = self.parameters.auth_method
        if not (method in self._authenticator.methods if method == "None" else self._authenticator.done):
            raise NegotiationError("the initiator does not authenticate itself", LoginStatus.AUTHENTICATION_FAILURE)

    def _may_leave(self) -> bool:
        """Whether this side has nothing more to do in its stage."""
        if self._authenticating:
            return self._authenticator is not None and self._authenticator.done
        self._require_authenticated()
        return True

    def _enter(self, stage: Stage) -> None:
        if stage is Stage.FULL_FEATURE:
            self.negotiator.finish()
            tsih = self._attach(self)
            if isinstance(tsih, LoginStatus):
                raise NegotiationError(f"the session cannot be entered: {tsih.name}", tsih)
            self.tsih = tsih
            self.state = LoginState.FULL_FEATURE
        self._stage = stage


def _same_login(one: LoginRequest, other: LoginRequest) -> bool:
    """What all requests of a login have in common: versions, ISID, TSIH, task tag, CID and CmdSN (RFC 7143 §11.12)."""
    return one.bhs[2:4] == other.bhs[2:4] and one.bhs[8:22] == other.bhs[8:22] and one.cmd_sn == other.cmd_sn


def _is_proof(name: str) -> bool:
    return name in KEYS and KEYS[name].rule is Rule.AUTHENTICATION
