"""What can be done with a layer while it is in use: a scrub, another rate, a mirror's leg more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Progress = Callable[[int, int], None]  # so much is done, of so much; raises what stops the work: let that pass


def unwatched(done: int, total: int) -> None:
    """Nobody looks at the progress."""


@dataclass(frozen=True)
class NoOptions:
    """Of what has nothing to choose."""


@dataclass(frozen=True)
class Action:
    """One thing that a layer can do. `run` gets an instance of `options`, and returns what there is to say to people.

    It may block, and is called in a thread of its own. What takes `long` becomes a job: it tells how far it is by calling the
    progress that it gets. Raises OSError or ValueError for what cannot be done; then nothing has changed.
    """

    text: str  # what it does, in a sentence
    run: Callable[[Any, Progress], str]
    options: type = NoOptions  # a frozen dataclass, as for the options of a kind
    long: bool = False
    unit: str = "bytes"  # of the progress
