"""A machine boots from an optical drive: SeaBIOS speaks to it through QEMU, which passes every command on (scsi-block)."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import TargetFactory, need, run
from tests.optical.drives import iso
from tests.serving import IQN

_SAYS = b"EL TORITO BOOTED\r\n"
_ORIGIN = 0x7C00  # where a BIOS puts the boot image (El Torito 1.0, load segment)
# Prints the text at SI on the first serial port, and then has isa-debug-exit end QEMU with status 1
_PROGRAM = bytes.fromhex(
    "31C0 8ED8"  # xor ax, ax; mov ds, ax
    "BE 1B7C"  # mov si, text
    "AC 84C0 7406"  # next: lodsb; test al, al; jz end
    "BAF803 EE EBF5"  # mov dx, 3F8h; out dx, al; jmp next
    "BA0105 EE"  # end: mov dx, 501h; out dx, al
    "F4 EBFD"  # hlt; jmp $-1
)


def test_a_machine_boots_from_the_disc(target: TargetFactory, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    at = _PROGRAM.index(b"\xbe") + 1
    program = _PROGRAM[:at] + (_ORIGIN + len(_PROGRAM)).to_bytes(2, "little") + _PROGRAM[at + 2 :]
    (tree / "boot.bin").write_bytes((program + _SAYS + b"\0").ljust(2048, b"\0"))
    iso(tmp_path / "boot.iso", tree, "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "4")
    serving = target(config=f"[drives.dvd]\nimage = 'boot.iso'\n[targets.'{IQN}']\nluns = {{0 = 'dvd'}}\n")
    ended = run(
        [
            need("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none",
            "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0x501,iosize=2",
            "-drive", f"file={serving.url()},format=raw,if=none,id=dvd,readonly=on",
            "-device", "virtio-scsi-pci", "-device", "scsi-block,drive=dvd,bootindex=0",
        ],
        check=False,
    )  # fmt: skip
    assert _SAYS.decode().strip() in ended.stdout
    assert ended.returncode == 1
