"""What is served, and how: the model that control and its workers share.

Control makes one of the configuration file or of the command line. Each worker gets the part that it is to serve, as a
message (records.write), and brings itself to that state.

A volume may stand in several targets and under several LUNs. It is one logical unit all the same, in one worker, with one
task set: so what must be atomic among all who use it is so by construction. A pool is open in one worker likewise. `components`
says which targets therefore belong together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

from blockyard.block.building import Claim, understood
from blockyard.block.formats import RAW, VHD, VHDX
from blockyard.block.size import Size
from blockyard.block.stack import Call, Word, Written
from blockyard.iscsi.access import Right, Rule
from blockyard.iscsi.chap import ALGORITHMS, Policy
from blockyard.iscsi.directory import Directory, Entry, Portal, portal_from
from blockyard.iscsi.login import Moved
from blockyard.iscsi.negotiation import Preferences
from blockyard.media.models import DRIVES, LIBRARIES
from blockyard.optical.kinds import AUTO, IMAGES
from blockyard.pool.names import check_snapshot_name
from blockyard.pool.schedule import Retention, parse, snapshot_name, zone
from blockyard.scsi.alua import STATES, AccessState
from blockyard.scsi.alua import PortGroup as TargetPortGroup
from blockyard.worker.declared import DeclaredLayer
from blockyard.worker.receivers import Receivers
from blockyard.worker.telemetry import Telemetry

TIME2RETAIN = 20  # seconds: the default of DefaultTime2Retain (RFC 7143 §13.16)
ANY_SIZE = Size(0)  # the one that there is
NO_LIMIT = Size(0)
NO_WARNING = Size(0)
PORTAL_GROUP = 1  # the one that all portals are in unless something else was said


@dataclass(frozen=True)
class Pool:
    """A storage pool: thin volumes, their snapshots and clones."""

    name: str
    directory: str  # where its metadata is
    export: bool = False  # each of its volumes is a target of its own,
    target: str = ""  # with a name that begins like this; "": like that of the default target
    access: tuple[Rule, ...] = ()  # and with these rules

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if any(rule.luns for rule in self.access):
            raise ValueError("access: targets that are exported have one LUN: rules have no luns here")


@dataclass(frozen=True)
class Volume:
    """A file, a block device, a volume or snapshot of a pool, or a stack of layers as a logical unit."""

    name: str
    path: str = ""  # of a file or block device, unless it is in a pool
    size: Size = ANY_SIZE  # of a file: it is made with this size when it is missing, and grows to it
    uuid: str = ""  # its identity for initiators; control fills in what the state database has
    block_size: int = 512  # of a logical block, in bytes
    read_only: bool = False
    write_through: bool = False
    thick: bool = False  # fully provisioned: initiators cannot give space back
    background_rate: Size = NO_LIMIT  # bytes per second that SANITIZE and FORMAT UNIT write at most
    soft_threshold: Size = NO_WARNING  # initiators are warned when so little, or less, is left on its file system
    protection: int = 0  # type of protection information (DIF): 1, 2 or 3; 0: none
    removable: bool = False  # initiators may eject its medium and load it
    pool: str = ""  # instead of `path`: the name of the pool that it is in,
    volume: str = ""  # what it is called there, if otherwise,
    snapshot: str = ""  # and which snapshot of it this is, if not itself
    format: str = RAW  # of the file: raw, vhd, vhdx, qcow2, vmdk, …; auto: whichever image it is
    backing: str = ""  # directory where files may be that an image of QEMU's formats stands on; "": nowhere
    stack: str = ""  # instead of `path`: layers that stand on each other (block/stack.py)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What it takes for itself alone. Of one whose stack has no names and is known to make sense."""
        if self.stack:
            return _claims(self.stack)
        return (Claim(f"pool:{self.source}" if self.pool else f"file:{self.path}"),)

    @property
    def pools(self) -> set[str]:
        """The pools that it has something of."""
        kinds = (claim.what.partition(":")[::2] for claim in self.claims)
        return {what.partition("/")[0] for kind, what in kinds if kind == "pool"}

    @property
    def layers(self) -> str:
        """The stack that it is, as text; "" where what it is cannot be said so."""
        if self.stack:
            return self.stack
        kind = "pool" if self.pool else _LEAVES.get(self.format, "")
        return str(Call(kind, (Word(self.source, not self.pool),))) if kind else ""

    @property
    def in_pool(self) -> str:
        """What it is called in its pool."""
        return self.volume or self.name

    @property
    def source(self) -> str:
        """What is shown, as people write it: a path, POOL/VOLUME, POOL/VOLUME@SNAPSHOT or a stack."""
        if not self.pool:
            return self.path or self.stack
        return f"{self.pool}/{self.in_pool}{f'@{self.snapshot}' if self.snapshot else ''}"


