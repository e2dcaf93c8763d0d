"""The page of supported commands, written from the tables.

Its text goes to standard output: `python -m blockyard.scsi.document > docs/supported-commands.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from blockyard.scsi import limits, log, mode, vpd
from blockyard.scsi.commands import COMMANDS, Capability, Command, Kind

_HEAD = """\
# Supported SCSI commands

<!-- Written by `python -m blockyard.scsi.document` from the tables in src/blockyard/scsi: change those. -->

What a disk of Blockyard (peripheral device type 00h) understands. It follows SPC-5, SBC-4 and SAM-5, and names
SPC-4 and SBC-3 in its INQUIRY data. An initiator gets the same list from REPORT SUPPORTED OPERATION CODES.
"""

_NOTES = f"""\
## What to know

- **Reserved bits** and fields that must be zero end a command with INVALID FIELD IN CDB and a field pointer. So do
  RDPROTECT, WRPROTECT, VRPROTECT and ORPROTECT where there is no protection information, ANCHOR, and LOEJ on a fixed disk.
- **Transfer length**: READ, WRITE, VERIFY and WRITE AND VERIFY take up to {limits.MAX_TRANSFER >> 20} MiB, WRITE SAME
  up to {limits.WRITE_SAME_BLOCKS} blocks (0 blocks are refused by thin units: WSNZ; thick ones take them for all up to
  the end), COMPARE AND WRITE up to \
{limits.COMPARE_AND_WRITE_BLOCKS} blocks, UNMAP up to
  {limits.UNMAP_BLOCKS} blocks in {limits.UNMAP_DESCRIPTORS} descriptors. VPD page B0h says so.
- **Less data than the CDB asks for**: a WRITE writes what it gets and reports the rest as a residual. COMPARE AND
  WRITE, WRITE SAME, UNMAP and MODE SELECT are refused.
- **WRITE ATOMIC** takes whole pages of 4 KiB, up to {limits.ATOMIC_BYTES >> 20} MiB. Other commands see all of it or
  nothing, and so does whoever reads after a crash or power loss. It is always stable when it ends, and costs three
  flushes: a journal in the state directory, the disk, the journal again.
- **PRE-FETCH** has the kernel read ahead and ends with GOOD: nobody can promise that all of it stays in the cache.
- **SANITIZE and FORMAT UNIT** go on in the background, at `--background-rate` bytes per second at most; REQUEST SENSE
  tells how far. Meanwhile other commands end with NOT READY, but for those that say so in the table. Resets, aborts and
  restarts do not end them. CRYPTOGRAPHIC ERASE throws away the key of an encrypted volume; to others it does what
  BLOCK ERASE does. FORMAT UNIT frees all blocks, or writes an initialization pattern; capacity and block length stay.
- **Protection information** (`--protection`) of types 1, 2 and 3, one of eight bytes for each logical block. GRD_CHK,
  APP_CHK and REF_CHK are set: it is checked in reads without RDPROTECT too, unless DPICZ is set. Failures are ABORTED
  COMMAND, 10h/01h to 03h, with the LBA in the INFORMATION field. Application tags are checked for 32-byte commands
  when ATO is set (it is not by default; both can be changed). Blocks that are written without it get it: with a guard,
  and of type 1 a reference tag; of type 2 they are marked as not protected. FORMAT UNIT changes the type.
- **Removable disks** (`--removable`) can be ejected and loaded by START STOP UNIT unless a nexus prevents it. Without
  LOEJ they do not stop. A restart loads the medium.
- **Power conditions** are taken and reported by REQUEST SENSE; access to the medium ends them. Reserved ones change
  nothing.
- **SYNCHRONIZE CACHE** makes the whole cache stable, whatever its range; with IMMED the status comes after that too.
- **Write cache**: WCE is 1 by default and can be changed by MODE SELECT, unless the unit is served with write-through.
- **Third-party copies**: EXTENDED COPY takes up to {limits.COPY_CSCDS} CSCD descriptors (E4h) and \
{limits.COPY_SEGMENTS} segment descriptors (02h, 07h, 0Ah)
  of up to {limits.COPY_SEGMENT >> 20} MiB, with CAT, PAD and DC; no inline and no held data. POPULATE TOKEN and WRITE
  USING TOKEN take up to {limits.TOKEN_RANGES} ranges and {limits.TOKEN_BYTES >> 30} GiB. What a copy does is checked as the
  READ and WRITE commands of its initiator would be.
- **UNMAP** needs a thin unit: a file system that can punch holes, or a disk that can discard. What is unmapped reads
  as zeros (LBPRZ). WRITE SAME with UNMAP frees blocks when it writes zeros; other data is written.
