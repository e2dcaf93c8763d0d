"""What can go wrong for an initiator, each with a message that a person can act on."""

from __future__ import annotations

from blockyard.initiator.sense import Sense
from blockyard.iscsi.names import PortalAddress
from blockyard.iscsi.pdu import LoginStatus, RejectReason
from blockyard.scsi.task import Status


class InitiatorError(Exception):
    """Base of everything that is raised here, apart from OSError and TimeoutError."""


class ProtocolError(InitiatorError):
    """The target breaks the rules of iSCSI; the connection is of no use any more."""


class SessionLost(InitiatorError):
    """The connection has ended before the command was answered."""


class Rejected(InitiatorError):
    """The target rejected a PDU (RFC 7143 §11.17)."""

    def __init__(self, reason: int) -> None:
        name = (
            RejectReason(reason).name.replace("_", " ").lower() if reason in tuple(RejectReason) else "no known reason"
        )
        super().__init__(f"the target rejects the request: {name} (0x{reason:02x})")
        self.reason = reason


_ADVICE = {
    LoginStatus.INITIATOR_ERROR: "the target says that the login breaks the protocol",
    LoginStatus.AUTHENTICATION_FAILURE: "the target wants authentication, or the name or secret is wrong",
    LoginStatus.AUTHORIZATION_FAILURE: "the target does not let this initiator in; another initiator name may do",
    LoginStatus.NOT_FOUND: "there is no such target on this portal; discovery lists the ones that are",
    LoginStatus.TARGET_REMOVED: "the target has been removed for good",
    LoginStatus.UNSUPPORTED_VERSION: "the target does not speak this version of iSCSI",
    LoginStatus.TOO_MANY_CONNECTIONS: "the session has as many connections as the target allows",
    LoginStatus.MISSING_PARAMETER: "the target misses a parameter, such as a name",
    LoginStatus.SESSION_TYPE_UNSUPPORTED: "the target does not have this type of session",
    LoginStatus.SESSION_DOES_NOT_EXIST: "the session to be joined is not there",
    LoginStatus.TARGET_ERROR: "the target has an error of its own; its log may tell more",
    LoginStatus.SERVICE_UNAVAILABLE: "the target is not available now; try again later",
    LoginStatus.OUT_OF_RESOURCES: "the target is out of resources, such as sessions; try again later",
}


class LoginError(InitiatorError):
    """The target does not let this initiator in. `status` is class and detail (RFC 7143 §11.13.5)."""

    def __init__(self, status: int) -> None:
        advice = _ADVICE.get(LoginStatus(status), "") if status in tuple(LoginStatus) else ""
        super().__init__(f"login refused with status 0x{status:04x}" + (f": {advice}" if advice else ""))
        self.status = status


class Redirected(LoginError):
    """The target is to be found elsewhere (RFC 7143 §11.13.5, status class 1)."""

    def __init__(self, status: int, address: PortalAddress) -> None:
        super().__init__(status)
        self.address = address


class ScsiError(InitiatorError):
    """A command ended with another status than GOOD. `sense` is None where there is none."""

    def __init__(self, cdb: bytes, status: int, sense: Sense | None) -> None:
        name = Status(status).name.replace("_", " ") if status in tuple(Status) else f"status 0x{status:02x}"
        super().__init__(f"command 0x{cdb[0]:02x}: {sense if sense is not None else name}")
        self.cdb = cdb
        self.status = status
        self.sense = sense
