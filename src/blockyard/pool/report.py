"""What a check of a pool has found (pool/check.py), and what a repair would do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from blockyard.pool.space import Stored
from blockyard.pool.store import Transaction


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"  # data cannot be read, or may be lost
    WARNING = "warning"  # something is not as it should be; no data is affected
    LEAK = "leak"  # space that nobody uses and nobody can


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and what a repair does about it; "" when it can do nothing."""

    severity: Severity
    what: str
    repair: str = ""

    def describe(self) -> dict[str, str]:
        """As JSON has it."""
        return {"severity": str(self.severity), "what": self.what, "repair": self.repair}


@dataclass
class Mending:
    """What a repair does: entries of tables to delete and to put, places that are nobody's, and those that only seem so."""

    delete: list[tuple[str, bytes]] = field(default_factory=list)
    put: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    free: list[tuple[int, int]] = field(default_factory=list)  # place, shift
    claim: list[tuple[int, int]] = field(default_factory=list)
    slabs: list[Stored] = field(default_factory=list)  # as they ought to be: those that the two above change
    doom: list[tuple[int, int]] = field(default_factory=list)  # tree and generation: history to be worked off
    counts: dict[int, tuple[int, int]] = field(default_factory=dict)  # tree → by how much `held` and `mapped` are wrong


@dataclass
class Report:
    """What a check has found, and what a repair would do."""

    findings: list[Finding] = field(default_factory=list)
    entries: int = 0  # that were looked at
    mending: Mending = field(default_factory=Mending)

    @property
    def is_clean(self) -> bool:
        return not self.findings

    def summary(self, repaired: bool) -> str:
        """What a person wants to know of it first."""
        left = [each for each in self.findings if not (repaired and each.repair)]
        mended = len(self.findings) - len(left)
        said = f"{self.entries} entries, " + (f"{mended} findings mended, " if repaired and mended else "")
        if not left:
            return f"{said}nothing is wrong" if not mended else f"{said}nothing is wrong any more"
        can = sum(bool(each.repair) for each in left)
        return f"{said}{len(left)} findings" + (f", of which --repair mends {can}" if can else "")


def mend_tables(transaction: Transaction, mending: Mending) -> None:
    """Do to the entries what a check has found to be done; slabs and what is to be worked off are left to the caller."""
    for table, key in mending.delete:
        transaction.delete(table, key)
    for table, key, value in mending.put:
        transaction.put(table, key, value)
