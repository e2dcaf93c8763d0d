"""What an administrator can do with an array that is in use."""

from __future__ import annotations

import contextlib
import errno
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from blockyard.block.actions import Action, NoOptions, Progress
from blockyard.block.device import Device
from blockyard.block.layers import Absent
from blockyard.block.raid import reshape, superblock
from blockyard.block.raid.assembly import examine, label_of
from blockyard.block.raid.creation import check_empty
from blockyard.block.raid.journal import BLOCK
from blockyard.block.raid.member import Member, MemberError, MembersFailed, State, each
from blockyard.block.raid.superblock import NoSuperblock
from blockyard.block.raid.work import STEP
from blockyard.block.size import Size, format_size

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array


@dataclass(frozen=True)
class Added:
    """A device for the array, as it is written in a stack."""

    device: str
    force: bool = False  # whatever it holds


@dataclass(frozen=True)
class Chosen:
    """A member: its role, or how it is written in the stack."""

    member: str


@dataclass(frozen=True)
class Replaced:
    """A member, and what shall take its place."""

    member: str
    by: str
    force: bool = False


@dataclass(frozen=True)
class Grown:
    """Devices that the array shall be spread over too."""

    devices: tuple[str, ...]
    force: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not self.devices:
            raise ValueError("name one device at least")


@dataclass(frozen=True)
class Rate:
    """Bytes a second of each member, for what is done in the background."""

    rate: Size

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.rate < 64 << 10:
            raise ValueError("the rate is at least 64K bytes a second")


@dataclass(frozen=True)
class Scrubbed:
    """Whether what is wrong is to be mended."""

    repair: bool = True


def actions(array: Array) -> Mapping[str, Action]:
    """See Device.actions."""
    return {
        "add": Action("Add a device: it takes the place of a missing member, or becomes a spare.",
                      lambda options, progress: _add(array, options), Added),
        "fail": Action("Do without a member from now on, as if it had failed.",
                       lambda options, progress: _fail(array, options), Chosen),
        "grow": Action("Spread the array over more devices, in the background; of RAID 1, have more copies.",
                       lambda options, progress: _grow(array, options), Grown),
        "pause": Action("Let a rebuild, reshape or resync rest until `resume`; the array stays as it is meanwhile.",
                        lambda options, progress: array.background.pause(), NoOptions),
        "rate": Action("Set how quickly rebuilds, reshapes and scrubs go on.",
                       lambda options, progress: _rate(array, options), Rate),
        "remove": Action("Let go of a spare, or of a member that has failed or was left out.",
                         lambda options, progress: _remove(array, options), Chosen),
        "replace": Action("Copy a member to another device, which takes its place when that is done.",
                          lambda options, progress: _replace(array, options), Replaced),
        "resume": Action("Go on with what was paused.",
                         lambda options, progress: array.background.resume(), NoOptions),
        "retry": Action("Go on now with what could not be done in the background.",
                        lambda options, progress: _retry(array), NoOptions),
        "scrub": Action("Read everything and compare copies and parity; mend what differs.",
                        lambda options, progress: _scrub(array, options, progress), Scrubbed, long=True),
    }  # fmt: skip


def _add(array: Array, options: Added) -> str:
    device = _left_out(array, options.device)
    fresh = device is None
    if device is None:
        device = array.opening.open(options.device)
    try:
        return _taken_in(array, device, options)
    except BaseException:
        if fresh and device not in array.own_children:
            device.close()
        raise


def _left_out(array: Array, text: str) -> Device | None:
    """A child that is there, and no member."""
    return next(
        (
            one
            for one in array.left_out
            if text in (label_of(one), getattr(one, "path", None)) and not isinstance(one, Absent)
        ),
        None,
    )


def _taken_in(array: Array, device: Device, options: Added) -> str:
    if not array.members.identity.level:
        raise ValueError("RAID 0 has neither spares nor members that could be missing: use grow")
    member = _again(array, device) or _new(array, device, force=options.force)

    def add() -> None:
        array.members.all.append(member)
        _own(array, device)

    array.change(add)
    if member.by_bitmap:
        return f"{member.label} is member {member.slot} again, and gets what it has missed"
    if member.slot >= 0:
        return f"{member.label} is member {member.slot} now, and is being rebuilt"
    return f"{member.label} is a spare now"


