"""Several hosts on one logical unit, with what PERSISTENT RESERVE IN and OUT look like on the wire."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.durable import Durable
from blockyard.scsi.nexus import target_port
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.task import Result, Status
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.host import NAME, TEST_UNIT_READY, UUID_1, Host, parse_sense, ready_host

REGISTER, RESERVE, RELEASE, CLEAR, PREEMPT, PREEMPT_AND_ABORT, REGISTER_AND_IGNORE, MOVE, REPLACE_LOST = range(9)
WE, EA, WERO, EARO, WEAR, EAAR = TYPES = (1, 3, 5, 6, 7, 8)
APTPL, ALL_TG_PT, SPEC_I_PT = 1, 4, 8


def shared_disk(directory: Path | None = None, ports: int = 2) -> Target:
    """A target with one disk and some portal groups; what outlives it goes to `directory`."""
    unit = LogicalUnit(
        MemoryDevice(1 << 20), identity=Identity(UUID_1, "disk"), durable=Durable(directory, UUID_1), removable=True
    )
    return Target(NAME, {0: unit}, [target_port(NAME, tag) for tag in range(1, ports + 1)])


def join(target: Target, name: str, tag: int = 1) -> Host:
    """A host called `name` that comes through a portal group, past its first unit attention."""
    return ready_host(target, 0, f"iqn.test:{name}", tag)


def pr_in(action: int, length: int = 8192) -> bytes:
    return struct.pack(">BBxxxxxHx", 0x5E, action, length)


def pr_out(action: int, kind: int = 0, length: int = 24, scope: int = 0) -> bytes:
    return struct.pack(">BBBxxIx", 0x5F, action, scope << 4 | kind, length)


def parameters(key: int, new_key: int = 0, flags: int = 0) -> bytes:
    return struct.pack(">QQ4xBxxx", key, new_key, flags)


def do(host: Host, action: int, key: int, new_key: int = 0, *, kind: int = 0, flags: int = 0) -> Result:
    """PERSISTENT RESERVE OUT with a basic parameter list."""
    return host.send(pr_out(action, kind), parameters(key, new_key, flags))


def good(host: Host, action: int, key: int, new_key: int = 0, *, kind: int = 0, flags: int = 0) -> None:
    result = do(host, action, key, new_key, kind=kind, flags=flags)
    assert result.status == Status.GOOD, parse_sense(result.sense) if result.sense else result


def conflicts(result: Result) -> bool:
    return result.status == Status.RESERVATION_CONFLICT


def keys(host: Host) -> list[int]:
    data = host.ok(pr_in(0))
    assert int.from_bytes(data[4:8], "big") == len(data) - 8
    return [int.from_bytes(data[at : at + 8], "big") for at in range(8, len(data), 8)]


def generation(host: Host) -> int:
    return int.from_bytes(host.ok(pr_in(0))[:4], "big")


def reservation(host: Host) -> tuple[int, int] | None:
    """Key and type, with the scope above it, of the reservation."""
    data = host.ok(pr_in(1))
    if not int.from_bytes(data[4:8], "big"):
        return None
    assert len(data) == 24
    assert int.from_bytes(data[4:8], "big") == 16
    return int.from_bytes(data[8:16], "big"), data[21]


class Registrant(NamedTuple):
    """One descriptor of READ FULL STATUS."""

    key: int
    holds: bool
    kind: int
    relative_port: int
    initiator: str


def full_status(host: Host) -> list[Registrant]:
    data = host.ok(pr_in(3, 65535))
    assert int.from_bytes(data[4:8], "big") == len(data) - 8
    found, at = [], 8
    while at < len(data):
        key, flags, kind, port, length = struct.unpack_from(">Q4xBB4xHI", data, at)
        head, name_length = struct.unpack_from(">BxH", data, at + 24)
        assert (head, name_length) == (0x45, length - 4)
        name = data[at + 28 : at + 24 + length]
        found.append(Registrant(key, bool(flags & 1), kind, port, name.rstrip(b"\0").decode()))
        at += 24 + length
    return found


def attentions(host: Host) -> list[Asc]:
    """What is pending for a host, one TEST UNIT READY each."""
    found = []
    while (result := host.send(TEST_UNIT_READY)).status == Status.CHECK_CONDITION:
        sense = parse_sense(result.sense)
        assert sense.key == SenseKey.UNIT_ATTENTION
        found.append(Asc(sense.asc))
    assert result.status == Status.GOOD
    return found


def transport_id(name: str, isid: str | None = "00023d000000") -> bytes:
    """A TransportID of a port, or with None of a node (SPC-4 7.6.4.6)."""
    text = (name if isid is None else f"{name},i,0x{isid}").encode() + b"\0"
    text = text.ljust(max(20, len(text) + -len(text) % 4), b"\0")
    return struct.pack(">BxH", 0x05 | (0 if isid is None else 0x40), len(text)) + text
