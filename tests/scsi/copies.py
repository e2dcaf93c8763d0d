"""What an initiator sends and reads for third-party copies."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple
from uuid import uuid4

from blockyard.block.device import Device
from blockyard.scsi.designators import unit_designators
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.target import Target
from blockyard.scsi.tokens import TokenStore
from blockyard.scsi.unit import Identity, LogicalUnit
from tests.scsi.host import NAME, Host, ready_host


def server(
    *devices: Device, block_sizes: Sequence[int] = (), protection: Sequence[int] = (), tokens: TokenStore | None = None
) -> Target:
    """A target with a disk for each device, from LUN 0 on."""
    store = tokens or TokenStore()
    units = {
        lun: LogicalUnit(
            device,
            identity=Identity(uuid4(), f"disk {lun}"),
            block_size=block_sizes[lun] if block_sizes else 512,
            protection=protection[lun] if protection else 0,
            tokens=store,
        )
        for lun, device in enumerate(devices)
    }
    return Target(NAME, units)


def hosts(*devices: Device, block_sizes: Sequence[int] = (), protection: Sequence[int] = ()) -> list[Host]:
    """One host's nexuses with as many disks of one target."""
    target = server(*devices, block_sizes=block_sizes, protection=protection)
    return [ready_host(target, lun) for lun in target.luns.units]


def cscd(
    unit: PrimaryUnit, *, number: int = 0, pad: bool = False, kind: int = 0, block_length: int | None = None
) -> bytes:
    """An identification descriptor CSCD descriptor, by designator `number` of VPD page 83h."""
    designator = unit_designators(unit.identity)[number]
    length = unit.block_length if block_length is None else block_length
    tail = bytes([pad << 2]) + length.to_bytes(3, "big")
    return bytes([0xE4, kind, 0, 0]) + designator.ljust(24, b"\0") + tail


def segment(
    source: int,
    destination: int,
    count: int,
    from_lba: int,
    to_lba: int,
    *,
    cat: bool = False,
    dc: bool = False,
) -> bytes:
    """A block device to block device segment descriptor (02h)."""
    return struct.pack(">BBHHHxxHQQ", 0x02, dc << 1 | cat, 24, source, destination, count, from_lba, to_lba)


def segment_with_offsets(
    source: int, destination: int, length: int, start: tuple[int, int], to: tuple[int, int], *, cat: bool = False
) -> bytes:
    """The same of bytes, with (block, offset) of both ends (0Ah)."""
    return struct.pack(">BBHHHIQQHH", 0x0A, cat, 28, source, destination, length, start[0], to[0], start[1], to[1])


def verify(source: int, *, tur: bool = True) -> bytes:
    """A verify CSCD segment descriptor (07h)."""
    return struct.pack(">BxHHxxB3x", 0x07, 8, source, tur)


def lid1(
    cscds: Sequence[bytes], segments: Sequence[bytes], *, list_id: int = 1, usage: int = 0, inline: bytes = b""
) -> bytes:
    """The parameter list of EXTENDED COPY (LID1)."""
    targets, body = b"".join(cscds), b"".join(segments)
    head = struct.pack(">BBH4xII", list_id, usage << 3, len(targets), len(body), len(inline))
    return head + targets + body + inline


def lid4(
    cscds: Sequence[bytes], segments: Sequence[bytes], *, list_id: int = 1, usage: int = 0, immediate: bool = False
) -> bytes:
    """The parameter list of EXTENDED COPY (LID4)."""
    targets, body = b"".join(cscds), b"".join(segments)
    head = struct.pack(">BBH11xBB3xI18xHHH", 1, usage << 3, 0x20, immediate, 0xFF, list_id, len(targets), len(body), 0)
    assert len(head) == 48
    return head + targets + body


def extended_copy(length: int, action: int = 0) -> bytes:
    return struct.pack(">BB8xIxx", 0x83, action, length)


def receive(action: int, list_id: int = 1, length: int = 65536) -> bytes:
    """RECEIVE COPY RESULTS: its list identifier is one byte where the service action is one of LID1."""
    identifier = bytes([list_id, 0, 0, 0]) if action < 5 else list_id.to_bytes(4, "big")
    return bytes([0x84, action]) + identifier + bytes(4) + length.to_bytes(4, "big") + bytes(2)


def copy_abort(list_id: int = 1) -> bytes:
    return struct.pack(">BBI8xxx", 0x83, 0x1C, list_id)


def send_copy(host: Host, parameters: bytes, action: int = 0) -> None:
    host.ok(extended_copy(len(parameters), action), parameters)


class Aborted(NamedTuple):
    """COPY ABORTED sense data: ASC and ASCQ, segment, byte in its descriptor, and what an end said: which, status, sense."""

    asc: int
    segment: int
    byte: int | None
    end: str
    status: int
    sense: bytes


