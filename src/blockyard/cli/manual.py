"""`blockyard manual`: manual pages, made from the parser: blockyard.1 and one for each noun (man-pages(7), man(7))."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from blockyard import __version__
from blockyard.cli.commands import build_parser
from blockyard.cli.parsers import Subparsers, leaf
from blockyard.cli.tree import Node, Option, tree

_LONG = re.compile(r"\S{30,}")
_EPILOG = """\
exit status:
  0  done
  1  the directory cannot be written to

example:
  blockyard manual /usr/local/share/man/man1
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `manual` to the commands."""

    def run(options: argparse.Namespace) -> int:
        try:
            options.directory.mkdir(parents=True, exist_ok=True)
            for name, text in pages(tree(build_parser())).items():
                (options.directory / name).write_text(text, encoding="utf-8")
        except OSError as error:
            print(f"blockyard: {error.filename}: {error.strerror}", file=sys.stderr)
            return 1
        return 0

    parser = leaf(commands, "manual", run, "write the manual pages of all commands into a directory", epilog=_EPILOG)
    parser.add_argument("directory", metavar="DIR", type=Path, help="the directory; it is made when it is missing")


def pages(root: Node) -> dict[str, str]:
    """All pages by their file names."""
    found = {"blockyard.1": "\n".join(_overview(root)) + "\n"}
    for member in root.members:
        found[f"blockyard-{member.name}.1"] = "\n".join(_page(member)) + "\n"
    return found


def _overview(root: Node) -> Iterator[str]:
    yield from _head("blockyard", "an iSCSI target")
    yield from (".SH SYNOPSIS", ".B blockyard", ".I command", "[\\fIoption\\fR ...]")
    yield from (".SH DESCRIPTION", _text(root.description), ".SH COMMANDS")
    for member in root.members:
        yield from (".TP", f".BR blockyard\\-{_text(member.name)} (1)", _text(_sentence(member.help)))
    yield from (".SH SEE ALSO", ".BR systemd (1)", ".PP", "https://toml.io for the form of configuration files.")


def _page(node: Node) -> Iterator[str]:
    yield from _head(f"blockyard-{node.name}", node.help or node.description)
    leaves = [each for each in node.walk() if not each.members]
    yield ".SH SYNOPSIS"
    for number, each in enumerate(leaves):
        yield from (*((".br",) if number else ()), f".B blockyard {_text(each.path)}")
        words = ["[\\fIoption\\fR ...]"] if each.options else []
        words += [f"\\fI{_text(one.value)}\\fR" for one in each.arguments]
        if words:
            yield " ".join(words)
    yield from (".SH DESCRIPTION", _text(node.description))
    for each in leaves:
        yield f'.SH "{_text(each.path.upper())}"'
        if each is not node:
            yield _text(each.description)
        for option in (*each.arguments, *each.options):
            yield from _option(option)
        if each.epilog:
            yield from (
                ".PP",
                ".nf",
                *(_text(line) if line else "\\&" for line in each.epilog.rstrip().split("\n")),
                ".fi",
            )
    yield from (".SH SEE ALSO", ".BR blockyard (1)")


def _head(name: str, what: str) -> Iterator[str]:
    title = name.upper().replace("-", "\\-")
    yield f'.TH "{title}" 1 2026-11-26 "Blockyard {__version__}" "User Commands"'
    yield from (".SH NAME", f"{_text(name)} \\- {_text(what.rstrip('.'))}")


def _option(option: Option) -> Iterator[str]:
    flags = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in option.flags)
    value = f"\\fI{_text(option.value)}\\fR" if option.value else ""
    yield from (".TP", f"{flags} {value}".strip(), _text(_sentence(option.help)) or "\\&")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') or not text else '.'}"


def _text(text: str) -> str:
    """As roff takes it: nothing in it is a request, a macro or an escape."""
    escaped = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...").replace("'", "\\(aq").replace("`", "\\(ga")
    )
    escaped = _LONG.sub(lambda found: re.sub(r"([|,/])", r"\1\\:", found[0]), escaped)  # where a line may break
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