- **Sense data** is in fixed format, or in descriptor format where D_SENSE is set. MISCOMPARE gives the offset of the
  first byte that differs in the INFORMATION field.
- **Mode parameters** are common to all nexuses. MODE SELECT with SP saves them; a reset, a restart and power loss bring
  the saved values back, or the defaults.
- **Medium errors** name the first block that could not be accessed, in the INFORMATION field. A failed flush has no such
  block, and is reported to every command that asks for stable data ever after; there are no deferred errors: the
  kernel says only then that a write which was acknowledged has been lost, and of which it cannot be told.
- **Log pages** count since the unit was opened. LOG SELECT resets counters or sets them; thresholds cannot be set.
- **Informational exceptions** are a block that could not be accessed (5Dh/01h) and a file system that is nearly full
  (5Dh/03h). They are told when REQUEST SENSE asks, or by a unit attention, as MRIE says.
- **Task sets**: all task attributes, with QERR, TAS, TST, UA_INTLCK_CTRL and the queue algorithm modifier as set in the
  Control mode page, and ACA (NACA). A command whose data is still to come holds back only commands of its own nexus.
  Commands that another nexus aborts end with TASK ABORTED, unless TAS is set to 0.
"""


def render() -> str:
    """The whole page, as Markdown."""
    return "\n".join(
        (
            _HEAD,
            "## Commands\n\n" + command_table(COMMANDS),
            _reservations(),
            "## Vital product data pages\n\n" + vpd_table(vpd.PAGES.values()),
            "## Mode pages\n\n" + mode_table(mode.PAGES.values()),
            "## Log pages\n\n" + log_table(log.PAGES.values()),
            _NOTES,
        )
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(command: Command) -> str:
    action = "" if command.service_action is None else f"/{command.service_action:02X}h"
    return f"{command.opcode:02X}h{action}"


def _fields(command: Command) -> str:
    names = [field.name for field in command.fields if field.kind is Kind.VALUE and field.name != "service_action"]
    return ", ".join(names).replace("_", " ") or "none"


def command_table(commands: Iterable[Command]) -> str:
    """What there is, and which fields are evaluated."""
    rows = [
        (
            _code(command),
            command.name + ("" if command.requires is Capability.NONE else f" ({command.requires.value} units)"),
            str(command.length),
            _fields(command),
            f"{command.timeout} s",
        )
        for command in commands
    ]
    head = ("Code", "Command", "CDB bytes", "Fields that are evaluated", "Timeout")
    return table(head, rows)


def _reservations() -> str:
    """How commands are classed for what changes their treatment, and where each is carried out."""
    rows = [
        (
            command.name,
            command.conflict.value,
            command.access.value,
            "yes" if command.exempt else "",
            "yes" if command.exempt or command.unready else "",
            "yes" if command.exclusive else "",
        )
        for command in COMMANDS
    ]
    head = (
        "Command",
        "Conflicts with a reservation",
        "Works down to the access state",
        "Passes a pending unit attention",
        "Runs during SANITIZE and FORMAT UNIT",
        "Runs alone",
    )
    return (
        "## How commands are treated\n\n"
        "Which reservations of others a command conflicts with: *exclusive access* means that Write Exclusive lets it "
        "pass. Holders, and where the type says so registrants, conflict with nothing. The second column is the worst state "
        "of its target port in which a command still works: docs/clusters.md.\n\n" + table(head, rows)
    )


def vpd_table(pages: Iterable[vpd.VpdPage]) -> str:
    return table(("Code", "Page", "Standard"), ((f"{page.code:02X}h", page.name, page.standard) for page in pages))


def mode_table(pages: Iterable[mode.ModePage]) -> str:
    """With the defaults, and what can be changed."""
    rows = []
    for page in pages:
        shown = [f"{field.name.upper()}={field.default:X}h" for field in page.fields]
        changeable = [field.name.upper() for field in page.fields if field.changeable]
        code = f"{page.code:02X}h" + (f"/{page.subpage:02X}h" if page.subpage else "")
        name = page.name + (" (thin units)" if page.thin else "")
        rows.append((code, name, ", ".join(shown), ", ".join(changeable) or "none", page.standard))
    return table(("Code", "Page", "Defaults", "Changeable", "Standard"), rows)


def log_table(pages: Iterable[log.LogPage]) -> str:
    return table(("Code", "Page", "Standard"), ((f"{page.code:02X}h", page.name, page.standard) for page in pages))


if __name__ == "__main__":
    sys.stdout.write(render())
