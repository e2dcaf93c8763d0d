"""What somebody has left at the beginning of a disk: partition tables, file systems, marks of arrays and of our own layers.

It is for people, who choose a disk and would rather not lose what is on it; nothing is opened on the strength of it. Where each
mark is: libblkid of util-linux, and the modules that write ours.
"""

from __future__ import annotations

LOOKED_AT = 72 << 10  # bytes at the beginning, which have all of these marks
_MARKS = (  # the first that fits
    (0, b"BYMEMBER", "part of a pool"),
    (4096, b"\xfc\x4e\x2b\xa9", "part of an array"),  # the superblock of md and of ours (version 1.2)
    (0, b"\xfc\x4e\x2b\xa9", "part of an array"),  # and 1.1
    (0, b"BYcache1", "a cache"),
    (0, b"BYpacked", "a compressed disk"),
    (0, b"LUKS\xba\xbe", "an encrypted disk"),
    (3, b"-FVE-FS-", "an encrypted disk"),  # BitLocker
    (0, b"XFSB", "xfs"),
    (1080, b"\x53\xef", "ext"),
    (65600, b"_BHRfS_M", "btrfs"),
    (3, b"NTFS    ", "ntfs"),
    (3, b"EXFAT   ", "exfat"),
    (82, b"FAT32   ", "fat"),
    (54, b"FAT16   ", "fat"),
    (54, b"FAT12   ", "fat"),
    *((sector * 512, b"LABELONE", "part of LVM") for sector in range(4)),
    *((page - 10, b"SWAPSPACE2", "swap space") for page in (4096, 16384, 65536)),
    (32769, b"CD001", "iso9660"),
    (34817, b"NSR0", "udf"),
    (512, b"EFI PART", "partitions"),
    (4096, b"EFI PART", "partitions"),
    (510, b"\x55\xaa", "partitions"),
)


def holds(beginning: bytes) -> str:
    """What a disk seems to have on it, by its first `LOOKED_AT` bytes; "": nothing that is known."""
    return next((text for at, mark, text in _MARKS if beginning.startswith(mark, at)), "")
