"""Tape libraries that a worker has open, brought from one configuration to the next (see inventory.py)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from blockyard.media.library import Library
from blockyard.media.models import DRIVES, LIBRARIES
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.taskset import TaskSet
from blockyard.worker.configuration import Library as Configured
from blockyard.worker.executor import ThreadExecutor

log = logging.getLogger(__name__)


class Libraries:
    """Libraries by their names."""

    def __init__(self, executor: ThreadExecutor) -> None:
        self._executor = executor
        self._open: dict[str, tuple[Configured, Library]] = {}
        self._leaving: list[Library] = []

    def get(self, name: str) -> Library | None:
        return self._open[name][1] if name in self._open else None

    def named(self) -> dict[str, Library]:
        """Those that are open, by their names."""
        return {name: library for name, (_, library) in self._open.items()}

    def luns(self, name: str) -> dict[int, PrimaryUnit]:
        """What a target shows of a library: the changer as LUN 0, then the drives."""
        library = self.get(name)
        return {} if library is None else dict(enumerate(library.units))

    def prepare(self, wanted: Mapping[str, Configured]) -> dict[str, tuple[Configured, Library]]:
        """Those that will be open: what stays, and what can be opened at once. Raises OSError; then nothing has changed."""
        found = {name: entry for name, entry in self._open.items() if wanted.get(name) == entry[0]}
        occupied = {entry[0].directory for name, entry in self._open.items() if name not in found}
        opened: list[Library] = []
        try:
            for name, configured in wanted.items():
                if name not in found and configured.directory not in occupied:
                    library = self._opened(configured)
                    opened.append(library)
                    found[name] = configured, library
        except BaseException:
            _close(opened)
            raise
        return found

    def discard(self, prepared: Mapping[str, tuple[Configured, Library]]) -> None:
        """What was prepared is not wanted after all."""
        _close(library for _, library in prepared.values() if library not in self._all())

    def take_over(self, prepared: dict[str, tuple[Configured, Library]]) -> list[PrimaryUnit]:
        """These are open from now on. Returns the logical units that have to go, to be closed by `finish`."""
        staying = [library for _, library in prepared.values()]
        self._leaving = [library for library in self._all() if library not in staying]
        self._open = prepared
        return [unit for library in self._leaving for unit in library.units]

    def finish(self, wanted: Mapping[str, Configured]) -> bool:
        """What had to go is closed; whether anything was opened in its place. Raises OSError."""
        _close(self._leaving)
        self._leaving = []
        missing = [configured for name, configured in wanted.items() if name not in self._open]
        for configured in missing:
            self._open[configured.name] = configured, self._opened(configured)
        return bool(missing)

    def close(self) -> None:
        _close([*self._all(), *self._leaving])

    def _all(self) -> list[Library]:
        return [library for _, library in self._open.values()]

    def _opened(self, configured: Configured) -> Library:
        model = LIBRARIES[configured.model]
        library = Library(
            configured.name,
            Path(configured.directory),
            model=model,
            drive_model=DRIVES[configured.drive_model or model.drive],
            drives=configured.drives,
            slots=configured.slots,
            import_export=configured.import_export,
        )
        for unit in library.units:
            unit.tasks = TaskSet(unit, self._executor)
        return library


def _close(libraries: Iterable[Library]) -> None:
    for library in libraries:
        try:
            library.close()
        except OSError as error:
            log.error("%s: closing the library has failed: %s", library.name, error)
