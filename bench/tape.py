"""A tape drive beside a raw file: `python -m bench.tape`.

Blocks of 256 KiB, compression off, from the beginning of a cartridge on, and as many in sequence to a raw file and from it; the
same client for both. A cartridge that has been written before is written over beside a raw file that was written in full; an
empty one is written, so that its file has to grow, beside a raw file that has been unmapped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.beside import Compared, Served, add_pins, measure, parser, places
from bench.clients import Work
from bench.targets import IQN
from blockyard.block.file import create as create_file
from blockyard.control.administration import ask

_BLOCK = 256 << 10
_SIZE = 1 << 30  # bytes that are written and read
_LEAST = 0.8
_CONFIGURATION = """
[libraries.vault]
directory = "{directory}"
drives = 1
slots = 1
import_export = 1

[targets."{target}"]
library = "vault"
"""


class Raw(Served):
    """A raw file."""

    name = "raw"

    def start(self) -> int:
        create_file(self.file, _SIZE)
        return self.serve([self.file])


class Drive(Served):
    """A drive with a cartridge in it."""

    name = "tape"
    lun = 1

    def start(self) -> int:
        config = self.directory / "tape.toml"
        config.write_text(_CONFIGURATION.format(directory=self.file, target=IQN), encoding="utf-8")
        pid = self.serve([], config=config)
        self._ask("create", barcode="A00001L8", size=str(2 * _SIZE))
        self._ask("move", source="A00001L8", destination="drive-1")
        return pid

    def _ask(self, request: str, **arguments: object) -> None:
        ask(self.state, "tape", library="vault", request=request, **arguments)


@dataclass(frozen=True)
class Row:
    """What is done, and how many commands are under way meanwhile: Linux's st has one or two."""

    title: str
    depth: int
    write: bool = False
    empty: bool = False


_ROWS = tuple(
    Row(f"{title}, depth {depth}", depth, write, empty)
    for title, write, empty in (
        ("writing over", True, False),
        ("writing, empty", True, True),
        ("reading", False, False),
    )
    for depth in (1, 4, 16)
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    made = parser("tape", __doc__)
    add_pins(made)
    options = made.parse_args(arguments)
    options.seconds = 60  # at most: so much is written and read
    with (
        places(options) as (backing, directory),
        Raw(backing / "raw.img", directory) as raw,
        Drive(backing / "vault", directory) as drive,
    ):
        fill = Work("fill", "filling", _BLOCK, 16, write=True, count=_SIZE // _BLOCK)
        measure({raw: fill, drive: replace(fill, tape=True)}, [raw, drive], options, client="load")
        for row in _ROWS:
            work = Work(
                row.title, row.title, _BLOCK, row.depth, write=row.write, count=_SIZE // _BLOCK, empty=row.empty
            )
            pair = {raw: work, drive: replace(work, tape=True)}
            _print(row, Compared.of(*measure(pair, [raw, drive], options, client="load", pins=options.pin)))
    return 0


def _print(row: Row, found: Compared) -> None:
    ours, raw = found.ours, found.raw
    print(
        f"{row.title:24} {ours.rate * _BLOCK / 1e6:6.0f} MB/s, raw {raw.rate * _BLOCK / 1e6:6.0f}: {found.rate:.2f} "
        f"(at least {_LEAST}); {ours.cost:.0f} and {raw.cost:.0f} us a block",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
