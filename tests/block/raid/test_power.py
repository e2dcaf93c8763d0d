"""Loss of power and death of the process at every point of random runs: see runs.py."""

from __future__ import annotations

import random

import pytest

from tests.block.raid.runs import REDUNDANT, Run

WHOLE = ("write", "write", "flush", "step", "tidy", "close")
HARMED = ("write", "write", "flush", "lose", "add", "back", "step", "step", "tidy")
CHANGED = ("write", "write", "flush", "replace", "grow", "lose", "step", "step", "step", "add")


def run(plan: str, kinds: tuple[str, ...], seed: int, count: int, often: float) -> None:
    chance = random.Random(seed)
    Run(plan, chance, often).run([chance.choice(kinds) for _ in range(count)])


@pytest.mark.parametrize("plan", REDUNDANT)
@pytest.mark.parametrize("kinds", [WHOLE, HARMED, CHANGED], ids=["whole", "harmed", "changed"])
def test_what_was_flushed_is_there_after_a_loss_of_power(plan: str, kinds: tuple[str, ...]) -> None:
    run(plan, kinds, 1, 14, 0.12)


@pytest.mark.soak
@pytest.mark.parametrize("plan", REDUNDANT)
@pytest.mark.parametrize("kinds", [WHOLE, HARMED, CHANGED], ids=["whole", "harmed", "changed"])
def test_what_was_flushed_is_there_after_a_loss_of_power_for_a_long_time(plan: str, kinds: tuple[str, ...]) -> None:
    for seed in range(200):
        try:
            run(plan, kinds, seed, 25, 0.5)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
