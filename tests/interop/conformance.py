"""What libiscsi's conformance suite (iscsi-test-cu 1.19, Debian 12) is expected to make of Blockyard.

The one place where its suites are listed; docs/conformance.md is generated from it:

    python -m tests.interop.conformance > docs/conformance.md
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Suite:
    """A CUnit suite: how many tests it has, and what it is run against."""

    tests: int
    kinds: tuple[tuple[str, ...], ...] = ((),)  # options of `blockyard serve` for each kind of disk that it is run on
    portals: int = 1  # with two the suite gets two URLs
    lasting: str = ""  # the test that wants SANITIZE to go on for as long as it looks at it: it is run by itself


SUITES = {
    "CompareAndWrite": Suite(5, kinds=((), ("--protection", "1"))),
    "ExtendedCopy": Suite(6),
    # With more than one logical block to a physical one (512e) UnmapSingle asks for one LBA and wants to be told of another.
    "GetLBAStatus": Suite(3, kinds=(("--block-size", "4096"),)),
    "Inquiry": Suite(7),
    "Mandatory": Suite(1),
    "ModeSense6": Suite(5),
    "NoMedia": Suite(1, kinds=(("--removable",),)),
    "OrWrite": Suite(6, kinds=((), ("--protection", "1"))),
    "Prefetch10": Suite(4),
    "Prefetch16": Suite(4),
    "PreventAllow": Suite(8, kinds=(("--removable",),)),
    "PrinReadKeys": Suite(2),
    "PrinServiceactionRange": Suite(1),
    "PrinReportCapabilities": Suite(1),
    "ProutRegister": Suite(1),
    "ProutReserve": Suite(13),
    "ProutClear": Suite(1),
    "ProutPreempt": Suite(1),
    "Read6": Suite(2),
    "Read10": Suite(6),
    "Read12": Suite(5),
    "Read16": Suite(5, kinds=((), ("--protection", "1"))),
    "ReadCapacity10": Suite(1),
    "ReadCapacity16": Suite(4),
    "ReadDefectData10": Suite(1),
    "ReadDefectData12": Suite(1),
    "ReadOnly": Suite(1, kinds=(("--read-only",),)),
    "ReceiveCopyResults": Suite(2),
    "ReportSupportedOpcodes": Suite(4),
    "Reserve6": Suite(7),
    "Sanitize": Suite(11, lasting="Reset"),
    "StartStopUnit": Suite(3, kinds=(("--removable",),)),
    "TestUnitReady": Suite(1),
    "Unmap": Suite(3, kinds=((), ("--protection", "1"))),
    "Verify10": Suite(8),
    "Verify12": Suite(8),
    "Verify16": Suite(8, kinds=((), ("--protection", "1"))),
    "Write10": Suite(6),
    "Write12": Suite(5),
    "Write16": Suite(5, kinds=((), ("--protection", "1"))),
    "WriteAtomic16": Suite(6, kinds=((), ("--protection", "1"))),
    # UnmapUntilEnd is for thin disks, and wrong about those that take 0 blocks for all up to the end (WSNZ=0): it writes
    # ones with UNMAP and wants to read zeros. ZeroBlocks is for disks that do take them.
    "WriteSame10": Suite(10, kinds=((), ("--thick",))),
    "WriteSame16": Suite(10, kinds=((), ("--thick",), ("--protection", "1"))),
    "WriteVerify10": Suite(6),
    "WriteVerify12": Suite(6),
    "WriteVerify16": Suite(6, kinds=((), ("--protection", "1"))),
    "iSCSIcmdsn": Suite(2),
    "iSCSIdatasn": Suite(1),
    "iSCSIResiduals": Suite(10, kinds=((), ("--protection", "1"))),
    "iSCSITMF": Suite(2),
    "MultipathIO": Suite(4, portals=2),
}


@dataclass(frozen=True)
class Outcome:
    """What became of one test, with its part of the log."""

    name: str  # Suite.Test
    verdict: Verdict
    log: str

    @property
    def skips(self) -> list[str]:
        """The reasons the test itself gives."""
        return list(dict.fromkeys(re.findall(r"\[SKIPPED\] (.*)", self.log)))


_SUITE = re.compile(r"^Suite: (\S+)")
_TEST = re.compile(r"^  Test: (\S+) \.\.\.(.*)")
_END = re.compile(r"^(passed|FAILED)\b")


def parse(log: str) -> Iterator[Outcome]:
    """The outcome of each test in the output of iscsi-test-cu.

    CUnit counts as passed what libiscsi skips, so what a test prints is looked at too. A test without an end
    (the program died, or was killed) has failed.
    """
    suite = ""
    name: str | None = None
    lines: list[str] = []
    for line in log.splitlines():
        rest = line
        if found := _SUITE.match(line):
            suite = found[1]
            continue
        if found := _TEST.match(line):
            if name is not None:
                yield _outcome(name, lines, None)
            name, rest = f"{suite}.{found[1]}", found[2]
            lines = []
        if name is not None:
            lines.append(rest)
            if found := _END.match(rest):
                yield _outcome(name, lines, found[1])
                name = None
    if name is not None:
        yield _outcome(name, lines, None)


def _outcome(name: str, lines: list[str], end: str | None) -> Outcome:
    text = "\n".join(lines)
    if end is None:
        return Outcome(name, "failed", f"{text}\n(it did not end)")
    return Outcome(name, "failed" if end == "FAILED" else "skipped" if "[SKIPPED]" in text else "passed", text)


def document() -> str:
    """The text of docs/conformance.md."""
    total = sum(suite.tests for suite in SUITES.values())
    setups = "\n".join(
        f"- {name}: "
        + ", ".join(
            [
                f"`{' '.join(kind)}`" if kind else "a disk without options"
                for kind in suite.kinds
                if suite.kinds != ((),)
            ]
            + ["two portals"] * (suite.portals > 1)
            + [f'{suite.lasting} with `background_rate = "64K"`, until it has seen that it goes on']
            * bool(suite.lasting)
        )
        for name, suite in SUITES.items()
        if suite.kinds != ((),) or suite.portals > 1 or suite.lasting
    )
    return f"""# Conformance

libiscsi's suite of tests for iSCSI targets, `iscsi-test-cu` (version 1.19, as Debian 12 has it), is part of
`make test`. Each of its {len(SUITES)} suites runs against a freshly started `blockyard serve` with a sparse file, with
`--dataloss --allow-sanitize`, so that nothing is left out for being destructive. Some tests are for one kind of disk
only; their suites run on several kinds. No test fails on any of them, and none is skipped on all of them: all {total} tests
pass.

Suites that are run against something else than one read-write disk on one portal:

{setups}

(Generated from `tests/interop/conformance.py`; a test checks that it is current.)
"""


if __name__ == "__main__":
    sys.stdout.write(document())
