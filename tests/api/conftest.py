"""What the tests of the API share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from tests.api.serving import Api, address
from tests.conftest import TargetFactory
from tests.serving import Serving


class ApiFactory(Protocol):
    """See the fixture `api`."""

    def __call__(
        self,
        *volumes: str,
        config: str | None = None,
        listen: str | None = None,
        managed: bool = False,
        prefix: Sequence[str] = (),
    ) -> Api: ...


@pytest.fixture
def api(target: TargetFactory, tmp_path: Path) -> ApiFactory:
    """Starts a target (see the fixture of that name) together with the API; a `managed` one can be configured by it."""

    def start(
        *volumes: str,
        config: str | None = None,
        listen: str | None = None,
        managed: bool = False,
        prefix: Sequence[str] = (),
    ) -> Api:
        place = address() if listen is None else listen
        if managed:
            serving = target(size=None, options=["--console", place], managed=True, prefix=prefix)
        elif config is None:
            serving = target(*volumes, options=["--console", place])
        else:
            serving = target(config=f'[api]\nlisten = "{place}"\n\n{config}')
        return Api(serving, place, tmp_path / "state-0")

    return start


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A managed server, for those tests of a module that bring their own accounts and targets: starting one takes a second."""
    directory, place = tmp_path_factory.mktemp("shared"), address()
    state, log = directory / "state", directory / "log"
    with Serving([], state=state, log=log, options=["--console", place]) as serving:
        yield Api(serving, place, state)
        print(serving.tail())  # noqa: T201  (pytest shows it)
        serving.stop()
