"""How a session gets over errors (RFC 7143 §7).

Theory of operation. The ErrorRecoveryLevel that was negotiated says what is tried first; what does not help is
followed by the next line:

    level 1   a gap in DataSN, R2TSN or StatSN, damaged data   SNACK for just that                     §7.1.4.2
              a command that ExpCmdSN does not acknowledge     sent again with its CmdSN               §7.2.1
              silence about a command                          a ping, which shows lost responses; SNACK for R2Ts
    level 2   a connection is gone                             its commands are reassigned to another  §7.2.2
    any       the session is gone                              with `reconnect` a new one takes its place, and
                                                               every command is sent anew              §7.1.4.4

Without `reconnect` the end of a session is the end of its commands: SessionLost. To send a command anew
does no harm to READ and WRITE; a command that does something else the second time (COMPARE AND WRITE, say) is
the caller's to think of.

There is no thread: `tick` is called while the session waits, `due` says how long it may sleep.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.initiator.connection import Connection, Dial
from blockyard.initiator.errors import InitiatorError, LoginError, SessionLost
from blockyard.initiator.exchange import Exchange
from blockyard.iscsi.pdu import (
    NO_TAG,
    DataIn,
    LoginStatus,
    LogoutReason,
    LogoutRequest,
    LogoutResponseCode,
    NopOut,
    SnackRequest,
    SnackType,
    TaskFunction,
    TaskManagementRequest,
    TaskResponse,
    serial_less,
)

if TYPE_CHECKING:
    from blockyard.initiator.session import Session

_MASK = 0xFFFFFFFF
_PATIENCE = 5  # times `retry_after`: the longest time between two looks after a request
_ATTEMPTS = 8  # recoveries in a row, without a command ending in between, before the session is given up
_REDIAL = 0.2  # seconds between two attempts to connect
_REOPEN = 60.0  # seconds that a new session is tried for
_PASSING = (LoginStatus.TARGET_ERROR, LoginStatus.SERVICE_UNAVAILABLE, LoginStatus.OUT_OF_RESOURCES)


class Recovery:
    """Of one session. `retry_after` is how many seconds a request may make no progress before it is looked after."""

    def __init__(self, session: Session, dial: Dial | None, *, reconnect: bool, retry_after: float) -> None:
        self.pending: deque[Exchange] = deque()  # to be sent anew as soon as the command window allows
        self._session = session
        self._dial = dial
        self._reconnect = reconnect and dial is not None
        self.retry_after = retry_after
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._look_at = 0.0
        self._attempts = 0
        self._next_snack_tag = 1

    @property
    def due(self) -> float:
        """When `tick` has something to do."""
        times = [when for when, _ in self._timers]
        if self._session.recovery_level and self._session.exchanges:
            times.append(self._look_at)
        return min(times, default=float("inf"))

    def tick(self, now: float) -> None:
        """Do what is due."""
        due = [timer for timer in self._timers if timer[0] <= now]
        self._timers = [timer for timer in self._timers if timer[0] > now]
        for _, action in due:
            if self._session.lost is None:
                action()
        self._send_pending()
        if self._session.recovery_level and now >= self._look_at:
            self._look_at = now + self.retry_after / 4
            for exchange in list(self._session.exchanges.values()):
                patience = self.retry_after * min(1 + exchange.stalls, _PATIENCE)
                since = now - max(exchange.touched, exchange.looked_after)
                if exchange.connection in self._session.connections and since > patience:
                    self._look_after(exchange, now)

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timers.append((time.monotonic() + seconds, action))

    def _send_pending(self) -> None:
        while self.pending and self._session.connections and self._session.window_open:
            exchange = self.pending.popleft()
            if not exchange.done:
                self._session.issue(exchange)

    def progress(self, exchange: Exchange) -> None:
        """A PDU has come for a request."""
        exchange.touched = time.monotonic()
        exchange.stalls = 0
        if exchange.is_command:
            self._attempts = 0

    # ---- level 1: what is lost within a connection

    def ask_for_status(self, connection: Connection) -> None:
        """Ask for responses that have not come (RFC 7143 §11.16.1, Status SNACK)."""
        for first, count in connection.missing():
            skipped = (connection.asked - first) & _MASK if serial_less(first, connection.asked) else 0
            if skipped < count:
                self._snack(connection, SnackType.STATUS, first + skipped, count - skipped)
                connection.asked = (first + count) & _MASK

    def ask_for_data(self, exchange: Exchange, end: int) -> None:
        """Ask for the Data-In and R2T PDUs below `end` that have not come."""
        connection = exchange.connection
        assert connection is not None
        for first, count in exchange.missing(end):
            begin = max(first, exchange.asked)
            if begin >= first + count:
                continue
            if exchange.segment != connection.parameters.max_recv_data_segment_length:
                self._ask_for_all_data(exchange, connection)
                return
            exchange.asked = first + count
            self._snack(connection, SnackType.DATA, begin, first + count - begin, exchange=exchange)

    def _ask_for_all_data(self, exchange: Exchange, connection: Connection) -> None:
        """Segments have another length by now: the data comes cut anew, after what was acknowledged (R-Data SNACK)."""
        exchange.segment = connection.parameters.max_recv_data_segment_length
        exchange.data_sn, exchange.received = exchange.acked
        exchange.ahead.clear()
        exchange.asked = exchange.end = 0
        exchange.final = None
        exchange.snack_tag = self._next_snack_tag
        self._next_snack_tag = self._next_snack_tag % (NO_TAG - 1) + 1
        self._snack(connection, SnackType.R_DATA, exchange.data_sn, 0, exchange=exchange, tag=exchange.snack_tag)

    def acknowledge_data(self, exchange: Exchange, pdu: DataIn) -> None:
        """The target wants to know that data has come, so that it can forget it (RFC 7143 §11.16.1, DataACK)."""
        assert exchange.connection is not None
        exchange.acknowledge = None
        exchange.acked = (exchange.data_sn, exchange.received)
        self._snack(exchange.connection, SnackType.DATA_ACK, exchange.data_sn, 0, lun=pdu.lun, tag=pdu.ttt)

    def _snack(
        self,
        connection: Connection,
        kind: SnackType,
        first: int,
        count: int,
        *,
        exchange: Exchange | None = None,
        lun: int = 0,
        tag: int = NO_TAG,
    ) -> None:
        pdu = SnackRequest(
            final=True,
            type=kind,
            lun=exchange.lun if exchange else lun,
            itt=exchange.itt if exchange else NO_TAG,
            snack_tag=tag,
            exp_stat_sn=connection.acknowledged,
            beg_run=first & _MASK,
            run_length=count,
        )
        connection.send(pdu)

    def _look_after(self, exchange: Exchange, now: float) -> None:
        """A request makes no progress: something of it may be lost, either way."""
        session, connection = self._session, exchange.connection
        assert connection is not None
        exchange.looked_after = now
        exchange.stalls += 1
        stuck = now - exchange.touched > session.timeout
        if stuck and (exchange.data_out or not exchange.is_command):  # all but what may take long at the target
            connection.fail(SessionLost(f"a request made no progress on {connection}"))
        elif exchange.numbered and not serial_less(exchange.cmd_sn, session.exp_cmd_sn):
            if exchange.cmd_sn == session.exp_cmd_sn:
                session.dispatch(exchange, connection)
        elif not exchange.numbered and not exchange.is_command:
            session.dispatch(exchange, connection)
        else:
            connection.asked = connection.exp_stat_sn
            exchange.asked = exchange.data_sn
            self.ask_for_status(connection)  # what was asked for may have been lost again
            self.ask_for_data(exchange, exchange.end)
            self._probe(connection)
            if exchange.data_out:
                self._ask_for_r2ts(exchange, connection)

    def _probe(self, connection: Connection) -> None:
        """Ping the target: the StatSN of its answer shows whether responses are lost."""
        probing = (each for each in self._session.exchanges.values() if each.connection is connection)
        if not any(isinstance(each.request, NopOut) for each in probing):
            pdu = NopOut(immediate=True, final=True, itt=self._session.new_tag(), ttt=NO_TAG)
            self._session.issue(Exchange(pdu), connection)

    def _ask_for_r2ts(self, exchange: Exchange, connection: Connection) -> None:
        """Ask for the R2Ts again that may be lost, or whose data may be: the ones that can be outstanding, and on."""
        first = max(0, exchange.data_sn - self._session.parameters.max_outstanding_r2t)
        exchange.asked = max(exchange.data_sn, 1)  # they are served once more when they come
        self._snack(connection, SnackType.DATA, first, 0, exchange=exchange)

    # ---- level 2: a connection is lost

    def connection_failed(self, connection: Connection) -> None:
        session = self._session
        assert connection.failure is not None
        self._attempts += 1
        if session.ending or session.lost is not None or self._attempts > _ATTEMPTS:
            session.lose(connection.failure)
        elif session.recovery_level == 2 and self._dial is not None:
            retain = session.parameters.default_time2wait + session.parameters.default_time2retain
            until = time.monotonic() + max(retain, _REDIAL)
            wait = session.parameters.default_time2wait
            self._after(wait, lambda: self._replace(connection, until))
        else:
            self._restart(connection.failure)

    def _replace(self, failed: Connection, until: float) -> None:
        """Log a lost connection out for recovery, through another one or by a new one in its place (§6.3.4, §11.14)."""
        session = self._session
        if session.connections:
            reason = LogoutReason.RECOVERY
            pdu = LogoutRequest(immediate=True, final=True, reason=reason, itt=session.new_tag(), cid=failed.cid)
            exchange = Exchange(pdu)
            exchange.then = lambda ended: self._logged_out(ended, failed)
            session.issue(exchange)
            return
        assert self._dial is not None
        try:
            connection = self._dial(
                tsih=session.login.tsih, cid=failed.cid, cmd_sn=session.cmd_sn, exp_stat_sn=failed.acknowledged
            )
        except (OSError, SessionLost) as error:
            if time.monotonic() < until:
                self._after(_REDIAL, lambda: self._replace(failed, until))
            else:
                self._restart(error)
        except InitiatorError as error:
            self._restart(error)
        else:
            session.add(connection)
            self._adopt_orphans(failed)

    def _logged_out(self, logout: Exchange, failed: Connection) -> None:
        codes = (LogoutResponseCode.CLOSED, LogoutResponseCode.CID_NOT_FOUND)
        if logout.response is not None and logout.response.response in codes:
            self._adopt_orphans(failed)
        elif self._session.lost is None:
            self._restart(SessionLost(f"the target cannot recover {failed}"))

    def _adopt_orphans(self, failed: Connection) -> None:
        """Go on with the requests of a lost connection that the target has logged out."""
        for exchange in [each for each in self._session.exchanges.values() if each.connection is failed]:
            self._adopt(exchange)

    def _adopt(self, exchange: Exchange) -> None:
        session = self._session
        acknowledged = exchange.numbered and serial_less(exchange.cmd_sn, session.exp_cmd_sn)
        if exchange.done or not session.connections:
            return
        if _reassigns(exchange):  # that is asked for anew, or the command has ended: they would become ever more
            session.end(exchange, error=SessionLost("the connection is lost that a command was to go on"))
            return
        exchange.touched = time.monotonic()
        if exchange.is_command and (acknowledged or not exchange.numbered):
            self._reassign(exchange)
        elif acknowledged:  # it is not a task, so that its answer is lost with the connection
            self._send_anew(exchange)
        else:
            session.dispatch(exchange, session.connections[0])

    def _reassign(self, exchange: Exchange) -> None:
        """Give a command a new allegiance (RFC 7143 §7.2.2, §11.5)."""
        session = self._session
        exchange.ahead.clear()
        exchange.asked = exchange.end = exchange.data_sn
        exchange.final = None
        connection = exchange.connection = session.connections[0]
        pdu = TaskManagementRequest(
            immediate=True,
            final=True,
            function=TaskFunction.TASK_REASSIGN,
            lun=exchange.lun,
            itt=session.new_tag(),
            referenced_task_tag=exchange.itt,
            ref_cmd_sn=exchange.cmd_sn,
            exp_data_sn=exchange.data_sn if exchange.data_in else 0,
        )
        request = Exchange(pdu)
        request.then = lambda ended: self._reassigned(ended, exchange)
        exchange.reassigned = True
        session.issue(request, connection)

    def _reassigned(self, request: Exchange, exchange: Exchange) -> None:
        if exchange.done or request.response is None:
            return
        code = request.response.response
        if code == TaskResponse.NO_SUCH_TASK:
            self._send_anew(exchange)
        elif code == TaskResponse.STILL_ALLEGIANT:
            self._after(_REDIAL, lambda: self._adopt(exchange))
        elif code != TaskResponse.COMPLETE:
            self._restart(SessionLost("the target cannot reassign a command"))

    # ---- any level: the session is lost

    def on_silence(self) -> bool:
        """The target owes answers and is silent. True when something is done about it."""
        if not self._session.connections:
            return bool(self._timers)  # it is being connected to, which has limits of its own
        if not (self._reconnect or self._session.recovery_level == 2):
            return False
        for connection in self._session.connections:
            connection.fail(TimeoutError(f"the target has said nothing for {self._session.timeout:g} s"))
        return True

    def _restart(self, error: Exception) -> None:
        """Have a new session take the place of this one, which is reinstatement (RFC 7143 §6.3.5)."""
        session = self._session
        if not self._reconnect:
            session.lose(error)
            return
        self._timers.clear()
        count = len(session.connections) + 1
        for connection in list(session.connections):
            session.forget(connection)
        until = time.monotonic() + _REOPEN
        self._after(session.parameters.default_time2wait, lambda: self._reopen(error, until, count))

    def _reopen(self, error: Exception, until: float, count: int) -> None:
        assert self._dial is not None
        session = self._session
        try:
            connection = self._dial()
        except (OSError, InitiatorError) as failure:
            passing = isinstance(failure, OSError | SessionLost) or (
                isinstance(failure, LoginError) and failure.status in _PASSING
            )
            if passing and time.monotonic() < until:
                self._after(_REDIAL, lambda: self._reopen(error, until, count))
            else:
                session.lose(failure if isinstance(failure, InitiatorError) else error)
            return
        outstanding = list(session.exchanges.values())
        session.begin(connection)
        try:
            for _ in range(count - 1):
                session.add_connection()
        except (OSError, InitiatorError):
            pass  # it goes on with fewer
        self.pending.clear()
        for exchange in outstanding:
            if exchange.is_command or (isinstance(exchange.request, NopOut) and exchange.numbered):
                self._send_anew(exchange)
            else:
                session.end(exchange, error=SessionLost("the session is another one now"))
        self._send_pending()

    def _send_anew(self, exchange: Exchange) -> None:
        exchange.restart()
        exchange.connection = None
        self.pending.append(exchange)


def _reassigns(exchange: Exchange) -> bool:
    request = exchange.request
    return isinstance(request, TaskManagementRequest) and request.function == TaskFunction.TASK_REASSIGN
