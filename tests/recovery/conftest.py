"""Targets of every ErrorRecoveryLevel, a proxy in front of them, and the work that is done through it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from blockyard.initiator import PREFERENCES, Lun, PortalAddress, open_session
from blockyard.iscsi.negotiation import Preferences
from blockyard.scsi.task import Status
from tests.recovery.proxy import Act, Plan, Proxy, Seen, once
from tests.recovery.target import ServedTarget
from tests.wire import INITIATOR, TARGET

BLOCK = 512
# Small segments and bursts: a few KiB make every kind of PDU. Nothing has to be waited for after a failure.
TARGET_PREFERENCES = Preferences(
    max_recv_data_segment_length=1024,
    first_burst_length=2048,
    max_burst_length=4096,
    default_time2wait=0,
    default_time2retain=20,
    error_recovery_level=2,
    max_connections=4,
)
_CRC = ("CRC32C",)


@dataclass
class Run:
    """One run of the work through a proxy: what it has seen, and the sessions that there were."""

    proxy: Proxy
    tsihs: list[int]


Work = Callable[..., Run]
_PATIENT = 60.0  # seconds without progress before anything is looked after: no PDU is sent for the machine being slow
_TRIES = 20


def places(work: Work, *, level: int, connections: int = 1) -> list[Seen]:
    """The PDUs of a run without harm: those that every run has."""
    run = work(lambda seen: Act.PASS, level=level, recover=False, connections=connections, retry_after=_PATIENT)
    assert run.proxy.accepted == connections
    return run.proxy.seen


def harmed(work: Work, seen: Seen, act: Act, **options: Any) -> Run:
    """A run in which that PDU is harmed, or one after it.

    Where the initiator is short of patience, a slow machine may have it give a connection up before its time: then once more.
    """
    for _ in range(_TRIES):
        run = work(once(seen.place, act), **options)
        if run.proxy.harmed:
            return run
    pytest.fail(f"in {_TRIES} runs there was no {seen.place}")


@pytest.fixture(scope="module")
def served() -> Iterator[ServedTarget]:
    target = ServedTarget(TARGET_PREFERENCES)
    yield target
    target.close()


@pytest.fixture
def work(served: ServedTarget) -> Work:
    """Write, read and ping through a proxy with a plan, and see that every byte is right, here and on the device."""

    def run(
        plan: Plan,
        *,
        level: int,
        recover: bool,
        connections: int = 1,
        seed: int = 0,
        timeout: float = 120.0,
        retry_after: float = 0.05,
    ) -> Run:
        preferences = replace(
            PREFERENCES,
            header_digest=_CRC,
            data_digest=_CRC,
            max_recv_data_segment_length=1024,
            first_burst_length=2048,
            max_burst_length=4096,
            error_recovery_level=level,
            default_time2wait=0,
            default_time2retain=20,
        )
        with Proxy(served.address, plan, digests=(True, True)) as proxy:
            session = open_session(
                PortalAddress("127.0.0.1", proxy.port), TARGET, initiator_name=INITIATOR, preferences=preferences,
                connections=connections, recover=recover, timeout=120.0, retry_after=retry_after,
            )  # fmt: skip
            session.timeout = timeout  # how long it bears with silence; to log in may take longer
            assert session.recovery_level == level
            tsihs = [session.login.tsih]
            with Lun(session) as lun:
                _do(lun, served, random.Random(seed))
                tsihs.append(session.login.tsih)
        return Run(proxy, tsihs)

    return run


def _do(lun: Lun, served: ServedTarget, chance: random.Random) -> None:
    lun.test_unit_ready()
    first, second = chance.randbytes(12 * BLOCK), chance.randbytes(7 * BLOCK)
    lba = chance.randrange(1000)
    lun.write(lba, first)
    assert lun.session.ping(b"in between") == b"in between"
    assert lun.read(lba, 12) == first
    _side_by_side(lun, lba + 5, second)
    whole = first[: 5 * BLOCK] + second
    assert lun.read(lba, 12) == whole
    assert served.device.data[lba * BLOCK : (lba + 12) * BLOCK] == whole


def _side_by_side(lun: Lun, lba: int, data: bytes) -> None:
    """Several commands at a time: each block is written by one of its own, and read by another one afterwards."""
    session = lun.session
    for kind in ("write", "read"):
        exchanges = []
        for number in range(7):
            at = (lba + number).to_bytes(4, "big")
            part = data[number * BLOCK : (number + 1) * BLOCK]
            if kind == "write":
                exchanges.append((session.submit(0, b"\x2a\0" + at + b"\0\0\1\0", part), b""))
            else:
                exchanges.append((session.submit(0, b"\x28\0" + at + b"\0\0\1\0", read_length=BLOCK), part))
        for number, (exchange, expected) in enumerate(exchanges):
            response = session.wait(exchange)
            if (
                response.status != Status.GOOD
            ):  # of the new session, which begins with a unit attention; or damaged data
                part = data[number * BLOCK : (number + 1) * BLOCK]
                lun.write(lba + number, part)
            elif kind == "read":
                assert response.data == expected
