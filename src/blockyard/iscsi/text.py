"""The text exchanges of a target's connection in full feature phase (RFC 7143 §6.4, §11.10, §11.11).

An exchange is one text request or several with the same task tag, each answered by one text response; the target
transfer tag of the last response leads on, and a request without one begins anew. What is negotiated holds once the
exchange has come to its end (F on both sides): an exchange that is given up has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from blockyard.iscsi.negotiation import NegotiationError, Negotiator, Pairs, Parameters, TextAccumulator
from blockyard.iscsi.pdu import NO_TAG, RejectReason, TextRequest, TextResponse

_TAG = 1  # target transfer tag: a connection has one exchange at a time (RFC 7143 §11.10.4)


class TextRejected(Exception):
    """A text request cannot be answered; the exchange is over (RFC 7143 §6.2.2: reset)."""

    def __init__(self, message: str, reason: RejectReason = RejectReason.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.reason = reason


class TextExchange:
    """`send_targets` answers the key of that name; all other keys are the negotiator's."""

    def __init__(self, negotiator: Negotiator, send_targets: Callable[[str], Pairs]) -> None:
        self._negotiator = negotiator
        self._send_targets = send_targets
        self._text = TextAccumulator()
        self._tag: int | None = None  # initiator task tag of the exchange that is under way
        self._keys: set[str] = set()  # that have been negotiated in it
        self._proposed: Parameters = negotiator.parameters

    def take(self, pdu: TextRequest, segment: int) -> TextResponse:
        """Take a request; the response, with at most `segment` bytes of text. Raises TextRejected."""
        try:
            self._find(pdu)
            if pdu.final and pdu.continued:
                raise TextRejected("F and C are both set (RFC 7143 §11.10.2)")
            pairs = self._text.take(pdu.data, continued=pdu.continued)
            self._text.put(self._answer(pairs or []))
        except NegotiationError as error:
            self._tag = None
            raise TextRejected(str(error)) from error
        except TextRejected:
            self._tag = None
            raise
        data, more = self._text.next_segment(segment)
        final = pdu.final and not more
        if final:
            self._settle()
        ttt = NO_TAG if final else _TAG
        return TextResponse(lun=pdu.lun, itt=pdu.itt, ttt=ttt, final=final, continued=more, data=data)

    def _find(self, pdu: TextRequest) -> None:
        if pdu.ttt == NO_TAG:
            self._text.reset()
            self._keys.clear()
            self._proposed = replace(self._negotiator.parameters)
            self._tag = pdu.itt
        elif pdu.ttt != _TAG or self._tag is None:
            raise TextRejected("no text exchange has this target transfer tag", RejectReason.INVALID_PDU_FIELD)
        elif pdu.itt != self._tag:
            raise TextRejected("the task tag changes within a text exchange (RFC 7143 §11.10.3)")

    def _answer(self, pairs: Pairs) -> Pairs:
        negotiated = [pair for pair in pairs if pair[0] != "SendTargets"]
        again = self._keys.intersection(name for name, _ in negotiated)
        if again:
            raise NegotiationError(f"{min(again)} is negotiated a second time (RFC 7143 §6.4)")
        self._keys.update(name for name, _ in negotiated)
        in_force, self._negotiator.parameters = self._negotiator.parameters, self._proposed
        try:
            answers = self._negotiator.answer_full_feature(negotiated)
        finally:
            self._negotiator.parameters = in_force
        for name, value in pairs:
            if name == "SendTargets":
                answers += self._send_targets(value)
        return answers

    def _settle(self) -> None:
        """The exchange is over: what it has agreed upon holds."""
        self._tag = None
        for field in fields(Parameters):
            setattr(self._negotiator.parameters, field.name, getattr(self._proposed, field.name))
