"""Sessions of several connections: commands spread over them, connections come and go, PDUs overtake each other."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from blockyard.initiator import PREFERENCES, LoginError, Lun, PortalAddress, Session, SessionLost, open_session
from blockyard.iscsi.pdu import LogoutReason, LogoutResponseCode
from tests.recovery.conftest import BLOCK, Work, harmed, places
from tests.recovery.proxy import Act, Place, Proxy, Seen, Way, harmful, once
from tests.recovery.target import ServedTarget
from tests.recovery.test_faults import BREAKING, WITHIN
from tests.waiting import eventually
from tests.wire import INITIATOR, TARGET

CONNECTIONS = 3


def session_on(served: ServedTarget, connections: int, **options: Any) -> Session:
    return open_session(
        PortalAddress(*served.address), TARGET, initiator_name=INITIATOR, timeout=120, connections=connections,
        **options,
    )  # fmt: skip


@pytest.fixture
def session(served: ServedTarget) -> Iterator[Session]:
    with session_on(served, CONNECTIONS) as session:
        Lun(session).test_unit_ready()
        yield session


def on_target(session: Session, served: ServedTarget) -> int:
    """How many connections a session has there: other tests may have left sessions that the target retains for a while."""
    own = (each for each in list(served.rig.node.sessions.values()) if each.tsih == session.login.tsih)
    return sum(len(each.connections) for each in own)


def test_commands_take_turns_on_the_connections(session: Session, served: ServedTarget) -> None:
    assert on_target(session, served) == len(session.connections) == CONNECTIONS
    assert [connection.cid for connection in session.connections] == [0, 1, 2]
    exchanges = [session.submit(0, bytes(6)) for _ in range(2 * CONNECTIONS)]
    assert {exchange.connection for exchange in exchanges} == set(session.connections)
    assert [session.wait(exchange).status for exchange in exchanges] == [0] * len(exchanges)


def test_each_connection_answers_for_itself(session: Session) -> None:
    for connection in session.connections:
        assert session.ping(b"%d" % connection.cid, connection) == b"%d" % connection.cid


def test_large_transfers_over_all_connections(session: Session) -> None:
    lun = Lun(session)
    data = random.Random(5).randbytes(1000 * BLOCK)
    lun.write(7, data)
    assert lun.read(7, 1000) == data


def test_a_connection_logs_out_and_another_takes_its_place(session: Session, served: ServedTarget) -> None:
    assert session.close_connection(session.connections[1]) == LogoutResponseCode.CLOSED
    assert [connection.cid for connection in session.connections] == [0, 2]
    eventually(lambda: on_target(session, served) == 2)  # it closes the connection when it has answered
    added = session.add_connection()
    assert added.cid == 3, "a CID that was used means reinstatement"
    assert session.ping(b"new", added) == b"new"
    assert on_target(session, served) == CONNECTIONS


def test_the_leading_connection_may_go(session: Session) -> None:
    assert session.close_connection(session.connections[0]) == LogoutResponseCode.CLOSED
    Lun(session).test_unit_ready()


def test_the_last_connection_takes_the_session_with_it(served: ServedTarget) -> None:
    session = session_on(served, 2)
    for connection in list(session.connections):
        assert session.close_connection(connection) == LogoutResponseCode.CLOSED
    with pytest.raises(SessionLost, match="logged out"):
        session.command(0, bytes(6))
    eventually(lambda: not on_target(session, served))


def test_a_session_logs_out_with_all_its_connections(served: ServedTarget) -> None:
    session = session_on(served, CONNECTIONS)
    assert session.logout(LogoutReason.CLOSE_SESSION) == LogoutResponseCode.CLOSED
    eventually(lambda: not on_target(session, served))


def test_no_more_connections_than_agreed_upon(served: ServedTarget) -> None:
    with session_on(served, 2) as session:
        with pytest.raises(LoginError, match="as many connections"):
            session.add_connection()
        Lun(session).test_unit_ready()
    with session_on(served, 99) as session:
        assert len(session.connections) == 4  # what the target allows


def test_without_recovery_a_lost_connection_ends_the_session(served: ServedTarget) -> None:
    with session_on(served, 2) as session:
        served.drop(session.connections[1].cid)
        with pytest.raises(SessionLost):
            while True:
                session.command(0, bytes(6))


def test_reinstatement_ends_the_old_session(served: ServedTarget) -> None:
    """RFC 7143 §6.3.5: a login with the same names and ISID, and no TSIH."""
    isid = b"\x80\1\2\3\4\5"
    first = session_on(served, 2, isid=isid)
    with session_on(served, 1, isid=isid) as second:
        assert second.login.tsih != first.login.tsih
        eventually(lambda: (on_target(first, served), on_target(second, served)) == (0, 1))
        with pytest.raises(SessionLost):
            while True:
                first.command(0, bytes(6))
    first.drop()


def test_a_session_that_lost_its_connections_is_continued(served: ServedTarget) -> None:
    """RFC 7143 §6.3.6: at level 2, while the target retains it."""
    preferences = replace(PREFERENCES, error_recovery_level=2, default_time2wait=0, default_time2retain=20)
    with session_on(served, 2, preferences=preferences) as session:
        tsih = session.login.tsih
        lun = Lun(session)
        data = random.Random(6).randbytes(8 * BLOCK)
        lun.write(100, data)
        for connection in session.connections:
            served.drop(connection.cid)
        assert lun.read(100, 8) == data
        assert session.login.tsih == tsih


class SlowProxy(Proxy):
    """One before a target that takes its time with each new connection."""

    def _accept(self) -> None:
        time.sleep(0.7)
        super()._accept()


def test_what_a_new_login_takes_is_not_held_against_the_target(served: ServedTarget) -> None:
    """It takes longer than the target may be silent; the new session must not be given up for that, again and again."""
    plan = once(Place(0, Way.TO_INITIATOR, 2), Act.DROP)  # the answer to the write
    with SlowProxy(served.address, plan, digests=(False, False)) as proxy:
        portal = PortalAddress("127.0.0.1", proxy.port)
        session = open_session(portal, TARGET, initiator_name=INITIATOR, recover=True, timeout=120)
        with Lun(session) as lun:
            lun.test_unit_ready()
            session.timeout = 0.5
            lun.write(0, b"slow" * (BLOCK // 4))
            assert lun.read(0, 1) == b"slow" * (BLOCK // 4)
        assert proxy.harmed


# ---- harm


@pytest.mark.parametrize("level", [0, 1, 2])
def test_pdus_that_overtake_each_other_do_no_harm(work: Work, level: int) -> None:
    """Each PDU in turn is held until one has passed on another connection."""
    for seed, each in enumerate(places(work, level=level, connections=CONNECTIONS)):
        run = harmed(work, each, Act.HOLD, level=level, recover=False, connections=CONNECTIONS, seed=seed)
        assert run.proxy.accepted == CONNECTIONS


@pytest.mark.parametrize("act", [*WITHIN, *BREAKING], ids=lambda act: act.value)
def test_level_2_with_several_connections(work: Work, act: Act) -> None:
    """What is lost with one connection goes on on the others, or on one that takes its place."""
    for seed, each in enumerate(places(work, level=2, connections=CONNECTIONS)):
        if harmful(each, act):
            run = harmed(work, each, act, level=2, recover=False, connections=CONNECTIONS, seed=seed)
            assert len(set(run.tsihs)) == 1, f"the session was given up for {each}"


def test_every_connection_is_cut_again_and_again(work: Work) -> None:
    """Each connection, the new ones too, is cut after some PDUs: the session goes on all the same."""

    def plan(seen: Seen) -> Act:
        return Act.CUT if seen.place.way is Way.TO_INITIATOR and seen.place.number == 6 else Act.PASS

    run = work(plan, level=2, recover=False, connections=CONNECTIONS)
    assert len(set(run.tsihs)) == 1
    assert len(run.proxy.harmed) >= CONNECTIONS
    assert isinstance(run.proxy, Proxy)
