"""docs/command-line.md, made from the parser: `python -m blockyard.cli.document`.

Not from argparse's help text, whose form changes from one version of Python to the next.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from blockyard.cli.commands import build_parser

_HEAD = """\
# Command line

<!-- Made by `make docs` from the parser in src/blockyard/cli. Do not edit: a test compares. -->
"""


def document() -> str:
    """The page, as Markdown."""
    parser = build_parser()
    lines = [_HEAD, parser.description or "", ""]
    for name, command in _commands(parser.prog, parser):
        lines += _command(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _commands(prefix: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """All commands under `parser`, with their full names; a family of commands stands for its members."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                members = list(_commands(f"{prefix} {name}", command))
                yield from members or [(f"{prefix} {name}", command)]


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    words = [f"[{action.option_strings[0]}{_value(action)}]" for action in _options(parser)]
    words += [_positional(action) for action in parser._actions if not action.option_strings]
    yield from (f"## {name}", "", parser.description or "", "", "```")
    yield from _wrap(name, words)
    yield from ("```", "", "| argument | meaning |", "| --- | --- |")
    for action in parser._actions:
        if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            names = ", ".join(f"`{option}{_value(action)}`" for option in action.option_strings)
            text = (action.help or "") % {**vars(action), "prog": name}
            yield f"| {names or f'`{action.metavar or action.dest}`'} | {text} |".replace("|N", "\\|N")
    yield ""
    if parser.epilog:
        yield from ("```text", parser.epilog.rstrip(), "```", "")


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action for action in parser._actions if action.option_strings and not isinstance(action, argparse._HelpAction)
    ]


def _value(action: argparse.Action) -> str:
    """What an option is followed by."""
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return f" {action.metavar}"
    return f" {'/'.join(map(str, action.choices))}" if action.choices else f" {action.dest.upper()}"


def _positional(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    return {"*": f"[{name} ...]", "+": f"{name} ...", "?": f"[{name}]"}.get(str(action.nargs), name)


def _wrap(first: str, words: list[str], width: int = 100) -> Iterator[str]:
    line = first
    for word in words:
        if len(line) + 1 + len(word) > width:
            yield line
            line = " " * len(first)
        line += f" {word}"
    yield line


if __name__ == "__main__":
    sys.stdout.write(document())