def _own(array: Array, device: Device) -> None:
    array.left_out.pop(device, None)
    if device not in array.own_children:
        array.own_children.append(device)


def _again(array: Array, device: Device) -> Member | None:
    """A former member that only lacks what the bitmap tells of."""
    members = array.members
    try:
        own = examine(device)
    except NoSuperblock:
        return None
    slot = own.role
    fits = own.array == members.identity.array and own.used == members.identity.used and slot < members.identity.disks
    if (
        not fits
        or members.main[slot] is not None
        or own.recovery_offset != superblock.ALL
        or own.features & superblock.RESHAPE
    ):
        return None
    if not members.bitmap_offset or own.events < members.bitmap.cleared_at or own.disks != members.identity.disks:
        return None
    # with a number of its own: one that it has missed since would take the old one for a sign of having been left behind by it
    member = Member(device, members.free_number(), own.device, own.data_offset, own.data_size)
    member.become(State.RECOVERING, slot)
    member.by_bitmap = True
    return member


def _new(array: Array, device: Device, *, force: bool) -> Member:
    """A device made ready for being a member. Raises FileExistsError, ValueError, OSError."""
    members = array.members
    if device.read_only:
        raise OSError(errno.EROFS, f"{label_of(device)} can only be read")
    ours = False
    with contextlib.suppress(NoSuperblock):
        ours = examine(device).array == members.identity.array
    if not force and not ours:
        check_empty(device)
    offset = max(member.data_offset for member in members.all)
    size = (device.size - offset) // 512 * 512
    if size < members.identity.used:
        need = format_size(offset + members.identity.used)
        raise ValueError(f"{label_of(device)} is too small: a member of this array has at least {need}")
    member = Member(device, members.free_number(), uuid.uuid4(), offset, size)
    try:
        each((member,), lambda one: one.write_raw(bytes(superblock.OFFSET), 0))
        if members.journal is not None:
            for half in range(2):
                at = members.journal.offset + half * members.journal.half_size
                each((member,), lambda one, at=at: one.write_raw(bytes(BLOCK), at))  # type: ignore[misc]
    except MembersFailed as failed:
        raise OSError(failed.errno or errno.EIO, failed.strerror) from failed
    return member


def _member(array: Array, text: str) -> Member:
    """By its role, or how it is written. Raises ValueError."""
    for member in array.members.all:
        if text in (member.label, getattr(member.device, "path", None)):
            return member
    if text.isdecimal():
        for member in array.members.all:
            if member.slot == int(text) and not member.replaces:
                return member
    there = ", ".join(
        f"{member.slot} is {member.label}" if member.slot >= 0 else member.label for member in array.members.all
    )
    raise ValueError(f"there is no member {text!r} in the array: {there}")


def _fail(array: Array, options: Chosen) -> str:
    member = _member(array, options.member)
    label = member.label
    try:
        array.fail([MemberError(member, OSError(errno.EIO, "taken out by hand"))], must=False)
    except OSError as error:
        if member in array.members.all:
            raise OSError(errno.EBUSY, f"The array cannot do without {label}") from error
        raise
    return f"the array does without {label}: remove it, or add it again"


def _remove(array: Array, options: Chosen) -> str:
    device = _left_out(array, options.member)
    if device is None:
        member = _member(array, options.member)
        if member.state is not State.SPARE:
            raise OSError(errno.EBUSY, f"{member.label} is in use: let it fail first, or replace it")
        device = member.device
        array.change(lambda: array.members.remove(member))
        _forget(member)
    array.left_out.pop(device, None)
    if device in array.own_children:
        array.own_children.remove(device)
    label = label_of(device)
    device.close()
    return f"{label} does not belong to the array any more: take it out of the stack"


def _forget(member: Member) -> None:
    """Let a spare not be taken for one again."""
    try:
        member.write_raw(bytes(superblock.SIZE), superblock.OFFSET)
        member.flush()
    except MemberError:
        pass  # it is out of date by now


