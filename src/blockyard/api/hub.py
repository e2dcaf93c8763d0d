"""The stream: what changes is looked for once a second, for all who watch, and for nobody when nobody does.

Each who watches has a queue with an end. Whoever is so slow that it fills up is let go of: a browser comes again by itself and
says which event it had last.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from blockyard.control.activity import Activity, activity
from blockyard.control.errors import ControlError
from blockyard.control.events import read_events
from blockyard.control.jobs import all_jobs
from blockyard.control.roles import Identity

if TYPE_CHECKING:
    from blockyard.api.context import Context

log = logging.getLogger(__name__)

PERIOD = 1.0  # seconds
MAX_STREAMS, MAX_EACH = 64, 8  # in all, and of one account
_QUEUE = 64  # messages
_BACKLOG = 500  # events that one who comes again is told
_RATES = ("read_ops", "read_bytes", "write_ops", "write_bytes", "other_ops", "errors")

Report = dict[str, Any]
Form = Callable[[str, Any, int | None], bytes]  # of a message: its name, what it tells, its number; nothing: none


class Subscription:
    """One who watches: an iterator of messages, until it is let go of."""

    def __init__(self, who: Identity, form: Form | None = None) -> None:
        self.who = who
        self.form = form or _message
        self.began = time.time()
        self.id = secrets.token_hex(6)  # for people: it opens nothing
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUE + 1)
        self._over = False

    def put(self, message: bytes) -> None:
        if self._over or not message:
            return
        if self._queue.qsize() >= _QUEUE:
            self.end()
        else:
            self._queue.put_nowait(message)

    def end(self) -> None:
        """After what is in the queue."""
        if not self._over:
            self._over = True
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self._queue.get()) is not None:
            yield message


class Hub:
    """All who watch."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._subscriptions: list[Subscription] = []
        self._task: asyncio.Task[None] | None = None
        self._event = 0  # the newest that was told
        self._before: tuple[float, Report] | None = None
        self._done: tuple[float, Report] | None = None
        self._activity: Activity | None = None
        self._told: dict[str, Any] = {}

    def subscribe(self, who: Identity, after: int | None, form: Form | None = None) -> Subscription | None:
        """Watch from now on, and be told of events after the one with that number. None where too many do."""
        same = sum(each.who.name == who.name for each in self._subscriptions)
        if len(self._subscriptions) >= MAX_STREAMS or same >= MAX_EACH:
            return None
        subscription = Subscription(who, form)
        subscription.put(b"retry: 2000\n\n")
        if not self._subscriptions:
            self._event = self._newest()
            self._before, self._done, self._told = None, None, {}
        if after is not None:
            for event in read_events(self._context.state, after=after, last=_BACKLOG):
                if event.id <= self._event:
                    self._tell(subscription, "event", event.as_dict(), number=event.id)
        for name, found in self._told.items():
            self._tell(subscription, name, found)
        self._subscriptions.append(subscription)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return subscription

    def watching(self, form: Form) -> list[Subscription]:
        """Who is told in this form."""
        return [each for each in self._subscriptions if each.form is form]

    def leave(self, subscription: Subscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def close(self) -> None:
        """Let go of all."""
        for subscription in self._subscriptions:
            subscription.end()
        self._subscriptions.clear()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # ---- what is told

    async def _run(self) -> None:
        trouble = ""
        while self._subscriptions:
            try:
                await self._look()
            except (ControlError, OSError) as error:  # a worker is just being started again
                log.debug("the stream has nothing to tell now: %s", error)
            except Exception as error:  # a fault of ours in one look must not leave all who watch in the dark
                if repr(error) != trouble:
                    log.exception("the stream has nothing to tell now")
                    trouble = repr(error)
            await asyncio.sleep(PERIOD)
        self._task = None

    async def _look(self) -> None:
        now, report = time.monotonic(), await self._context.statistics()
        if self._before is not None:
            self._tell_all("statistics", _rates(*self._before, now, report))
        self._before = (now, report)
        await self._look_at_activity()
        self._if_changed("sessions", report["sessions"])
        self._if_changed("jobs", await self._context.shared("jobs", partial(all_jobs, self._context.server)))
        for event in read_events(self._context.state, after=self._event):
            self._event = event.id
            self._tell_all("event", event.as_dict(), number=event.id)
        for subscription in list(self._subscriptions):
            if not self._still(subscription):
                subscription.end()
                self.leave(subscription)

    async def _look_at_activity(self) -> None:
        """Of what volumes and sessions do: a session that is new has begun with nothing."""
        now, report = time.monotonic(), await activity(self._context.server, {})
        if self._done is not None:
            self._activity = Activity(self._done[1], report, now - self._done[0])
            self._tell_all("activity", {"time": time.time(), **self._activity.told()})
        self._done = (now, report)

    def _newest(self) -> int:
        return max((event.id for event in read_events(self._context.state, last=1)), default=0)

    def _still(self, subscription: Subscription) -> bool:
        """Whether somebody may still watch: accounts change, sessions end, and tokens are revoked."""
        who, (kind, _, number) = subscription.who, subscription.who.by.partition(" ")
        if kind == "local":
            return True
        account = self._context.accounts.find(who.name)
        if account is None or account.identity.targets != who.targets or account.role.rank < who.role.rank:
            return False
        if kind == "session":
            login = self._context.logins.with_id(number)
            return login is not None and login.since == account.changed
        return self._context.accounts.holds(number) if kind == "token" else account.changed <= subscription.began

    # ---- telling it

    def _if_changed(self, name: str, found: Any) -> None:
        if self._told.get(name) != found:
            self._told[name] = found
            self._tell_all(name, found)

    def _tell_all(self, name: str, found: Any, *, number: int | None = None) -> None:
        whole = _message(name, found, number)
        for subscription in list(self._subscriptions):
            if subscription.who.everywhere and subscription.form is _message:
                subscription.put(whole)
            else:
                self._tell(subscription, name, found, number=number)

    def _tell(self, subscription: Subscription, name: str, found: Any, *, number: int | None = None) -> None:
        if not subscription.who.everywhere:
            found = self._of_owner(subscription.who, name, found)
        if found is not None:
            subscription.put(subscription.form(name, found, number))

    def _of_owner(self, who: Identity, name: str, found: Any) -> Any:
        """What of it concerns the targets of an owner; None for nothing."""
        if name == "event":
            return found if found["target"] in who.targets else None
        if name == "sessions":
            return [session for session in found if session["target"] in who.targets]
        targets = self._context.server.settled.targets
        shown = {volume for each in who.targets if each in targets for volume in targets[each].volumes}
        if name == "activity" and self._activity is not None:
            return {"time": found["time"], **self._activity.told(shown, who.targets)}
        if name != "statistics":
            return None
        theirs = {kind: {key: found[kind][key] for key in found[kind].keys() & shown} for kind in ("volumes", "drives")}
        return {**found, **theirs, "total": _total(theirs["volumes"].values())}


def _rates(before: float, old: Report, now: float, new: Report) -> Report:
    """What was done a second, by volume and drive and in all."""
    seconds = max(now - before, 1e-3)
    found: Report = {"time": time.time()}
    for kind in ("volumes", "drives"):
        found[kind] = {
            name: {key: _rate(old[kind].get(name, {}).get(key, 0), counters[key], seconds) for key in _RATES}
            for name, counters in new[kind].items()
            if name in old[kind]
        }
    found["total"] = _total([*found["volumes"].values(), *found["drives"].values()])
    return found


def _rate(old: int, new: int, seconds: float) -> float:
    return round(max(new - old, 0) / seconds, 1)  # a worker that was started again counts from 0


def _total(rates: Any) -> dict[str, float]:
    rates = list(rates)
    return {key: round(sum(each[key] for each in rates), 1) for key in _RATES}


def _message(name: str, found: Any, number: int | None) -> bytes:
    text = json.dumps(found, separators=(",", ":"))  # a line: JSON has none inside
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {text}\n\n".encode()
