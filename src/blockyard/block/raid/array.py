"""An array: what holds for every level. How bytes are read and written is the business of its engine (copies.py, rows.py).

All who do anything are inside of the gate; whoever changes which members there are, or how they are laid out, is alone. When a
member fails, those who are inside leave, after all other members have got their part: the array goes on without that one, says so
in the superblocks of the others, and what was begun is done again. So nothing is acknowledged that a member lacks which will be
taken for sound at the next start.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

from blockyard.block.device import Device, Run
from blockyard.block.gate import Gate
from blockyard.block.layers import Absent, Opening
from blockyard.block.raid.copies import CopiesEngine
from blockyard.block.raid.geometry import Copies, geometry
from blockyard.block.raid.member import Member, MemberError, MembersFailed, State, each
from blockyard.block.raid.members import Members
from blockyard.block.raid.quick import QuickArray
from blockyard.block.raid.ranges import Ranges
from blockyard.block.raid.reshape import Reshape
from blockyard.block.raid.work import Background

if TYPE_CHECKING:
    from blockyard.block.actions import Action
    from blockyard.block.raid.engine import Engine
    from blockyard.block.raid.reporting import Work

log = logging.getLogger(__name__)
_T = TypeVar("_T")
_ZEROS = bytes(1 << 20)


class Array(Device):
    """An array that has been assembled."""

    def __init__(
        self, members: Members, opening: Opening, left_out: Mapping[Device, str], children: Sequence[Device]
    ) -> None:
        self.members = members
        self.opening = opening
        self.read_only = opening.read_only
        self.left_out = dict(left_out)  # children that are no members, and why
        self.own_children = list(children)
        self.mismatches = 0  # blocks that scrubs have found to differ
        self.broken = ""  # why nothing is written any more
        self.rotational = any(member.device.rotational for member in members.all)
        self.gate = Gate()
        self.ranges = Ranges(self.gate)
        self.changing = RLock()
        self.reshaping: Reshape | None = None
        self.quick: QuickArray = QuickArray(self)
        self.engine = self.engine_of(members.identity.disks - members.added_disks)
        self.size = self.engine.geometry.size
        self.attach_bitmap()
        if members.journal is not None:
            members.journal.flush = lambda: each(members.all, Member.flush)
        self.background = Background(self)
        if members.reshape_position is not None:
            self.reshaping = Reshape(self)
        self.arranged()

    def begin(self, *, changed: bool) -> None:
        """It may be written to from now on. `changed`: its superblocks do not tell how it is any more."""
        if changed or (not self.members.complete and any(self.members.spares())):
            with self.changing, self.gate.alone():
                self.lose(self.record(), must=True)

    def attach_bitmap(self) -> None:
        bitmap = self.members.bitmap
        bitmap.save, bitmap.awaken, bitmap.settle = self.members.save_bitmap, self._wake, self._settle

    def engine_of(self, disks: int) -> Engine:
        """Of the array as it is with so many disks."""
        identity = self.members.identity
        where = geometry(identity.level, disks, identity.chunk, identity.layout, identity.used)
        if isinstance(where, Copies):
            return CopiesEngine(self, where)
        from blockyard.block.raid.rows import RowsEngine  # noqa: PLC0415  (it needs numpy, which others need not have)

        return RowsEngine(self, where)

    def arranged(self) -> None:
        """After a change of members, or of what they are good for."""
        self.members.arrange()
        granularities = [member.device.granularity for slot in self.members.writers for member in slot]
        able = isinstance(self.engine.geometry, Copies) and granularities and all(granularities)
        self.granularity = max(granularities) if able else 0
        self.quick.arranged()

    @property
    def children(self) -> Sequence[Device]:  # type: ignore[override]
        return self.own_children

    # ---- input and output

    def _done(self, work: Callable[[], _T], *, must: bool = True) -> _T:
        """Do something inside of the gate, again and again while members fail in it. Raises OSError."""
        while True:
            try:
                with self.gate.shared():
                    return work()
            except MembersFailed as failed:
                self.fail(failed.errors, must=must)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        self._done(lambda: self.engine.read(buffers, offset))

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        self._done(lambda: self._write(offset, sum(map(len, buffers)), lambda: self.engine.write(buffers, offset)))

    def _write(self, offset: int, length: int, work: Callable[[], None]) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, "It is open for reading only")
        if self.broken:
            raise OSError(errno.EIO, self.broken)
        start, end = self.engine.dirty_range(offset, length)
        bitmap = self.members.bitmap
        try:
            bitmap.begin(start, end)
            work()
        finally:
            bitmap.end(start, end)

    def flush(self) -> None:
        if not self.read_only:
            self._done(lambda: each(self.members.all, Member.flush), must=False)

    def discard(self, offset: int, length: int) -> None:
        self._zero(offset, length, free=bool(self.granularity))

    def write_zeroes(self, offset: int, length: int) -> None:
        self._zero(offset, length, free=False)

    def _zero(self, offset: int, length: int, *, free: bool) -> None:
        step = self.engine.zero_step
        for at in range(offset, offset + length, step):
            part = min(step, offset + length - at)
            self._done(lambda a=at, n=part: self._write(a, n, lambda: self.engine.zero(a, n, free=free)))  # type: ignore[misc]

    def check(self, start: int, end: int, *, repair: bool) -> int:
        """Compare the members in a range of the bitmap; in how many blocks they differ."""
        return self._done(lambda: self.engine.check(start, end, repair=repair))

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        if not self.granularity:
            return iter((Run(offset, length, True),))
        return self.engine.runs(offset, length)

    def prefetch(self, offset: int, length: int) -> None:
        with self.gate.shared():
            self.engine.prefetch(offset, length)

    # ---- members that fail

    def fail(self, errors: Sequence[MemberError], *, must: bool = True) -> None:
        """Go on without the members that have failed. Raises OSError when that is not possible.

        With `must`, they lack something that others have: then nothing more is written.
        """
        with self.changing, self.gate.alone():
            self.lose(errors, must=must)

    def lose(self, errors: Sequence[MemberError], *, must: bool = True) -> None:
        """`fail`, for who is alone in the gate."""
        while errors:
            failed = {error.member: error for error in errors if error.member in self.members.all}  # each once
            if not failed:
                return
            for error in failed.values():
                self._check_loss(error, must=must)
                self._drop(error.member, error.member.last_error or str(error.strerror))
            errors = self.record()

    def _check_loss(self, error: MemberError, *, must: bool) -> None:
        member = error.member
        if self.broken:
            raise OSError(errno.EIO, self.broken)
        if member.state is not State.ACTIVE or member.replaces:
            return
        if self.engine.survives(self.members.lost | {member.slot}):
            return
        if must and not self.read_only:
            self.broken = f"The array cannot do without {member.label}, which has failed: nothing more is written"
            self.opening.notify("error", "raid-failed", f"array {self.name}: {self.broken}")
        raise OSError(error.errno or errno.EIO, error.strerror)

    def _drop(self, member: Member, why: str) -> None:
        slot = member.slot
        self.members.remove(member)
        self.left_out[member.device] = f"failed: {why}"
        heir = next((other for other in self.members.all if other.slot == slot and other.replaces), None)
        was_main = slot >= 0 and not member.replaces
        member.become(State.FAULTY)
        if was_main and heir is not None:
            heir.replaces = False
        self.arranged()
        self.opening.notify("error", "raid-member-failed", f"array {self.name}: {member.label} has failed: {why}")

    def record(self) -> Sequence[MemberError]:
        """Write down which members there are now; who fails in that. Nobody is inside of the gate."""
        if self.read_only:
            return ()
        try:
            if self.members.journal is not None:
                # what was written without the journal must not be torn when it is all that there is; and what is in the
                # ring has been carried out, or never will be
                each(self.members.all, Member.flush)
                self.members.journal.start_anew()
                self.members.floor = self.members.journal.sequence
            self._take_spare()
            self.members.save()
        except MembersFailed as failed:
            return failed.errors
        self.background.stir()
        return ()

    def _take_spare(self) -> None:
        """Let a spare stand in for each member that is missing."""
        for slot, member in enumerate(self.members.main):
            spare = next((s for s in self.members.spares() if s.data_size >= self.members.identity.used), None)
            if member is None and spare is not None and self.members.identity.level:
                spare.become(State.RECOVERING, slot)
                self.arranged()
                text = (
                    f"array {self.name}: the spare {spare.label} takes the place of member {slot}, and is being rebuilt"
                )
                self.opening.notify("info", "raid-spare", text)

    def change(self, work: Callable[[], _T]) -> _T:
        """Change which members there are, alone, and write it down. Raises OSError, ValueError."""
        with self.changing, self.gate.alone():
            if self.read_only:
                raise OSError(errno.EROFS, "The array is open for reading only")
            if self.broken:
                raise OSError(errno.EIO, self.broken)
            result = work()
            self.arranged()
            self.lose(self.record(), must=True)
            return result

    # ---- clean and dirty

    def _wake(self) -> None:
        """Something is going to be written, while the superblocks say that all is in line."""
        if self.members.clean:
            self.members.clean = False
            try:
                self.members.save()
            except MembersFailed:
                self.members.clean = True
                raise

    def _settle(self) -> None:
        if not self.members.clean and not self.members.bitmap.distrusted:
            self.members.clean = True
            self.members.save()

    def tidy(self) -> None:
        """Let bits of the bitmap go that are not needed any more."""
        bitmap = self.members.bitmap
        with self.changing:
            with self.gate.alone():
                if self.broken or not self.members.complete or not self.members.identity.level or not bitmap.quieten():
                    return
            try:
                self._done(lambda: each(self.members.all, Member.flush), must=False)
                if not self.members.complete:
                    bitmap.reopen()
                    return
                bitmap.clear(self.members.events)
            except MembersFailed as failed:
                bitmap.reopen()
                self.fail(failed.errors, must=False)
            except OSError:
                bitmap.reopen()
                raise

    # ---- what it is

    @property
    def name(self) -> str:
        return self.members.identity.name or str(self.members.identity.array)

    def work(self) -> Work | None:
        """What is to be done in the background, and how far it is; of several things that which is done first."""
        from blockyard.block.raid.reporting import work  # noqa: PLC0415

        return work(self)

    def report(self) -> dict[str, object]:
        from blockyard.block.raid.reporting import report  # noqa: PLC0415

        return report(self)

    def actions(self) -> Mapping[str, Action]:
        from blockyard.block.raid.acting import actions  # noqa: PLC0415

        return actions(self)

    def detach(self) -> None:
        self.background.close()
        if not self.read_only and not self.broken:
            self._close_clean()

    def close(self) -> None:
        try:
            self.detach()
        finally:
            errors = []
            for child in self.own_children:
                try:
                    child.close()
                except OSError as error:
                    if not isinstance(child, Absent) and child not in self.left_out:
                        errors.append(error)
            if errors and not self.engine.survives(self.members.lost):
                raise errors[0]

    def _close_clean(self) -> None:
        members, bitmap = self.members, self.members.bitmap
        if members.clean:
            return
        self._done(lambda: each(members.all, Member.flush), must=False)
        with self.changing, self.gate.alone():
            if members.journal is not None:
                members.floor = members.journal.sequence
            if not bitmap.distrusted:
                members.clean = True
                if members.complete:
                    bitmap.touched[:] = bytes(bitmap.count)
                    bitmap.settle = lambda: None
                    bitmap.quieten()
            try:
                if members.complete and members.clean:
                    bitmap.clear(members.events)
                members.save()
            except MembersFailed as failed:
                raise OSError(failed.errno, os.strerror(failed.errno or errno.EIO)) from failed
