"""Which modules are imported for a command: those that have it, found by its first word."""

from __future__ import annotations

import argparse
import sys

import pytest

from blockyard.cli.commands import _MODULES, build_parser
from tests.conftest import run


def _names(parser: argparse.ArgumentParser) -> list[str]:
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return list(commands.choices)


def test_each_module_has_the_commands_that_it_is_imported_for() -> None:
    for names in _MODULES.values():
        for name in names:
            assert _names(build_parser([name])) == [*names]
    assert _names(build_parser()) == [name for names in _MODULES.values() for name in names]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--url https://192.0.2.1 --pin=sha256//x top --help", ["top"]),
        ("--token-file top doctor", ["doctor"]),
        ("--url", None),
        ("nonsense top", None),
        ("--help top", None),
        ("", None),
    ],
)
def test_the_command_is_the_first_word_that_belongs_to_no_option(words: str, names: list[str] | None) -> None:
    assert _names(build_parser(words.split())) == (names or _names(build_parser()))


def test_a_command_does_not_wait_for_what_others_need() -> None:
    code = (
        "import sys, blockyard.cli.main\n"
        "blockyard.cli.main.build_parser(['status'])\n"
        "print(sorted({'cryptography.x509', 'blockyard.cli.serve', 'blockyard.scsi'} & sys.modules.keys()))"
    )
    assert run([sys.executable, "-c", code]).stdout.strip() == "[]"
