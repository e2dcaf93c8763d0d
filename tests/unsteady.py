"""What `make test` does with a test that fails by chance (a pytest plugin, beside pytest-rerunfailures).

A test that has failed is run once more. If it passes then, the machine, the test or the product was unsteady: the run
tells of it in full, as it does of a failure, since there is something to mend; it fails only when there are several, as
there would be if something were broken.
"""

from __future__ import annotations

import pytest

MOST = 2  # tests of a run that may be unsteady


class Unsteady:
    """The failures of tests that passed when they were run again."""

    def __init__(self) -> None:
        self._first: dict[str, pytest.TestReport] = {}
        self._failed: set[str] = set()

    @property
    def found(self) -> list[pytest.TestReport]:
        return [report for name, report in self._first.items() if name not in self._failed]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.outcome == "rerun":  # type: ignore[comparison-overlap]  # what pytest-rerunfailures calls it
            self._first.setdefault(report.nodeid, report)
        elif report.failed:
            self._failed.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if len(self.found) > MOST and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for report in self.found:
            terminalreporter.section(f"UNSTEADY, passed when run again: {report.nodeid}", yellow=True)
            terminalreporter.write_line(report.longreprtext)
        if len(self.found) > MOST:
            terminalreporter.section(f"more than {MOST} tests were unsteady: the run has failed", red=True)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Unsteady())
