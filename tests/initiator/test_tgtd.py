"""The initiator against tgtd."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import pytest

from blockyard.initiator import (
    PREFERENCES,
    LoginError,
    PortalAddress,
    ScsiError,
    SenseKey,
    SessionLost,
    Status,
    connect,
    default_initiator_name,
    discover,
    inquiry,
    open_session,
    parse_portal,
)
from blockyard.iscsi.negotiation import Preferences
from blockyard.iscsi.pdu import LogoutReason, TaskFunction
from tests.initiator.conftest import SIZE, Tgtd

BLOCK = 512
DATA = random.Random(1).randbytes(700 * BLOCK)


def test_discovery(tgtd: Tgtd) -> None:
    (target,) = discover(tgtd.portal, timeout=120)
    assert target.name == tgtd.name
    assert target.portals == [(PortalAddress("127.0.0.1", tgtd.port), 1)]


def test_everyday_commands(tgtd: Tgtd) -> None:
    with connect(tgtd.url(), timeout=120) as lun:
        lun.test_unit_ready()
        capacity = lun.capacity()
        assert (capacity.blocks, capacity.block_size, capacity.size) == (SIZE // BLOCK, BLOCK, SIZE)
        assert lun.luns() == [0, 1]
        assert inquiry.decode_standard(lun.inquiry())["product"] == "VIRTUAL-DISK"
        lun.write(5, DATA, fua=True)
        lun.flush()
        assert lun.read(5, len(DATA) // BLOCK) == DATA
    assert tgtd.image.read_bytes()[5 * BLOCK : 5 * BLOCK + len(DATA)] == DATA


@pytest.mark.parametrize("size", [1 << 20, 8 << 20])
def test_transfers_of_many_commands(tgtd: Tgtd, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with connect(tgtd.url(), timeout=120) as lun:
        lun.write(1000, data)
        assert lun.read(1000, size // BLOCK) == data


@pytest.mark.parametrize(("initial_r2t", "immediate_data"), list(product((False, True), repeat=2)))
@pytest.mark.parametrize("bursts", [(512, 512), (4096, 65536), (262144, 1048576), (1536, 7680)])
@pytest.mark.parametrize("segment", [512, 8192, 262144])
def test_every_way_of_sending_data(
    tgtd: Tgtd, initial_r2t: bool, immediate_data: bool, bursts: tuple[int, int], segment: int
) -> None:
    preferences = replace(
        PREFERENCES,
        initial_r2t=initial_r2t,
        immediate_data=immediate_data,
        first_burst_length=bursts[0],
        max_burst_length=bursts[1],
        max_recv_data_segment_length=segment,
    )
    with connect(tgtd.url(), preferences=preferences, timeout=120) as lun:
        parameters = lun.session.parameters
        assert (parameters.initial_r2t, parameters.immediate_data) == (initial_r2t, immediate_data)
        assert parameters.max_burst_length == bursts[1]
        for blocks in (1, 16, 300):
            lun.write(blocks, DATA[: blocks * BLOCK])
            assert lun.read(blocks, blocks) == DATA[: blocks * BLOCK]


@pytest.mark.parametrize(("header", "data"), list(product((False, True), repeat=2)))
def test_digests(tgtd: Tgtd, header: bool, data: bool) -> None:
    choices = {False: ("None",), True: ("CRC32C",)}
    preferences: Preferences = replace(PREFERENCES, header_digest=choices[header], data_digest=choices[data])
    with connect(tgtd.url(), timeout=120, preferences=preferences) as lun:
        assert (lun.session.parameters.header_digest, lun.session.parameters.data_digest) == (header, data)
        lun.write(3, DATA)
        assert lun.read(3, len(DATA) // BLOCK) == DATA
        assert lun.session.ping(b"abcde") == b"abcde"


@pytest.mark.parametrize("security_stage", [False, True])
def test_logins(tgtd: Tgtd, security_stage: bool) -> None:
    with connect(tgtd.url(), timeout=120, security_stage=security_stage) as lun:
        lun.test_unit_ready()


def test_outstanding_commands_and_the_window(tgtd: Tgtd) -> None:
    read = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
    with connect(tgtd.url(), timeout=120) as lun:
        lun.test_unit_ready()
        commands = [lun.session.submit(1, read, read_length=BLOCK) for _ in range(500)]  # more than the window has
        for command in reversed(commands):
            response = lun.session.wait(command)
            assert (response.status, len(response.data)) == (Status.GOOD, BLOCK)
        assert lun.session.outstanding == 0


def test_residuals(tgtd: Tgtd) -> None:
    with connect(tgtd.url(), timeout=120) as lun:
        lun.test_unit_ready()
        short = lun.command(bytes((0x12, 0, 0, 0, 36, 0)), read_length=100)
        assert (len(short.data), short.residual, short.overflow) == (36, 64, False)


def test_errors_with_sense(tgtd: Tgtd) -> None:
    with connect(tgtd.url(), timeout=120) as lun:
        with pytest.raises(ScsiError, match="logical block address out of range") as raised:
            lun.read(SIZE // BLOCK, 1)
        sense = raised.value.sense
        assert raised.value.status == Status.CHECK_CONDITION
        assert sense is not None
        assert (sense.key, sense.asc, sense.ascq) == (SenseKey.ILLEGAL_REQUEST, 0x21, 0x00)
        assert lun.command(bytes((0xFF, 0, 0, 0, 0, 0))).status == Status.CHECK_CONDITION
        with pytest.raises(ValueError, match="whole number"):
            lun.write(0, b"abc")
        lun.test_unit_ready()  # the session lives


def test_task_management(tgtd: Tgtd) -> None:
    with connect(tgtd.url(), timeout=120) as lun:
        assert lun.session.manage(TaskFunction.LOGICAL_UNIT_RESET, 1) == 0
        done = lun.session.submit(1, bytes(6))
        lun.session.wait(done)
        assert lun.session.manage(TaskFunction.ABORT_TASK, 1, done) != 0  # it is there no more
        lun.test_unit_ready()


def test_the_end_of_a_session(tgtd: Tgtd) -> None:
    lun = connect(tgtd.url(), timeout=120)
    assert lun.session.logout(LogoutReason.CLOSE_SESSION) == 0
    with pytest.raises(SessionLost, match="logged out"):
        lun.test_unit_ready()
    lun.close()
    lun.close()


def test_refusals(tgtd: Tgtd) -> None:
    with pytest.raises(LoginError, match="no such target"):
        connect(tgtd.url().replace("disk", "other"), timeout=120)
    with pytest.raises(ConnectionRefusedError):
        connect(tgtd.url().replace(str(tgtd.port), "1"), timeout=120)
    with pytest.raises(ScsiError, match="logical unit not supported"):
        connect(tgtd.url(9), timeout=120).test_unit_ready()


def test_sessions_beside_each_other(tgtd: Tgtd) -> None:
    portal = parse_portal(tgtd.portal)
    sessions = [open_session(portal, tgtd.name, initiator_name=default_initiator_name(), timeout=120) for _ in range(4)]
    assert len({session.login.tsih for session in sessions}) == 4
    for session in sessions:
        session.close()
