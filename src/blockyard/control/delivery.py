"""Events are delivered: to syslog, to web servers, by mail, by SNMP (docs/notifications.md).

The queue of a receiver is the record of events itself: what it has had so far is a number in the state database. So it outlives
a restart, is as bounded as the record is, and costs nothing while a receiver is away. Each receiver has a thread of its own
with a database connection of its own, as senders block: one that hangs holds up nobody else, least of all control. An event
may come twice, when the end came between sending and writing that down; its `id` tells.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from blockyard.control.catalogue import CATALOGUE, Severity
from blockyard.control.errors import ControlError
from blockyard.control.events import Event, known_ids, next_events
from blockyard.control.mail import MailSender
from blockyard.control.snmp import SnmpSender
from blockyard.control.state import State
from blockyard.control.syslog import SyslogSender
from blockyard.control.webhook import WebhookSender
from blockyard.worker.receivers import AnyReceiver, Receiver, Receivers, Snmp, Syslog, Webhook

log = logging.getLogger(__name__)

FIRST_DELAY, LAST_DELAY = 1.0, 60.0  # seconds between attempts; doubles
BATCH = 1_000  # events looked at in one go
LOOK = 5.0  # seconds after which the record is looked into unasked: other processes record events, too
_PARTING = 3.0  # seconds that receivers have together when the server ends

Tell = Callable[[str, str], None]  # kind of event, text; from any thread


class Sender(Protocol):
    @property
    def together(self) -> int:
        """So many events at most are sent at a time."""
        ...

    @property
    def interval(self) -> float:
        """Seconds between two times at least."""
        ...

    def send(self, events: list[Event]) -> None:
        """Raises OSError; then none has been delivered, as far as is known."""
        ...

    def close(self) -> None: ...


def sender(receiver: AnyReceiver) -> Sender:
    if isinstance(receiver, Syslog):
        return SyslogSender(receiver)
    if isinstance(receiver, Webhook):
        return WebhookSender(receiver)
    if isinstance(receiver, Snmp):
        return SnmpSender(receiver)
    return MailSender(receiver)


def wants(receiver: Receiver, event: Event) -> bool:
    """Whether it is to get it."""
    if event.severity.rank < Severity(receiver.severity).rank:
        return event.what == "test"
    return not receiver.kinds or event.what == "test" or any(fnmatchcase(event.what, kind) for kind in receiver.kinds)


class Courier:
    """Brings events to one receiver, from `start` to `close`."""

    def __init__(
        self,
        directory: Path,
        place: str,
        receiver: AnyReceiver,
        tell: Tell,
        since: int | None,
        *,
        anew: bool = False,
    ) -> None:
        """One that is new gets the events with an id greater than `since`; with `anew` that is so whoever had its name before."""
        self.receiver = receiver
        self._directory = directory
        self._place = place
        self._tell = tell
        self._sender = sender(receiver)
        self._since = since
        self._anew = anew
        self._sent = 0  # the id of the last event that it has had, or did not want
        self._written = 0
        self._due = 0.0  # when the next may be sent, by the monotonic clock
        self._delay = 0.0
        self._wake = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"events to {place}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There are new events."""
        self._wake.set()

    def end(self) -> None:
        """Send what there is, if that is possible at once, and end."""
        self._ending.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        self._thread.join(max(seconds, 0.0))

    def _run(self) -> None:
        try:
            with contextlib.closing(State(self._directory)) as state, contextlib.closing(self._sender):
                self._begin(state)
                while True:
                    ending = self._ending.is_set()
                    self._wake.clear()
                    self._deliver(state, at_once=ending)
                    if ending:
                        return
                    self._wait()
        except ControlError as error:
            log.error("no events are delivered to %s: %s", self._place, error)

    def _wait(self) -> None:
        """Until there may be something to do: no sooner than the next may be sent."""
        rest = self._due - time.monotonic()
        if rest > 0:
            self._ending.wait(rest)
        else:
            self._wake.wait(LOOK)

    def _begin(self, state: State) -> None:
        found = None if self._anew else state.setting(self._key)
        if found is None:
            self._sent = known_ids(state)[1] if self._since is None else self._since
            self._write(state)
        else:
            self._sent = self._written = int(found)

    @property
    def _key(self) -> str:
        return f"events delivered to {self._place}"

    def _write(self, state: State) -> None:
        state.set_setting(self._key, str(self._sent))
        self._written = self._sent

    def _deliver(self, state: State, *, at_once: bool) -> None:
        if time.monotonic() < self._due and not (at_once and not self._delay):
            return
        try:
            while self._deliver_some(state):
                pass
        except OSError as error:
            self._failed(error)
        except ControlError as error:  # the database
            log.warning("%s: %s", self._place, error)
        finally:
            if self._sent != self._written:
                with contextlib.suppress(ControlError):
                    self._write(state)

    def _deliver_some(self, state: State) -> bool:
        """Whether there may be more that can be sent now. Raises OSError, ControlError."""
        oldest = known_ids(state)[0]
        if oldest > self._sent + 1:
            self._tell("delivery-lost", f"{self._place}: {oldest - self._sent - 1} events are gone that it has not had")
            self._sent = oldest - 1
        events = next_events(state, self._sent, BATCH)
        wanted = [event for event in events if wants(self.receiver, event)]
        step = self._sender.together
        for first in range(0, len(wanted), step):
            part = wanted[first : first + step]
            self._sender.send(part)
            self._sent = part[-1].id
            self._worked()
        if events:
            self._sent = events[-1].id
        if wanted and self._sender.interval:
            self._due = time.monotonic() + self._sender.interval
            return False
        return len(events) == BATCH

    def _worked(self) -> None:
        if self._delay:
            self._tell("delivery-recovered", f"events are delivered to {self._place} again")
        self._delay = 0.0

    def _failed(self, error: OSError) -> None:
        if not self._delay:
            self._tell("delivery-failed", f"events cannot be delivered to {self._place}: {reason(error)}")
        self._delay = min(max(2 * self._delay, FIRST_DELAY), LAST_DELAY)
        self._due = time.monotonic() + self._delay


