"""READ DEFECT DATA (SBC-4): there are no defects to tell of.

What is beneath a virtual disk replaces bad blocks by itself, so that both lists are there and empty, in whatever format
they are asked for.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer, Task
    from blockyard.scsi.unit import LogicalUnit


def _lists(task: Task) -> int:
    """PLISTV, GLISTV and DEFECT LIST FORMAT: what was asked for is what is returned."""
    fields = task.fields
    return fields["req_plist"] << 4 | fields["req_glist"] << 3 | fields["defect_list_format"]


def read_defect_data_10(unit: LogicalUnit, task: Task) -> Buffer:
    return struct.pack(">xBH", _lists(task), 0)


def read_defect_data_12(unit: LogicalUnit, task: Task) -> Buffer:
    return struct.pack(">xBHI", _lists(task), 0, 0)
