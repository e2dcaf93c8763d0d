"""Many small sectors encrypted at once, by numpy and ECB: see xts.py."""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_BLOCK = 16
_Words = NDArray[np.uint64]
Bytes = bytes | bytearray | memoryview


class Many:
    """A key for sectors of `size` bytes."""

    def __init__(self, key: bytes, size: int) -> None:
        half = len(key) // 2
        # ECB is what XTS is made of, between its two XORs
        self._data = Cipher(algorithms.AES(key[:half]), modes.ECB())  # noqa: S305
        self._tweak = Cipher(algorithms.AES(key[half:]), modes.ECB())  # noqa: S305
        self._size = size

    def run(self, data: Bytes, number: int, encrypt: bool) -> memoryview:
        """Encrypt or decrypt whole sectors, the first of which has that number."""
        tweaks = self._tweaks(number, len(data) // self._size)
        words = np.frombuffer(data, dtype="<u8") ^ tweaks
        cipher = self._data.encryptor() if encrypt else self._data.decryptor()
        out = bytearray(len(data) + _BLOCK - 1)
        cipher.update_into(words.data.cast("B"), out)
        result = np.frombuffer(out, dtype="<u8", count=len(data) // 8)
        np.bitwise_xor(result, tweaks, out=words)
        return words.data.cast("B")

    def _tweaks(self, number: int, count: int) -> _Words:
        """Two words, the lower one first, for each block of `count` sectors in order."""
        numbers = np.zeros((count, 2), dtype="<u8")
        numbers[:, 0] = np.arange(number, number + count * self._size // 512, self._size // 512, dtype=np.uint64)
        first = np.frombuffer(self._tweak.encryptor().update(numbers.tobytes()), dtype="<u8").reshape(count, 2)
        blocks = self._size // _BLOCK
        low, high = np.empty((count, blocks), dtype=np.uint64), np.empty((count, blocks), dtype=np.uint64)
        low[:, 0], high[:, 0] = first[:, 0], first[:, 1]
        have = 1
        while have < blocks:
            low[:, have : 2 * have], high[:, have : 2 * have] = _times(low[:, :have], high[:, :have], have)
            have *= 2
        return np.stack((low, high), axis=-1).reshape(-1)


def _times(low: _Words, high: _Words, power: int) -> tuple[_Words, _Words]:
    """Numbers of GF(2^128) times x to that power, of two, modulo x^128 + x^7 + x^2 + x + 1."""
    while power > 32:
        low, high = _times(low, high, 32)
        power -= 32
    up, down = np.uint64(power), np.uint64(64 - power)
    out = high >> down
    return (low << up) ^ out ^ (out << np.uint64(1)) ^ (out << np.uint64(2)) ^ (out << np.uint64(7)), (high << up) | (
        low >> down
    )
