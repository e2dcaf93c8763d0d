"""What initiators do now: what workers have counted at two moments, and what lies between, by volume and by session."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from operator import add, sub
from typing import TYPE_CHECKING, Any, NamedTuple

from blockyard.control.command import Command
from blockyard.control.roles import Role
from blockyard.scsi.traffic import quantile

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

Report = dict[str, Any]
_KINDS = ("reads", "writes")
_OPS = {"reads": "read_ops", "writes": "write_ops"}
_BYTES = {"reads": "read_bytes", "writes": "write_bytes"}


async def activity(server: Server, request: Request) -> Report:
    """What was done so far: "volumes" and "sessions" with commands by the time that they took, and how many are in progress."""
    told = await asyncio.gather(*(worker.ask({"name": "activity"}) for worker in server.supervisor.workers))
    reports = [report for report in told if report is not None]
    return {
        "volumes": {name: found for report in reports for name, found in report["volumes"].items()},
        "depths": {name: depth for report in reports for name, depth in report["depths"].items()},
        "sessions": {
            session_key(session): session for report in reports for session in report["sessions"]
        },
    }  # fmt: skip


def session_key(session: Mapping[str, Any]) -> str:
    return f"{session['target']} {session['tsih']}"


class Done(NamedTuple):
    """Between two moments."""

    buckets: dict[str, list[int]]
    bytes: dict[str, int]
    seconds: dict[str, float]

    @property
    def commands(self) -> dict[str, int]:
        return {kind: sum(self.buckets[kind]) for kind in _KINDS}


class Activity:
    """What was done in between `seconds`."""

    def __init__(self, before: Report, now: Report, seconds: float) -> None:
        self._seconds = max(seconds, 1e-3)
        self._depths: dict[str, int] = now["depths"]
        self._volumes = {name: _done(before["volumes"].get(name), pair) for name, pair in now["volumes"].items()}
        self._sessions = {
            key: _of_session(before["sessions"].get(key), found) for key, found in now["sessions"].items()
        }
        self._now: dict[str, Report] = now["sessions"]

    def volume(self, name: str) -> dict[str, float | None]:
        """Percentiles in seconds, None where there was no command; and the commands in progress."""
        return {**_times([self._volumes[name]] if name in self._volumes else []), "depth": self._depths.get(name, 0)}

    def told(self, volumes: Collection[str] | None = None, targets: Collection[str] | None = None) -> Report:
        """For JSON: of these volumes, and of sessions with these targets; of all where they are None."""
        shown = [name for name in self._volumes if volumes is None or name in volumes]
        depth = sum(each for name, each in self._depths.items() if volumes is None or name in volumes)
        return {
            "volumes": {name: self.volume(name) for name in shown},
            "total": {**_times(self._volumes[name] for name in shown), "depth": depth},
            "sessions": {
                key: self.session(key)
                for key, session in self._now.items()
                if targets is None or session["target"] in targets
            },
        }

    def session(self, key: str) -> Report:
        """What it does a second; how long its commands take, on average; which volumes it uses now, the busiest first."""
        parts = self._sessions.get(key, {})
        commands = {name: sum(done.commands.values()) for name, done in parts.items()}
        busiest = sorted((name for name in parts if commands[name]), key=lambda name: -commands[name])
        spent = sum(sum(done.seconds.values()) for done in parts.values())
        found: Report = {
            "latency": round(spent / total, 7) if (total := sum(commands.values())) else None,
            "depth": self._now[key]["depth"] if key in self._now else 0,
            "volumes": busiest,
        }
        for kind in _KINDS:
            found[_OPS[kind]] = round(sum(done.commands[kind] for done in parts.values()) / self._seconds, 1)
            found[_BYTES[kind]] = round(sum(done.bytes[kind] for done in parts.values()) / self._seconds, 1)
        return found


def _of_session(before: Report | None, now: Report) -> dict[str, Done]:
    old = {} if before is None else before["volumes"]
    return {name: _done(old.get(name), pair) for name, pair in now["volumes"].items()}


def _done(before: Report | None, now: Report) -> Done:
    """A worker that was started again counts from 0."""
    found = Done({}, {}, {})
    for kind in _KINDS:
        new, old = now[kind], None if before is None else before[kind]
        if old is not None and min(buckets := list(map(sub, new["buckets"], old["buckets"]))) >= 0:
            found.buckets[kind] = buckets
            found.bytes[kind], found.seconds[kind] = new["bytes"] - old["bytes"], new["seconds"] - old["seconds"]
        else:
            found.buckets[kind], found.bytes[kind], found.seconds[kind] = new["buckets"], new["bytes"], new["seconds"]
    return found


def _times(done: Iterable[Done]) -> dict[str, float | None]:
    sums: dict[str, list[int]] = {}
    for each in done:
        for kind in _KINDS:
            sums[kind] = list(map(add, sums[kind], each.buckets[kind])) if kind in sums else each.buckets[kind]
    return {
        f"{kind.removesuffix('s')}_p{share}": _rounded(quantile(sums.get(kind, ()), share / 100))
        for kind in _KINDS
        for share in (50, 99)
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 7)


ACTIVITY_COMMANDS: dict[str, Command] = {"activity": Command(activity, Role.VIEWER)}
