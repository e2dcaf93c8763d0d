"""Sizes of block devices, as people write them and as they are told."""

from __future__ import annotations

import re

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}  # suffix → power of two
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTPE]?)(I?B)?", re.IGNORECASE | re.ASCII)
MAX_SIZE = (1 << 63) - 1  # of a file: off_t
MAX_VOLUME = 1 << 63  # of a volume of a pool


class Size(int):
    """A number of bytes; in a configuration file 10737418240 or "10G"."""

    @classmethod
    def read(cls, data: object) -> Size:
        """A size of what a table has. Raises ValueError."""
        if type(data) is int and 0 <= data <= MAX_VOLUME:
            return cls(data)
        if isinstance(data, str):
            return cls(parse_size(data, MAX_VOLUME))
        raise ValueError(f'{data!r} is not a size: write a number of bytes, or for example "10G"')

    def __str__(self) -> str:
        """The shortest form that `parse_size` takes for the same."""
        for suffix in "EPTGMK":
            if self and not self % (1 << _UNITS[suffix]):
                return f"{self >> _UNITS[suffix]}{suffix}"
        return int.__repr__(self)


def parse_size(text: str, largest: int = MAX_SIZE) -> int:
    """A size in bytes, at most `largest`: 10G, 512M, 1.5T, 64KiB, 4096. Suffixes are powers of 1024, as in truncate and qemu-img.

    Raises ValueError for what is no size, is zero, or is not a whole number of bytes.
    """
    match = _SIZE.fullmatch(text.strip())
    hint = "a number with K, M, G or T, for example 10G"
    if match is None:
        raise ValueError(f"{text!r} is not a size: write {hint}")
    number, suffix, tail = match.groups()
    if tail and not suffix and tail.upper() == "IB":
        raise ValueError(f"{text!r} is not a size: write {hint}")
    whole, _, fraction = number.partition(".")
    shifted = int(whole + fraction) << _UNITS[suffix.upper()]
    size, rest = divmod(shifted, int("1" + "0" * len(fraction)))
    if rest:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    if not 0 < size <= largest:
        raise ValueError(f"{text!r} is not a size that a disk can have: write {hint}")
    return size


def format_size(size: int) -> str:
    """A size as people read it: 1073741824 → "1 GiB", 1000 → "1000 bytes"."""
    for suffix in "EPTGMK":
        unit = 1 << _UNITS[suffix]
        if size >= unit:
            return f"{size / unit:.4g} {suffix}iB"
    return f"{size} bytes"


_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h)?", re.ASCII)


class Duration(float):
    """A number of seconds; in a configuration file 0.005 or "5ms"."""

    @classmethod
    def read(cls, data: object) -> Duration:
        """A duration of what a table has. Raises ValueError."""
        if isinstance(data, int | float) and not isinstance(data, bool) and 0 <= data < float("inf"):
            return cls(data)
        match = _DURATION.fullmatch(data) if isinstance(data, str) else None
        if match is None:
            raise ValueError(f'{data!r} is not a duration: write a number of seconds, or for example "5ms"')
        return cls(float(match.group(1)) * _SECONDS[match.group(2) or "s"])

    def __str__(self) -> str:
        """A short form that `read` takes for the same."""
        for unit in ("s", "ms", "us"):
            if not self or self >= _SECONDS[unit]:
                return f"{self / _SECONDS[unit]:.6g}{unit}"
        return f"{float(self):f}s"
