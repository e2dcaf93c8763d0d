"""Linux burns discs of every kind with the programs that people use, and reads them in another drive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from blockyard.cli.main import main
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network
from tests.serving import IQN

_BURNERS = 6


class _Marks(dict[str, Callable[[], object]]):
    """What a script asks for: `blank:NUMBER:KIND` is put into a burner, `read:NUMBER` moves what is there to the reader."""

    def __init__(self, state: Path) -> None:
        super().__init__({"": lambda: None})
        self._state = state
        self._made = 0
        self._in: dict[str, str] = {}  # drive → disc

    def __missing__(self, mark: str) -> Callable[[], object]:
        what, number, *kind = mark.split(":")
        return lambda: self._blank(f"burner{number}", *kind) if what == "blank" else self._read(f"burner{number}")

    def _optical(self, *words: str) -> None:
        assert main(["optical", *words, "--state", str(self._state)]) == 0

    def _blank(self, drive: str, kind: str) -> None:
        self._made += 1
        self._in[drive] = f"disc-{self._made}"
        self._optical("create", drive, self._in[drive], "--kind", kind)
        self._optical("insert", drive, self._in[drive], "--force")

    def _read(self, drive: str) -> None:
        self._optical("eject", drive, "--force")
        self._optical("insert", "reader", self._in[drive], "--force")


def test_discs_are_burned_and_read_in_another_drive(
    target: TargetFactory, network: Network, guest: Guest, tmp_path: Path
) -> None:
    (tmp_path / "discs").mkdir()
    drives = [*(f"burner{number}" for number in range(_BURNERS)), "reader"]
    luns = ", ".join(f'{lun} = "{drive}"' for lun, drive in enumerate(drives))
    target(
        config=f"""
portal_groups.1.portals = ["{HOST[0]}:3260"]
{"".join(f'[drives.{drive}]{chr(10)}jukebox = "discs"{chr(10)}' for drive in drives)}
[targets."{IQN}"]
luns = {{{luns}}}
""",
        portals=[],
        prefix=network.prefix,
    )
    guest("burner.sh", marks=_Marks(tmp_path / "state-0"))