_LEAVES = {RAW: "file", VHD: "vhd", VHDX: "vhdx"}  # what files of a format are as layers


@lru_cache(4096)
def _claims(stack: str) -> tuple[Claim, ...]:
    return tuple(understood(stack, {}).claims())


@dataclass(frozen=True)
class Library:
    """A tape library: a media changer with drives, as the LUNs of a target."""

    name: str
    directory: str  # where its cartridges are; it is made when it is missing
    model: str = "blockyard"  # what it gives itself out for
    drive_model: str = ""  # and what its drives do; "": what goes with the library
    drives: int = 1
    slots: int = 10
    import_export: int = 1  # elements through which cartridges are brought in and taken away

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.model not in LIBRARIES:
            raise ValueError(f"model is one of {', '.join(LIBRARIES)}, not {self.model!r}")
        if self.drive_model and self.drive_model not in DRIVES:
            raise ValueError(f"drive_model is one of {', '.join(DRIVES)}, not {self.drive_model!r}")
        model = LIBRARIES[self.model]
        for option, first, least in (("drives", model.drives, 1), ("slots", model.slots, 1),
                                     ("import_export", model.import_export, 0)):  # fmt: skip
            others = (model.transport, model.drives, model.slots, model.import_export, 1 << 16)
            most = min(other for other in others if other > first) - first  # addresses end where others begin
            if not least <= getattr(self, option) <= most:
                raise ValueError(f"{option}: a {self.model} has {least} to {most}, not {getattr(self, option)}")


@dataclass(frozen=True)
class Drive:
    """An optical drive as a logical unit."""

    name: str
    image: str = ""  # what is in it at first; "": nothing
    kind: str = AUTO  # the kind of disc that images are shown as: by their sizes, unless something else was said
    jukebox: str = ""  # a directory of images that are known by their names
    uuid: str = ""  # its identity for initiators; control fills in what the state database has

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.kind != AUTO and self.kind not in IMAGES:
            raise ValueError(f"kind is {', '.join(IMAGES)} or {AUTO}, not {self.kind!r}")


@dataclass(frozen=True)
class PortalGroup:
    """Network portals that lead to the same sessions (RFC 7143 §4.3)."""

    portals: tuple[str, ...]  # ADDR:PORT


@dataclass(frozen=True)
class AccessPath:
    """How the portal group of a target is as a target port group, until somebody changes it (SPC-5, asymmetric access)."""

    state: str = AccessState.ACTIVE_OPTIMIZED.text
    preferred: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.state not in STATES:
            raise ValueError(f"state is one of {', '.join(STATES)}, not {self.state!r}")


@dataclass(frozen=True)
class Redirect:
    """Where logins are sent instead (RFC 7143 §11.13.5)."""

    to: str  # HOST:PORT
    permanent: bool = False
    portals: tuple[str, ...] = ()  # only for logins that come by these; none: for all


@dataclass(frozen=True)
class Target:
    """An iSCSI target node."""

    name: str
    luns: dict[int, str] = field(default_factory=dict)  # LUN → name of a volume or drive
    alias: str = ""
    portal_groups: tuple[int, ...] = (PORTAL_GROUP,)  # tags
    access: tuple[Rule, ...] = ()  # the first that matches an initiator decides; none: everybody may do everything
    redirect: Redirect | None = None
    alua: dict[int, AccessPath] = field(default_factory=dict)  # tag → how it begins
    max_connections: int = 16  # of a session, at most
    error_recovery_level: int = 0  # at most: many initiators offer 2, which costs them the short cut for READ and WRITE
    library: str = ""  # instead of `luns`: a tape library, its changer as LUN 0 and its drives after it

    @property
    def preferences(self) -> Preferences:
        """What it wishes for at login. State is kept for lost connections where tasks can be reassigned to others."""
        return Preferences(
            target_alias=self.alias,
            max_connections=self.max_connections,
            error_recovery_level=self.error_recovery_level,
            default_time2retain=TIME2RETAIN if self.error_recovery_level == 2 else 0,
        )

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for tag in self.alua:
            if tag not in self.portal_groups:
                raise ValueError(f"alua.{tag}: the target has portal groups {', '.join(map(str, self.portal_groups))}")

    @property
    def target_port_groups(self) -> dict[int, TargetPortGroup]:
        return {tag: TargetPortGroup(STATES[path.state], path.preferred) for tag, path in self.alua.items()}

    @property
    def entry(self) -> Entry:
        """The target as discovery and login know it."""
        if self.redirect is None:
            return Entry(self.name, self.portal_groups)
        moved = Moved(self.redirect.to, self.redirect.permanent)
        return Entry(self.name, self.portal_groups, moved, frozenset(self.redirect.portals))

    @property
    def volumes(self) -> set[str]:
        """The names of all volumes and drives that it shows to anybody."""
        return set(self.luns.values()).union(*(rule.luns.values() for rule in self.access))


