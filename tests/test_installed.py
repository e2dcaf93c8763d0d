"""What the package itself requires is enough to begin: the extras, and what tests need, are not there after `make run`."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(distribution: str) -> set[str]:
    """The names of a distribution and of all that it requires without any extra."""
    found = {_normal(distribution)}
    for line in requires(distribution) or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found |= _required(requirement.name)
    return found


def test_no_module_needs_what_is_not_required() -> None:
    required = _required("blockyard")
    assert {"fastcrc", "lmdb"} <= required
    others = sorted(
        module for module, owners in packages_distributions().items() if not required & set(map(_normal, owners))
    )
    assert {"pytest", "hypothesis", "prometheus_client"} <= set(others)
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({others}))\n"
        "import blockyard.cli.main, blockyard.cli.commands, blockyard.worker.process\n"
        "blockyard.cli.commands.build_parser()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=180)
