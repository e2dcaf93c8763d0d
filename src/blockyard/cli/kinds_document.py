"""docs/layer-kinds.md, made from the table of kinds: `python -m blockyard.cli.kinds_document`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from blockyard.block import kinds
from blockyard.cli.layers import described, shown_default, stands_on

_HEAD = """\
# Kinds of layers

<!-- Made by `make docs` from the kinds in src/blockyard/block. Do not edit: a test compares. -->

How they are put together is in [layers](layers.md). `blockyard layer kinds` shows the same.

| kind | stands on | what it is |
| --- | --- | --- |
"""


def document() -> str:
    """The page, as Markdown."""
    rows = "".join(f"| [`{kind.name}`](#{kind.name}) | {stands_on(kind)} | {kind.text} |\n" for kind in kinds.kinds())
    parts = ("\n".join(_part(described(kind))) for kind in kinds.kinds())
    return _HEAD + rows + "\n" + "\n".join(parts)


def _part(kind: dict[str, Any]) -> Iterator[str]:
    yield from (f"## {kind['name']}", "", kind["text"], "")
    if kind["example"]:
        yield from (f"    {kind['example']}", "")
    for title, options in (("option", kind["options"]), ("when it is created", kind.get("creation", {}))):
        if options:
            yield from (f"| {title} | type | default |", "| --- | --- | --- |")
            for name, option in options.items():
                yield f"| `{name}` | {option['type']} | {shown_default(option)} |"
            yield ""


if __name__ == "__main__":
    sys.stdout.write(document())