@dataclass(frozen=True)
class Host:
    """A machine that logs in, and what it is known by: rules of access name it."""

    name: str
    initiators: tuple[str, ...] = ()  # iSCSI names, or patterns of them
    addresses: tuple[str, ...] = ()  # single ones, or networks as ADDR/BITS
    users: tuple[str, ...] = ()  # CHAP names
    mutual: bool = False  # it has to let the target prove itself as well
    note: str = ""  # for people

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not (self.initiators or self.addresses or self.users):
            raise ValueError("a host is known by something: initiators, addresses or users")
        self.rule(Rule())

    def rule(self, rule: Rule) -> Rule:
        """What a rule says that names this host."""
        return replace(
            rule,
            hosts=(),
            initiators=self.initiators,
            addresses=self.addresses,
            users=self.users,
            mutual=self.mutual or rule.mutual,
        )


@dataclass(frozen=True)
class Authentication:
    """What CHAP may use, most wanted first, and whose order decides: that of each initiator, or this one."""

    chap_algorithms: tuple[str, ...] = tuple(algorithm.name for algorithm in ALGORITHMS.values())
    preference: str = "initiator"

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not self.chap_algorithms:
            raise ValueError("chap_algorithms is empty: nobody could authenticate")
        if self.preference not in ("initiator", "target"):
            raise ValueError(f"preference is initiator or target, not {self.preference!r}")
        for name in self.chap_algorithms:
            if _plain(name) not in _ALGORITHMS:
                raise ValueError(f"CHAP has {', '.join(row.name for row in ALGORITHMS.values())}, not {name!r}")

    @property
    def policy(self) -> Policy:
        numbers = tuple(_ALGORITHMS[_plain(name)] for name in self.chap_algorithms)
        return Policy(numbers, ours_first=self.preference == "target")


def _plain(name: str) -> str:
    """The name of an algorithm, however it is written: sha256, SHA-256."""
    return name.upper().replace("-", "")


_ALGORITHMS = {_plain(algorithm.name): algorithm.number for algorithm in ALGORITHMS.values()}


@dataclass(frozen=True)
class Discovery:
    """Who may ask which targets there are: rules like those of a target, apart from them. None: everybody."""

    access: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for rule in self.access:
            if rule.right not in (Right.FULL, Right.REFUSE) or rule.luns:
                raise ValueError(
                    "in discovery there is nothing to read or write: a right is full or refuse, without luns"
                )


@dataclass(frozen=True)
class Isns:
    """A storage name server in whose directory targets and portals are registered (RFC 4171)."""

    server: str  # ADDR:PORT
    entity: str = ""  # what this target system is called there; "": a name made up once


@dataclass(frozen=True)
class Metrics:
    """Where Prometheus fetches metrics, by HTTP."""

    listen: str  # ADDR:PORT


@dataclass(frozen=True)
class Api:
    """Where the API and the console are, by HTTP; by HTTPS wherever other machines can get at them."""

    listen: str  # ADDR:PORT; "": nowhere
    certificate: str = ""  # PEM file, with all that leads to a known authority; "": one of our own making
    key: str = ""  # PEM file of its key
    hosts: tuple[str, ...] = ()  # names that it goes by, besides its address: of a proxy before it
    http: str = ""  # ADDR:PORT, usually port 80: plain HTTP for ACME's challenges, which leads all others to HTTPS
    paths: tuple[str, ...] = ()  # directories and devices that volumes, pools and layers may be made of; none: any

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together: give both, or neither")


@dataclass(frozen=True)
class Schedule:
    """Snapshots of volumes of pools that are taken by themselves, and deleted when others have come (pool/schedule.py)."""

    name: str  # what the names of its snapshots begin with
    at: str  # when: "hourly", "daily at 02:00" …
    volumes: tuple[str, ...]  # POOL/VOLUME, with * and ? for any
    keep: Retention = field(default_factory=Retention)
    zone: str = "UTC"  # of the times in `at`, and of the days and weeks in `keep`

    def __post_init__(self) -> None:
        """Raises ValueError."""
        check_snapshot_name(snapshot_name(self.name, 0.0))
        parse(self.at)
        zone(self.zone)
        for pattern in self.volumes:
            pool, slash, volume = pattern.partition("/")
            if not (pool and slash and volume):
                raise ValueError(f"volumes: {pattern!r} is not POOL/VOLUME: write for example fast/vm-*")
        if not self.volumes:
            raise ValueError("volumes is empty: a schedule is for volumes")


