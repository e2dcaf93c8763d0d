"""What an array does by itself, in a thread of its own: reshapes, rebuilds, and bringing in line what a crash has left.

One thing at a time, step by step, at most at the rate that is set. How far a rebuild is stands in the superblocks now and then;
what is done again after a crash does no harm. It can be paused, for as long as the array is open: when that is opened again it
goes on, as an array that lacks a member because somebody has forgotten to let it go on is worse than one that is slow.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.block.raid.member import Member, MembersFailed, State, each

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array

log = logging.getLogger(__name__)

STEP = 1 << 20  # bytes of each member
RATE = 200 << 20  # bytes a second of each member
_QUIET = 5.0  # seconds between two looks at the bitmap
_LOOK = 0.2  # seconds between two looks whether somebody wants it to stop
_SAVE = 5.0  # seconds of a rebuild that a crash may cost
_AGAIN = 60.0  # seconds until what could not be done is tried again


class Background:
    """The thread of an array. `start` follows when the array is whole."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.rate = RATE
        self.trouble = ""  # why it does not get on
        self.quiet = _QUIET
        self.busy = ""  # with what
        self.paused = False  # until somebody lets it go on, or there is nothing to do any more
        self._stirred = threading.Event()
        self._ended = False
        self._thread: threading.Thread | None = None
        self._saved = 0.0

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"raid {self._array.name}", daemon=True)
        self._thread.start()

    def stir(self) -> None:
        """There may be something to do."""
        self.trouble = ""
        self._stirred.set()

    def pause(self) -> str:
        """Do nothing by itself from now on, after the step that is under way. What was paused, for people."""
        what = self._array.work()
        if what is None:
            raise ValueError("there is nothing under way that could be paused")
        if self.paused:
            raise OSError(errno.EALREADY, f"The {what.kind} is paused already")
        self.paused = True
        self._stirred.set()
        text = f"the {what.kind} is paused: `blockyard layer resume` lets it go on, and so does opening the array again"
        self._array.opening.notify("warning", "raid-paused", f"array {self._array.name}: {text}")
        return text

    def resume(self) -> str:
        """Go on with what was paused."""
        if not self.paused:
            raise OSError(errno.EALREADY, "Nothing is paused: it goes on, or is done")
        self.paused = False
        self.stir()
        self._array.opening.notify("info", "raid-resumed", f"array {self._array.name} goes on with what was paused")
        return "it goes on"

    def close(self) -> None:
        """End after the step that is under way."""
        self._ended = True
        self._stirred.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        looked = time.monotonic()
        while not self._ended:
            worked = False
            try:
                worked = not self.trouble and self.step()
                if time.monotonic() >= looked + self.quiet:
                    looked = time.monotonic()
                    self._array.tidy()
            except OSError as error:
                self._hold(error)
            except Exception:
                log.exception("array %s: the work in the background has failed", self._array.name)
                self._hold(OSError(0, "an error in the program: see the log"))
            if not worked:
                self._stirred.wait(_AGAIN if self.trouble else self.quiet)
                self.trouble = ""
            self._stirred.clear()

    def _hold(self, error: OSError) -> None:
        self.trouble = error.strerror or str(error)
        text = f"array {self._array.name}: {self.busy or 'looking after it'} does not get on, and is tried again: {self.trouble}"
        self._array.opening.notify("error", "raid-stalled", text)

    def pace(self, amount: int, begun: float) -> None:
        """Wait until `amount` bytes that were begun at a time have taken as long as they should."""
        wait = amount / self.rate - (time.monotonic() - begun)
        if wait > 0 and not self._ended:
            self._stirred.wait(wait)

    def rest(self, amount: int, begun: float, look: Callable[[], None]) -> None:
        """The same for others than this thread; `look`, now and then, raises what ends it."""
        look()
        while (wait := amount / self.rate - (time.monotonic() - begun)) > 0 and not self._ended:
            time.sleep(min(wait, _LOOK))
            look()

    # ---- steps

    def step(self) -> bool:
        """Do the next thing, if there is any."""
        array, begun = self._array, time.monotonic()
        if array.broken or array.read_only:
            return False
        members = array.members
        member = members.recovering
        if self.paused and array.work() is not None:
            return self._keep_still(member)
        self.paused = False
        if array.reshaping is not None:
            self.busy = "the reshape"
            done = array.reshaping.step()
        elif (heir := members.heir) is not None:
            self._take_over(heir)
            done = 0
        elif member is not None:
            self.busy = f"the rebuild of {member.label}"
            done = self._rebuild(member)
        elif members.bitmap.distrusted:
            self.busy = "bringing it in line"
            done = self._resync()
        else:
            self.busy = ""
            return False
        self.pace(done, begun)
        return True

    def _keep_still(self, member: Member | None) -> bool:
        """It is paused: what was reached is written down once."""
        if self.busy and member is not None:
            self._note(member)
        self.busy = ""
        return False

    def _rebuild(self, member: Member) -> int:
        array, used = self._array, self._array.members.identity.used
        start = member.position
        end = min(used, (start // STEP + 1) * STEP)
        try:
            with array.gate.shared():
                if member.state is not State.RECOVERING:
                    return 0
                if start < end:
                    array.engine.restore(member, start, end)
                    member.position = end
        except MembersFailed as failed:
            array.fail(failed.errors, must=any(error.member is member for error in failed.errors))
            return 0
        if end >= used:
            self._finish(member)
        elif time.monotonic() > self._saved + _SAVE:
            self._saved = time.monotonic()
            self._note(member)
        return end - start

    def _note(self, member: Member) -> None:
        """Write down how far a rebuild is."""
        array = self._array
        try:
            with array.gate.shared():
                each((member,), Member.flush)
                array.members.save()
        except MembersFailed as failed:
            array.fail(failed.errors)

    def _finish(self, member: Member) -> None:
        """It has everything. One that replaces another says so first: the other counts until that is known."""
        array = self._array

        def finish() -> None:
            if member.state is State.RECOVERING:
                each(array.members.all, Member.flush)
                replaces = member.replaces
                member.become(State.ACTIVE, member.slot)
                member.replaces = replaces
                array.members.settling = True

        def settle() -> None:
            array.members.settling = False

        try:
            array.change(finish)
            array.change(settle)
        except MembersFailed as failed:
            array.fail(failed.errors, must=False)
            return
        array.opening.notify("info", "raid-rebuilt", f"array {array.name}: {member.label} is in sync")

    def _take_over(self, member: Member) -> None:
        array = self._array

        def take_over() -> None:
            old = array.members.main[member.slot]
            if member.replaces and old is not None and old is not member:
                member.replaces = False
                array.members.remove(old)
                old.become(State.FAULTY)
                array.left_out[old.device] = "replaced"

        array.change(take_over)

    def _resync(self) -> int:
        array, bitmap = self._array, self._array.members.bitmap
        start, end = next(bitmap.dirty())
        try:
            with array.gate.shared():
                for at in range(start, end, STEP):
                    if self._ended or self.paused or array.gate.shut:
                        return at - start
                    begun = time.monotonic()
                    array.engine.resync(at, min(at + STEP, end))
                    self.pace(min(STEP, end - at), begun)
                bitmap.distrusted.discard(start // bitmap.region)
        except MembersFailed as failed:
            array.fail(failed.errors)
            return 0
        if not bitmap.distrusted:
            self._in_line()
        return 0

    def _in_line(self) -> None:
        array = self._array
        array.opening.notify("info", "raid-in-line", f"array {array.name}: all members are in line again")
        if array.members.journaling:
            array.change(lambda: None)
