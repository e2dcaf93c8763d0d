"""POPULATE TOKEN, WRITE USING TOKEN and ROD tokens."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from blockyard.block.faults import Fault, FaultDevice, Operation
from blockyard.block.memory import MemoryDevice
from blockyard.block.overlay import Budget, OverlayDevice
from blockyard.scsi import limits, tokens
from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.tokens import TokenStore
from tests.scsi.copies import (
    LIST_ID,
    cscd,
    hosts,
    lid1,
    make_token,
    populate,
    populate_list,
    receive,
    rod_status,
    segment,
    send_copy,
    server,
    use_token,
    write_list,
    write_using,
)
from tests.scsi.host import (
    Host,
    compare_and_write,
    get_lba_status,
    inquiry,
    memory,
    parse_sense,
    ready_host,
    unmap,
    unmap_list,
    write_same_16,
)

_SIZE = 1 << 20
_ZERO_TOKEN = struct.pack(">IHH504x", tokens.ZERO, 0, 0x1F8)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pair() -> list[Host]:
    return hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE))


@pytest.fixture
def clocked() -> tuple[Clock, list[Host]]:
    clock = Clock()
    target = server(MemoryDevice(_SIZE), MemoryDevice(_SIZE), tokens=TokenStore(clock))
    return clock, [ready_host(target, lun) for lun in target.luns.units]


def refused(host: Host, token: bytes, asc: Asc, *ranges: tuple[int, int], offset: int = 0) -> None:
    parameters = write_list(token, *(ranges or ((0, 1),)), offset=offset)
    host.fail(write_using(len(parameters)), SenseKey.ILLEGAL_REQUEST, asc, parameters)


# ---- data


def test_a_copy_from_disk_to_disk(pair: list[Host]) -> None:
    source, destination = pair
    data = os.urandom(300 * 512)
    source.write(10, data)
    token = make_token(source, (10, 100), (210, 100), (110, 100))
    status = use_token(destination, token, (5, 150), (500, 150))
    assert status.blocks == 300
    copied = destination.read(5, 150) + destination.read(500, 150)
    assert copied == data[: 100 * 512] + data[200 * 512 :] + data[100 * 512 : 200 * 512]


def test_parts_of_a_token(pair: list[Host]) -> None:
    source, destination = pair
    data = os.urandom(100 * 512)
    source.write(0, data)
    token = make_token(source, (0, 30), (40, 60))
    for offset, count, lba in ((0, 10, 0), (25, 10, 100), (89, 1, 200)):
        use_token(destination, token, (lba, count), offset=offset)
    stream = data[: 30 * 512] + data[40 * 512 :]
    assert destination.read(100, 10) == stream[25 * 512 : 35 * 512]
    assert destination.read(200, 1) == stream[89 * 512 :]


def test_much_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPY_PIECE", 64 << 10)
    source, destination = hosts(MemoryDevice(4 << 20), MemoryDevice(4 << 20))
    data = os.urandom(4 << 20)
    source.disk.device.pwritev([data], 0)
    token = make_token(source, (1, 5000), (6000, 2000))
    use_token(destination, token, (3, 6999), (7100, 1))
    assert destination.read(3, 6999) == data[512 : 5001 * 512] + data[6000 * 512 : 7999 * 512]


def test_between_block_sizes() -> None:
    small, large = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE), block_sizes=(512, 4096))
    data = os.urandom(64 * 512)
    small.write(0, data)
    use_token(large, make_token(small, (0, 64)), (2, 7), offset=1)
    assert large.read(2, 7) == data[4096:]


def test_protected_blocks_are_copied_whole() -> None:
    large, small = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE), block_sizes=(4096, 512), protection=(1, 0))
    data = os.urandom(8 * 4096)
    large.disk.device.pwritev([data], 0)
    token = make_token(large, (0, 4), (6, 2))
    use_token(small, token, (1, 48))
    assert small.read(1, 48) == data[: 4 * 4096] + data[6 * 4096 :]
    parameters = write_list(token, (1, 4), offset=3)
    small.fail(write_using(len(parameters)), SenseKey.COPY_ABORTED, Asc.COPY_SEGMENT_GRANULARITY_VIOLATION, parameters)


def test_holes_arrive_as_holes(pair: list[Host]) -> None:
    source, destination = pair
    source.write(64, b"x" * 4096)
    destination.write(0, b"y" * 128 * 512)
    use_token(destination, make_token(source, (0, 128)), (0, 128))
    answer = destination.ok(get_lba_status(0))
    assert [struct.unpack_from(">QIB", answer, at) for at in (8, 24)] == [(0, 64, 1), (64, 8, 0)]


def test_the_zero_token(pair: list[Host]) -> None:
    host = pair[0]
    host.write(0, b"x" * 64 * 512)
    status = use_token(host, _ZERO_TOKEN, (8, 16), (40, 8))
    assert status.blocks == 24
    assert host.read(0, 64) == b"x" * 4096 + bytes(8192) + b"x" * 8192 + bytes(4096) + b"x" * 8192
    answer = host.ok(get_lba_status(8))
    assert struct.unpack_from(">QIB", answer, 8) == (8, 16, 1)


def test_nothing_to_do(pair: list[Host]) -> None:
    host = pair[0]
    host.ok(populate(0))
    host.ok(write_using(0))
    token = make_token(host, (5, 0))
    use_token(host, token, (0, 0))


def test_immediate(pair: list[Host]) -> None:
    source, destination = pair
    source.write(0, b"x" * 512)
    parameters = populate_list((0, 1), immediate=True)
    source.ok(populate(len(parameters)), parameters)
    parameters = write_list(rod_status(source).token, (9, 1), immediate=True)
    destination.ok(write_using(len(parameters)), parameters)
    assert rod_status(destination).status == 1
    assert destination.read(9, 1) == b"x" * 512


# ---- what a token looks like


def test_the_format_of_a_token(pair: list[Host]) -> None:
    token = make_token(pair[0], (0, 4), (8, 4))
    assert len(token) == 512
    assert struct.unpack_from(">IHH", token) == (tokens.CHANGE_VULNERABLE, 0, 504)
    designator = pair[0].ok(inquiry(0x83))[4:16]
    assert token[16] == 0xE4
    assert token[20:32] == designator
    assert int.from_bytes(token[48:64], "big") == 8 * 512
    assert token[96:103] == bytes.fromhex("00000200 00 00 c3")
    assert token[128:140] == designator
    assert make_token(pair[0], (0, 4))[8:16] != token[8:16]


@pytest.mark.parametrize(
    ("asked", "made"),
    [(0x00800000, 0x00800000), (0x00800001, 0x00800001), (0x0080FFFF, 0x00800001), (None, 0x00800001)],
)
def test_types(pair: list[Host], asked: int | None, made: int) -> None:
    assert int.from_bytes(make_token(pair[0], (0, 1), kind=asked)[:4], "big") == made


@pytest.mark.parametrize("kind", [0, 0x00010000, 0x00800002, tokens.ZERO, 0xFFFFFFFF])
def test_types_that_are_not_made(pair: list[Host], kind: int) -> None:
    parameters = populate_list((0, 1), kind=kind)
    pair[0].fail(
        populate(len(parameters)),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE,
        parameters,
        pointer=(False, 8, None),
    )


def test_all_tokens_of_a_unit(pair: list[Host]) -> None:
    source, destination = pair
    assert source.ok(receive(8, 0)) == struct.pack(">II", 4, 0)
    made = [make_token(source, (0, 1)), make_token(source, (1, 1))]
    data = source.ok(receive(8, 0))
    assert data == struct.pack(">II", 4 + 2 * 96, 0) + made[0][:96] + made[1][:96]
    assert destination.ok(receive(8, 0)) == struct.pack(">II", 4, 0)


# ---- tokens that cannot be used


def test_a_forged_token_is_worth_nothing(pair: list[Host]) -> None:
    token = make_token(pair[0], (0, 8))
    for at in (0, 3, 50, 63, 100, 300, 480, 511):
        forged = bytearray(token)
        forged[at] ^= 0x01
        parameters = write_list(bytes(forged), (0, 1))
        result = pair[1].send(write_using(len(parameters)), parameters)
        sense = parse_sense(result.sense)
        assert (sense.key, sense.asc >> 8) == (SenseKey.ILLEGAL_REQUEST, 0x23), at
    guessed = bytearray(token)
    guessed[8:16] = os.urandom(8)
    refused(pair[1], bytes(guessed), Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)
    refused(pair[1], token[:6] + b"\x01\xf0" + token[8:], Asc.INVALID_TOKEN_OPERATION_INVALID_TOKEN_LENGTH)
    refused(pair[1], b"\x00\x01" + token[2:], Asc.INVALID_TOKEN_OPERATION_UNSUPPORTED_TOKEN_TYPE)
    refused(pair[1], token[:511] + bytes([token[511] ^ 1]), Asc.INVALID_TOKEN_OPERATION_TOKEN_CORRUPT)


def test_what_a_management_token_lists_makes_no_token(pair: list[Host]) -> None:
    token = make_token(pair[0], (0, 8))
    refused(pair[1], token[:96] + bytes(416), Asc.INVALID_TOKEN_OPERATION_TOKEN_CORRUPT)


def test_tokens_of_another_process_are_unknown(pair: list[Host]) -> None:
    (other,) = hosts(MemoryDevice(_SIZE))
    refused(other, make_token(pair[0], (0, 1)), Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)


def _send_unmap(host: Host) -> None:
    data = unmap_list((20, 1))
    host.ok(unmap(len(data)), data)


@pytest.mark.parametrize(
    "change",
    [
        lambda host: host.write(20, bytes(512)),
        lambda host: host.write(0, bytes(11 * 512)),
        lambda host: host.ok(write_same_16(29, 1), bytes(512)),
        lambda host: host.ok(compare_and_write(15, 1), bytes(1024)),
        _send_unmap,
        lambda host: send_copy(host, lid1([cscd(host.disk)], [segment(0, 0, 1, 100, 12)])),
        lambda host: use_token(host, _ZERO_TOKEN, (25, 100)),
    ],
)
def test_a_write_into_its_ranges_revokes_a_token(pair: list[Host], change) -> None:  # type: ignore[no-untyped-def]
    source, destination = pair
    token = make_token(source, (10, 20))
    use_token(destination, token, (0, 20))
    change(source)
    refused(destination, token, Asc.INVALID_TOKEN_OPERATION_TOKEN_REVOKED)


def test_other_writes_leave_it_alone(pair: list[Host]) -> None:
    source, destination = pair
    source.write(10, b"x" * 20 * 512)
    token = make_token(source, (10, 20))
    source.write(0, b"y" * 10 * 512)
    source.write(30, b"y" * 512)
    destination.write(10, b"y" * 512)
    use_token(destination, token, (0, 20))
    assert destination.read(0, 20) == b"x" * 20 * 512


def test_a_token_over_its_own_blocks_is_revoked_by_its_use(pair: list[Host]) -> None:
    host = pair[0]
    token = make_token(host, (10, 20))
    parameters = write_list(token, (20, 20))
    host.fail(
        write_using(len(parameters)),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_TOKEN_OPERATION_TOKEN_REVOKED,
        parameters,
    )
    assert rod_status(host).status == 2


def test_the_short_cut_for_writes_is_closed_while_there_are_tokens(tmp_path: object) -> None:
    clock = Clock()
    target = server(MemoryDevice(_SIZE), tokens=TokenStore(clock))
    host = ready_host(target)
    host.disk.device.fd = 99
    host.disk.update()
    assert host.disk.fast_write
    make_token(host, (0, 1), timeout=5)
    assert not host.disk.fast_write
    clock.now += 5
    host.disk.tokens.expire()
    assert host.disk.fast_write
    make_token(host, (0, 1))
    host.write(0, bytes(512))
    host.disk.tokens.expire()
    assert host.disk.fast_write


def test_inactivity(clocked: tuple[Clock, list[Host]]) -> None:
    clock, (source, destination) = clocked
    token = make_token(source, (0, 4), timeout=30)
    standard = make_token(source, (0, 4))
    for _ in range(3):
        clock.now += 29
        use_token(destination, token, (0, 1))
    refused(destination, standard, Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
    clock.now += 30
    refused(destination, token, Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
    clock.now += 1000
    refused(destination, token, Asc.INVALID_TOKEN_OPERATION_TOKEN_EXPIRED)
    destination.disk.tokens.expire()
    refused(destination, token, Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)


def test_a_timeout_that_is_too_long(pair: list[Host]) -> None:
    parameters = populate_list((0, 1), timeout=limits.MAX_TOKEN_TIMEOUT + 1)
    pair[0].fail(
        populate(len(parameters)),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_FIELD_IN_PARAMETER_LIST,
        parameters,
        pointer=(False, 4, None),
    )


def test_a_token_that_was_deleted(pair: list[Host]) -> None:
    token = make_token(pair[0], (0, 4))
    use_token(pair[1], token, (0, 4), delete=True)
    refused(pair[1], token, Asc.INVALID_TOKEN_OPERATION_TOKEN_DELETED)
    assert not pair[0].disk.rods


def test_the_token_not_used_for_longest_is_cancelled(pair: list[Host], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TOKENS", 3)
    made = [make_token(pair[0], (number, 1)) for number in range(3)]
    use_token(pair[1], made[0], (0, 1))
    make_token(pair[0], (9, 1))
    use_token(pair[1], made[0], (0, 1))
    refused(pair[1], made[1], Asc.INVALID_TOKEN_OPERATION_TOKEN_UNKNOWN)
    assert len(pair[0].disk.rods) == 3


def test_tokens_of_a_unit_that_is_closed(pair: list[Host]) -> None:
    token = make_token(pair[0], (0, 4))
    pair[0].disk.close()
    refused(pair[1], token, Asc.INVALID_TOKEN_OPERATION_TOKEN_REVOKED)


def test_an_overlay_makes_no_tokens() -> None:
    (host,) = hosts(OverlayDevice(MemoryDevice(_SIZE), budget=Budget(_SIZE)))
    parameters = populate_list((0, 1))
    host.fail(
        populate(len(parameters)),
        SenseKey.ILLEGAL_REQUEST,
        Asc.INVALID_TOKEN_OPERATION_CAUSE_NOT_REPORTABLE,
        parameters,
    )


# ---- the destination says no


def test_a_protected_destination() -> None:
    source, destination = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE, read_only=True))
    parameters = write_list(make_token(source, (0, 1)), (0, 1))
    destination.fail(write_using(len(parameters)), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, parameters)
    zeros = write_list(_ZERO_TOKEN, (0, 1))
    destination.fail(write_using(len(zeros)), SenseKey.DATA_PROTECT, Asc.WRITE_PROTECTED, zeros)
    assert rod_status(destination).status == 2


def test_out_of_space_is_told_with_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COPY_PIECE", 64 << 10)
    full = FaultDevice(MemoryDevice(_SIZE), [Fault(Operation.WRITE, offset=128 << 10, errno=errno.ENOSPC)])
    source, destination = hosts(MemoryDevice(_SIZE), full)
    source.write(0, b"x" * (512 << 10))
    parameters = write_list(make_token(source, (0, 1024)), (0, 1024))
    destination.fail(
        write_using(len(parameters)),
        SenseKey.DATA_PROTECT,
        Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
        parameters,
    )
    status = rod_status(destination)
    assert (status.status, status.completion, status.blocks) == (2, 2, 256)
    assert parse_sense(status.sense).asc == Asc.SPACE_ALLOCATION_FAILED_WRITE_PROTECT


def test_a_source_that_cannot_be_read() -> None:
    source, destination = hosts(FaultDevice(MemoryDevice(_SIZE)), MemoryDevice(_SIZE))
    source.write(0, b"x" * 512)
    token = make_token(source, (0, 1))
    source.disk.device.inject(Fault(Operation.READ, errno=errno.EIO))  # type: ignore[attr-defined]
    parameters = write_list(token, (0, 1))
    destination.fail(write_using(len(parameters)), SenseKey.MEDIUM_ERROR, Asc.UNRECOVERED_READ_ERROR, parameters)


# ---- parameter lists that are wrong


def test_lists_that_are_cut_short(pair: list[Host]) -> None:
    host = pair[0]
    token = make_token(host, (0, 1))
    for whole, cdb in ((populate_list((0, 1)), populate), (write_list(token, (0, 1)), write_using)):
        for length in (1, 15, len(whole) - 1):
            host.fail(cdb(length), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, whole[:length])
        host.fail(cdb(len(whole)), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, whole[:-1])
        longer = (len(whole) + 14).to_bytes(2, "big") + whole[2:]
        host.fail(cdb(len(whole)), SenseKey.ILLEGAL_REQUEST, Asc.PARAMETER_LIST_LENGTH_ERROR, longer)
        shorter = b"\x00\x1d" + whole[2:]
        host.fail(cdb(len(whole)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, shorter)


@pytest.mark.parametrize(
    ("ranges", "asc"),
    [
        ([(2048, 1)], Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        ([(0, 1), (2047, 2)], Asc.LOGICAL_BLOCK_ADDRESS_OUT_OF_RANGE),
        ([(0, 5), (4, 5)], Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        ([(4, 5), (8, 1), (100, 1)], Asc.INVALID_FIELD_IN_PARAMETER_LIST),
        ([(number, 1) for number in range(limits.TOKEN_RANGES + 1)], Asc.TOO_MANY_SEGMENT_DESCRIPTORS),
    ],
)
def test_ranges_that_are_wrong(pair: list[Host], ranges: list[tuple[int, int]], asc: Asc) -> None:
    host = pair[0]
    for parameters, cdb in ((populate_list(*ranges), populate), (write_list(_ZERO_TOKEN, *ranges), write_using)):
        host.fail(cdb(len(parameters)), SenseKey.ILLEGAL_REQUEST, asc, parameters)


def test_more_than_a_token_may_represent() -> None:
    host = memory()
    host.disk.blocks = 1 << 40
    parameters = populate_list((0, (limits.TOKEN_BYTES >> 9) + 1))
    host.fail(populate(len(parameters)), SenseKey.ILLEGAL_REQUEST, Asc.INVALID_FIELD_IN_PARAMETER_LIST, parameters)


def test_more_than_a_token_represents(pair: list[Host]) -> None:
    token = make_token(pair[0], (0, 10))
    for ranges, offset in (((0, 11), 0), ((0, 1), 10), ((0, 10), 1)):
        refused(pair[1], token, Asc.INVALID_FIELD_IN_PARAMETER_LIST, ranges, offset=offset)


def test_a_list_identifier_belongs_to_a_nexus(pair: list[Host]) -> None:
    make_token(pair[0], (0, 1))
    other = ready_host(pair[0].target, 0, "iqn.test:other")
    other.invalid(receive(7, LIST_ID), 2, 7)
