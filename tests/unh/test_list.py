"""The list of the suite's cases, and that each has a test here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

CASES = [  # group, and how its cases are numbered within it
    f"{group}.{case}"
    for group, cases in {
        1: "1 2 3", 2: "1", 3: "1", 4: "1", 5: "1", 6: "1", 7: "1 2", 8: "1 2", 9: "1 2 3.1 3.2 3.3 4 5", 10: "1",
        11: "1 2.1 2.2 2.3 3.1 3.2 3.3 4 5", 12: "1 2 3 4", 13: "1 2 3", 14: "1 2 3",
        15: "1.1 1.2 1.3 1.4 1.5 1.6 2 3", 16: "1 2 3.1 3.2 3.3 3.4 3.5 3.6 3.7 4.1 4.2 5",
        17: "1.1 1.2 2.1 2.2 3.1 3.2 3.3 3.4 3.5 4.1 4.2 5 6 7.1 7.2 7.3 8.1 8.2 8.3", 18: "1.1 2.1 2.2", 19: "1",
    }.items()
    for case in cases.split()
]  # fmt: skip


def test_every_case_has_its_test() -> None:
    found: list[str] = []
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and (match := re.match(r"test_ffp_((?:\d+_)+)", node.name)):
                found.append(match[1].rstrip("_").replace("_", "."))
                assert ast.get_docstring(node), f"{node.name} does not say what it demands"
    assert len(CASES) == 82
    assert sorted(found) == sorted(CASES)
