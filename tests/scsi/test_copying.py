"""EXTENDED COPY and RECEIVE COPY RESULTS."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.information import MemoryStore
from blockyard.block.memory import MemoryDevice
from blockyard.block.protected import ProtectedDevice
from blockyard.scsi import limits
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import LunMap
from blockyard.scsi.task import Status
from tests.scsi.copies import (
    copy_abort,
    cscd,
    extended_copy,
    fail_copy,
    hosts,
    lid1,
    lid4,
    receive,
    segment,
    segment_with_offsets,
    send_copy,
    server,
    verify,
)
from tests.scsi.host import Host, get_lba_status, mode_select_6, parse_sense, ready_host, start_stop

_SIZE = 1 << 20
_BAD_LIST = Asc.INVALID_FIELD_IN_PARAMETER_LIST


@pytest.fixture
def pair() -> list[Host]:
    return hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE))


def both(pair: list[Host]) -> list[bytes]:
    return [cscd(host.disk) for host in pair]


def illegal(host: Host, parameters: bytes, asc: Asc, byte: int | None = None, action: int = 0) -> None:
    """The parameter list is refused before anything is copied."""
    sense = host.fail(extended_copy(len(parameters), action), SenseKey.ILLEGAL_REQUEST, asc, parameters)
    if byte is not None:
        assert sense.pointer is not None
        assert sense.pointer[:2] == (False, byte)


# ---- what is copied


@pytest.mark.parametrize("designator", [0, 3])  # NAA, UUID: the forms that have room in a CSCD descriptor
def test_from_unit_to_unit(pair: list[Host], designator: int) -> None:
    source, destination = pair
    data = os.urandom(100 * 512)
    source.write(7, data)
    names = [cscd(host.disk, number=designator) for host in pair]
    send_copy(source, lid1(names, [segment(0, 1, 100, 7, 3)]))
    assert destination.read(0, 110) == bytes(3 * 512) + data + bytes(7 * 512)
    send_copy(destination, lid4(names, [segment(0, 1, 100, 7, 500)]), 1)  # whichever of them gets the command
    assert destination.read(500, 100) == data


def test_within_one_unit_by_its_own_identifier(pair: list[Host]) -> None:
    host = pair[0]
    data = os.urandom(8 * 512)
    host.write(0, data)
    send_copy(host, lid1([], [segment(0xFFFF, 0xFFFF, 8, 0, 100)]))
    assert host.read(100, 8) == data


@pytest.mark.parametrize("distance", [-5, 5])
def test_ranges_that_overlap(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPY_PIECE", 4096)
    (host,) = hosts(MemoryDevice(_SIZE))
    data = os.urandom(200 * 512)
    host.write(300, data)
    send_copy(host, lid1([cscd(host.disk)], [segment(0, 0, 200, 300, 300 + distance)]))
    assert host.read(300 + distance, 200) == data


def test_several_segments_in_order(pair: list[Host]) -> None:
    source, destination = pair
    source.write(0, b"a" * 512 + b"b" * 512)
    segments = [segment(0, 1, 1, 0, 9), segment(0, 1, 1, 1, 9), segment(1, 0, 1, 9, 50), segment(0, 1, 0, 0, 0)]
    send_copy(source, lid1(both(pair), segments))
    assert destination.read(9, 1) == source.read(50, 1) == b"b" * 512


def test_much(monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = hosts(MemoryDevice(20 << 20), MemoryDevice(20 << 20))
    data = os.urandom(1 << 20) * 18
    source.disk.device.pwritev([data], 512)
    segments = [segment(0, 1, 30000, 1, 3), segment(0, 1, 6864, 30001, 30003)]
    send_copy(source, lid1(both([source, destination]), segments))
    copied = bytearray(len(data))
    destination.disk.device.preadv([memoryview(copied)], 3 * 512)
    assert copied == data


def test_holes_stay_holes(pair: list[Host]) -> None:
    source, destination = pair
    source.write(64, b"x" * 4096)
    destination.write(0, b"y" * 256 * 512)
    send_copy(source, lid1(both(pair), [segment(0, 1, 256, 0, 0)]))
    answer = destination.ok(get_lba_status(0))
    runs = [struct.unpack_from(">QIB", answer, at) for at in range(8, len(answer), 16)]
    assert runs == [(0, 64, 1), (64, 8, 0), (72, 1976, 1)]


def test_nothing_to_do(pair: list[Host]) -> None:
    pair[0].ok(extended_copy(0))
    pair[0].ok(extended_copy(0, 1))
    send_copy(pair[0], lid1([], []))
    send_copy(pair[0], lid1(both(pair), [segment(0, 1, 0, 2048, 0)]))


def test_bytes_with_offsets(pair: list[Host]) -> None:
    source, destination = pair
    data = os.urandom(4096)
    source.write(0, data)
    destination.write(0, b"." * 4096)
    send_copy(source, lid1(both(pair), [segment_with_offsets(0, 1, 1000, (1, 100), (2, 7))]))
    assert destination.read(0, 8) == b"." * 1031 + data[612:1612] + b"." * 2065


def test_between_disks_with_protection_information() -> None:
    """It is checked where bytes come from and made where they go to, also of blocks that change in part."""
    devices = [ProtectedDevice(MemoryDevice(_SIZE), MemoryStore(), block_size=512, kind=1) for _ in range(2)]
    pair = hosts(*devices)
    data = os.urandom(4096)
    pair[0].write(0, data)
    pair[1].write(0, b"." * 4096)
    send_copy(pair[0], lid1(both(pair), [segment(0, 1, 8, 0, 100), segment_with_offsets(0, 1, 1000, (1, 100), (2, 7))]))
    assert pair[1].read(100, 8) == data
    assert pair[1].read(0, 8) == b"." * 1031 + data[612:1612] + b"." * 2065
    devices[0].below.pwritev([b"damage"], 1024)
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 1, 8, 0, 200)]))
    assert (aborted.end, aborted.status) == ("source", Status.CHECK_CONDITION)
    assert pair[1].read(200, 8) == bytes(4096)


def test_a_destination_without_write_cache_is_flushed_once() -> None:
    flushes = Fault(Operation.FLUSH)
    pair = hosts(MemoryDevice(_SIZE), FaultDevice(MemoryDevice(_SIZE), [flushes]))
    caching = bytes(4) + bytes.fromhex("08 12 00 00" + "00" * 16)
    pair[1].ok(mode_select_6(len(caching)), caching)
    before = flushes.hits
    send_copy(pair[0], lid1(both(pair), [segment(0, 1, 8, 0, 0), segment(0, 1, 8, 0, 8)]))
    assert flushes.hits == before + 1


# ---- block sizes that differ: DC, PAD, CAT


@pytest.fixture
def mixed() -> list[Host]:
    return hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE), block_sizes=(512, 4096))


def test_counts_are_of_source_or_destination_blocks(mixed: list[Host]) -> None:
    small, large = mixed
    data = os.urandom(4 * 4096)
    small.write(0, data)
    send_copy(small, lid1(both(mixed), [segment(0, 1, 16, 0, 0), segment(0, 1, 2, 16, 2, dc=True)]))
    assert large.read(0, 4) == data
    send_copy(small, lid1(both(mixed), [segment(1, 0, 4, 0, 100), segment(1, 0, 8, 1, 200, dc=True)]))
    assert small.read(100, 32) == data
    assert small.read(200, 8) == data[4096:8192]


def test_an_inexact_segment_is_refused(mixed: list[Host]) -> None:
    small, large = mixed
    small.write(0, b"x" * 4608)
    aborted = fail_copy(small, lid1(both(mixed), [segment(0, 1, 8, 0, 0), segment(0, 1, 9, 0, 0)]))
    assert (aborted.asc, aborted.segment, aborted.byte) == (Asc.UNEXPECTED_INEXACT_SEGMENT, 1, 1)
    assert large.read(0, 2) == b"x" * 4096 + bytes(4096)


def test_padding_of_the_destination(mixed: list[Host]) -> None:
    small, large = mixed
    small.write(0, b"x" * 4608)
    large.write(0, b"y" * 12288)
    padded = [cscd(small.disk), cscd(large.disk, pad=True)]
    send_copy(small, lid1(padded, [segment(0, 1, 9, 0, 0)]))
    assert large.read(0, 3) == b"x" * 4608 + bytes(3584) + b"y" * 4096


def test_padding_of_the_source_drops_what_is_left(mixed: list[Host]) -> None:
    small, large = mixed
    small.write(0, b"x" * 4608)
    large.write(0, b"y" * 8192)
    padded = [cscd(small.disk, pad=True), cscd(large.disk)]
    send_copy(small, lid1(padded, [segment(0, 1, 9, 0, 0)]))
    assert large.read(0, 2) == b"x" * 4096 + b"y" * 4096
    send_copy(small, lid1([padded[1], padded[0]], [segment(0, 1, 3, 0, 600, dc=True)]))
    assert small.read(600, 4) == b"x" * 1536 + bytes(512)


def test_residual_data_goes_on_in_the_next_segment(mixed: list[Host]) -> None:
    small, large = mixed
    data = os.urandom(24 * 512)
    small.write(0, data)
    segments = [segment(0, 1, 3, 0, 0, cat=True), segment(0, 1, 14, 3, 0, cat=True), segment(0, 1, 7, 17, 2)]
    send_copy(small, lid1(both(mixed), segments))
    assert large.read(0, 3) == data
    back = [segment(1, 0, 3, 0, 300, cat=True, dc=True), segment(1, 0, 5, 1, 303, cat=True, dc=True)]
    send_copy(small, lid1(both(mixed), back))
    assert small.read(300, 8) == data[:4096]


# ---- protection information


@pytest.mark.parametrize("protection", [(1, 0), (0, 1), (1, 1), (3, 3)])
@pytest.mark.parametrize("block_sizes", [(512, 512), (512, 4096), (4096, 512)])
def test_protected_units_copy_whole_blocks(protection: tuple[int, int], block_sizes: tuple[int, int]) -> None:
    size = 10 << 20
    pair = hosts(MemoryDevice(size), MemoryDevice(size), block_sizes=block_sizes, protection=protection)
    source, destination = pair
    data = os.urandom(1 << 20) * 5
    source.disk.device.pwritev([data], 1 << 20)
    small, large = block_sizes
    begins, ends = (4096 * 3 + 512 if max(block_sizes) == 512 else 4096 * 3) // small, 4096 * 5 // large + 1
    count = (9 << 20) // large
    send_copy(source, lid1(both(pair), [segment(0, 1, count, begins, ends, dc=True)]))
    copied, expected = bytearray(count * large), bytearray(count * large)
    destination.disk.device.preadv([memoryview(copied)], ends * large)
    source.disk.device.preadv([memoryview(expected)], begins * small)
    assert copied == expected


@pytest.mark.parametrize("protection", [(1, 0), (0, 1)])
def test_parts_of_protected_blocks_are_refused(protection: tuple[int, int]) -> None:
    pair = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE), protection=protection)
    parameters = lid1(both(pair), [segment_with_offsets(0, 1, 1024, (0, 8), (0, 8))])
    aborted = fail_copy(pair[0], parameters)
    assert aborted.asc == Asc.COPY_SEGMENT_GRANULARITY_VIOLATION
    send_copy(pair[0], lid1(both(pair), [segment_with_offsets(0, 1, 1024, (1, 512), (2, 0))]))
    assert pair[protection.index(1)].ok(receive(3))[37] == 9
    assert pair[protection.index(0)].ok(receive(3))[37] == 0


# ---- who may copy what (CVE-2020-28374)


def test_a_unit_that_the_initiator_does_not_see_is_not_reachable() -> None:
    everything = server(MemoryDevice(_SIZE), MemoryDevice(_SIZE), MemoryDevice(_SIZE))
    units = everything.luns.units
    ready_host(everything, 2).write(0, b"secret  " * 64)
    everything.luns = LunMap({0: units[0], 1: units[1]})
    host = ready_host(everything)
    names = [cscd(units[0]), cscd(units[2])]
    aborted = fail_copy(host, lid1(names, [segment(1, 0, 1, 0, 0)]))
    assert (aborted.asc, aborted.segment, aborted.byte) == (Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, 0, 4)
    assert host.read(0, 1) == bytes(512)
    aborted = fail_copy(host, lid1(names, [segment(0, 0, 1, 5, 9), segment(0, 1, 1, 0, 0)]))
    assert (aborted.asc, aborted.segment, aborted.byte) == (Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, 1, 6)
    assert fail_copy(host, lid1(names, [verify(1)])).asc == Asc.COPY_TARGET_DEVICE_NOT_REACHABLE


def test_each_initiator_reaches_what_its_own_map_has() -> None:
    everything = server(MemoryDevice(_SIZE), MemoryDevice(_SIZE))
    units = everything.luns.units
    names = [cscd(units[0]), cscd(units[1])]
    all_of_it = everything.luns
    everything.luns = LunMap({7: units[0]})
    narrow = ready_host(everything, 7, "iqn.test:narrow")
    everything.luns = all_of_it
    wide = ready_host(everything, 0, "iqn.test:wide")
    send_copy(wide, lid1(names, [segment(0, 1, 1, 0, 0)]))
    assert fail_copy(narrow, lid1(names, [segment(0, 1, 1, 0, 0)])).asc == Asc.COPY_TARGET_DEVICE_NOT_REACHABLE


def test_a_name_that_is_nobodys(pair: list[Host]) -> None:
    name = bytearray(cscd(pair[1].disk))
    name[12] ^= 1
    aborted = fail_copy(pair[0], lid1([cscd(pair[0].disk), bytes(name)], [segment(0, 1, 1, 0, 0)]))
    assert aborted.asc == Asc.COPY_TARGET_DEVICE_NOT_REACHABLE


def test_the_target_port_is_no_name_of_a_unit(pair: list[Host]) -> None:
    name = bytearray(cscd(pair[1].disk))
    name[5] |= 0x10  # ASSOCIATION: target port
    aborted = fail_copy(pair[0], lid1([cscd(pair[0].disk), bytes(name)], [segment(0, 1, 1, 0, 0)]))
    assert aborted.asc == Asc.COPY_TARGET_DEVICE_NOT_REACHABLE


def _register(host: Host, key: int) -> None:
    parameters = bytes(8) + key.to_bytes(8, "big") + bytes(8)
    host.ok(struct.pack(">BBBxxIx", 0x5F, 0x00, 0, 24), parameters)


def _reserve(host: Host, key: int, kind: int) -> None:
    parameters = key.to_bytes(8, "big") + bytes(16)
    host.ok(struct.pack(">BBBxxIx", 0x5F, 0x01, kind, 24), parameters)


@pytest.mark.parametrize(
    ("kind", "reserved", "end"),
    [(1, 1, "destination"), (1, 0, ""), (3, 0, "source"), (3, 1, "destination"), (5, 1, "destination"), (5, 0, "")],
)
def test_reservations_of_others_are_respected(kind: int, reserved: int, end: str) -> None:
    target = server(MemoryDevice(_SIZE), MemoryDevice(_SIZE), MemoryDevice(_SIZE))
    copier = ready_host(target, 2)
    units = target.luns.units
    other = ready_host(target, reserved, "iqn.test:other")
    _register(other, 0xABC)
    _reserve(other, 0xABC, kind)
    parameters = lid1([cscd(units[0]), cscd(units[1])], [segment(0, 1, 1, 0, 0)])
    if not end:
        send_copy(copier, parameters)
        return
    aborted = fail_copy(copier, parameters)
    assert (aborted.asc, aborted.segment) == (Asc.NO_ADDITIONAL_SENSE_INFORMATION, 0)
    assert (aborted.end, aborted.status, aborted.sense) == (end, Status.RESERVATION_CONFLICT, b"")


def test_ones_own_reservations_are_no_obstacle(pair: list[Host]) -> None:
    for host in pair:
        _register(host, 1)
        _reserve(host, 1, 3)
    send_copy(pair[0], lid1(both(pair), [segment(0, 1, 1, 0, 0)]))


def test_a_protected_destination() -> None:
    pair = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE, read_only=True))
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 1, 1, 0, 0)]))
    assert (aborted.end, aborted.status) == ("destination", Status.CHECK_CONDITION)
    sense = parse_sense(aborted.sense)
    assert (sense.key, sense.asc) == (SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED)
    send_copy(pair[0], lid1(both(pair), [segment(1, 0, 1, 0, 0)]))


def test_an_initiator_that_may_only_read(pair: list[Host]) -> None:
    pair[1].nexus.read_only = True
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 1, 1, 0, 0)]))
    assert parse_sense(aborted.sense).asc == Asc.WRITE_PROTECTED
    pair[0].nexus.read_only = True
    parameters = lid1(both(pair), [segment(0, 0, 1, 0, 0)])
    pair[0].fail(extended_copy(len(parameters)), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, parameters)


# ---- what goes wrong on the way


def test_ends_that_are_not_ready(pair: list[Host]) -> None:
    pair[1].ok(start_stop(0))
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 1, 1, 0, 0)]))
    assert (aborted.end, parse_sense(aborted.sense).key) == ("destination", SenseKey.NOT_READY)
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(1, 0, 1, 0, 0)]))
    assert (aborted.end, parse_sense(aborted.sense).key) == ("source", SenseKey.NOT_READY)
    aborted = fail_copy(pair[0], lid1(both(pair), [verify(0), verify(1)]))
    assert (aborted.end, aborted.segment) == ("source", 1)
    send_copy(pair[0], lid1(both(pair), [verify(1, tur=False)]))


@pytest.mark.parametrize(
    ("cut", "end"),
    [
        (segment(0, 1, 2, 2047, 0), "source"),
        (segment(0, 1, 2, 0, 2047), "destination"),
        (segment(0, 1, 1, 1 << 63, 0), "source"),
        (segment(0, 1, 0, 0, 2049), "destination"),
        (segment_with_offsets(0, 1, 513, (2047, 0), (0, 0)), "source"),
        (segment_with_offsets(0, 1, 512, (0, 0), (2047, 1)), "destination"),
    ],
)
def test_beyond_the_end(pair: list[Host], cut: bytes, end: str) -> None:
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 1, 1, 0, 0), cut]))
    assert (aborted.end, aborted.segment) == (end, 1)
    assert parse_sense(aborted.sense).asc == Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("operation", "number", "end", "key", "asc"),
    [
        (Operation.READ, errno.EIO, "source", SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR),
        (Operation.WRITE, errno.EIO, "destination", SenseKey.MEDIUM_ERROR, Asc.WRITE_ERROR),
        (
            Operation.WRITE,
            errno.ENOSPC,
            "destination",
            SenseKey.DATA_PROTECT,
            Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        ),
    ],
)
@pytest.mark.parametrize("descriptor", [False, True])
def test_media_that_fail(
    operation: Operation, number: int, end: str, key: SenseKey, asc: Asc, descriptor: bool
) -> None:
    devices = [FaultDevice(MemoryDevice(_SIZE)), FaultDevice(MemoryDevice(_SIZE))]
    pair = hosts(*devices)
    if descriptor:
        control = bytes(4) + bytes.fromhex("0a 0a 06 10 00 00 00 00 ffff 0000")
        pair[0].ok(mode_select_6(len(control)), control)
    pair[0].write(0, b"x" * 512)
    devices[0 if operation is Operation.READ else 1].inject(Fault(operation, errno=number))
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 1, 8, 0, 0)]))
    sense = parse_sense(aborted.sense)
    assert (aborted.end, sense.key, sense.asc, sense.descriptor) == (end, key, asc, descriptor)


# ---- parameter lists that are wrong


def test_descriptors_of_other_kinds(pair: list[Host]) -> None:
    names = both(pair)
    illegal(pair[0], lid1([b"\xe0" + names[0][1:]], []), Asc.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE_CODE, 16)
    stream = b"\x03\x00\x00\x10" + bytes(16)
    illegal(
        pair[0],
        lid1(names, [segment(0, 1, 1, 0, 0), stream]),
        Asc.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE_CODE,
        16 + 64 + 28,
    )


def test_too_many_descriptors(pair: list[Host]) -> None:
    host = pair[0]
    name = cscd(host.disk)
    send_copy(host, lid1([name] * limits.COPY_CSCDS, [segment(0, 0, 0, 0, 0)] * limits.COPY_SEGMENTS))
    illegal(host, lid1([name] * (limits.COPY_CSCDS + 1), []), Asc.TOO_MANY_TARGET_DESCRIPTORS)
    many = [segment(0, 0, 0, 0, 0)] * (limits.COPY_SEGMENTS + 1)
    illegal(host, lid1([name], many), Asc.TOO_MANY_SEGMENT_DESCRIPTORS)
    illegal(host, lid1([], [bytes(limits.COPY_LIST_LENGTH + 1)]), Asc.PARAMETER_LIST_LENGTH_ERROR)
    host.fail(extended_copy(1 << 31), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR)


def test_lists_that_are_cut_short(pair: list[Host]) -> None:
    for make, action in ((lid1, 0), (lid4, 1)):
        whole = make(both(pair), [segment(0, 1, 1, 0, 0)])
        for length in range(1, len(whole)):
            illegal(pair[0], whole[:length], Asc.PARAMETER_LIST_LENGTH_ERROR, action=action)
        result = pair[0].send(extended_copy(len(whole), action), whole[:-1])
        assert parse_sense(result.sense).asc == Asc.PARAMETER_LIST_LENGTH_ERROR


@pytest.mark.parametrize(
    ("change", "byte", "action"),
    [
        (lambda data: data.__setitem__(1, 0b01 << 3), 1, 0),  # LIST ID USAGE
        (lambda data: data.__setitem__(1, 0b11 << 3), 0, 0),  # no list identifier, but there is one
        (lambda data: data.__setitem__(16 + 7, 21), 23, 0),  # DESIGNATOR LENGTH
        (lambda data: data.__setitem__(16 + 30, 0x10), 16 + 29, 0),  # DISK BLOCK LENGTH
        (lambda data: data.__setitem__(16 + 64 + 3, 25), 16 + 64 + 2, 0),  # DESCRIPTOR LENGTH
        (lambda data: data.__setitem__(0, 2), 0, 1),  # PARAMETER LIST FORMAT
        (lambda data: data.__setitem__(3, 0x21), 2, 1),
        (lambda data: data.__setitem__(16, 0xE4), 16, 1),
        (lambda data: data.__setitem__(1, 0b11 << 3), 20, 1),
    ],
)
def test_bad_parameters(pair: list[Host], change: Callable[[bytearray], None], byte: int, action: int) -> None:
    parameters = bytearray((lid4 if action else lid1)(both(pair), [segment(0, 1, 1, 0, 0)]))
    change(parameters)
    illegal(pair[0], bytes(parameters), _BAD_LIST, byte, action)


def test_inline_data_is_not_supported(pair: list[Host]) -> None:
    illegal(pair[0], lid1(both(pair), [], inline=b"abcd"), Asc.INLINE_DATA_LENGTH_EXCEEDED, 12)


def test_cscd_identifiers_that_stand_for_nothing(pair: list[Host]) -> None:
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0, 2, 1, 0, 0)]))
    assert (aborted.asc, aborted.byte) == (Asc.UNREACHABLE_COPY_TARGET, 6)
    aborted = fail_copy(pair[0], lid1(both(pair), [segment(0xC000, 1, 1, 0, 0)]))
    assert (aborted.asc, aborted.byte) == (Asc.UNREACHABLE_COPY_TARGET, 4)


def test_a_cscd_that_is_no_disk(pair: list[Host]) -> None:
    names = [cscd(pair[0].disk), cscd(pair[1].disk, kind=1)]
    aborted = fail_copy(pair[0], lid1(names, [segment(0, 1, 1, 0, 0)]))
    assert (aborted.asc, aborted.byte) == (Asc.INCORRECT_COPY_TARGET_DEVICE_TYPE, 6)


def test_a_segment_that_is_too_long() -> None:
    pair = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE))
    length = limits.COPY_SEGMENT + 1
    aborted = fail_copy(pair[0], lid1(both(pair), [segment_with_offsets(0, 1, length, (0, 0), (0, 0))]))
    assert aborted.asc == _BAD_LIST


# ---- RECEIVE COPY RESULTS


def test_operating_parameters(pair: list[Host]) -> None:
    data = pair[0].ok(receive(3))
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert data[4] == 1
    values = struct.unpack_from(">HHIIIII", data, 8)
    assert values == (limits.COPY_CSCDS, limits.COPY_SEGMENTS, limits.COPY_LIST_LENGTH, limits.COPY_SEGMENT, 0, 0, 0)
    assert struct.unpack_from(">HBBBB", data, 34) == (limits.COPIES, limits.COPIES, 0, 0, 0)
    assert data[44:] == bytes([0x02, 0x07, 0x0A, 0xE4])
    assert data[43] == len(data) - 44
    assert pair[0].ok(receive(3, length=8)) == data[:8]


def test_status_of_copies(pair: list[Host]) -> None:
    host = pair[0]
    for action in (0, 1, 4, 5, 6, 7):
        host.invalid(receive(action, 5), 2, 7)
    send_copy(host, lid1(both(pair), [segment(0, 1, 3, 0, 0), segment(0, 1, 5, 0, 0)], list_id=5))
    assert host.ok(receive(0, 5)) == struct.pack(">IBHBI", 8, 1, 2, 0, 8 * 512)
    assert host.ok(receive(1, 5)) == bytes(4)
    host.invalid(receive(4, 5), 2, 7)  # nothing has failed
    host.invalid(receive(7, 5), 2, 7)  # no token was asked for
    pair[1].invalid(receive(0, 5), 2, 7)  # it was another unit that copied
    data = host.ok(receive(5, 5))
    assert data == struct.pack(">IBBHIBBBBQH6x", 28, 0, 1, 1, 0xFFFFFFFE, 0, 0, 0, 0, 8 * 512, 2)
    assert host.ok(receive(6, 5)) == bytes(4)


def test_results_that_are_not_to_be_held(pair: list[Host]) -> None:
    host = pair[0]
    send_copy(host, lid1(both(pair), [segment(0, 1, 3, 0, 0)], list_id=5, usage=2))
    host.invalid(receive(0, 5), 2, 7)
    send_copy(host, lid1(both(pair), [segment(0, 1, 3, 0, 0)], list_id=0, usage=3))
    host.invalid(receive(0, 0), 2, 7)
    fail_copy(host, lid1(both(pair), [segment(0, 9, 3, 0, 0)], list_id=5, usage=2))  # failures are held
    assert host.ok(receive(0, 5))[4] == 2


def test_details_of_a_failure_are_told_once(pair: list[Host]) -> None:
    host = pair[0]
    parameters = lid1(both(pair), [segment(0, 1, 3, 0, 0), segment(0, 1, 1, 4096, 0)], list_id=9)
    result = host.send(extended_copy(len(parameters)), parameters)
    assert host.ok(receive(0, 9)) == struct.pack(">IBHBI", 8, 2, 1, 0, 3 * 512)
    status = host.ok(receive(5, 9))
    assert status[5] == 2
    assert status[12:15] == bytes([Status.CHECK_CONDITION, len(result.sense), len(result.sense)])
    assert status[32:] == result.sense
    details = host.ok(receive(4, 9))
    assert int.from_bytes(details[:4], "big") == len(details) - 4
    assert details[56] == Status.CHECK_CONDITION
    assert details[60:] == result.sense
    assert int.from_bytes(details[58:60], "big") == len(result.sense)
    host.invalid(receive(4, 9), 2, 7)


def test_results_belong_to_a_nexus() -> None:
    target = server(MemoryDevice(_SIZE))
    one, two = ready_host(target), ready_host(target, 0, "iqn.test:two")
    send_copy(one, lid1([], [segment(0xFFFF, 0xFFFF, 1, 0, 8)]))
    two.invalid(receive(0), 2, 7)
    one.unit.detach(one.nexus)
    one.unit.attach(one.nexus)
    one.invalid(receive(0), 2, 7)


def test_a_reset_forgets_results(pair: list[Host]) -> None:
    host = pair[0]
    send_copy(host, lid1(both(pair), [segment(0, 1, 1, 0, 0)]))
    host.unit.reset()
    host.fail(receive(0), SenseKey.UNIT_ATTENTION, Asc.BUS_DEVICE_RESET_FUNCTION_OCCURRED)
    host.invalid(receive(0), 2, 7)


def test_the_oldest_results_make_room(pair: list[Host]) -> None:
    host = pair[0]
    for number in range(limits.COPIES + 3):
        send_copy(host, lid4([], [segment(0xFFFF, 0xFFFF, 1, 0, 8)], list_id=number), 1)
    host.invalid(receive(5, 2), 2, 7)
    host.ok(receive(5, 3))


def test_immediate_copies(pair: list[Host]) -> None:
    host = pair[0]
    host.write(0, b"x" * 512)
    send_copy(host, lid4(both(pair), [segment(0, 1, 1, 0, 8)], list_id=0x12345678, immediate=True), 1)
    assert host.ok(receive(5, 0x12345678))[5] == 1
    assert pair[1].read(8, 1) == b"x" * 512
    illegal(host, lid4(both(pair), [], list_id=0, usage=3, immediate=True), _BAD_LIST, 15, action=1)


def test_an_abort_of_what_has_ended_changes_nothing(pair: list[Host]) -> None:
    host = pair[0]
    host.invalid(copy_abort(1), 2, 7)
    send_copy(host, lid1(both(pair), [segment(0, 1, 1, 0, 0)]))
    host.ok(copy_abort(1))
    assert host.ok(receive(0))[4] == 1
