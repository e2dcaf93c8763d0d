"""How much one command may ask for: what VPD page B0h advertises and the handlers enforce (SBC-4)."""

from __future__ import annotations

MAX_TRANSFER = 8 << 20  # bytes of READ, WRITE, VERIFY
OPTIMAL_TRANSFER = 1 << 20  # bytes; larger reads gain nothing more per system call
COMPARE_AND_WRITE_BLOCKS = 255  # all that its length field can say
ATOMIC_BYTES = 1 << 20  # of one WRITE ATOMIC command
UNMAP_BLOCKS = 1 << 20  # of one UNMAP command, all its descriptors together
UNMAP_DESCRIPTORS = 256
WRITE_SAME_BLOCKS = 1 << 15  # of one WRITE SAME command: a pattern that is not zero has to be written for real
LBA_STATUS_DESCRIPTORS = 1024  # that one GET LBA STATUS looks for at most
PIECE = 1 << 20  # bytes that a handler works on at a time where it need not hold all of a range
REGISTRATIONS = 1024  # I_T nexuses that have a reservation key on one logical unit
