"""From devices to an array: by what their superblocks say, whatever order they come in.

Taken are those which the newest superblock counts among its members. One that is out of date is left out, and so is what has no
superblock: the array goes on without it as long as it can. What belongs to another array is a mistake, and refused.
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Sequence
from typing import NamedTuple

from blockyard.block.device import Device
from blockyard.block.layers import Absent, Opening
from blockyard.block.raid import journal as journals
from blockyard.block.raid import superblock
from blockyard.block.raid.array import Array
from blockyard.block.raid.bitmap import Bitmap, BitmapDamaged
from blockyard.block.raid.geometry import geometry
from blockyard.block.raid.journal import Journal
from blockyard.block.raid.member import Member, MembersFailed, State
from blockyard.block.raid.members import Identity, Members
from blockyard.block.raid.superblock import (
    ALL,
    FAULTY,
    RECOVERY_BITMAP,
    REPLACEMENT,
    RESHAPE,
    SPARE,
    NoSuperblock,
    Superblock,
)


class Refused(OSError):
    """An array cannot be assembled; says why, and what to do."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EINVAL, text)


class Candidate(NamedTuple):
    """A device with a superblock."""

    device: Device
    superblock: Superblock
    entry: bytes | None = None  # what our block has for it

    @property
    def label(self) -> str:
        return label_of(self.device)


def label_of(device: Device) -> str:
    return device.label or str(getattr(device, "path", "a member"))


def examine(device: Device) -> Superblock:
    """The superblock of a device. Raises NoSuperblock, OSError."""
    return _examined(device).superblock


def _examined(device: Device) -> Candidate:
    if isinstance(device, Absent):
        raise device.error
    if device.size < superblock.OFFSET + superblock.SIZE:
        raise NoSuperblock("it is too small for a member")
    block = bytearray(superblock.SIZE)
    device.preadv([memoryview(block)], superblock.OFFSET)
    found = Superblock.parse(bytes(block))
    if found.data_offset + found.used > device.size:
        raise NoSuperblock(f"it is smaller than its superblock says: it has {device.size} bytes")
    entry = _our_entry(device, found, bytes(block))
    if entry is not None:
        found = found.changed(ours=superblock.parse_entry(entry)).checked()
    return Candidate(device, found, entry)


def _our_entry(device: Device, found: Superblock, block: bytes) -> bytes | None:
    at = superblock.ours_at(found.data_offset)
    if at < superblock.OFFSET + superblock.SIZE:
        return None
    ours = bytearray(superblock.SIZE)
    device.preadv([memoryview(ours)], at)
    return superblock.find_ours(bytes(ours), block, found.array)


def assemble(children: Sequence[Device], level: int | None, opening: Opening, *, force: bool = False) -> Array:
    """The array that these are members of. Raises Refused, OSError.

    With `force` the newest of those that are too old is taken if need be, and parity for right although it may not be: what was
    written last may be lost.
    """
    candidates, left_out = _candidates(children)
    newest = max(candidates, key=lambda each: each.superblock.events)
    top = newest.superblock
    if level is not None and top.level != level:
        raise Refused(f"{newest.label} is a member of a RAID {top.level}: write raid{top.level}(…)")
    if top.features & RESHAPE and top.level in (1,):
        raise Refused(f"{newest.label}: a RAID {top.level} is not reshaped like that; its superblock is damaged")
    usable, stale = _sorted_out(candidates, newest)
    members = [_member(each, top) for each in usable]
    for member in members:
        if member.replaces and not any(other.slot == member.slot and not other.replaces for other in members):
            member.replaces = False  # it has replaced the other, and does not know it yet
    where = geometry(top.level, top.disks, top.chunk, top.layout, top.used)
    _check_same(usable, top)
    in_sync = {member.slot for member in members if member.state is State.ACTIVE and not member.replaces}
    if not where.survives(set(range(top.disks)) - in_sync) and force:
        for each in sorted(stale, key=lambda one: -one.superblock.events):
            slot = each.superblock.role
            if slot < top.disks and slot not in in_sync and not where.survives(set(range(top.disks)) - in_sync):
                member = _member(each, top)
                member.become(State.ACTIVE, slot)
                members.append(member)
                in_sync.add(slot)
                stale = [one for one in stale if one is not each]
    for each in stale:
        left_out[each.device] = (
            f"out of date: the array has gone on without it ({each.superblock.events} of {top.events})"
        )
    _check_places(members)
    lost = set(range(top.disks)) - in_sync
    if not where.survives(lost):
        raise Refused(_too_few(top, lost, left_out, bool(stale)))
    trusted = top.clean or top.ours.journaled or force
    if lost and top.level in (5, 6) and not trusted:
        raise Refused(
            f"array {_name(top)} was being written when it was left, and member {_numbers(lost)} is missing: what is restored "
            "from parity may be wrong. Bring the missing member back; or take what there is: blockyard raid assemble --force"
        )
    return _made(children, members, top, trusted, opening, left_out, forced=force)