def reason(error: OSError) -> str:
    text = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {text}" if error.filename else text


class Deliveries:
    """All receivers of a server."""

    def __init__(self, directory: Path, tell: Tell) -> None:
        self._directory = directory
        self._tell = tell
        self._couriers: dict[str, Courier] = {}
        self._before: set[str] | None = None  # places; None at first: some of them were there before a restart

    def configure(self, receivers: Receivers) -> None:
        """These are the receivers from now on; those that are as they were go on, and new ones get what comes from now on."""
        wanted = receivers.by_place
        for place, courier in list(self._couriers.items()):
            if wanted.get(place) != courier.receiver:
                self._couriers.pop(place).end()
        new = {place: receiver for place, receiver in wanted.items() if place not in self._couriers}
        since = self._newest() if new else None
        for place, receiver in new.items():
            anew = self._before is not None and place not in self._before
            self._couriers[place] = Courier(self._directory, place, receiver, self._tell, since, anew=anew)
            self._couriers[place].start()
        self._before = set(wanted)

    def _newest(self) -> int | None:
        """The id of the newest event: looked at now, as others may have been written until a courier begins."""
        with contextlib.suppress(ControlError), contextlib.closing(State(self._directory)) as state:
            return known_ids(state)[1]
        return None

    def wake(self) -> None:
        """New events stand in the record."""
        for courier in self._couriers.values():
            courier.wake()

    def close(self) -> None:
        """Let every receiver have what there is, as far as that does not take long."""
        for courier in self._couriers.values():
            courier.end()
        until = time.monotonic() + _PARTING
        for courier in self._couriers.values():
            courier.join(until - time.monotonic())
        self._couriers.clear()


def try_all(receivers: Mapping[str, AnyReceiver], text: str) -> dict[str, str]:
    """Send one event to each receiver, at once; why that failed by its name, "" where it has worked."""
    event = Event(CATALOGUE["test"].severity, "test", text, time=time.time())
    threads, found = [], dict.fromkeys(receivers, f"no answer within {LAST_DELAY:.0f} s")

    def attempt(place: str, receiver: AnyReceiver) -> None:
        try:
            with contextlib.closing(sender(receiver)) as one:
                one.send([event])
            found[place] = ""
        except OSError as error:
            found[place] = reason(error)

    for place, receiver in receivers.items():
        threads.append(threading.Thread(target=attempt, args=(place, receiver), daemon=True))
        threads[-1].start()
    until = time.monotonic() + LAST_DELAY
    for thread in threads:
        thread.join(max(until - time.monotonic(), 0))
    return dict(found)
