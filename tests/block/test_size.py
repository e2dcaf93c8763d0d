"""Sizes as people write and read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.block.size import Size, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512), ("10G", 10 << 30), ("10g", 10 << 30), ("64KiB", 64 << 10), ("64 KB", 64 << 10), ("1.5T", 3 << 39),
        ("4096B", 4096), ("1m", 1 << 20), ("0.5K", 512), (" 2G ", 2 << 30), ("1P", 1 << 50),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "ten", "10X", "-1G", "0", "0G", "1e9", "10GG", "1.5", "10iB", "9999999P", "1_000", "٣G", "nan"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole number"):
        parse_size(text)


@given(st.text())
def test_no_text_does_harm(text: str) -> None:
    try:
        size = parse_size(text)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
    else:
        assert size > 0


@given(st.integers(1, 1 << 40))
def test_bytes_are_taken_as_they_are(size: int) -> None:
    assert parse_size(str(size)) == size


def test_sizes_for_people() -> None:
    assert [format_size(size) for size in (1000, 1 << 30, 3 << 39)] == ["1000 bytes", "1 GiB", "1.5 TiB"]


@given(st.integers(1, (1 << 63) - 1))
def test_a_size_is_written_as_it_is_read(size: int) -> None:
    assert Size.read(str(Size(size))) == Size.read(size) == size


@pytest.mark.parametrize("data", [True, -1, (1 << 63) + 1, 1.5, None, "", "much", []])
def test_what_a_table_has_that_is_no_size(data: object) -> None:
    with pytest.raises(ValueError, match="size"):
        Size.read(data)


def test_the_shortest_form() -> None:
    assert [str(Size(size)) for size in (0, 512, 1 << 30, 3 << 29, 1 << 60)] == ["0", "512", "1G", "1536M", "1E"]