def _candidates(children: Sequence[Device]) -> tuple[list[Candidate], dict[Device, str]]:
    found: list[Candidate] = []
    left_out: dict[Device, str] = {}
    for child in children:
        try:
            found.append(_examined(child))
        except NoSuperblock as error:
            left_out[child] = str(error)
        except OSError as error:
            left_out[child] = error.strerror or str(error)
    if not found:
        reasons = "; ".join(f"{label_of(device)}: {why}" for device, why in left_out.items())
        raise Refused(f"none of them is a member of an array ({reasons}). Make one by: blockyard layer create")
    arrays = {each.superblock.array for each in found}
    if len(arrays) > 1:
        lists = "; ".join(
            f"{', '.join(each.label for each in found if each.superblock.array == array)} of array {array}"
            for array in sorted(arrays, key=str)
        )
        raise Refused(f"they are members of different arrays: {lists}. Leave out what does not belong here")
    by_number: dict[tuple[object, int], Candidate] = {}
    for each in found:
        other = by_number.setdefault((each.superblock.device, 0), each)
        if other is not each:
            raise Refused(f"{other.label} and {each.label} are copies of the same member: leave one of them out")
    return found, left_out


def _sorted_out(candidates: Sequence[Candidate], newest: Candidate) -> tuple[list[Candidate], list[Candidate]]:
    """Who counts, and who is out of date. Raises Refused when the array was gone on with in two places."""
    top = newest.superblock
    usable, stale = [], []
    for each in candidates:
        own = each.superblock
        role = top.roles[own.number] if own.number < len(top.roles) else FAULTY
        if role != FAULTY and own.events >= top.events - 1:
            usable.append(each)
            continue
        apart = own.roles[top.number] == FAULTY if top.number < len(own.roles) else False
        if apart and own.role < FAULTY:
            raise Refused(
                f"{newest.label} and {each.label} have each been used without the other: they are two arrays now. "
                "Look at both alone, leave out the one whose changes are not wanted, and add it again later"
            )
        stale.append(each)
    return usable, stale


def _member(candidate: Candidate, top: Superblock) -> Member:
    own = candidate.superblock
    there = candidate.device.size - own.data_offset
    size = min(own.data_size or there, there)
    member = Member(candidate.device, own.number, own.device, own.data_offset, size)
    member.corrected = own.corrected
    role = top.roles[own.number] if own.number < len(top.roles) else SPARE
    if role == SPARE or role >= top.disks:
        member.become(State.SPARE)
    elif own.role == SPARE and not _begins_reshape(role, top):
        member.become(State.RECOVERING, role)  # it does not know yet that it shall take the place of another
    elif own.recovery_offset != ALL:
        member.become(State.RECOVERING, role, own.recovery_offset)
        member.by_bitmap = bool(own.features & RECOVERY_BITMAP)
    else:
        member.become(State.ACTIVE, role)
    member.replaces = bool(own.features & REPLACEMENT) and member.state is not State.SPARE
    member.entries = [candidate.entry] if candidate.entry is not None else []
    return member


def _begins_reshape(role: int, top: Superblock) -> bool:
    """Whether a role came with a reshape that has moved nothing: what has it needs nothing, though it was a spare before."""
    return bool(top.features & RESHAPE) and not top.reshape_position and role >= top.disks - top.added_disks


def _check_same(usable: Sequence[Candidate], top: Superblock) -> None:
    fields = ["level", "layout", "chunk", "used"]
    for each in usable:
        same = fields if each.superblock.events < top.events else [*fields, "disks"]
        if any(getattr(each.superblock, field) != getattr(top, field) for field in same):
            raise Refused(f"{each.label} says something else of the array than the others: its superblock is damaged")


def _check_places(members: Sequence[Member]) -> None:
    places = [(member.slot, member.replaces) for member in members if member.slot >= 0]
    numbers = [member.number for member in members]
    if len(set(places)) < len(places) or len(set(numbers)) < len(numbers):
        raise Refused("two members say that they are the same one: their superblocks are damaged")


def _too_few(top: Superblock, lost: set[int], left_out: dict[Device, str], stale: bool) -> str:
    reasons = "; ".join(f"{label_of(device)}: {why}" for device, why in left_out.items())
    text = f"array {_name(top)} of RAID {top.level} cannot do without member {_numbers(lost)} of {top.disks}"
    text += f" ({reasons})" if reasons else ""
    text += ". Add what is missing to the stack"
    return text + ("; or go back to what an older member has: blockyard raid assemble --force" if stale else "")