@dataclass(frozen=True)
class Configuration:
    """All that is served: what the configuration file has."""

    portal_groups: dict[int, PortalGroup] = field(default_factory=dict)  # by tag
    volumes: dict[str, Volume] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    discovery: Discovery = Discovery()
    auth: Authentication = Authentication()
    isns: Isns | None = None
    pools: dict[str, Pool] = field(default_factory=dict)
    libraries: dict[str, Library] = field(default_factory=dict)
    schedules: dict[str, Schedule] = field(default_factory=dict)
    drives: dict[str, Drive] = field(default_factory=dict)
    metrics: Metrics | None = None
    telemetry: Telemetry | None = None
    api: Api | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    layers: dict[str, DeclaredLayer] = field(default_factory=dict)
    events: Receivers = field(default_factory=Receivers)  # where events are delivered to

    @property
    def declared(self) -> dict[str, Written]:
        """The layers that stacks have by their names."""
        return {name: layer.written for name, layer in self.layers.items()}

    def shared_by(self, volume: str) -> set[str]:
        """What all who use a volume or drive share: its pools, what its layers stand on, or itself."""
        if volume in self.drives:
            return {f"drive {volume}"}
        found = self.volumes[volume]
        layers = {claim.what for claim in found.claims if claim.parts}
        return {f"volume {volume}", *layers, *(f"pool {pool}" for pool in found.pools)}

    @property
    def portals(self) -> list[Portal]:
        """Of all groups."""
        return [portal_from(text) for group in self.portal_groups.values() for text in group.portals]

    def directory(self) -> Directory:
        """Targets and portals as discovery and login know them."""
        groups = {tag: map(portal_from, group.portals) for tag, group in self.portal_groups.items()}
        return Directory((target.entry for target in self.targets.values()), groups)


@dataclass(frozen=True)
class Settled(Configuration):
    """A configuration together with what control has found out and decided: what workers are told.

    Volumes have identities and absolute paths, portals the ports that they really have.
    """

    relative_ports: dict[str, dict[int, int]] = field(default_factory=dict)  # target → tag → identifier (SPC-5)
    units_directory: str = ""  # where logical units keep what outlives the process (scsi/durable.py); "": nowhere

    def part(self, share: Share) -> Settled:
        """What a worker has to know that serves this share."""
        chosen = {name: self.targets[name] for name in share.targets}
        shown = set().union(*(target.volumes for target in chosen.values()))
        volumes = {name: volume for name, volume in self.volumes.items() if name in shown}
        drives = {name: drive for name, drive in self.drives.items() if name in shown}
        pools = {name: self.pools[name] for name in share.pools}
        libraries = {target.library: self.libraries[target.library] for target in chosen.values() if target.library}
        ports = {name: self.relative_ports[name] for name in chosen if name in self.relative_ports}
        return replace(
            self, pools=pools, drives=drives, volumes=volumes, libraries=libraries, targets=chosen, relative_ports=ports
        )


class Share(NamedTuple):
    """Targets and pools that one worker has, by their names."""

    targets: list[str]
    pools: list[str]


def components(configuration: Configuration) -> list[Share]:
    """What belongs together: targets that share a volume, pool or library, be it by way of others, and those pools.

    A pool of which no target shows anything stands alone.
    """
    found: dict[int, tuple[list[str], set[str]]] = {}  # by the target that came last: targets, and all that they use
    place: dict[str, int] = {}  # what is used → where it is in `found`
    for number, target in enumerate(configuration.targets.values()):
        names, used = [target.name], set().union(*map(configuration.shared_by, target.volumes))
        used |= {f"library {target.library}"} if target.library else set()
        for other in {place[each] for each in used & place.keys()}:
            other_names, other_used = found.pop(other)
            names = other_names + names
            used |= other_used
        found[number] = names, used
        place.update(dict.fromkeys(used, number))
    pools = {f"pool {name}": name for name in configuration.pools}
    shares = [Share(names, [pools[each] for each in pools if each in used]) for names, used in found.values()]
    return shares + [Share([], [name]) for used, name in pools.items() if used not in place]
