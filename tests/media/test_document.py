"""docs/tape-commands.md is what the tables say."""

from __future__ import annotations

from pathlib import Path

from blockyard.media.document import render


def test_the_page_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "tape-commands.md"
    assert page.read_text() == render(), "run `make docs`"