def _numbers(slots: set[int]) -> str:
    return " and ".join(map(str, sorted(slots)))


def _name(top: Superblock) -> str:
    return top.name or str(top.array)


# ---- the array


def _made(
    children: Sequence[Device],
    found: list[Member],
    top: Superblock,
    trusted: bool,
    opening: Opening,
    left_out: dict[Device, str],
    *,
    forced: bool,
) -> Array:
    journal = None
    if top.ours.journal_size and top.level != 1:
        journal = Journal(top.array, top.ours.journal_offset, top.ours.journal_size)
    identity = Identity(
        top.array, top.name, top.created, top.level, top.layout, top.chunk, top.disks, top.used, top.ours.always
    )
    bitmap = _bitmap(found, top)
    if not top.level:
        bitmap.fill()  # nothing can be out of line: nobody has to say so
    members = Members(identity, found, bitmap, top.bitmap_offset, journal)
    members.past = {number for number, role in enumerate(top.roles) if role != SPARE} - {one.number for one in found}
    members.events, members.clean, members.floor = top.events, top.clean, max(1, top.ours.floor)
    if top.features & RESHAPE:
        members.reshape_position, members.added_disks = top.reshape_position, top.added_disks
    changed = _replay(members, opening, journal) or not top.clean or forced
    doubtful = forced and members.complete  # what is not, has nothing that it could be compared with
    if doubtful:
        bitmap.fill()
    if (not trusted or doubtful) and top.level:
        bitmap.distrust_all()
        members.clean, changed = False, True
    array = Array(members, opening, left_out, children)
    for device, why in left_out.items():
        text = f"array {array.name} goes on without {label_of(device)}: {why}"
        opening.notify("warning", "raid-left-out", text)
    if not opening.read_only:
        array.begin(changed=changed)
    return array


def _bitmap(found: list[Member], top: Superblock) -> Bitmap:
    """The bits that any of the members has: each has all that count."""
    # a reshape makes another bitmap when it has ended, a moment before the superblocks say so
    counts = {top.disks - top.added_disks, top.disks}
    sizes = sorted(geometry(top.level, disks, top.chunk, top.layout, top.used).size for disks in counts)
    if top.level not in (0, 10):
        sizes = [top.used]
    size = sizes[0]
    if not top.bitmap_offset:
        bitmap = Bitmap(top.array, size, 1 << max(9, (size - 1).bit_length()))
        if not top.clean:
            bitmap.fill()
        return bitmap
    bitmaps = []
    for member in found:
        for one in sizes:
            with contextlib.suppress(OSError, BitmapDamaged, struct.error):
                bitmaps.append(_read_bitmap(member, top, one))
    if not bitmaps:
        raise Refused(
            f"array {_name(top)}: no member has the bitmap of what has been written that the superblock tells of"
        )
    bitmap = bitmaps[0]
    for other in bitmaps[1:]:
        if (other.region, other.size) == (bitmap.region, bitmap.size):
            bitmap.join(other)
    return bitmap


def _read_bitmap(member: Member, top: Superblock, size: int) -> Bitmap:
    at = superblock.OFFSET + top.bitmap_offset
    head = member.read_raw(at, 4096)
    whole = Bitmap.header(head.ljust(1 << 20, b"\0"), top.array, size)
    if at + len(whole.image) > member.data_offset:
        raise BitmapDamaged("it reaches into the data")
    image = member.read_raw(at, len(whole.image))
    try:
        return Bitmap.parse(image, top.array, size, top.events - 1)
    except BitmapDamaged:
        whole.fill()  # it is of an older state than the array: everything may have been written
        return whole


def _replay(members: Members, opening: Opening, journal: Journal | None) -> bool:
    """Carry out what the journal has. Whether there was anything."""
    if journal is None:
        return False
    journal.start_anew(members.floor)
    by_number = {member.number: member for member in members.all if member.slot >= 0}
    try:
        found = journals.find(journal, by_number.values(), members.floor)
        journal.resume(found)
        if not found.entries:
            return False
        if opening.read_only:
            raise Refused("its journal has what was not carried out when it was left: open it for writing once")
        position = journals.replay(journal, by_number, found)
    except MembersFailed as failed:
        raise Refused(
            f"its journal cannot be read: {failed.strerror}. Leave that member out, if the array can do without it"
        ) from failed
    if position != journals.NOWHERE and members.reshape_position is not None:
        members.reshape_position = max(members.reshape_position, position)
    return True