def _replace(array: Array, options: Replaced) -> str:
    old = _member(array, options.member)
    if old.slot < 0 or old.state is not State.ACTIVE or not array.members.identity.level or array.reshaping is not None:
        raise OSError(
            errno.EBUSY,
            f"{old.label} cannot be replaced now: it is a spare or not in sync, or the array is busy with a reshape",
        )
    if len(array.members.writers[old.slot]) > 1:
        raise OSError(errno.EBUSY, f"{old.label} is being replaced already")
    spare = next(
        (one for one in array.members.spares() if options.by in (one.label, getattr(one.device, "path", None))), None
    )
    device = spare.device if spare is not None else _left_out(array, options.by) or array.opening.open(options.by)
    try:
        member = spare or _new(array, device, force=options.force)

        def replace() -> None:
            member.become(State.RECOVERING, old.slot)
            member.replaces = True
            if spare is None:
                array.members.all.append(member)
            _own(array, device)

        array.change(replace)
    except BaseException:
        if device not in array.own_children:
            device.close()
        raise
    return f"{member.label} takes the place of {old.label} when it has all that is on it"


def _grow(array: Array, options: Grown) -> str:
    members = array.members
    if array.reshaping is not None:
        raise OSError(errno.EBUSY, "The array is being reshaped already")
    devices: list[Device] = []
    try:
        added = []
        for text in options.devices:
            device = _left_out(array, text)
            if device is None:
                device = array.opening.open(text)
            devices.append(device)
            added.append(_new(array, device, force=options.force))
        array.change(lambda: _admit(array, added))
        array.change(lambda: _spread(array, added))
    except BaseException:
        for device in devices:
            if device not in array.own_children:
                device.close()
        raise
    array.background.stir()
    if members.identity.level == 1:
        return f"the array has {members.identity.disks} copies; the new ones are being made"
    return f"the array is being spread over {members.identity.disks} members; its size grows when that is done"


def _admit(array: Array, added: list[Member]) -> None:
    """As spares first: once the others say that they are members, they have to know it too."""
    if array.reshaping is not None or not array.members.complete or array.members.bitmap.distrusted:
        raise OSError(errno.EBUSY, "The array is not in sync: have that done first")
    for member in added:
        member.number = array.members.free_number()
        array.members.all.append(member)
        _own(array, member.device)


def _spread(array: Array, added: list[Member]) -> None:
    members = array.members
    for number, member in enumerate(added):
        member.become(
            State.RECOVERING if members.identity.level == 1 else State.ACTIVE, members.identity.disks + number
        )
    if members.identity.level == 1:
        members.identity.disks += len(added)
        array.engine = array.engine_of(members.identity.disks)
        return
    try:
        reshape.begin(array, added)
    except OSError:
        for member in added:
            member.become(State.SPARE)
        raise


def _rate(array: Array, options: Rate) -> str:
    array.background.rate = int(options.rate)
    array.background.stir()  # what waits, waits by the old one
    return f"at most {format_size(int(options.rate))} a second of each member"


def _retry(array: Array) -> str:
    array.background.stir()
    return "it is being tried again"


def _scrub(array: Array, options: Scrubbed, progress: Progress) -> str:
    """Step by step, each as far as the bits of the bitmap's space go."""
    if not array.members.identity.level:
        raise ValueError("RAID 0 has nothing that could be compared")
    repair = options.repair and not array.read_only
    total, before = array.members.bitmap.size, array.mismatches
    try:
        for at in range(0, total, STEP):
            begun = time.monotonic()
            end = min(at + STEP, total)
            if array.members.bitmap.trusts(at, end):
                array.mismatches += array.check(at, end, repair=repair)
            array.background.rest(end - at, begun, partial(progress, end, total))
    finally:  # what one has found that was stopped counts, too
        found = array.mismatches - before
        if found:
            text = f"array {array.name}: {found} blocks of 4 KiB differed between members"
            array.opening.notify("warning", "raid-mismatch", text)
    if not found:
        return "everything is in line"
    return f"{found} blocks of 4 KiB differed" + (", and were mended" if repair else "")
