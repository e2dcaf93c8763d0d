"""The page of what tape drives and media changers understand, written from the tables.

Its text goes to standard output: `python -m blockyard.media.document > docs/tape-commands.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from blockyard.media import changer, tape_pages
from blockyard.media.attributes import ATTRIBUTES
from blockyard.media.generations import GENERATIONS
from blockyard.media.models import DRIVES, LIBRARIES
from blockyard.media.tape_commands import TAPE_COMMANDS
from blockyard.scsi.document import command_table, log_table, mode_table, table, vpd_table

_HEAD = """\
# What tape drives and media changers understand

<!-- Written by `python -m blockyard.media.document` from tables in src/blockyard/media and scsi: change those. -->

Drives (peripheral device type 01h) follow SSC-5 and SPC-5, changers (08h) SMC-3. [Tape libraries](tape.md) says how to use them.
"""


def render() -> str:
    """The whole page, as Markdown."""
    return "\n".join(
        (
            _HEAD,
            "## Drives: commands\n\n" + command_table(TAPE_COMMANDS),
            "## Drives: vital product data pages\n\n" + vpd_table(tape_pages.VPD_PAGES.values()),
            "## Drives: mode pages\n\n" + mode_table(tape_pages.MODE_PAGES.values()),
            "## Drives: log pages\n\n" + log_table(tape_pages.LOG_PAGES.values()),
            "## Attributes of cartridges (MAM)\n\n" + _attributes(),
            "## Changers: commands\n\n" + command_table(changer.CHANGER_COMMANDS),
            "## Changers: vital product data pages\n\n" + vpd_table(changer.VPD_PAGES.values()),
            "## Changers: mode pages\n\n"
            + mode_table(tape_pages.COMMON_PAGES)
            + "\nand Element Address Assignment (1Dh), Transport Geometry Parameters (1Eh), Device Capabilities (1Fh).\n",
            "## Changers: log pages\n\n" + log_table(changer.LOG_PAGES.values()),
            "## Models\n\n" + _libraries() + "\n" + _drives(),
        )
    )


def _attributes() -> str:
    rows = (
        (f"{one.identifier:04X}h", one.name, str(one.length), "yes" if one.writable else "")
        for one in ATTRIBUTES.values()
    )
    return table(("Identifier", "Attribute", "Bytes", "Written by hosts"), rows)


def _libraries() -> str:
    rows = (
        (
            f"`{model.name}`",
            model.vendor,
            model.product,
            f"`{model.drive}`",
            *(f"{first:04X}h" for first in (model.drives, model.slots, model.import_export)),
        )
        for model in LIBRARIES.values()
    )
    return table(
        ("Library", "Vendor", "Product", "Its drives", "Drives from", "Slots from", "Import/export from"), rows
    )


def _drives() -> str:
    rows = (
        (f"`{model.name}`", model.vendor, model.product, _names(model.writes), _names(model.reads))
        for model in DRIVES.values()
    )
    return table(("Drive", "Vendor", "Product", "Writes", "Reads"), rows)


def _names(generations: Iterable[str]) -> str:
    return ", ".join(name for name in GENERATIONS if name in generations)


if __name__ == "__main__":
    sys.stdout.write(render())
