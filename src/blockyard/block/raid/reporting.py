"""How an array is, for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blockyard.block.raid.assembly import label_of
from blockyard.block.raid.member import Member, State

if TYPE_CHECKING:
    from blockyard.block.raid.array import Array


class Work(NamedTuple):
    """What an array does by itself until it is done."""

    kind: str  # "reshape", "rebuild" or "resync"
    unit: str
    done: int
    total: int


def report(array: Array) -> dict[str, object]:
    """See Device.report."""
    members, background = array.members, array.background
    health, text = _health(array)
    found: dict[str, object] = {
        "health": health,
        "text": text,
        "array": str(members.identity.array),
        "name": members.identity.name,
        "level": members.identity.level,
        "members": [
            _member(array, member)
            for member in sorted(members.all, key=lambda one: (one.slot < 0, one.slot, one.number))
        ],
        "left out": [{"member": label_of(device), "why": why} for device, why in array.left_out.items()],
        "counters": {"corrected": sum(member.corrected for member in members.all), "mismatches": array.mismatches},
        "gauges": {
            "members": len([member for member in members.main if member is not None]),
            "members_wanted": members.identity.disks,
            "spares": len(list(members.spares())),
            "regions_dirty": sum(members.bitmap.ready) if members.identity.level else 0,
            "regions_out_of_line": len(members.bitmap.distrusted),
            "rate": background.rate,
        },
    }
    under_way = work(array)
    if under_way is not None:
        kind, unit, done, total = under_way
        found |= {"progress": (done, total), "work": {"kind": kind, "unit": unit, "paused": background.paused}}
    return found


def _health(array: Array) -> tuple[str, str]:
    members, background = array.members, array.background
    if array.broken:
        return "failed", array.broken
    words = []
    missing = [slot for slot, member in enumerate(members.main) if member is None]
    if missing:
        words.append(f"member {' and '.join(map(str, missing))} is missing: add one")
    if array.reshaping is not None:
        words.append(f"it is being spread over {members.identity.disks} members")
    words += [f"{member.label} is being rebuilt" for member in members.all if member.state is State.RECOVERING]
    if members.bitmap.distrusted:
        words.append("what was being written when it was left is brought in line")
    if background.paused and words:
        words.append("that is paused: `blockyard layer resume` lets it go on")
    if background.trouble:
        words.append(f"that does not get on: {background.trouble}")
    return "ok" if members.complete else "degraded", "; ".join(words)


def _member(array: Array, member: Member) -> dict[str, object]:
    role = "spare" if member.slot < 0 else f"replaces {member.slot}" if member.replaces else str(member.slot)
    found: dict[str, object] = {
        "member": member.label,
        "role": role,
        "state": member.state.value,
        "corrected": member.corrected,
    }
    if member.state is State.RECOVERING:
        found["rebuilt"] = [member.position, array.members.identity.used]
    if member.last_error:
        found["last error"] = member.last_error
    return found


def work(array: Array) -> Work | None:
    """See Array.work."""
    members = array.members
    if array.reshaping is not None:
        return Work("reshape", "bytes", array.reshaping.position, array.reshaping.total)
    recovering = members.recovering
    if recovering is not None:
        return Work("rebuild", "bytes", recovering.position, members.identity.used)
    if members.bitmap.distrusted:
        return Work("resync", "regions", members.bitmap.count - len(members.bitmap.distrusted), members.bitmap.count)
    return None
