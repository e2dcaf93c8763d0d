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
TASKS = 4096  # in progress on one logical unit; what comes then ends with TASK SET FULL or BUSY
PIECE = 1 << 20  # bytes that a handler works on at a time where it need not hold all of a range
REGISTRATIONS = 1024  # I_T nexuses that have a reservation key on one logical unit

# third-party copy (SPC-5): what VPD page 8Fh and RECEIVE COPY OPERATING PARAMETERS advertise
COPY_CSCDS = 16  # descriptors of copy sources and destinations in a parameter list
COPY_SEGMENTS = 256
COPY_LIST_LENGTH = 32 * COPY_CSCDS + 32 * COPY_SEGMENTS  # bytes of descriptors
COPY_SEGMENT = 256 << 20  # bytes of one segment
COPY_PIECE = 4 << 20  # bytes that are copied before other commands have their turn
COPIES = 255  # operations with a list identifier that one logical unit carries out, or remembers, at a time
TOKEN_RANGES = 64  # range descriptors of POPULATE TOKEN and WRITE USING TOKEN
TOKEN_BYTES = 4 << 30  # that one ROD token represents, or that is written by one
TOKENS = 1024  # that are valid at a time; beyond, the one not used for longest is cancelled
TOKEN_TIMEOUT = 60  # seconds without use after which a token expires, unless its creator says otherwise
MAX_TOKEN_TIMEOUT = 600
