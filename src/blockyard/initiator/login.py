"""The initiator's side of the login phase, without a socket (RFC 7143 §6.3, §11.12, §11.13)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from blockyard.initiator.authentication import InitiatorChap
from blockyard.initiator.errors import LoginError, ProtocolError, Redirected
from blockyard.iscsi.chap import ALGORITHMS, METHOD, Account
from blockyard.iscsi.login import MAX_REQUESTS, VERSION
from blockyard.iscsi.names import InvalidName, parse_portal
from blockyard.iscsi.negotiation import (
    KEYS,
    LOGIN_SEGMENT,
    NegotiationError,
    Negotiator,
    Pairs,
    Parameters,
    Preferences,
    Role,
    Rule,
    Stage,
    TextAccumulator,
)
from blockyard.iscsi.pdu import LoginRequest, LoginResponse

DIGEST_CHOICES = {"none": ("None",), "prefer": ("CRC32C", "None"), "crc32c": ("CRC32C",)}
PREFERENCES = Preferences(  # of an initiator that was not told otherwise
    header_digest=("None",), data_digest=("None",), max_connections=1, task_reporting=("RFC3720",)
)

_TASK_TAG = 0


class InitiatorLogin:
    """One login: `start` gives the first request, `receive` takes each response and gives the next request.

    Without a target's name it logs in to a discovery session. With an `account` it authenticates itself by CHAP, with
    one of the `algorithms`. With a `tsih` the connection joins that session, in place of one with the same `cid` if
    there is one, whose responses before `exp_stat_sn` have come (RFC 7143 §6.3.4, §11.12.9). `offers` are pairs sent in
    the operational stage besides the ones that the preferences make; `segment` bounds the text of one PDU (at most 8192).
    """

    def __init__(
        self,
        initiator_name: str,
        target_name: str | None,
        *,
        isid: bytes,
        preferences: Preferences = PREFERENCES,
        account: Account | None = None,
        algorithms: Iterable[int] = tuple(ALGORITHMS),
        tsih: int = 0,
        cid: int = 0,
        cmd_sn: int = 1,
        exp_stat_sn: int = 0,
        security_stage: bool = True,
        offers: Iterable[tuple[str, str]] = (),
        segment: int = LOGIN_SEGMENT,
    ) -> None:
        self.isid = isid
        self.tsih = tsih
        self.cid = cid
        self.cmd_sn = cmd_sn
        self.exp_stat_sn = exp_stat_sn
        self.done = False
        self.answers: Pairs = []  # everything that the target said
        if account:
            preferences = replace(preferences, auth_method=(METHOD,) if account.target_secret else (METHOD, "None"))
        self.negotiator = Negotiator(Role.INITIATOR, preferences)
        self.exp_cmd_sn = self.max_cmd_sn = cmd_sn
        self._joins = bool(tsih)  # the session is there: what was agreed upon for all of it is not asked again
        self._chap = InitiatorChap(account, algorithms) if account else None
        self._offers = list(offers)
        self._segment = segment
        self._text = TextAccumulator()
        security_stage = security_stage or account is not None
        self._stage = Stage.SECURITY if security_stage else Stage.OPERATIONAL
        self._asked = self._stage  # the stage that the last request wants to move to
        self._requests = 0
        self._text.put(self._identity(initiator_name, target_name))
        if security_stage:
            self._text.put([self.negotiator.offer("AuthMethod")])
        else:
            self._text.put(self._operational_offers())

    @property
    def parameters(self) -> Parameters:
        return self.negotiator.parameters

    def start(self) -> LoginRequest:
        return self._request()

    def receive(self, response: LoginResponse) -> LoginRequest | None:
        """Take a response; return the next request, or None when the login is `done`.

        Raises LoginError when the target refuses, Redirected when it points elsewhere, ProtocolError when it errs.
        """
        if response.status:
            raise self._refusal(response)
        self._check_header(response)
        self.exp_stat_sn = (response.stat_sn + 1) & 0xFFFFFFFF
        self.exp_cmd_sn, self.max_cmd_sn = response.exp_cmd_sn, response.max_cmd_sn
        try:
            if self._text.sending and not len(response.data):
                return self._request()
            pairs = self._text.take(response.data, continued=response.continued)
            if pairs is not None:
                self.answers += pairs
                self._text.put(self._answer(pairs))
            if response.final:
                self._enter(Stage(response.nsg), response)
        except NegotiationError as error:
            raise ProtocolError(f"login: {error}") from error
        return None if self.done else self._request()

    def _answer(self, pairs: Pairs) -> Pairs:
        proofs = [pair for pair in pairs if pair[0] in KEYS and KEYS[pair[0]].rule is Rule.AUTHENTICATION]
        answers = self.negotiator.answer([pair for pair in pairs if pair not in proofs], self._stage)
        if self._chap is not None and self.parameters.auth_method == METHOD and self._stage is Stage.SECURITY:
            answers += self._chap.step(proofs)
        elif proofs:
            raise NegotiationError(f"{proofs[0][0]} comes without CHAP having been agreed upon")
        return answers

    def _require_authenticated(self) -> None:
        if self.parameters.auth_method == METHOD and (self._chap is None or not self._chap.done):
            raise NegotiationError("the target goes on before CHAP is over")

    @property
    def _ready(self) -> bool:
        """Whether this side has nothing more to say in its stage than what goes out now."""
        if self._stage is not Stage.SECURITY or self._chap is None:
            return True
        return (
            self._chap.proved
            if self.parameters.auth_method == METHOD
            else "AuthMethod" not in self.negotiator.unanswered
        )

    def _operational_offers(self) -> Pairs:
        return self.negotiator.operational_offers(leading=not self._joins) + self._offers

    def _identity(self, initiator_name: str, target_name: str | None) -> Pairs:
        declare = self.negotiator.declare
        pairs = [declare("InitiatorName", initiator_name)]
        if self.negotiator.preferences.initiator_alias:
            pairs.append(declare("InitiatorAlias", self.negotiator.preferences.initiator_alias))
        if target_name is None:
            return [*pairs, declare("SessionType", "Discovery")]
        if not self._joins:
            pairs.append(declare("SessionType", "Normal"))
        return [*pairs, declare("TargetName", target_name)]

    def _request(self) -> LoginRequest:
        self._requests += 1
        if self._requests > MAX_REQUESTS:
            raise ProtocolError(f"the target has not ended the login after {MAX_REQUESTS} requests")
        data, continued = self._text.next_segment(self._segment)
        leaves = not continued and self._ready
        self._asked = self._stage
        if leaves:
            self._asked = Stage.OPERATIONAL if self._stage is Stage.SECURITY else Stage.FULL_FEATURE
        return LoginRequest(
            immediate=True,
            final=leaves,
            continued=continued,
            csg=self._stage,
            nsg=self._asked if leaves else 0,
            isid=self.isid,
            tsih=self.tsih,
            itt=_TASK_TAG,
            cid=self.cid,
            cmd_sn=self.cmd_sn,
            exp_stat_sn=self.exp_stat_sn,
            data=data,
        )

    def _check_header(self, response: LoginResponse) -> None:
        if response.version_active != VERSION:
            raise ProtocolError(f"the target speaks version {response.version_active} of iSCSI, not {VERSION}")
        if response.itt != _TASK_TAG or response.isid != self.isid:
            raise ProtocolError("a login response has another task tag or ISID than the request")
        if response.csg != self._stage:
            raise ProtocolError(f"a login response is of stage {response.csg}, not {int(self._stage)}")
        if response.final and response.continued:
            raise ProtocolError("a login response has T and C set")
        if response.final and (response.nsg != self._asked or self._text.sending):
            raise ProtocolError(f"the target moves to stage {response.nsg} without being asked")

    def _enter(self, stage: Stage, response: LoginResponse) -> None:
        self._text.reset()  # an answer to what the target said last would come too late
        self._stage = stage
        if stage is Stage.OPERATIONAL:
            self._require_authenticated()
            self._text.put(self._operational_offers())
            return
        self.negotiator.finish()
        if not response.tsih or (self._joins and response.tsih != self.tsih):
            raise ProtocolError(f"the target grants the login with the TSIH {response.tsih} (RFC 7143 §11.13.3)")
        self.tsih = response.tsih
        self.done = True

    def _refusal(self, response: LoginResponse) -> LoginError:
        if response.status >> 8 != 1:
            return LoginError(response.status)
        try:
            pairs = self._text.take(response.data, continued=False) or []
            return Redirected(response.status, parse_portal(dict(pairs)["TargetAddress"]))
        except (NegotiationError, InvalidName, KeyError) as error:
            raise ProtocolError("the target redirects the login, but not to an address") from error
