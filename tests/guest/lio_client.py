"""This initiator at work on LIO, for test_lio.py: `python -m tests.guest.lio_client ADDRESS IQN` inside the network."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

from blockyard.initiator import PREFERENCES, Lun, PortalAddress, Session, open_session
from blockyard.iscsi.pdu import Opcode, SnackRequest
from tests.recovery.proxy import Act, Proxy, Seen, Way

BLOCK = 512
DATA = random.Random(8).randbytes(100 * BLOCK)
_CRC = ("CRC32C",)
PREFERENCES_HERE = replace(
    PREFERENCES, header_digest=_CRC, data_digest=_CRC, max_connections=4, max_recv_data_segment_length=1024,
    max_burst_length=4096, first_burst_length=2048, default_time2wait=0, default_time2retain=20,
)  # fmt: skip


def session(address: str, port: int, target: str, level: int, connections: int) -> Session:
    preferences = replace(PREFERENCES_HERE, error_recovery_level=level)
    name = "iqn.2026-11.test:initiator"
    opened = open_session(
        PortalAddress(address, port),
        target,
        initiator_name=name,
        preferences=preferences,
        connections=connections,
        timeout=120,
    )
    assert opened.recovery_level == level
    assert len(opened.connections) == connections
    return opened


def several_connections(address: str, target: str) -> None:
    with Lun(session(address, 3260, target, 0, 3)) as lun:
        lun.write(3, DATA)
        assert lun.read(3, 100) == DATA
        lun.session.close_connection(lun.session.connections[1])
        assert lun.read(3, 100) == DATA
        added = lun.session.add_connection()
        assert lun.session.ping(b"new", added) == b"new"
        exchanges = [lun.session.submit(0, b"\x28\0\0\0\0\3\0\0\x64\0", read_length=len(DATA)) for _ in range(9)]
        assert {exchange.connection for exchange in exchanges} == set(lun.session.connections)
        assert all(lun.session.wait(exchange).data == DATA for exchange in exchanges)
    print("several connections: right")  # noqa: T201


def damaged_data(address: str, target: str) -> None:
    """Every seventh Data-In is damaged on its way, the first time."""
    count = 0

    def plan(seen: Seen) -> Act:
        nonlocal count
        if seen.place.way is Way.TO_INITIATOR and seen.opcode == Opcode.DATA_IN:
            count += 1
            return Act.DAMAGE_DATA if count % 7 == 0 else Act.PASS
        return Act.PASS

    with Proxy((address, 3260), plan, digests=(True, True)) as proxy:
        with Lun(session("127.0.0.1", proxy.port, target, 1, 1)) as lun:
            assert lun.read(3, 100) == DATA
            lun.write(200, DATA[: 40 * BLOCK])
            assert lun.read(200, 40) == DATA[: 40 * BLOCK]
        assert proxy.accepted == 1
        assert any(isinstance(seen.pdu, SnackRequest) for seen in proxy.seen)
    print(f"damaged data: right after {len(proxy.harmed)} PDUs were harmed")  # noqa: T201


if __name__ == "__main__":
    several_connections(*sys.argv[1:])
    damaged_data(*sys.argv[1:])
