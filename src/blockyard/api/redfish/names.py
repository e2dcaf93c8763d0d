"""What volumes, hosts, targets and mappings are called here.

What a pool has is POOL:VOLUME or POOL:VOLUME:SNAPSHOT; what else the server has as a volume is ~NAME. Endpoints are host:NAME and
target:NAME. A connection is HOST,TARGET, with * for a host where a target is everybody's: targets have no comma (RFC 3722).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blockyard.api.context import Context
from blockyard.api.problems import not_found
from blockyard.api.redfish.resources import STORAGE, uri
from blockyard.iscsi.access import Rule
from blockyard.worker.configuration import Target, Volume

POOLS, VOLUMES = (*STORAGE, "StoragePools"), (*STORAGE, "Volumes")
FABRIC = ("Fabrics", "iSCSI")
ENDPOINTS, CONNECTIONS = (*FABRIC, "Endpoints"), (*FABRIC, "Connections")
EVERYBODY = "*"
_EVERYTHING = Rule()  # what holds where a target has no rules


@dataclass(frozen=True)
class Key:
    """A volume of a pool, or a snapshot of one."""

    pool: str
    volume: str
    snapshot: str = ""

    @property
    def id(self) -> str:
        return f"{self.pool}:{self.volume}" + (f":{self.snapshot}" if self.snapshot else "")

    @property
    def uri(self) -> str:
        return uri(*VOLUMES, self.id)

    @property
    def source(self) -> str:
        """As people write it."""
        return f"{self.pool}/{self.volume}" + (f"@{self.snapshot}" if self.snapshot else "")


def key_of(text: str) -> Key:
    """Raises Refused for what is none."""
    pool, colon, rest = text.partition(":")
    volume, another, snapshot = rest.partition(":")
    if not (colon and pool and volume) or bool(another) != bool(snapshot):
        raise not_found(f"volume {text!r} of a pool")
    return Key(pool, volume, snapshot)


def uri_of(volume: Volume) -> str | None:
    """Where a volume of the server is here; None for one whose name cannot be in a path."""
    if volume.pool:
        return Key(volume.pool, volume.in_pool, volume.snapshot).uri
    return None if "/" in volume.name else uri(*VOLUMES, f"~{volume.name}")


@dataclass(frozen=True)
class Mapping:
    """What a host sees of a target, by the first of its rules that names it."""

    host: str
    target: Target
    rule: Rule

    @property
    def uri(self) -> str:
        return uri(*CONNECTIONS, f"{self.host},{self.target.name}")

    @property
    def luns(self) -> dict[int, str]:
        return self.rule.luns or self.target.luns


def mappings(here: Context) -> Iterator[Mapping]:
    """All of them. Rules that name no host are something else: who they are for only a login shows."""
    configured = here.server.configuration.targets
    for name, served in here.server.settled.targets.items():
        target = configured.get(name, served)  # as it is configured, rules name hosts
        if not target.access:
            yield Mapping(EVERYBODY, target, _EVERYTHING)
        seen = set()
        for rule in target.access:
            for host in rule.hosts:
                if host not in seen and not rule.refuses:
                    yield Mapping(host, target, rule)
                seen.add(host)


def connections_of(here: Context, volume: str) -> list[str]:
    """The mappings that show a volume of the server."""
    return [each.uri for each in mappings(here) if volume in each.luns.values()]