def copy_aborted(sense: bytes) -> Aborted:
    """Take sense data apart, in either format."""
    end, status, forwarded, byte = "", 0, b"", None
    if sense[0] == 0x70:
        assert sense[2] == 0x0A
        assert sense[7] == len(sense) - 8
        at = sense[8] or sense[9]
        if at:
            end, status, forwarded = ("source" if sense[8] else "destination"), sense[at], sense[at + 1 :]
        if sense[15]:
            assert sense[15] == 0xA0
            byte = int.from_bytes(sense[16:18], "big")
        return Aborted(
            int.from_bytes(sense[12:14], "big"), int.from_bytes(sense[10:12], "big"), byte, end, status, forwarded
        )
    assert sense[:2] == b"\x72\x0a"
    assert sense[7] == len(sense) - 8
    number = -1
    at = 8
    while at < len(sense):
        kind, body = sense[at], sense[at + 2 : at + 2 + sense[at + 1]]
        if kind == 0x01:
            number = int.from_bytes(body[4:6], "big")
        elif kind == 0x02:
            assert body[2] == 0xA0
            byte = int.from_bytes(body[3:5], "big")
        elif kind == 0x0C:
            end, status, forwarded = {1: "source", 2: "destination"}[body[0]], body[1], body[2:]
        at += 2 + len(body)
    return Aborted(int.from_bytes(sense[2:4], "big"), number, byte, end, status, forwarded)


def fail_copy(host: Host, parameters: bytes, action: int = 0) -> Aborted:
    """Send EXTENDED COPY; it must end with COPY ABORTED."""
    result = host.send(extended_copy(len(parameters), action), parameters)
    assert result.sense, result
    return copy_aborted(result.sense)


# ---- ROD tokens

LIST_ID = 0x01020304


def _token_cdb(action: int, list_id: int, length: int) -> bytes:
    return struct.pack(">BB4xIIxx", 0x83, action, list_id, length)


def _ranges(ranges: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack(">QI4x", lba, count) for lba, count in ranges)


def populate_list(
    *ranges: tuple[int, int], kind: int | None = None, timeout: int = 0, immediate: bool = False
) -> bytes:
    """The parameter list of POPULATE TOKEN."""
    body = _ranges(ranges)
    flags = (kind is not None) << 1 | immediate
    return struct.pack(">HBxII2xH", 14 + len(body), flags, timeout, kind or 0, len(body)) + body


def write_list(
    token: bytes, *ranges: tuple[int, int], offset: int = 0, delete: bool = False, immediate: bool = False
) -> bytes:
    """The parameter list of WRITE USING TOKEN."""
    body = _ranges(ranges)
    head = struct.pack(">HB5xQ512s6xH", 534 + len(body), delete << 1 | immediate, offset, token, len(body))
    return head + body


def populate(length: int, list_id: int = LIST_ID) -> bytes:
    return _token_cdb(0x10, list_id, length)


def write_using(length: int, list_id: int = LIST_ID) -> bytes:
    return _token_cdb(0x11, list_id, length)


class RodStatus(NamedTuple):
    """RECEIVE ROD TOKEN INFORMATION, taken apart."""

    action: int
    status: int
    completion: int
    blocks: int  # TRANSFER COUNT
    sense: bytes
    token: bytes


def rod_status(host: Host, list_id: int = LIST_ID) -> RodStatus:
    data = host.ok(receive(7, list_id))
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[15] == 0xF1  # TRANSFER COUNT UNITS: blocks
    end = 32 + data[13]
    length = int.from_bytes(data[end : end + 4], "big")
    assert end + 4 + length == len(data)
    assert length in (0, 514)
    return RodStatus(
        data[4], data[5], data[12], int.from_bytes(data[16:24], "big"), data[32 : 32 + data[14]], data[end + 6 :]
    )


def make_token(
    host: Host,
    *ranges: tuple[int, int],
    kind: int | None = None,
    timeout: int = 0,
) -> bytes:
    """A token for blocks of a disk, as Windows gets one."""
    parameters = populate_list(*ranges, kind=kind, timeout=timeout)
    host.ok(populate(len(parameters)), parameters)
    status = rod_status(host)
    assert (status.action, status.status, status.completion) == (0x10, 1, 0)
    assert status.blocks == sum(count for _, count in ranges)
    return status.token


def use_token(host: Host, token: bytes, *ranges: tuple[int, int], offset: int = 0, delete: bool = False) -> RodStatus:
    """Write blocks by a token; it must succeed."""
    parameters = write_list(token, *ranges, offset=offset, delete=delete)
    host.ok(write_using(len(parameters)), parameters)
    status = rod_status(host)
    assert (status.action, status.status, status.completion) == (0x11, 1, 0)
    return status
