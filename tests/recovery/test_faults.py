"""Every PDU of a run is harmed in every way, one in each run: no I/O fails, and the data is right.

With ErrorRecoveryLevel 0 the session comes back and the commands are sent anew; at level 1 what is lost within the
connection is recovered there; at level 2 a lost connection is recovered too, and the session never ends.
"""

from __future__ import annotations

import pytest

from blockyard.iscsi.pdu import NopOut
from tests.recovery.conftest import Work, harmed, places
from tests.recovery.proxy import Act, Place, Seen, Way, harmful, once

WITHIN = (Act.DROP, Act.DUPLICATE, Act.DAMAGE_DATA, Act.DAMAGE_DATA_DIGEST)  # leave the connection usable
BREAKING = (Act.DAMAGE_HEADER, Act.DAMAGE_HEADER_DIGEST, Act.TRUNCATE, Act.CUT)


def test_a_run_without_harm_has_every_kind_of_pdu(work: Work) -> None:
    seen = places(work, level=0)
    assert {0x01, 0x05, 0x00, 0x06} <= {each.opcode for each in seen if each.place.way is Way.TO_TARGET}
    assert {0x21, 0x25, 0x31, 0x20, 0x26} <= {each.opcode for each in seen if each.place.way is Way.TO_INITIATOR}


@pytest.mark.parametrize("act", WITHIN + BREAKING, ids=lambda act: act.value)
def test_level_0(work: Work, act: Act) -> None:
    for seed, seen in enumerate(places(work, level=0)):
        if harmful(seen, act):
            harmed(work, seen, act, level=0, recover=True, seed=seed, timeout=0.2)


@pytest.mark.parametrize("act", WITHIN, ids=lambda act: act.value)
def test_level_1(work: Work, act: Act) -> None:
    for seed, seen in enumerate(places(work, level=1)):
        if harmful(seen, act):
            run = harmed(work, seen, act, level=1, recover=False, seed=seed)
            assert run.proxy.accepted == 1, f"the connection was given up for {seen}"


@pytest.mark.parametrize("act", BREAKING, ids=lambda act: act.value)
def test_level_1_loses_the_session_with_the_connection(work: Work, act: Act) -> None:
    for seed, seen in enumerate(places(work, level=1)):
        harmed(work, seen, act, level=1, recover=True, seed=seed)


@pytest.mark.parametrize("act", WITHIN + BREAKING, ids=lambda act: act.value)
def test_level_2(work: Work, act: Act) -> None:
    for seed, seen in enumerate(places(work, level=2)):
        if harmful(seen, act):
            run = harmed(work, seen, act, level=2, recover=False, seed=seed)
            assert len(set(run.tsihs)) == 1, f"the session was given up for {seen}"


def test_place_is_what_a_plan_goes_by() -> None:
    place = Place(0, Way.TO_TARGET, 3)
    plan = once(place, Act.CUT)
    assert plan(Seen(place, NopOut())) is Act.CUT
    assert plan(Seen(place._replace(number=4), NopOut())) is Act.PASS
