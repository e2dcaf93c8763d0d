"""The arithmetic of RAID 5 and 6: P is the sum of a row's data, Q the sum of g^i times data i, in GF(2^8) with polynomial 11Dh.

H. P. Anvin, "The mathematics of RAID-6": g = 2; addition is XOR. It is done with numpy on whole arrays of bytes, in pieces that
stay in the processor's cache. Multiplying by g is four passes over such a piece: twice every byte, and 1Dh more for those whose
highest bit was set. Multiplying by anything else, which takes a lost disk, looks up two bytes at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Buffer = bytes | bytearray | memoryview

_PIECE = 32 << 10  # bytes: a few of these fit the first-level cache, or nearly
_REDUCTION = 0x1D
_ORDER = 255  # of the multiplicative group


def _tables() -> tuple[list[int], list[int]]:
    powers, logarithms, value = [], [0] * 256, 1
    for exponent in range(_ORDER):
        powers.append(value)
        logarithms[value] = exponent
        value = value << 1 ^ (0x11D if value & 0x80 else 0)
    return powers, logarithms


_POWERS, _LOGARITHMS = _tables()


def power(exponent: int) -> int:
    """g to the `exponent`."""
    return _POWERS[exponent % _ORDER]


def inverse(value: int) -> int:
    return _POWERS[-_LOGARITHMS[value] % _ORDER]


def product(one: int, other: int) -> int:
    return _POWERS[(_LOGARITHMS[one] + _LOGARITHMS[other]) % _ORDER] if one and other else 0


def array(buffer: Buffer) -> Bytes:
    """The bytes of a buffer, without copying."""
    return np.frombuffer(buffer, np.uint8)


def new(length: int) -> Bytes:
    return np.empty(length, np.uint8)


def sum_p(data: Sequence[Bytes]) -> Bytes:
    """P of a row, or what is missing of it: the sum of `data`, which is not empty."""
    out = new(len(data[0]))
    for at in range(0, len(out), _PIECE):
        _add_up([each[at : at + _PIECE] for each in data], out[at : at + _PIECE])
    return out


def sum_pq(data: Sequence[Bytes | None]) -> tuple[Bytes, Bytes]:
    """P and Q of a row; None is a piece of zeros, and not all of them are."""
    p, q = (new(len(next(each for each in data if each is not None))) for _ in range(2))
    spare = new(min(len(p), _PIECE))
    for at in range(0, len(p), _PIECE):
        _both(
            [None if each is None else each[at : at + _PIECE] for each in data],
            p[at : at + _PIECE],
            q[at : at + _PIECE],
            spare,
        )
    return p, q


def _add_up(pieces: Sequence[Bytes], out: Bytes) -> None:
    if len(pieces) == 1:
        out[:] = pieces[0]
        return
    np.bitwise_xor(pieces[0], pieces[1], out=out)
    for piece in pieces[2:]:
        np.bitwise_xor(out, piece, out=out)


def _both(pieces: Sequence[Bytes | None], p: Bytes, q: Bytes, spare: Bytes) -> None:
    """By Horner's rule, from the last piece to the first."""
    _add_up([piece for piece in pieces if piece is not None], p)
    q[:] = 0 if pieces[-1] is None else pieces[-1]
    spare = spare[: len(q)]
    for piece in reversed(pieces[:-1]):
        _double(q, spare)
        if piece is not None:
            np.bitwise_xor(q, piece, out=q)


_SEVEN, _MASK = np.int8(7), np.uint8(_REDUCTION)


def _double(value: Bytes, spare: Bytes) -> None:
    np.right_shift(value.view(np.int8), _SEVEN, out=spare.view(np.int8))  # FFh where the highest bit is set
    np.bitwise_and(spare, _MASK, out=spare)
    np.add(value, value, out=value)
    np.bitwise_xor(value, spare, out=value)


def scaled(data: Bytes, factor: int) -> Bytes:
    """`data` times `factor`."""
    return data if factor == 1 else _multiplier(factor)(data)


@cache
def _multiplier(factor: int) -> Callable[[Bytes], Bytes]:
    """By a table of pairs of bytes, 128 KiB for each factor: a row of 20 disks needs some hundred, when two of them are lost."""
    single = np.array([product(factor, value) for value in range(256)], np.uint16)
    pairs = (single[:, None] << np.uint16(8) | single[None, :]).reshape(-1)

    def multiply(data: Bytes) -> Bytes:
        out = new(len(data))
        pair_in, pair_out = data.view(np.uint16), out.view(np.uint16)
        for at in range(0, len(pair_in), _PIECE):
            np.take(pairs, pair_in[at : at + _PIECE], out=pair_out[at : at + _PIECE], mode="clip")
        return out

    return multiply


def change_q(old: Bytes, new_data: Bytes, index: int, q: Bytes) -> Bytes:
    """Q after the data of `index` has changed from `old` to `new_data`."""
    return q ^ scaled(old ^ new_data, power(index))


def restore_by_q(data: Sequence[Bytes | None], q: Bytes, lost: int) -> Bytes:
    """The piece `lost` of a row from Q and the others, without P."""
    _, partial = (
        sum_pq([None if index == lost else each for index, each in enumerate(data)]) if len(data) > 1 else (q, q ^ q)
    )
    return scaled(partial ^ q, inverse(power(lost)))


def restore_two(data: Sequence[Bytes | None], p: Bytes, q: Bytes, one: int, other: int) -> tuple[Bytes, Bytes]:
    """The pieces `one` and `other` of a row, `one` < `other` (Anvin, section 4: with A and B as there)."""
    others = [None if index in (one, other) else each for index, each in enumerate(data)]
    if all(each is None for each in others):
        partial_p, partial_q = p, q
    else:
        sum_of_p, sum_of_q = sum_pq(others)
        partial_p, partial_q = sum_of_p ^ p, sum_of_q ^ q
    divisor = inverse(power(other - one) ^ 1)
    a, b = product(power(other - one), divisor), product(inverse(power(one)), divisor)
    first = scaled(partial_p, a)
    first ^= scaled(partial_q, b)
    return first, first ^ partial_p


def locate(p_difference: Bytes, q_difference: Bytes, count: int) -> int | None:
    """Which one piece of `count` explains that P and Q are not as they should be: its index, -1 for P, -2 for Q, None for more.

    The differences are those of what is there to what the data makes; one of them is not zero.
    """
    if not q_difference.any():
        return -1
    if not p_difference.any():
        return -2
    wrong = np.flatnonzero(p_difference)
    if len(wrong) != np.count_nonzero(q_difference):
        return None
    at = int(wrong[0])
    index = (_LOGARITHMS[int(q_difference[at])] - _LOGARITHMS[int(p_difference[at])]) % _ORDER
    if index < count and np.array_equal(scaled(p_difference, power(index)), q_difference):
        return index
    return None
