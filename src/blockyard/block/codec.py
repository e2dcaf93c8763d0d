"""Compression of blocks: zstd of the standard library (Python 3.14) or its backport, where there is one.

Each block is compressed by itself, so that it can be read without any other, and one that would not become smaller is
stored as it is.
"""

from __future__ import annotations

import errno
import importlib
from types import ModuleType

PLAIN, ZSTD = 0, 1  # in records (media/record.py, block/compressed/layout.py)
_LEVEL = 1  # the fastest: a drive is not to wait for it


def _module() -> ModuleType | None:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_zstd = _module()
AVAILABLE = _zstd is not None


def compress(data: bytes | bytearray | memoryview, level: int = _LEVEL) -> tuple[int, bytes | bytearray | memoryview]:
    """The codec and what to store: the data itself where it would not become smaller, or there is no zstd."""
    if _zstd is None:
        return PLAIN, data
    packed: bytes = _zstd.compress(data, level)
    return (ZSTD, packed) if len(packed) < len(data) else (PLAIN, data)


def decompress(codec: int, stored: bytes, length: int) -> bytes:
    """The block of this length. Raises OSError; EOPNOTSUPP where this program lacks the codec."""
    if codec == PLAIN:
        return stored
    if codec != ZSTD or _zstd is None:
        raise OSError(errno.EOPNOTSUPP, f"The block is compressed (codec {codec}): install the package backports.zstd")
    try:
        frame = _zstd.ZstdDecompressor()
        data: bytes = frame.decompress(stored, length + 1)  # no more of it, whatever a damaged one would become
    except _zstd.ZstdError as error:
        raise OSError(errno.EBADMSG, f"The block cannot be decompressed: {error}") from error
    if len(data) != length or not frame.eof:
        raise OSError(errno.EBADMSG, f"The block does not have the {length} bytes that it should have")
    return data
