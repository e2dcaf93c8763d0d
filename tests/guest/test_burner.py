"""Linux burns discs of every kind with the programs that people use, and reads them in a second drive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN


class _Marks(dict[str, Callable[[], object]]):
    """What a script asks for: `blank:KIND` is put into the burner, `read` moves what is there to the reader."""

    def __init__(self, state: Path) -> None:
        super().__init__({"read": self._read})
        self._state = state
        self._made = 0

    def __missing__(self, mark: str) -> Callable[[], object]:
        return lambda: self._blank(mark.removeprefix("blank:"))

    def _optical(self, *words: str) -> None:
        assert main(["optical", *words, "--state", str(self._state)]) == 0

    def _blank(self, kind: str) -> None:
        self._made += 1
        self._optical("create", "burner", f"disc-{self._made}", "--kind", kind)
        self._optical("insert", "burner", f"disc-{self._made}", "--force")

    def _read(self) -> None:
        self._optical("eject", "burner", "--force")
        self._optical("insert", "reader", f"disc-{self._made}", "--force")


def test_discs_are_burned_and_read_in_another_drive(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path
) -> None:
    discs = tmp_path / "discs"
    discs.mkdir()
    target(
        config=f"""
portal_groups.1.portals = ["{HOST[0]}:3260"]
[drives.burner]
jukebox = "discs"
[drives.reader]
jukebox = "discs"
[targets."{IQN}"]
luns = {{0 = "burner", 1 = "reader"}}
""",
        portals=[],
        prefix=network.prefix,
    )
    guest("burner.sh", marks=_Marks(tmp_path / "state-0"))
