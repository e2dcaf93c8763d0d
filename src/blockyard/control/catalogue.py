"""The catalogue of events: every kind that there is, what it means, and what to do about it.

Whoever records an event names one of these; how severe it is stands here and nowhere else. Names are never given
another meaning and never given up, as rules of monitoring systems go by them.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def rank(self) -> int:
        """Greater is worse."""
        return list(Severity).index(self)

    @property
    def level(self) -> int:
        """The same for the log."""
        return (logging.INFO, logging.WARNING, logging.ERROR)[self.rank]

    @property
    def syslog(self) -> int:
        """The same as RFC 5424 §6.2.1 numbers it: informational, warning, error."""
        return (6, 4, 3)[self.rank]


@dataclass(frozen=True)
class Kind:
    """A kind of event."""

    what: str
    severity: Severity
    meaning: str
    action: str  # what to do

    def as_dict(self) -> dict[str, str]:
        return {"what": self.what, "severity": self.severity, "meaning": self.meaning, "action": self.action}


_NOTHING = "Nothing."
_INFO, _WARNING, _ERROR = Severity.INFO, Severity.WARNING, Severity.ERROR

_KINDS = (
    # the server
    Kind("server-started", _INFO, "The control process serves, by itself or after it was started again.", _NOTHING),
    Kind("server-stopped", _INFO, "The server was told to stop, and initiators have been asked to log out.", _NOTHING),
    Kind("worker-restarted", _ERROR, "A worker process has ended unasked; another one takes its place, and "
         "initiators log in again by themselves.",
         "Look into the log for why, and report it with that if it comes again."),
    Kind("events-lost", _WARNING, "Events came faster than they can be kept; only their number is known.",
         "See which kind came so often (`blockyard events`), and see to its cause."),
    Kind("unknown-event", _WARNING, "A worker of another version has told of an event that this version does not know.",
         "Read the text. Restart the server when an upgrade has been left half done."),
    Kind("test", _INFO, "Somebody tries whether events arrive (`blockyard events test`).", _NOTHING),
    Kind("delivery-failed", _WARNING, "Events cannot be delivered to a receiver; they are kept and sent later, as far "
         "as there is room for them.",
         "See to the receiver that is named, or to its table below [events] in the configuration."),
    Kind("delivery-recovered", _INFO, "A receiver takes events again.", _NOTHING),
    Kind("delivery-lost", _WARNING, "A receiver was away for so long that the oldest events for it were given up.",
         "They still stand in `blockyard events`, as long as these are kept."),
    Kind("history-damaged", _WARNING, "The file of the history (docs/history.md) was damaged: it is set aside, and a new one "
         "begun.",
         "Look into the health of the disk that the state directory is on. What was set aside may be deleted."),
    # who logs in, and who changes that
    Kind("login-failed", _WARNING, "An initiator could not log in to a target or to discovery.",
         "Compare name, user and secret on both sides (docs/access.md). Many from one address may be an attack: that "
         "address has to wait longer each time."),
    Kind("console-login-failed", _WARNING, "Somebody could not log in to the console or the API.",
         "If it was nobody you know, see to who can get at the API (docs/api.md)."),
    Kind("users-changed", _INFO, "A CHAP user or group was made, changed or removed on the command line.", _NOTHING),
    # tapes
    Kind("cartridge-labelled", _INFO, "A cartridge of a tape library has got another barcode.",
         "Have backup software take stock of the library again, if it does not by itself."),
    Kind("cartridge-deleted", _INFO, "A cartridge of a tape library was deleted, with all that was on it.", _NOTHING),
    # pools
    Kind("pool-soft-threshold", _WARNING, "So little of a pool is free that its soft threshold is reached.",
         "Add a member (`blockyard pool add`), or delete volumes or snapshots."),
    Kind("pool-hard-threshold", _ERROR, "The hard threshold of a pool is reached: writes that need new space fail.",
         "Add a member (`blockyard pool add`), or delete volumes or snapshots, now."),
    Kind("pool-full", _ERROR, "Nothing of a pool is free: writes that need new space fail.",
         "Add a member (`blockyard pool add`), or delete volumes or snapshots, now."),
    Kind("pool-space", _INFO, "A pool has space again.", _NOTHING),
    Kind("pool-failed", _ERROR, "A disk of a pool failed where writes were to become stable: it takes no more writes.",
         "See to the disk, then start the server again. The pool then holds what was stable."),
    Kind("pool-not-open", _ERROR, "A pool is not served, as it cannot be opened.",
         "The text says why: a member that is missing, damage (`blockyard pool check`), or another server that has it."),
    Kind("pool-open", _INFO, "All pools are served again.", _NOTHING),
    Kind("checksum-wrong", _ERROR, "What a disk gave back is not what was written to it.",
         "Replace the disk, and put back what is named from a snapshot, replica or backup (docs/pools.md)."),
    Kind("schedule-failed", _ERROR, "A snapshot of a schedule could not be taken, or an old one not be deleted.",
         "The text says why; the next time is tried as usual."),
    # layers
    Kind("volume-not-open", _ERROR, "A volume is not served, as its stack cannot be opened.",
         "The text says why. It is tried again and again, and `pool-open` tells when all are served."),
    Kind("layer-not-open", _ERROR, "A layer goes on without something that it stands on, which cannot be opened.",
         "See to what is named. `blockyard layer show` says what is missing."),
    Kind("compressed-disk-damaged", _ERROR, "A compressed disk has segments that cannot be read.",
         "Put it back from a snapshot, replica or backup; what is not damaged can still be read."),
    Kind("compaction-failed", _ERROR, "The space of what was overwritten in a compressed disk cannot be given back.",
         "See to the disk below; it is tried again."),
    Kind("cache-not-written-back", _ERROR, "What a cache has and its origin has not cannot be written to the origin.",
         "See to the origin. Keep the cache's disk: it has the only copy."),
    Kind("cache-written-back", _INFO, "What is in a cache gets to its origin again.", _NOTHING),
    Kind("size-changed", _INFO, "A disk elsewhere has got another size.", "`blockyard reload` takes it over."),
    Kind("server-says", _WARNING, "A program that serves a disk image has written this to its standard error.",
         "See what it says."),
    Kind("server-lost", _ERROR, "A server elsewhere that a disk is on does not answer; commands wait for it.",
         "See to the server and the way to it; it is tried again all the time."),
    Kind("server-back", _INFO, "A server elsewhere that a disk is on answers again.", _NOTHING),
    Kind("data-lost", _ERROR, "What was acknowledged and not flushed yet may be lost, as the server elsewhere was lost.",
         "Have whoever uses the disk check its file system or database."),
    Kind("rbd-away", _ERROR, "The Ceph cluster of an RBD image does not answer.", "See to the cluster (`ceph status`)."),
    Kind("rbd-waiting", _ERROR, "An RBD image cannot be opened or used for now; it is tried again.",
         "The text says why: somebody else may have its lock."),
    Kind("rbd-fenced", _ERROR, "The cluster has shut this client out of an RBD image: another one has taken its place.",
         "See which server is to have it; this one writes nothing more to it."),
    Kind("rbd-ready", _INFO, "An RBD image is served again.", _NOTHING),
    # arrays
    Kind("raid-member-failed", _ERROR, "A member of an array has failed; the array goes on without it.",
         "Replace it (`blockyard layer do`, action `replace`). Until another disk is in sync, there is less redundancy."),
    Kind("raid-failed", _ERROR, "An array has lost more members than it can do without: nothing more is written.",
         "Bring members back (cables, power), then start anew; else put its data back from a backup (docs/raid.md)."),
    Kind("raid-spare", _INFO, "A spare takes the place of a member that has failed.", "Add another spare."),
    Kind("raid-rebuilt", _INFO, "A member of an array is in sync.", _NOTHING),
    Kind("raid-in-line", _INFO, "All members of an array are in line again after a sudden end.", _NOTHING),
    Kind("raid-stalled", _ERROR, "Rebuilding, reshaping or resynchronizing an array does not get on; it is tried again.",
         "The text says which member is in the way."),
    Kind("raid-paused", _WARNING, "Somebody has paused a rebuild, reshape or resync of an array, which stays as it is meanwhile.",
         "Let it go on: `blockyard layer resume`; it does so by itself when the array is opened again."),
    Kind("raid-resumed", _INFO, "An array goes on with what somebody had paused.", _NOTHING),
    Kind("raid-reshaped", _INFO, "An array has been spread over another number of members.", _NOTHING),
    Kind("raid-read-repaired", _WARNING, "A member could not read; its data came from the others and was written anew.",
         "Once may be chance. Replace a disk of which it comes again."),
    Kind("raid-mismatch", _WARNING, "A scrub has found places where members differed.",
         "Have it mend them (`blockyard layer do`, action `scrub`), and look into the disks' own health (smartctl)."),
    Kind("raid-left-out", _WARNING, "An array was opened without a disk that does not belong to it as it is now.",
         "The text says why. Add it again when it is to take part (`blockyard layer do`, action `add`)."),
)  # fmt: skip

CATALOGUE = {kind.what: kind for kind in _KINDS}


_HEAD = """\
# Events

<!-- Made by `make docs` from src/blockyard/control/catalogue.py. Do not edit: a test compares. -->

What has happened that somebody may want to look up later: `blockyard events` shows it, `GET /api/v1/events` and the console do,
and [notifications](notifications.md) take it elsewhere.
`blockyard events --explain login-failed` says what stands here of one;
`GET /api/v1/events/catalogue` has the whole table for programs.

| event | severity | meaning | what to do |
| --- | --- | --- | --- |
"""


def document() -> str:
    """docs/events.md, as Markdown."""
    rows = [f"| `{kind.what}` | {kind.severity} | {kind.meaning} | {kind.action} |\n" for kind in _KINDS]
    return _HEAD + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(document())
