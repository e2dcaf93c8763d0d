"""Checking and mending a pool that nobody has open: from its file upward, and whatever state it is in."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from lmdb.verify import VerifyError, verify

from blockyard.block.file import FileDevice
from blockyard.pool import datafile
from blockyard.pool.check import Progress, check
from blockyard.pool.datafile import Damaged
from blockyard.pool.engine import change_head, lock_directory, read_head
from blockyard.pool.intent import Journal
from blockyard.pool.members import Member, Opener, recognize
from blockyard.pool.report import Finding, Report, Severity, mend_tables
from blockyard.pool.space import SLAB_SHIFT
from blockyard.pool.store import Store, Transaction

_verify: Callable[[str], Sequence[str]] = verify
_FORGETS = "what it holds is forgotten: the pool is what it was at its last commit"


def check_offline(
    directory: Path,
    progress: Progress = lambda done, total: None,
    *,
    repair: bool = False,
    open_member: Opener = FileDevice,
    boot: str | None = None,
) -> Report:
    """Check the pool in `directory`, and mend it with `repair`; the report tells how it was before.

    Raises OSError: EBUSY while somebody has it open, FileNotFoundError where there is none.
    """
    own = lock_directory(directory)
    try:
        faults = _faults_of_file(directory)
        if faults:  # nobody can mend them: there is nothing else to make it from
            return Report([Finding(Severity.ERROR, fault) for fault in faults])
        return _Offline(directory, progress, open_member, boot).run(repair)
    finally:
        os.close(own)


def _faults_of_file(directory: Path) -> Sequence[str]:
    """Why LMDB should not be shown its file."""
    try:
        datafile.examine(directory)
        return [f"{datafile.NAME}: {fault}" for fault in _verify(os.fspath(directory))]
    except Damaged as error:
        return [error.what]
    except VerifyError as error:
        return [f"{datafile.NAME}: {error}"]


class _Offline:
    def __init__(self, directory: Path, progress: Progress, open_member: Opener, boot: str | None) -> None:
        self._directory = directory
        self._progress = progress
        self._open_member = open_member
        self._journal = Journal(directory, boot)
        self._forget = False

    def run(self, repair: bool) -> Report:
        try:
            store = Store(self._directory)
        except Damaged as error:
            self._journal.close()
            return Report([Finding(Severity.ERROR, error.what)])
        try:
            with store.read() as transaction:
                report = self._check(transaction)
            if repair:
                self._mend(store, report)
            return report
        finally:
            store.close()
            self._journal.close()

    def _check(self, transaction: Transaction) -> Report:
        try:
            head = read_head(transaction)
            pool, members = UUID(head["uuid"]), head["members"]
            report = check(transaction, [_slabs(member) for member in members], self._progress)
        except Damaged as error:
            return Report([Finding(Severity.ERROR, error.what)])
        wrong = [self._fault_of_member(pool, number, member) for number, member in enumerate(members)]
        report.findings += [Finding(Severity.ERROR, fault) for fault in wrong if fault]
        try:
            self._journal.replay(head["sequence"], head["boot"])
        except Damaged as error:
            self._forget = True
            report.findings.append(Finding(Severity.ERROR, error.what, _FORGETS))
        return report

    def _fault_of_member(self, pool: UUID, number: int, record: dict[str, Any] | None) -> str:
        """What is wrong with a member; "" when it is what it should be, or was taken out."""
        if record is None:
            return ""
        member = Member(**record)
        try:
            device = self._open_member(str(self._directory / member.path))
        except OSError as error:
            return f"member {number} of the pool ({member.path}): {error.strerror}"
        try:
            recognize(device, member, pool, number)
        except (OSError, ValueError) as error:
            return str(error)
        finally:
            device.close()
        return ""

    def _mend(self, store: Store, report: Report) -> None:
        mending = report.mending
        store.reserve(len(mending.delete) + len(mending.put) + len(mending.slabs) + len(mending.counts))
        with store.write() as transaction:
            mend_tables(transaction, mending)
            for slab in mending.slabs:
                transaction.put_slab(slab)
            for number, (held, mapped) in mending.counts.items():
                transaction.change("trees", number.to_bytes(8, "big"), held=held, mapped=mapped)
            change_head(transaction, lambda head: self._mend_head(head, report))
        if self._forget:
            self._journal.forget()

    def _mend_head(self, head: dict[str, Any], report: Report) -> None:
        head["doomed"] += report.mending.doom
        if self._forget:
            head["boot"] = ""


def _slabs(member: dict[str, Any] | None) -> int:
    return 0 if member is None else member["size"] >> SLAB_SHIFT
