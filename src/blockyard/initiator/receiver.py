"""What an initiator does with a PDU of the target's, one method for each (RFC 7143 §11).

With ErrorRecoveryLevel 0 a gap in the numbering, or damaged data, ends the connection; from level 1 on
recovery.py asks for what is missing, and what comes twice is let pass.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from blockyard.initiator.connection import Connection, carries_stat_sn, takes_stat_sn
from blockyard.initiator.errors import InitiatorError, ProtocolError, Rejected, SessionLost
from blockyard.initiator.exchange import Exchange, Response
from blockyard.iscsi.pdu import (
    BHS_LENGTH,
    NO_TAG,
    OPCODE_MASK,
    R2T,
    AsyncEvent,
    AsyncMessage,
    DataIn,
    LogoutResponse,
    NopIn,
    NopOut,
    Opcode,
    Pdu,
    Reject,
    RejectReason,
    ScsiResponse,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
)

if TYPE_CHECKING:
    from blockyard.initiator.connection import Handler
    from blockyard.initiator.session import Session


class Receiver:
    """The receiving side of a session. Its methods raise an InitiatorError to end the connection."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._handlers: dict[type[Pdu], Callable[[Connection, Any], None]] = {
            NopIn: self._on_nop_in,
            ScsiResponse: self._on_scsi_response,
            DataIn: self._on_data_in,
            R2T: self._on_r2t,
            TextResponse: self._on_answer,
            TaskManagementResponse: self._on_answer,
            LogoutResponse: self._on_answer,
            AsyncMessage: self._on_async_message,
            Reject: self._on_reject,
        }

    def of(self, connection: Connection) -> tuple[Handler, Handler]:
        """What handles the sound and the damaged PDUs of a connection."""
        return partial(self._handle, connection), partial(self._damaged, connection)

    @property
    def _strict(self) -> bool:
        return self._session.recovery_level == 0

    def _handle(self, connection: Connection, pdu: Any) -> None:
        handler = self._handlers.get(type(pdu))
        if handler is None:
            raise ProtocolError(f"the target sends a PDU with opcode 0x{pdu.opcode:02x} that has no place here")
        if carries_stat_sn(pdu) and not self._take_stat_sn(connection, pdu):
            return
        self._session.take_window(pdu.exp_cmd_sn, pdu.max_cmd_sn)
        handler(connection, pdu)

    def _take_stat_sn(self, connection: Connection, pdu: Any) -> bool:
        if self._strict and pdu.stat_sn != connection.exp_stat_sn:
            raise ProtocolError(f"StatSN is {pdu.stat_sn}, not {connection.exp_stat_sn}: a response is lost")
        fresh = connection.take_stat_sn(pdu) or self._is_answer_to_r_data(pdu)
        self._session.recovery.ask_for_status(connection)
        return fresh

    def _is_answer_to_r_data(self, pdu: Pdu) -> bool:
        """A status that is sent once more, after the data has been cut anew (RFC 7143 §11.4.6)."""
        exchange = self._session.exchanges.get(pdu.itt)
        return isinstance(pdu, ScsiResponse) and exchange is not None and pdu.snack_tag == exchange.snack_tag != NO_TAG

    def _damaged(self, connection: Connection, pdu: Any) -> None:
        """A PDU whose header is sound and whose data is not counts as lost (RFC 7143 §7.8)."""
        if self._strict:
            raise ProtocolError("data digest error")
        if takes_stat_sn(pdu):
            connection.know_of((pdu.stat_sn + 1) & 0xFFFFFFFF)
            self._session.recovery.ask_for_status(connection)
        exchange = self._session.exchanges.get(pdu.itt)
        if isinstance(pdu, DataIn) and exchange is not None:
            exchange.end = max(exchange.end, pdu.data_sn + 1)
            self._session.recovery.ask_for_data(exchange, exchange.end)

    def _find(self, connection: Connection, pdu: Pdu) -> Exchange | None:
        """The request that a PDU belongs to; None for one that comes again, after its request has ended."""
        exchange = self._session.exchanges.get(pdu.itt)
        if exchange is not None and exchange.connection is connection:
            self._session.recovery.progress(exchange)
            return exchange
        if self._strict:
            raise ProtocolError(f"{type(pdu).__name__} is for no task: its tag is 0x{pdu.itt:08x}")
        return None

    def _on_answer(self, connection: Connection, pdu: Pdu) -> None:
        pdu.data = bytes(pdu.data)
        exchange = self._find(connection, pdu)
        if exchange is not None:
            self._session.end(exchange, pdu)

    def _on_nop_in(self, connection: Connection, pdu: NopIn) -> None:
        if pdu.ttt != NO_TAG:  # the target wants an answer (RFC 7143 §11.18, §11.19)
            answer = NopOut(immediate=True, final=True, lun=pdu.lun, itt=NO_TAG, ttt=pdu.ttt)
            answer.cmd_sn = self._session.cmd_sn
            answer.exp_stat_sn = connection.acknowledged
            connection.send(answer)
        if pdu.itt != NO_TAG:
            self._on_answer(connection, pdu)

    # ---- data and status

    def _on_data_in(self, connection: Connection, pdu: DataIn) -> None:
        exchange = self._find(connection, pdu)
        if exchange is None:
            return
        data, offset = pdu.data, pdu.buffer_offset
        if self._strict and pdu.data_sn != exchange.data_sn:
            raise ProtocolError(f"DataSN is {pdu.data_sn}, not {exchange.data_sn}: data is lost")
        if self._strict and self._session.parameters.data_pdu_in_order and offset != exchange.received:
            raise ProtocolError(f"Data-In is for offset {offset}, not {exchange.received}")
        if offset + len(data) > len(exchange.data_in):
            raise ProtocolError(f"Data-In goes beyond the {len(exchange.data_in)} bytes that were asked for")
        if exchange.take_number(pdu.data_sn, len(data)):
            exchange.data_in[offset : offset + len(data)] = data
        pdu.data = b""
        if pdu.acknowledge:
            exchange.acknowledge = pdu
        if pdu.has_status:
            exchange.final = pdu
        exchange.end = max(exchange.end, pdu.data_sn + 1)
        self._advance(exchange)

    def _on_scsi_response(self, connection: Connection, pdu: ScsiResponse) -> None:
        exchange = self._find(connection, pdu)
        if exchange is None:
            return
        if pdu.response:  # the command was not carried out by a device server (RFC 7143 §11.4.3)
            error = InitiatorError(f"the target failed the command: response 0x{pdu.response:02x}")
            self._session.end(exchange, error=error)
        elif exchange.snack_tag in (NO_TAG, pdu.snack_tag):
            pdu.data = bytes(pdu.data)
            exchange.final = pdu
            if not exchange.data_in:
                exchange.end = 0  # R2Ts that have not come are needed no more
            elif not self._strict:
                exchange.end = max(exchange.end, pdu.exp_data_sn)
            self._advance(exchange)

    def _advance(self, exchange: Exchange) -> None:
        """Something has come: ask for what is missing, acknowledge, or be done."""
        recovery = self._session.recovery
        if exchange.missing(exchange.end):
            if exchange.final is not None and exchange.connection is not None:
                exchange.withheld.add(exchange.final.stat_sn)
                exchange.connection.withhold(exchange.final.stat_sn)
            recovery.ask_for_data(exchange, exchange.end)
            return
        if exchange.acknowledge is not None and exchange.data_sn > exchange.acknowledge.data_sn:
            recovery.acknowledge_data(exchange, exchange.acknowledge)
        if exchange.final is not None:
            self._complete(exchange, exchange.final)

    def _complete(self, exchange: Exchange, pdu: DataIn | ScsiResponse) -> None:
        length = int.from_bytes(pdu.data[:2], "big")
        response = Response(
            status=pdu.status,
            data=bytes(memoryview(exchange.data_in)[: exchange.received]),
            sense=bytes(pdu.data[2 : 2 + length]),
            residual=pdu.residual if pdu.overflow or pdu.underflow else 0,
            overflow=pdu.overflow,
        )
        self._session.end(exchange, response)

    def _on_r2t(self, connection: Connection, pdu: R2T) -> None:
        exchange = self._find(connection, pdu)
        if exchange is None:
            return
        end = pdu.buffer_offset + pdu.desired_length
        if self._strict and pdu.r2t_sn != exchange.data_sn:
            raise ProtocolError(f"R2TSN is {pdu.r2t_sn}, not {exchange.data_sn}")
        if end > len(exchange.data_out) or not 0 < pdu.desired_length <= self._session.parameters.max_burst_length:
            raise ProtocolError(
                f"an R2T asks for {pdu.desired_length} bytes from {pdu.buffer_offset}, of {len(exchange.data_out)}"
            )
        if exchange.reassigned:  # R2TSN goes on from anywhere on the new connection
            exchange.reassigned = False
            exchange.ahead.clear()
            exchange.data_sn = pdu.r2t_sn
        if exchange.take_number(pdu.r2t_sn) or pdu.r2t_sn < exchange.asked:
            self._session.send_data(exchange, pdu.ttt, pdu.buffer_offset, end)
        self._session.recovery.ask_for_data(exchange, pdu.r2t_sn + 1)

    # ---- everything else

    def _on_async_message(self, connection: Connection, pdu: AsyncMessage) -> None:
        session = self._session
        pdu.data = bytes(pdu.data)
        session.events.append(pdu)
        if pdu.event == AsyncEvent.LOGOUT_REQUESTED:
            session.logout_requested = True
        elif pdu.event == AsyncEvent.NEGOTIATION_REQUESTED:  # to be honoured with a text request, which may be empty
            request = TextRequest(immediate=True, final=True, itt=session.new_tag(), ttt=NO_TAG)
            session.issue(Exchange(request), connection)
        elif pdu.event == AsyncEvent.SESSION_DROPPED:
            for each in session.connections:
                each.fail(SessionLost("the target announces that it drops the session"))
        # That another connection is dropped (event 2) its own socket tells; by now a new one may have its CID.

    def _on_reject(self, connection: Connection, pdu: Reject) -> None:
        """The header of what was rejected tells whose failure it is (RFC 7143 §11.17)."""
        header = bytes(pdu.data[:BHS_LENGTH]).ljust(BHS_LENGTH, b"\0")
        opcode = header[0] & OPCODE_MASK
        exchange = self._session.exchanges.get(int.from_bytes(header[16:20], "big"))
        damaged = pdu.reason == RejectReason.DATA_DIGEST_ERROR
        if opcode == Opcode.DATA_OUT and (damaged or not self._strict):
            return  # the target asks for it again, or ends the command (RFC 7143 §7.8)
        if opcode == Opcode.SNACK_REQUEST and not self._strict:
            return  # what cannot be had again is missed once more, and then met in another way
        if damaged and not self._strict and exchange is not None and exchange.connection is connection:
            self._session.dispatch(exchange, connection)  # the target has not taken it: retry (RFC 7143 §7.2.1)
            return
        error = Rejected(pdu.reason)
        if exchange is None or damaged or opcode == Opcode.DATA_OUT:
            raise error  # the two sides do not agree any more on where they are
        self._session.end(exchange, error=error)
