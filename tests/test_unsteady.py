"""Tests that fail by chance: what a run makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

_RUN = ("-n", "2", "--reruns", "1", "-p", "tests.unsteady", "-p", "no:randomly", "-p", "no:cacheprovider")
_UNSTEADY = """
import pathlib, pytest

@pytest.mark.parametrize("number", range({count}))
def test_unsteady(number):
    been = pathlib.Path(f"been-{{number}}")
    there = been.exists()
    been.touch()
    assert there, "the first time"

def test_broken():
    assert {whole}, "at all times"
"""


def _outcome(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, *, count: int, whole: bool
) -> pytest.RunResult:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    pytester.makepyfile(_UNSTEADY.format(count=count, whole=whole))
    return pytester.runpytest_subprocess(*_RUN)


def test_a_failure_that_does_not_come_back_is_told_in_full(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _outcome(pytester, monkeypatch, count=2, whole=True)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines_random(
        [
            "*UNSTEADY*test_unsteady[[]0]*",
            "*UNSTEADY*test_unsteady[[]1]*",
            "*AssertionError: the first time",
            "*2 rerun*",
        ]
    )


def test_several_of_them_are_a_failure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _outcome(pytester, monkeypatch, count=3, whole=True)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*more than 2 tests were unsteady: the run has failed*"])


def test_what_is_broken_fails(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _outcome(pytester, monkeypatch, count=0, whole=False)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1, skipped=1)
    result.stdout.no_fnmatch_line("*UNSTEADY*")
