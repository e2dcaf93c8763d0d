"""Where Blockyard and LIO, the Linux kernel's target, answer the same command differently, and why.

scripts/compared.sh sends about ninety commands of sg3_utils to both; all other answers are the same. docs/compared-with-lio.md
is written from here:

    python -m tests.guest.compared > docs/compared-with-lio.md
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

# Exit statuses of sg3_utils (sg3_utils(8))
GOOD, ILLEGAL, UNKNOWN, MISCOMPARE, CONFLICT, MALFORMED = 0, 5, 9, 14, 24, 83
_WORDS = {
    GOOD: "good",
    ILLEGAL: "ILLEGAL REQUEST",
    UNKNOWN: "unknown command",
    MISCOMPARE: "MISCOMPARE",
    CONFLICT: "RESERVATION CONFLICT",
    MALFORMED: "no such page",
}


@dataclass(frozen=True)
class Difference:
    """The exit statuses of a check with LIO and with us; what is asked for, and why we answer as we do."""

    lio: int
    ours: int
    asked: str
    why: str


_HAS_IT = "LIO has no such command"

# By the names that the checks have in scripts/compared.sh
DIFFERENCES: dict[str, Difference] = {
    "diagnostic": Difference(UNKNOWN, GOOD, "SEND DIAGNOSTIC, default self-test", _HAS_IT),
    "identify": Difference(UNKNOWN, GOOD, "REPORT IDENTIFYING INFORMATION", _HAS_IT),
    "lba-status": Difference(ILLEGAL, GOOD, "GET LBA STATUS", "LIO has no such service action"),
    "logs-informational": Difference(UNKNOWN, GOOD, "LOG SENSE, informational exceptions", _HAS_IT),
    "logs-supported": Difference(UNKNOWN, GOOD, "LOG SENSE, supported pages", _HAS_IT),
    "logs-temperature": Difference(UNKNOWN, GOOD, "LOG SENSE, temperature", _HAS_IT),
    "mode-control-extension": Difference(ILLEGAL, GOOD, "MODE SENSE, control extension page", "LIO has no subpages"),
    "opcode-one": Difference(UNKNOWN, GOOD, "REPORT SUPPORTED OPERATION CODES, one that there is", _HAS_IT),
    "opcode-unknown": Difference(
        UNKNOWN, GOOD, "the same, one that there is not",
        "the answer is that it is not supported (SPC-5); LIO 6.1 has no such command, later ones do",
    ),
    "opcodes": Difference(UNKNOWN, GOOD, "REPORT SUPPORTED OPERATION CODES, all", _HAS_IT),
    "orwrite": Difference(UNKNOWN, GOOD, "ORWRITE (16)", _HAS_IT),
    "pr-wrong-type": Difference(
        CONFLICT, ILLEGAL, "PERSISTENT RESERVE OUT, RELEASE of another type than the reservation's by its holder",
        "INVALID RELEASE OF PERSISTENT RESERVATION is what SPC-4 5.13.11.2 demands",
    ),
    "prefetch": Difference(UNKNOWN, GOOD, "PRE-FETCH (10)", _HAS_IT),
    "read-buffer": Difference(UNKNOWN, GOOD, "READ BUFFER (10)", _HAS_IT),
    "read-defects": Difference(UNKNOWN, GOOD, "READ DEFECT DATA (10)", _HAS_IT),
    "read-dpo-fua": Difference(
        ILLEGAL, GOOD, "READ (10) with DPO and FUA",
        "both are taken, and DPOFUA says so; LIO refuses FUA as its file has no write cache of its own",
    ),
    "request-sense-descriptor": Difference(
        ILLEGAL, GOOD, "REQUEST SENSE with DESC", "sense data comes in the format that is asked for; LIO has the fixed one"
    ),
    "reserved-bit": Difference(
        GOOD, ILLEGAL, "READ (10) with a vendor specific bit set in CONTROL",
        "bits that mean nothing here are refused (SPC-5, reserved fields); LIO does not look at them",
    ),
    "sanitize": Difference(UNKNOWN, GOOD, "SANITIZE, block erase", _HAS_IT),
    "start": Difference(
        ILLEGAL, GOOD, "START STOP UNIT with START", "LIO takes it with IMMED only"
    ),
    "start-again": Difference(ILLEGAL, GOOD, "the same after an eject that was refused", "likewise"),
    "task-functions": Difference(UNKNOWN, GOOD, "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", _HAS_IT),
    "timestamp": Difference(UNKNOWN, GOOD, "REPORT TIMESTAMP", _HAS_IT),
    "verify-miscompare": Difference(
        GOOD, MISCOMPARE, "VERIFY (10) with BYTCHK and other data", "the data is compared; LIO takes VERIFY for good"
    ),
    "vpd-0x87": Difference(MALFORMED, GOOD, "VPD page Mode Page Policy", "LIO has no such page"),
    "vpd-0x88": Difference(MALFORMED, GOOD, "VPD page SCSI Ports", "LIO has no such page"),
    "vpd-0x8f": Difference(
        MALFORMED, GOOD, "VPD page Third-Party Copy", "LIO has no such page: tokens (ODX) are unknown to it"
    ),
    "write-atomic": Difference(UNKNOWN, GOOD, "WRITE ATOMIC (16)", _HAS_IT),
    "write-same-ndob": Difference(
        ILLEGAL, GOOD, "WRITE SAME (16) with NDOB", "zeros are written without a block of them being sent"
    ),
}  # fmt: skip

# What is printed and not the same, in words for the page: the identities of vendor and product apart.
_IN_WORDS = """\
- LIO's disk says that unmapped blocks need not read as zeros (LBPRZ=0), until it is told to. Blockyard's always do.
- LIO compares and writes one block at a time, Blockyard 255.
- Both report persistent reservations with all six types, and APTPL. Both list one target port group that is active/optimized.
- LIO names itself with a registered NAA designator (6001405…); Blockyard has a locally assigned one.
"""


def statuses(output: str) -> dict[str, dict[str, int]]:
    """What scripts/compared.sh printed: "lio" and "ours" → name of a check → exit status."""
    found: dict[str, dict[str, int]] = {"lio": {}, "ours": {}}
    for which, name, status in re.findall(r"^CHECK (lio|ours) (\S+) (\d+)\r?$", output, re.MULTILINE):
        found[which][name] = int(status)
    return found


def document() -> str:
    """The text of docs/compared-with-lio.md."""
    rows = "\n".join(
        f"| {each.asked} | {_WORDS[each.lio]} | {_WORDS[each.ours]} | {each.why} |" for each in DIFFERENCES.values()
    )
    return f"""# Compared with LIO

LIO is the target in the Linux kernel. `make test` boots a kernel (6.1, Debian 12) that is initiator to both, sends each
about ninety commands with sg3_utils, from INQUIRY to persistent reservations, and compares how they end. Here is every
command that does not end the same way with both; a test holds this list to be complete and current.

| asked for | LIO | Blockyard | why |
| --- | --- | --- | --- |
{rows}

Besides:

{_IN_WORDS}
(Generated from `tests/guest/compared.py`.)
"""


if __name__ == "__main__":
    sys.stdout.write(document())
