"""What ties a worker to control: messages to and fro, and going on for a while without a control, until another one takes over.

A worker that is given a door (a unix socket that is bound in the state directory) outlives a control that ends without saying
so. Its sessions go on; the listening sockets, of which it has copies, keep new logins waiting. Whoever connects at the door is
the control from then on, and is greeted with what this worker serves. When nobody has come after `linger` seconds, it is over.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping

from blockyard.worker.handoff import Message, receive_message, send_message
from blockyard.worker.loop import Loop

log = logging.getLogger(__name__)

FDS = 4  # of one message, at most
_PATIENCE = 5.0  # seconds that control is given to read
_KEPT = 1000  # messages that the next control is told
_FOR_THE_NEXT = ("event", "login")  # of these
_CREDENTIALS = struct.Struct("3i")  # process, user, group (unix(7), SO_PEERCRED)


class Tether:
    """`control` is the one that there is. Without a `door`, a worker ends with its control."""

    def __init__(self, control: socket.socket, door: socket.socket | None) -> None:
        self._control: socket.socket | None = control
        self._door = door
        self._alone_until = 0.0  # when the wait for another control is over
        self._kept: deque[Message] = deque(maxlen=_KEPT)
        self._listening: dict[str, socket.socket] = {}  # by what control calls them
        self._to_be_greeted = False
        self.linger = 0.0  # seconds
        self.on_message: Callable[[Message, list[int]], None]
        self.on_lost: Callable[[], None]  # nobody will come any more
        self.greeting: Callable[[], Message | None]  # what a control is told; None: not yet

    def first_message(self) -> Message | None:
        """The one that says what to serve; None when control is gone. From now on others can take over."""
        if self._door is not None:
            self._door.listen(1)  # from here on it is this process that it leads to (SO_PEERCRED)
        assert self._control is not None
        received = receive_message(self._control)
        return None if received is None else received[0]

    def begin(self, loop: Loop) -> None:
        """Take messages on this loop's thread from now on."""
        self._loop = loop
        assert self._control is not None
        self._watch(self._control)
        if self._door is not None:
            self._door.setblocking(False)
            loop.watch(self._door.fileno(), lambda mask: self._knocked())

    @property
    def link(self) -> object:
        """The control that there is now, so that it and no later one gets an answer."""
        return self._control

    # ---- to control

    def tell(self, message: Message, *, link: object = None) -> None:
        """Send a message, from any thread; with `link` only to that control.

        While control is behind with reading, wait for it: it never waits for a worker in turn.
        """
        control = self._control
        if link is not None and link is not control:
            return
        end = time.monotonic() + _PATIENCE
        while control is not None:
            try:
                send_message(control, message)
            except BlockingIOError as error:
                left = end - time.monotonic()
                if left > 0:
                    select.select([], [control], [], left)
                    continue
                log.warning("control was not told %s: %s", message["type"], error)
                return
            except (OSError, ValueError) as error:  # closed, perhaps by another thread
                if self._door is not None:
                    break
                log.warning("control was not told %s: %s", message["type"], error)
                return
            else:
                return
        if message["type"] in _FOR_THE_NEXT:
            self._kept.append(message)

    # ---- from control

    def _watch(self, control: socket.socket) -> None:
        control.setblocking(False)
        self._loop.watch(control.fileno(), lambda mask: self._readable(control))

    def _readable(self, control: socket.socket) -> None:
        if control is not self._control:
            return
        try:
            received = receive_message(control)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._lost(control)
            return
        message, fds = received
        if message["type"] == "listening":
            self._take_listening(message, fds)
        elif message["type"] == "log":
            os.dup2(fds[0], sys.stderr.fileno())
            os.close(fds[0])
        else:
            self.on_message(message, fds)

    def _take_listening(self, message: Message, fds: list[int]) -> None:
        """Copies of what control listens on; the first message of several makes an end of the old ones."""
        if message["first"]:
            for sock in self._listening.values():
                sock.close()
            self._listening.clear()
        for name, fd in zip(message["names"], fds, strict=True):
            self._listening[name] = socket.socket(fileno=fd)

    # ---- between two controls

    def _lost(self, control: socket.socket) -> None:
        self._loop.unwatch(control.fileno())
        self._control = None
        control.close()
        if self._door is None or self.linger <= 0:
            log.warning("control is gone: this worker ends")
            self.on_lost()
            return
        self._alone_until = self._loop.now + self.linger

    def tick(self, now: float) -> None:
        if self._control is None and now >= self._alone_until:
            self.on_lost()
        elif self._to_be_greeted:
            self._greet()
        elif self._control is not None:
            self._tell_kept()  # another thread may have kept one just when there was a control again

    def _knocked(self) -> None:
        assert self._door is not None
        try:
            sock, _ = self._door.accept()
        except OSError:
            return
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] not in (0, os.geteuid()):
            sock.close()
            return
        if self._control is not None:  # its end has not been noticed yet: there is one control for a state directory
            self._loop.unwatch(self._control.fileno())
            self._control.close()
        self._control = sock
        self._watch(sock)
        self._greet()

    def _greet(self) -> None:
        greeting = self.greeting()
        self._to_be_greeted = greeting is None
        if greeting is None:
            return
        control = self._control
        assert control is not None
        control.setblocking(True)  # it waits for this
        try:
            send_message(control, {**greeting, "listening": len(self._listening)})
            for message, fds in listening_messages(self._listening):
                send_message(control, message, fds)
        except OSError:  # it is gone already, which shows when it is read from
            return
        finally:
            control.setblocking(False)
        self._tell_kept()

    def _tell_kept(self) -> None:
        for _ in range(len(self._kept)):  # what cannot be told is kept again, at the end
            self.tell(self._kept.popleft())


def listening_messages(listening: Mapping[str, socket.socket]) -> list[tuple[Message, list[int]]]:
    """Sockets that are listened on, by names, as messages with descriptors; one at least, as it makes an end of older ones."""
    names = list(listening)
    chunks = [names[at : at + FDS] for at in range(0, len(names), FDS)] or [[]]
    return [
        (
            {"type": "listening", "first": number == 0, "names": chunk},
            [listening[name].fileno() for name in chunk],
        )
        for number, chunk in enumerate(chunks)
    ]
