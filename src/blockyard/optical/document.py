"""The page of what optical drives understand, written from the tables.

Its text goes to standard output: `python -m blockyard.optical.document > docs/optical-commands.md`.
"""

from __future__ import annotations

import sys

from blockyard.optical.commands import OPTICAL_COMMANDS
from blockyard.optical.features import FEATURES
from blockyard.optical.kinds import KINDS
from blockyard.optical.pages import MODE_PAGES, VPD_PAGES
from blockyard.scsi.document import command_table, mode_table, table, vpd_table

_HEAD = """\
# What optical drives understand

<!-- Written by `python -m blockyard.optical.document` from tables in src/blockyard/optical and scsi: change those. -->

Drives (peripheral device type 05h) follow MMC-6 and SPC-4. [Optical drives](optical.md) says how to use them.
"""


def render() -> str:
    """The whole page, as Markdown."""
    return "\n".join(
        (
            _HEAD,
            "## Commands\n\n" + command_table(OPTICAL_COMMANDS),
            "## Features\n\n" + _features(),
            "## Kinds of disc\n\n" + _kinds(),
            "## Vital product data pages\n\n" + vpd_table(VPD_PAGES.values()),
            "## Mode pages\n\n" + mode_table(MODE_PAGES.values()),
        )
    )


def _features() -> str:
    rows = (
        (
            f"{feature.code:04X}h",
            feature.name,
            str(feature.version),
            "always" if feature.current is None else ", ".join(kind.name.upper() for kind in feature.current),
        )
        for feature in FEATURES
    )
    return table(("Code", "Feature", "Version", "Current with"), rows)


def _kinds() -> str:
    rows = (
        (
            kind.name.upper(),
            f"{kind.profile:04X}h",
            ", ".join(map(str, kind.layers)),
            f"{kind.most}",
            f"{kind.speed} kB/s",
        )
        for kind in KINDS.values()
    )
    return table(
        ("Disc", "Profile", "Blocks with 1, 2, … layers", "Blocks at most, by choice", "Speed that is told"), rows
    )


if __name__ == "__main__":
    sys.stdout.write(render())
