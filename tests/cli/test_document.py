"""The page on the command line says what the command line is."""

from __future__ import annotations

from pathlib import Path

from blockyard.cli import kinds_document
from blockyard.cli.document import document

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == document(), "run `make docs`"


def test_the_page_on_kinds_is_current() -> None:
    assert PAGE.with_name("layer-kinds.md").read_text() == kinds_document.document(), "run `make docs`"
