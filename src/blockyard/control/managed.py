"""A managed server: it has its configuration from the state database, where each change becomes a revision.

What is done for a change, and in which order, so that who is killed leaves what was before or what was to be: see revisions.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from blockyard.block.records import RecordError
from blockyard.control.consistency import checked
from blockyard.control.errors import ConfigurationError, ControlError
from blockyard.control.revisions import Pending, Revision, Revisions, check_expected
from blockyard.control.state import State
from blockyard.worker.configuration import Configuration

log = logging.getLogger(__name__)

T = TypeVar("T")

Edit = Callable[[Configuration], Configuration]
Apply = Callable[[Configuration], Awaitable[None]]  # serves another one, or raises and all is as it was
Adjust = Callable[[Configuration | None, Mapping[str, object]], Configuration]
# Gets what holds (None at the first start) and the options of the start before; what is to hold.

_COMMAND_LINE = "command line"


class Managed:
    """The revisions of a running server. `revision` is the number of the one that is served; 0 before that is so."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._who = _COMMAND_LINE  # whose configuration it is that is served from the start on
        self._one_at_a_time = asyncio.Lock()
        self.revision = 0

    def candidates(self, adjust: Adjust) -> list[Configuration]:
        """What is to be served at the start: what somebody had begun to change to, if that is still to be tried, and what holds.

        Raises ControlError.
        """
        with contextlib.closing(State(self._directory)) as state:
            revisions = Revisions(state)
            current, unfinished = revisions.current(), revisions.unfinished()
            wanted = adjust(None if current is None else current.configuration, revisions.arguments())
        return [*self._worth_trying(unfinished), wanted]

    def _worth_trying(self, unfinished: Pending | None) -> list[Configuration]:
        if unfinished is None:
            return []
        if unfinished.tried:
            log.error("a change by %s could not be finished, and is given up", unfinished.who)
            return []
        log.warning("the server ended during a change by %s: it is finished now", unfinished.who)
        self._who = unfinished.who
        return [unfinished.configuration]

    def given_up(self, error: ControlError) -> None:
        """The first candidate cannot be served."""
        log.error("the change that was under way when the server ended cannot be finished, and is given up: %s", error)
        self._who = _COMMAND_LINE

    def serves(self, configuration: Configuration, arguments: Mapping[str, object]) -> None:
        """It is served: it holds from now on. Raises StateError."""
        with contextlib.closing(State(self._directory)) as state:
            self.revision = Revisions(state).put(configuration, self._who, arguments=arguments).number

    async def change(
        self, edit: Edit, current: Callable[[], Configuration], apply: Apply, *, expected: int | None, who: str
    ) -> int:
        """Change what is served; the number of the revision that it has become. Raises ControlError; then all is as it was."""
        async with self._one_at_a_time:
            check_expected(expected, self.revision)
            before = current()
            try:
                after = checked(edit(before))
            except RecordError as error:
                raise ConfigurationError(str(error)) from None
            if after == before:
                return self.revision
            await asyncio.to_thread(self._do, lambda revisions: revisions.begin(after, who))
            try:
                await apply(after)
            except BaseException:
                await asyncio.to_thread(self._do, Revisions.abandon)
                raise
            try:
                self.revision = (await asyncio.to_thread(self._do, Revisions.commit)).number
            except ControlError:
                await apply(before)
                raise
            return self.revision

    def _do(self, step: Callable[[Revisions], T]) -> T:
        with contextlib.closing(State(self._directory)) as state:
            return step(Revisions(state))

    def at(self, number: int) -> Revision:
        """Raises UsageError for one that there is not."""
        return self._do(lambda revisions: revisions.at(number))

    def history(self, last: int) -> list[Revision]:
        """The last ones, in their order."""
        return self._do(lambda revisions: revisions.history(last))
