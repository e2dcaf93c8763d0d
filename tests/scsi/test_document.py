"""The page of supported commands is the one that the tables make."""

from __future__ import annotations

from pathlib import Path

from blockyard.scsi.document import render

_PAGE = Path(__file__).parents[2] / "docs" / "supported-commands.md"


def test_the_page_is_current() -> None:
    assert _PAGE.read_text() == render(), "run `make docs`"
