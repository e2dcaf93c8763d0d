"""Blockyard: an iSCSI target in Python.

To have a target in a program of your own: `with blockyard.Target("1G") as target: …` (embedded.py).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.embedded import Target as Target

__version__ = "0.1.0.dev0"


def __getattr__(name: str) -> object:
    """`Target` when it is asked for: all else that begins with `import blockyard` shall not pay for it."""
    if name == "Target":
        return import_module("blockyard.embedded").Target
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
