"""Harm at random, again and again in one run: what is sent to get over it is harmed too."""

from __future__ import annotations

import random
import time

import pytest

from tests.recovery.conftest import Work
from tests.recovery.proxy import Act, Plan, Seen, harmful
from tests.recovery.test_faults import BREAKING, WITHIN

SOAK_SECONDS = 1800.0


def storm(seed: int, acts: tuple[Act, ...], *, one_in: int) -> Plan:
    """One PDU in so many is harmed, in one of these ways."""
    chance = random.Random(seed)

    def plan(seen: Seen) -> Act:
        act = chance.choice(acts)
        return act if not chance.randrange(one_in) and harmful(seen, act) else Act.PASS

    return plan


def weather(work: Work, seed: int) -> None:
    """One run, of a kind that the seed determines."""
    chance = random.Random(seed)
    level, connections = chance.choice((0, 1, 1, 2, 2, 2)), chance.choice((1, 1, 2, 4))
    every = (*WITHIN, *BREAKING, Act.HOLD)
    one_in = {0: 60, 1: 25, 2: 20}[level]
    plan = storm(seed, every, one_in=one_in)
    run = work(
        plan,
        level=level,
        recover=level < 2,
        connections=connections,
        seed=seed,
        timeout=2.0 if level else 0.2,
        retry_after=0.02,
    )
    assert level < 2 or len(set(run.tsihs)) == 1


@pytest.mark.parametrize("seed", range(40))
def test_storm(work: Work, seed: int) -> None:
    weather(work, seed)


@pytest.mark.soak
def test_a_long_storm(work: Work) -> None:
    end = time.monotonic() + SOAK_SECONDS
    seed = 1000
    while time.monotonic() < end:
        weather(work, seed)
        seed += 1
