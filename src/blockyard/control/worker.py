"""A worker process: started or adopted, told its targets, watched, and started again when it dies.

worker/process.py lists the messages that go to and fro.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from blockyard.block import records
from blockyard.control.acceptor import WorkerUnavailable
from blockyard.control.adoption import Orphan
from blockyard.control.body import Body
from blockyard.control.errors import ControlError, UsageError, VolumeError
from blockyard.control.gate import Gate
from blockyard.worker.configuration import Settled
from blockyard.worker.handoff import Message, receive_message, send_message
from blockyard.worker.tether import listening_messages

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds that a new connection waits for a worker that is being restarted; below LOGIN_DEADLINE
FIRST_DELAY, LAST_DELAY = 0.1, 3.0  # seconds between restarts, from the second in a row on; doubles, below PATIENCE
SETTLED = 60.0  # seconds after which a worker's death counts as the first one again
PULSE = 5.0  # seconds between two questions whether a worker is alive
HANG = 60.0  # seconds without an answer after which a worker counts as hung: longer than any disk should stall
_LOG_LINE = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL):([\w.]+):(.*)")  # logging.BASIC_FORMAT


class Home(NamedTuple):
    """Where the next control finds workers that go on without one, and for how long they do, in seconds."""

    directory: Path
    linger: float


class WorkerFailed(ControlError):
    """A worker ended before it was ready, when serving began."""


class Worker:
    """One worker process after the other, all with the same part of the configuration."""

    def __init__(
        self,
        number: int,
        configuration: Settled,
        *,
        gate: Gate | None = None,
        poll: bool = False,
        log_level: str = "WARNING",
        home: Home | None = None,
        listening: Mapping[str, socket.socket] | None = None,
        orphan: Orphan | None = None,
    ) -> None:
        """`orphan` is the first process, where it runs already; `listening` what its processes keep for the next control."""
        self.number = number
        self._gate = gate
        self.configuration = configuration
        self.pid: int | None = None  # while it runs
        self.restarts = 0
        self._home = home
        self._listening = {} if listening is None else listening
        self._orphan = orphan
        self._body: Body | None = None
        self._poll = poll
        self._log_level = log_level
        self._ready = asyncio.Event()
        self._stopping = False
        self._control: socket.socket | None = None
        self._sending = asyncio.Lock()
        self._refusal = ""  # what the process said why it cannot serve its targets
        self._last_words = ""  # the last line on stderr that was not a log record
        self._life: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[str] | None = None  # to a change of what it serves
        self._replies: dict[int, asyncio.Future[Message | None]] = {}  # to requests, by their numbers
        self._requests = itertools.count()

    async def start(self) -> None:
        """Start the first process and wait until it is ready.

        Raises VolumeError when it cannot open what it shall serve, WorkerFailed when it ends in another way.
        """
        self._life = asyncio.create_task(self._live())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait((self._life, ready), return_when=asyncio.FIRST_COMPLETED)
            if self._life.done():
                self._life.result()  # the reason why it did not come to be ready
        finally:
            ready.cancel()

    async def hand_over(self, message: Message, fd: int) -> None:
        """Give a connection to the process that runs, or to the next one. Raises WorkerUnavailable.

        A process that dies with the connection still unread in its socket has not answered a byte of it, so that it is
        as good as new for the next one. Once one has taken it, it is that one's.
        """
        try:
            while not self._stopping:
                async with asyncio.timeout(PATIENCE):
                    await self._ready.wait()
                with contextlib.suppress(OSError):  # it has just died: wait for the next
                    if await self._exchange(message, (fd,)) is not None:
                        return
                await asyncio.sleep(0.01)
        except TimeoutError:
            pass
        raise WorkerUnavailable

    async def change(self, configuration: Settled, grace: float, *, again: bool = False) -> None:
        """Serve this from now on; returns when all that is not served any more is gone, `grace` seconds at most.

        A process that is just being started again begins with it. Raises VolumeError when it cannot be. `again`: all of it was
        served before, so that a pool or stack that cannot be opened now is left out, and tried again later.
        """
        if configuration == self.configuration:
            return
        self.configuration = configuration
        if not self._ready.is_set():
            return
        self._answer = asyncio.get_running_loop().create_future()
        with contextlib.suppress(OSError):  # it has just died
            await self.send_accounts(final=False)
            written = records.write(configuration)
            await self._send({"type": "configure", "configuration": written, "grace": grace, "again": again})
            error = await self._answer
            await self.send_accounts(final=True)
            if error:
                raise VolumeError(error)

    async def ask(self, request: Message) -> Message | None:
        """The reply to one of worker/requests.py; None when no process runs to give it. Raises ControlError."""
        if not self._ready.is_set():
            return None
        try:
            reply = await self._exchange({"type": "request", **request})
        except OSError:
            return None
        if reply is not None and "error" in reply:
            raise (UsageError if reply.get("refused") else ControlError)(str(reply["error"]))
        return reply

    async def ask_when_ready(self, request: Message) -> Message | None:
        """The same; one that is just being started again is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._ready.wait()
        return await self.ask(request)

    async def _exchange(self, message: Message, fds: tuple[int, ...] = ()) -> Message | None:
        """Send what has a reply; the reply, None when the process has ended without one. Raises OSError when it had before."""
        number = next(self._requests)
        self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"number": number, **message}, fds)
            return await self._replies[number]
        finally:
            del self._replies[number]

    async def send_accounts(self, *, final: bool) -> None:
        """Tell the process, if one runs, who may log in (see Gate.accounts_for). Raises OSError when it is just ending."""
        if self._gate is not None and self.pid is not None:
            await self._send(self._gate.accounts_for(self.configuration, final=final))

    async def send_listening(self) -> None:
        """Have the process, if one runs, keep what is listened on now. Raises OSError when it is just ending."""
        if self._home is not None and self.pid is not None:
            for message, fds in listening_messages(self._listening):
                await self._send(message, tuple(fds))

    async def release(self) -> None:
        """Let the process go on without this control."""
        self._stopping = True
        if self._life is not None:
            self._life.cancel()
        await self._ended()

    async def stop(self, grace: float) -> None:
        """Have the sessions logged out within `grace` seconds and all flushed; returns when the process has ended."""
        self._stopping = True
        if self._ready.is_set():
            with contextlib.suppress(OSError):
                await self._send({"type": "stop", "grace": grace})
        else:
            self._kill()
        await self._ended()

    async def close(self) -> None:
        """End it now, if it runs."""
        self._stopping = True
        self._kill()
        await self._ended()

    def _kill(self) -> None:
        if self._body is not None:
            self._body.kill()
        elif self._life is not None:
            self._life.cancel()

    async def _ended(self) -> None:
        if self._life is not None:
            await asyncio.gather(self._life, return_exceptions=True)

    async def _live(self) -> None:
        delay = 0.0
        first = True
        while not self._stopping:
            began = time.monotonic()
            try:
                status, was_ready = await self._run()
            except OSError as error:  # no process or no descriptor to be had
                status, was_ready = str(error), False
            if self._stopping:
                return
            if first and not was_ready:
                if self._refusal:
                    raise VolumeError(self._refusal)
                raise WorkerFailed(f"worker {self.number} could not start: {self._last_words or status}")
            first = False
            lived = time.monotonic() - began
            delay = 0.0 if lived >= SETTLED else delay
            because = self._refusal or self._last_words
            because = f" ({because})" if because else ""
            text = f"worker {self.number} ended after {lived:.1f} s: {status}{because}; it is started again"
            if self._gate is None:
                log.error("%s", text)
            else:
                self._gate.events.record("worker-restarted", text)
            await asyncio.sleep(delay)
            delay = min(max(2 * delay, FIRST_DELAY), LAST_DELAY)
            self.restarts += 1

    async def _run(self) -> tuple[str, bool]:
        """One process, from its start or adoption to its end; how it ended, and whether it was ever ready."""
        self._refusal = self._last_words = ""
        orphan, self._orphan = self._orphan, None
        if orphan is None:
            body = Body.start(None if self._home is None else self._home.directory, self.number, self._log_level)
        else:
            body = orphan.body()
        self._control, self._body, self.pid = body.control, body, body.pid
        messages = asyncio.create_task(self._listen(body.control))
        errors = asyncio.create_task(self._relay_log(await body.log()))
        pulse = asyncio.create_task(self._watch(body))
        ended = False
        try:
            with contextlib.suppress(OSError):
                if orphan is None:
                    await self._configure_first()
                else:
                    self._ready.set()
                    for message in orphan.told:
                        self._take(message)
                await self.send_accounts(final=True)
                await self.send_listening()
            was_ready = await messages or orphan is not None
            try:
                async with asyncio.timeout(PATIENCE):
                    await errors
            except TimeoutError:  # it does not talk to control any more, yet does not end
                body.kill()
            how = await body.wait()
            ended = True
            return how, was_ready
        finally:
            self.pid = self._body = None
            self._ready.clear()
            for task in (messages, errors, pulse):
                task.cancel()
            await asyncio.gather(messages, errors, pulse, return_exceptions=True)
            async with self._sending:  # nobody waits for room in it any more: the event loop has forgotten it
                body.close(ended=ended)

    async def _configure_first(self) -> None:
        await self._send(
            {
                "type": "configure",
                "configuration": records.write(self.configuration),
                "poll": self._poll,
                "again": self.restarts > 0,
                "linger": 0.0 if self._home is None else self._home.linger,
            }
        )

    async def _listen(self, control: socket.socket) -> bool:
        """Take the worker's messages until it closes its end; whether it said that it was ready."""
        was_ready = False
        while True:
            try:
                received = receive_message(control)
            except BlockingIOError:
                await _until(control, asyncio.get_running_loop().add_reader, asyncio.get_running_loop().remove_reader)
                continue
            except ConnectionResetError:  # it has left something unread; its last words are still to come
                continue
            except OSError:
                received = None
            except ValueError as error:
                log.error("worker %d: %s", self.number, error)
                received = None
            if received is None:
                self._ready.clear()
                self._answered("")  # the next process begins with what it was to change to
                for reply in self._replies.values():
                    if not reply.done():
                        reply.set_result(None)
                return was_ready
            message, fds = received
            for fd in fds:
                os.close(fd)  # no message of a worker's has any
            was_ready = was_ready or message["type"] == "ready"
            self._take(message)

    def _take(self, message: Message) -> None:
        """A message of the process."""
        if message["type"] == "ready":
            self._ready.set()
        elif message["type"] == "login" and self._gate is not None:
            self._gate.told(message)
        elif message["type"] == "event" and self._gate is not None:
            self._gate.events.hear(str(message["what"]), str(message["text"]))
        elif message["type"] == "configured":
            self._answered(str(message["error"]))
        elif message["type"] == "reply" and message["number"] in self._replies:
            self._replies[message["number"]].set_result(message)
        elif message["type"] == "failed":
            self._refusal = str(message["error"])
        elif message["type"] == "stopped":
            self._ready.clear()

    def _answered(self, error: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(error)

    async def _watch(self, body: Body) -> None:
        """End a process that lives and does nothing any more, so that another takes its place."""
        await self._ready.wait()
        while True:
            await asyncio.sleep(PULSE)
            try:
                async with asyncio.timeout(HANG):
                    await self._exchange({"type": "request", "name": "alive"})
            except TimeoutError:
                if self._answer is None or self._answer.done():  # else it opens volumes, and there may be many
                    log.error("worker %d has not answered for %.0f s: it is killed", self.number, HANG)
                    body.kill()
                    return
            except OSError:  # it is just ending
                return

    async def _relay_log(self, errors: asyncio.StreamReader) -> None:
        """What the worker writes to stderr becomes log records here, so that there is one log in one format."""
        while True:
            try:
                line = (await errors.readline()).decode(errors="replace").rstrip()
            except ValueError:  # longer than the reader's limit
                continue
            if not line and errors.at_eof():
                return
            match = _LOG_LINE.fullmatch(line)
            if match:
                level = logging.getLevelNamesMapping()[match[1]]
                logging.getLogger(match[2]).log(level, "worker %d: %s", self.number, match[3])
            else:
                self._last_words = line or self._last_words  # the last line of a traceback says what was wrong
                log.error("worker %d: %s", self.number, line)

    async def _send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send when there is room. Raises OSError when the worker is gone."""
        async with self._sending:
            control = self._control
            assert control is not None
            loop = asyncio.get_running_loop()
            while True:
                try:
                    send_message(control, message, fds)
                except BlockingIOError:
                    await _until(control, loop.add_writer, loop.remove_writer)
                else:
                    return


async def _until(sock: socket.socket, add: Callable[..., None], remove: Callable[[socket.socket], bool]) -> None:
    """Wait until the event loop finds `sock` ready."""
    ready = asyncio.Event()
    add(sock, ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock)
