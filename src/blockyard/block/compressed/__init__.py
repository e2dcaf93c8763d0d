"""Compressed disks with checksums: a log of chunks in a file that grows as needed."""
