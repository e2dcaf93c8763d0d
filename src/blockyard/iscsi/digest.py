"""Header and data digests: CRC32C (RFC 7143 §13.1, §A.4), sent as four bytes in little-endian order.

The polynomial is computed by the `fastcrc` library with the processor's carry-less multiplication.
"""

from fastcrc.crc32 import iscsi as crc32c

DIGEST_LENGTH = 4

__all__ = ["DIGEST_LENGTH", "crc32c"]
