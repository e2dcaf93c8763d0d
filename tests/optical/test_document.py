"""docs/optical-commands.md is what the tables say."""

from __future__ import annotations

from pathlib import Path

from blockyard.optical.document import render

PAGE = Path(__file__).parents[2] / "docs" / "optical-commands.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == render(), "run `make docs`"
