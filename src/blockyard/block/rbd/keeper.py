"""Keeps an image open: opens it, takes its lock, sees when it has grown, is lost or taken away, and opens it anew.

All that may wait for a cluster happens in a thread of its own, so that neither opening nor closing holds up who serves others.

    OPENING ──► READY ◄──► AWAY           the cluster does not answer, or the image could not be opened (yet)
       │          │
       ▼          ▼
    WAITING     FENCED                    another server has the lock; or has taken it from this one

A lock whose owner is dead passes to who asks for it, as librbd fences the dead one off first. One whose owner lives is waited
for, until that one lets go or somebody calls `take`. Who was fenced off stays out until somebody calls `take`: initiators may
hold data that is older than what the other server has written.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from blockyard.block.layers import Opening
from blockyard.block.rbd.connection import BLOCKLISTED, SHARED, Image

if TYPE_CHECKING:
    from blockyard.block.rbd.device import RbdDevice

log = logging.getLogger(__name__)

_FIRST = 5.0  # seconds that opening waits for the cluster where nobody knows how large the image is
_BRIEF = 0.3  # where somebody does
_LOOK = 5.0  # seconds between two looks at an image that is well
_AGAIN = 1.0  # seconds between two attempts at one that is not
_BEYOND = 2.0  # seconds beyond its timeout after which an access has ended

# with these it is not the cluster that is to blame, but what has been asked of it
_HOPELESS = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOEXEC, errno.ENOSYS, errno.ENOPKG}
)


class State(Enum):
    """How it is with an image."""

    OPENING = "opening"
    READY = "ready"
    AWAY = "away"
    WAITING = "waiting"
    FENCED = "fenced"


class Keeper:
    """The thread, and what it knows."""

    def __init__(self, device: RbdDevice, opening: Opening) -> None:
        self._device = device
        self._options = device.options
        self._notify = opening.notify
        name = f"rbd-{quote(str(self._options.spec), safe='')}.size"
        self._kept: Path | None = opening.directory / name if opening.directory is not None else None
        self.state = State.OPENING
        self.text = "it is being opened"
        self.lock = "none"
        self.stripe = 1 << 22
        self.silent = False  # accesses have not been answered in time, and none since
        self._image: Image | None = None  # open, if not in use
        self._ending = False
        self._taking = False
        self._fenced_off = False  # another server has had the image since it was last in use here
        self._trouble: set[int] = set()  # errnos that the thread has not looked into
        self._wanted = threading.Event()  # there is something to do
        self._known = threading.Event()  # the first attempt has come to something, or failed
        self._ended = threading.Event()
        self._refused: OSError | None = None
        self._size = 0
        self._settled = threading.Condition()  # told when `state` changes
        self._thread = threading.Thread(target=self._run, name=f"rbd-{self._options.spec}", daemon=True)

    # ---- what others ask

    def start(self) -> int:
        """Begin; returns the size of the image, as it is or as it was last. Raises OSError."""
        kept = self._recall()
        self._thread.start()
        self._known.wait(_BRIEF if kept else _FIRST)
        if self._refused is not None:
            raise self._refused
        if not self._size and not kept:
            raise OSError(errno.ETIMEDOUT, "The cluster does not answer, and nobody here knows how large the image is",
                          str(self._options.spec))  # fmt: skip
        return self._size or kept

    def look_into(self, number: int) -> None:
        """An access has failed with this errno."""
        self._trouble.add(number)
        self._wanted.set()

    @property
    def well(self) -> bool:
        """Whether the image can be used, as far as anybody knows."""
        return self.state is State.READY and not self.silent and not self._trouble

    def take(self) -> None:
        """Take the image from whoever has it. Waits until it is here; raises OSError."""
        if self.state is State.FENCED and self._device.on_replaced is None:
            raise OSError(errno.EBUSY, "A layer above may hold what is older than the image: start the server anew, then take it",
                          str(self._options.spec))  # fmt: skip
        self._taking = True
        self._wanted.set()
        with self._settled:
            done = self._settled.wait_for(lambda: not self._taking or self._ending, 3.0 * self._options.timeout)
        if not done or self.state is not State.READY:
            self._taking = False
            raise OSError(errno.ETIMEDOUT, f"It could not be taken: {self.text}", str(self._options.spec))

    def stop(self, seconds: float) -> None:
        """Let go of the image, which may take longer than is waited for."""
        self._ending = True
        self._wanted.set()
        if self._thread.is_alive():
            self._ended.wait(seconds)

    # ---- the thread

    def _run(self) -> None:
        while not self._ending:
            try:
                self._step()
            except OSError as error:
                self._lost(error)
            except Exception:  # a fault of ours must not leave an image without its keeper
                log.exception("%s: internal error", self._options.spec)
                self._lost(OSError(errno.EIO, "internal error"))
        if self._retire():
            self._device.overlap.close()
        self._ended.set()

    def _step(self) -> None:
        """Bring the image a step nearer to what it should be, then wait until there is something to do."""
        if self.state is State.FENCED and not self._taking:
            self._wait(None)
        elif self._image is None:
            self._open()
        elif self.state is not State.READY:
            self._become_ready()
        else:
            self._wait(_AGAIN if self.silent else _LOOK)
            if not self._ending:
                self._check()

    def _wait(self, seconds: float | None) -> None:
        self._wanted.wait(seconds)
        self._wanted.clear()

    def _open(self) -> None:
        image = Image(self._options, read_only=self._device.read_only)
        self._image = image
        self.stripe = image.stripe()
        image.watch(self._wanted.set)
        self._trouble.clear()
        self._become_ready()

    def _become_ready(self) -> None:
        image = self._image
        assert image is not None
        self._size = image.size()
        self.lock = "none"
        if self._device.read_only or self._options.lock == SHARED:
            self.lock = "shared" if not self._device.read_only else "none"
        elif not self._acquire(image):
            return
        if self._fenced_off and self._device.on_replaced is not None:
            self._device.on_replaced()
        self._fenced_off = False
        self._device.publish(image, self._size)
        self._keep(self._size)
        self._taking = False
        self._become(State.READY, f"{self._size} bytes")

    def _acquire(self, image: Image) -> bool:
        """Have the lock. False where somebody else has it and keeps it."""
        if not image.lockable():
            raise OSError(errno.EINVAL, f"It has no exclusive lock: `rbd feature enable {self._options.spec} exclusive-lock`, "
                          "or open it with lock=shared", str(self._options.spec))  # fmt: skip
        if self._taking:
            image.fence()
        try:
            image.acquire()
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EBUSY):
                raise
            self.lock = "other"
            self._become(State.WAITING, "another server has the image, and its exclusive lock")
            self._wait(_AGAIN)
            return False
        self.lock = "exclusive"
        return True

    def _check(self) -> None:
        """Look whether all is as it should be, for a reason or without."""
        image = self._image
        assert image is not None
        trouble, self._trouble = self._trouble, set()
        if BLOCKLISTED in trouble:
            self._fenced()
            return
        if errno.ETIMEDOUT in trouble:
            self._be_silent()
        if trouble or self.silent or self.lock == "exclusive":
            owners = image.owners()  # asks the cluster, so that it shows whether that answers
            if self.lock == "exclusive" and not (owners and image.owns()):
                raise OSError(errno.ENOTCONN, "The lock is lost")  # it is taken anew, with a connection that is sound
        if self.silent:
            self.silent = False
            self._become(State.READY, f"{self._size} bytes", anyway=True)
        size = image.size()
        if size != self._size:
            self._size = self._device.size = size
            self._keep(size)

    def _be_silent(self) -> None:
        if not self.silent:
            self.silent = True
            self.text = "the cluster does not answer"
            self._notify("error", "rbd-away", f"{self._options.spec}: {self.text} within {self._options.timeout} s")

    def _lost(self, error: OSError) -> None:
        """The image cannot be used, or could not be opened."""
        if not self._known.is_set() and error.errno in _HOPELESS:
            self._refused = error
            self._ending = True
            self._known.set()
            return
        self._known.set()
        if error.errno == BLOCKLISTED and self.state is State.READY:
            self._fenced()
            return
        if error.errno == errno.ETIMEDOUT and self.state is State.READY:  # it may come back as it was
            self._be_silent()
            return
        self._retire()
        self.lock = "none"
        self._become(State.AWAY, error.strerror or str(error))
        if not self._ending:
            self._wait(_AGAIN)

    def _fenced(self) -> None:
        self.lock = "other"
        self._fenced_off = True
        self._become(State.FENCED, "another server has taken the image over")
        self._retire()

    def _retire(self) -> bool:
        """Close the image; not if somebody is stuck in it: then it is left to the end of the process."""
        image, self._image = self._image, None
        if image is None:
            return True
        if not self._device.retire(self._options.timeout + _BEYOND):
            log.error("%s: accesses do not end; the image is left open", self._options.spec)
            return False
        image.close()
        return True

    def _become(self, state: State, text: str, *, anyway: bool = False) -> None:
        before, self.text = self.state, text
        with self._settled:
            self.state = state
            self._settled.notify_all()
        self._known.set()
        if before is state and not anyway:
            return
        if state is State.READY:
            if before is not State.OPENING:
                self._notify("info", "rbd-ready", f"{self._options.spec} is served again")
        elif before is State.READY or state is not State.AWAY:
            self._notify("error", f"rbd-{state.value}", f"{self._options.spec} is not served: {text}")

    # ---- its size, for when the cluster is away

    def _recall(self) -> int:
        if self._kept is None:
            return 0
        with contextlib.suppress(OSError, ValueError):
            return int(self._kept.read_text(encoding="ascii"))
        return 0

    def _keep(self, size: int) -> None:
        if self._kept is None:
            return
        new = self._kept.with_suffix(".new")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(str(size), encoding="ascii")
            os.replace(new, self._kept)
        except OSError as error:
            log.warning("%s: its size cannot be kept: %s", self._options.spec, error)
