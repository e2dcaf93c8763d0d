"""The catalogue of events: the source records what is in it and nothing else, and its advice can be followed."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.rbd.keeper import State as RbdState
from blockyard.cli.commands import build_parser
from blockyard.cli.main import main
from blockyard.control.catalogue import CATALOGUE, document

SOURCE = Path(__file__).parents[2] / "src" / "blockyard"
PAGE = Path(__file__).parents[2] / "docs" / "events.md"
COMPUTED = {"f'rbd-{state.value}'": {f"rbd-{state.value}" for state in (RbdState.WAITING, RbdState.FENCED)}}


def _recorded() -> Iterator[tuple[str, str, str | None]]:
    """Where an event is recorded, of which kind, and what the place says about its severity."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            place = f"{path.relative_to(SOURCE)}:{node.lineno}"
            if name.endswith("notify") and len(node.args) == 3:  # severity, what, text
                severity, what = node.args[:2]
                assert isinstance(severity, ast.Constant), place
                for one in _kinds(what, place):
                    yield place, one, str(severity.value)
            elif (
                name.endswith(("events.record", "self.record"))
                or (path.name in ("delivery.py", "store.py") and name == "self._tell")
            ) and len(node.args) == 2:  # what, text
                yield from ((place, one, None) for one in _kinds(node.args[0], place))


def _kinds(what: ast.expr, place: str) -> set[str]:
    if isinstance(what, ast.Constant):
        return {str(what.value)}
    if isinstance(what, ast.Name) and place.startswith("control/events.py"):
        return set()  # hear: it has looked
    return COMPUTED[ast.unparse(what)]


def test_all_that_is_recorded_is_in_the_catalogue_and_the_other_way_round() -> None:
    recorded = list(_recorded())
    for place, what, severity in recorded:
        assert what in CATALOGUE, f"{place}: add {what} to control/catalogue.py, then `make docs`"
        assert severity in (None, CATALOGUE[what].severity), f"{place}: the catalogue has another severity for {what}"
    written_by_itself = {"events-lost", "test"}
    assert {what for _, what, _ in recorded} | written_by_itself == set(CATALOGUE)


def test_what_to_do_can_be_done() -> None:
    for kind in CATALOGUE.values():
        for command in re.findall(r"`blockyard ([^`]*)`", kind.action):
            with pytest.raises(SystemExit) as ended:
                build_parser().parse_args([*command.split(), "--help"])
            assert ended.value.code == 0, command
        for page in re.findall(r"docs/[\w-]+\.md", kind.action):
            assert (PAGE.parents[1] / page).is_file(), page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == document(), "run `make docs`"


def test_a_kind_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["events", "--explain", "pool-full"]) == 0
    assert "blockyard pool add" in capsys.readouterr().out
    assert main(["events", "--explain", "pool-full", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["severity"] == "error"
    assert main(["events", "--explain", "pool-ful"]) == 2
    assert "did you mean pool-full?" in capsys.readouterr().err
