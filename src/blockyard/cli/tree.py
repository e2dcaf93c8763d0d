"""The commands of a parser as a tree, for what is made from it: completion for shells, manual pages.

argparse has no public way to look at a parser; what is private of it is used here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    flags: tuple[str, ...]
    value: str  # what it is followed by; "" for nothing
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Node:
    """A command: "volume create"; "" for all of it. Those that have others below them have no arguments of their own."""

    path: str
    help: str
    description: str
    epilog: str
    options: tuple[Option, ...]
    arguments: tuple[Option, ...]  # without flags; `value` is the name
    members: tuple[Node, ...]

    @property
    def name(self) -> str:
        return self.path.rpartition(" ")[2]

    def walk(self) -> Iterator[Node]:
        """It, and all below it."""
        yield self
        for member in self.members:
            yield from member.walk()


def tree(parser: argparse.ArgumentParser, path: str = "", help_text: str = "") -> Node:
    members: list[Node] = []
    options: list[Option] = []
    arguments: list[Option] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {each.dest: each.help or "" for each in action._choices_actions}
            members += [
                tree(each, f"{path} {name}".strip(), texts.get(name, "")) for name, each in action.choices.items()
            ]
        elif action.help is not argparse.SUPPRESS:
            (options if action.option_strings else arguments).append(_option(action))
    return Node(
        path,
        help_text.replace("%%", "%"),
        parser.description or "",
        parser.epilog or "",
        tuple(options),
        tuple(arguments),
        tuple(members),
    )


def _option(action: argparse.Action) -> Option:
    choices = tuple(map(str, action.choices or ()))
    value = "" if action.nargs == 0 else str(action.metavar or "|".join(choices) or action.dest.upper())
    text = (action.help or "") % {**vars(action), "prog": "blockyard"}
    return Option(tuple(action.option_strings), value, choices, text)
