"""Parity against arithmetic that is done bit by bit, and against the rows that make RAID 6 what it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.raid import parity


def times(one: int, other: int) -> int:
    """Multiplication of polynomials over GF(2), reduced by x^8 + x^4 + x^3 + x^2 + 1."""
    result = 0
    for bit in range(8):
        if other >> bit & 1:
            result ^= one << bit
    for bit in range(15, 7, -1):
        if result >> bit & 1:
            result ^= 0x11D << bit - 8
    return result


def to_the(base: int, exponent: int) -> int:
    result = 1
    for _ in range(exponent):
        result = times(result, base)
    return result


def rows(count: int, length: int, seed: int) -> list[parity.Bytes]:
    chance = random.Random(seed)
    return [parity.array(chance.randbytes(length)) for _ in range(count)]


def slow_pq(data: list[parity.Bytes]) -> tuple[bytes, bytes]:
    p, q = bytearray(len(data[0])), bytearray(len(data[0]))
    for index, piece in enumerate(data):
        factor = to_the(2, index)
        table = [times(factor, value) for value in range(256)]
        for at, value in enumerate(piece.tobytes()):
            p[at] ^= value
            q[at] ^= table[value]
    return bytes(p), bytes(q)


def test_multiplication_is_that_of_the_field() -> None:
    for one in range(256):
        for other in range(256):
            assert parity.product(one, other) == times(one, other)
        assert parity.power(one) == to_the(2, one)
    assert all(parity.product(value, parity.inverse(value)) == 1 for value in range(1, 256))


@pytest.mark.parametrize("factor", [0, 1, 2, 3, 0x1D, 0x80, 0xFF])
def test_scaling_multiplies_every_byte(factor: int) -> None:
    data = parity.array(bytes(range(256)))
    assert parity.scaled(data, factor).tolist() == [times(factor, value) for value in range(256)]


@given(st.integers(1, 40), st.integers(0, 1000))
def test_p_and_q_are_the_sums_that_define_them(count: int, seed: int) -> None:
    data = rows(count, 514, seed)
    p, q = parity.sum_pq(data)
    assert (p.tobytes(), q.tobytes()) == slow_pq(data)
    assert parity.sum_p(data).tobytes() == p.tobytes()


def test_rows_longer_than_a_piece_are_done_whole() -> None:
    data = rows(3, (64 << 10) + 512, 1)
    p, q = parity.sum_pq(data)
    assert (p.tobytes(), q.tobytes()) == slow_pq(data)


@pytest.mark.parametrize("count", [2, 3, 4, 7, 20])
def test_any_two_lost_pieces_come_back(count: int) -> None:
    data = rows(count, 512, count)
    p, q = parity.sum_pq(data)
    for one in range(count):
        assert parity.restore_by_q(data, q, one).tobytes() == data[one].tobytes()
        for other in range(one + 1, count):
            back = parity.restore_two(data, p, q, one, other)
            assert [each.tobytes() for each in back] == [data[one].tobytes(), data[other].tobytes()]


def test_a_row_of_one_piece() -> None:
    (data,) = rows(1, 512, 3)
    p, q = parity.sum_pq([data])
    assert p.tobytes() == q.tobytes() == data.tobytes()
    assert parity.restore_by_q([data], q, 0).tobytes() == data.tobytes()


@given(st.integers(2, 20), st.data())
def test_a_change_of_one_piece_changes_q_as_it_should(count: int, draw: st.DataObject) -> None:
    data = rows(count, 512, count)
    index = draw.draw(st.integers(0, count - 1))
    _, q = parity.sum_pq(data)
    (fresh,) = rows(1, 512, 99)
    changed = parity.change_q(data[index], fresh, index, q)
    data[index] = fresh
    assert changed.tobytes() == parity.sum_pq(data)[1].tobytes()


def test_one_piece_that_is_wrong_is_found() -> None:
    data = rows(5, 512, 5)
    p, q = parity.sum_pq(data)
    for index in range(5):
        harmed = list(data)
        harmed[index] = data[index].copy()
        harmed[index][7] ^= 0x55
        harmed[index][300] ^= 0x01
        made_p, made_q = parity.sum_pq(harmed)
        assert parity.locate(p ^ made_p, q ^ made_q, 5) == index
    other = q.copy()
    other[3] ^= 1
    assert parity.locate(p ^ p, other ^ q, 5) == -2
    assert parity.locate(other ^ q, p ^ p, 5) == -1
    harmed = [piece.copy() for piece in data]
    harmed[1][5] ^= 1
    harmed[2][6] ^= 1
    made_p, made_q = parity.sum_pq(harmed)
    assert parity.locate(p ^ made_p, q ^ made_q, 5) is None
