"""The client's commands, against tgtd."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.cli.main import main
from tests.initiator.conftest import SIZE, Tgtd

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command; its exit status, and what it printed on stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as exit:
            status = int(exit.code or 0)
        out, err = capfdbinary.readouterr()
        return status, out.decode("latin-1"), err.decode()

    return run


def test_discover(run: Run, tgtd: Tgtd) -> None:
    assert run("discover", tgtd.portal) == (0, f"{tgtd.name}\n    portal {tgtd.portal}, portal group 1\n", "")
    status, out, _ = run("discover", tgtd.portal, "--luns")
    assert status == 0
    assert out.splitlines()[-1] == "    LUN 1: disk, IET VIRTUAL-DISK, 64 MiB in blocks of 512"
    status, out, _ = run("discover", tgtd.portal, "--luns", "--json")
    (target,) = json.loads(out)
    assert target["name"] == tgtd.name
    assert target["portals"] == [{"address": tgtd.portal, "portal_group": 1}]
    assert [(lun["lun"], lun["size"]) for lun in target["luns"]] == [(0, None), (1, SIZE)]


def test_inquiry(run: Run, tgtd: Tgtd) -> None:
    status, out, _ = run("inquiry", tgtd.url())
    assert status == 0
    assert "  vendor: IET\n  product: VIRTUAL-DISK\n" in out
    for page, text in {
        "80": "serial: ",
        "83": "logical unit, NAA, 0x",
        "0xb0": "max compare and write: 128",
        "B2": "unmap: ",
    }.items():
        status, out, _ = run("inquiry", tgtd.url(), "--page", page)
        assert status == 0
        assert text in out
    status, out, _ = run("inquiry", tgtd.url(), "--page", "all")
    assert len(re.findall("^vital product data page", out, re.MULTILINE)) == 6
    _, out, _ = run("inquiry", tgtd.url(), "--page", "all", "--json")
    pages = json.loads(out)
    assert pages[0]["fields"]["device_type"] == "disk"
    assert [page["page"] for page in pages] == [None, "0x00", "0x80", "0x83", "0xb0", "0xb1", "0xb2"]
    _, out, _ = run("inquiry", tgtd.url(), "--hex")
    assert "|....=...IET     |" in out


@pytest.mark.parametrize("digest", ["none", "prefer", "crc32c"])
def test_write_and_read(run: Run, tgtd: Tgtd, tmp_path: Path, digest: str) -> None:
    data = random.Random(digest).randbytes(9 << 20)
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(data)
    options = [
        "--header-digest",
        digest,
        "--data-digest",
        digest,
        "--initiator-name",
        "iqn.2024-01.test:me",
        "--timeout",
        "120",
    ]
    status, _, err = run("write", tgtd.url(), "--lba", "0x10", "-i", str(source), *options)
    assert (status, err) == (0, f"{len(data) // 512} blocks written from 16 on\n")
    assert run("read", tgtd.url(), "--lba", "16", "--count", str(len(data) // 512), "-o", str(copy), *options)[0] == 0
    assert copy.read_bytes() == data


def test_read_to_the_end_and_to_stdout(run: Run, tgtd: Tgtd, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert run("read", tgtd.url(), "--count", "all", "--output", str(copy))[0] == 0
    assert copy.read_bytes() == tgtd.image.read_bytes()
    status, out, _ = run("read", tgtd.url(), "--lba", "7", "-o", "-")
    assert (status, out.encode("latin-1")) == (0, copy.read_bytes()[7 * 512 : 8 * 512])


def test_a_hex_dump(run: Run, tgtd: Tgtd, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"Blockyard!\0\xff")
    status, _, err = run("write", tgtd.url(), "--lba", "100", "-i", str(source))
    assert status == 2
    assert "try --pad" in err
    assert run("write", tgtd.url(), "--lba", "100", "-i", str(source), "--pad")[0] == 0
    status, out, _ = run("read", tgtd.url(), "--lba", "100")
    assert status == 0
    assert out.splitlines() == [
        "0000c800  42 6c 6f 63 6b 79 61 72  64 21 00 ff 00 00 00 00  |Blockyard!......|",
        "0000c810  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
        "*",
        "0000c9f0  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|",
    ]


def test_raw(run: Run, tgtd: Tgtd, tmp_path: Path) -> None:
    status, out, err = run("raw", tgtd.url(), "12", "00", "00", "00", "24", "00", "--in", "50")
    assert (status, err) == (0, "GOOD\nresidual: 14 bytes fewer than were asked for\n")
    assert out.startswith("00000000  00 00 05 ")
    block = tmp_path / "block"
    block.write_bytes(b"z" * 512)
    assert run("raw", tgtd.url(), "2a000000000900000100", "--out", str(block))[0] == 0
    copy = tmp_path / "copy"
    assert run("raw", tgtd.url(), "28000000000900000100", "--in", "512", "-o", str(copy))[0] == 0
    assert copy.read_bytes() == block.read_bytes()
    status, _, err = run("raw", tgtd.url(), "ff0000000000")
    assert (status, err) == (1, "CHECK CONDITION\nILLEGAL REQUEST: invalid command operation code (5/20/00)\n")
    status, out, _ = run("raw", tgtd.url(), "ff0000000000", "--json")
    answer = json.loads(out)
    assert (status, answer["status_name"]) == (1, "CHECK CONDITION")
    assert answer["sense_text"].startswith("ILLEGAL REQUEST")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("discover 127.0.0.1:1", 3, "blockyard: 127.0.0.1:1: connection refused"),
        ("discover nowhere.invalid", 3, "blockyard: nowhere.invalid:3260: no such host"),
        ("discover [::1", 2, "'[::1' is not an IPv6 portal"),
        ("inquiry http://x/y/0", 2, "is not iscsi://HOST[:PORT]/TARGET/LUN"),
        ("inquiry iscsi://me%hunter2@127.0.0.1/iqn.2024-01.test:x/0", 2, "does not belong in a URL"),
        ("inquiry iscsi://me@127.0.0.1/iqn.2024-01.test:x/0 --user you", 2, "the URL names 'me'"),
        ("inquiry iscsi://me@127.0.0.1/iqn.2024-01.test:x/0", 2, "is needed: put it into a file"),
        ("inquiry URL --chap-algorithms 4", 2, "4 is not made of 8, 7, 6, 5"),
        ("inquiry URL --chap-algorithms x", 2, "invalid list value"),
        ("inquiry URL --target-user you", 2, "Name the user with --user"),
        ("inquiry URL --user me --secret-file FILE", 2, "chmod 600"),
        ("inquiry URL --user me --secret-file /nonexistent", 2, "/nonexistent: No such file or directory"),
        ("inquiry URL --page xyz", 2, "invalid page value: 'xyz'"),
        ("inquiry URL --page 100", 2, "100 is not from 00 to ff"),
        ("inquiry URL --page c7", 1, "invalid field in CDB"),
        ("inquiry URL --timeout 0", 2, "0 is not a time"),
        ("inquiry URL --initiator-name a/b", 2, "cannot have the character '/'"),
        ("inquiry OTHER", 1, "there is no such target on this portal"),
        ("read URL --lba -1", 2, "-1 is negative"),
        ("read URL --lba x", 2, "invalid number value: 'x'"),
        ("read URL --lba 131072", 2, "the disk has 131072 blocks"),
        ("read URL -o /nonexistent/file", 2, "/nonexistent/file: No such file or directory"),
        ("write URL --lba 131072 -i FILE --pad", 2, "the input is too long"),
        ("write URL --lba 0 -i /nonexistent", 2, "/nonexistent: No such file or directory"),
        ("raw URL xyz", 2, "'xyz' is not a command in hexadecimal"),
        ("raw URL 00", 2, "a command has from 6 to 260 bytes, not 1"),
        ("raw URL 120000002400 --out /nonexistent", 2, "/nonexistent: No such file or directory"),
    ],
)
def test_errors(run: Run, tgtd: Tgtd, arguments: str, status: int, message: str) -> None:
    places = {"URL": tgtd.url(), "OTHER": tgtd.url().replace("disk", "other"), "FILE": __file__}
    seen, _, err = run(*(places.get(word, word) for word in arguments.split()))
    assert (seen, message in err) == (status, True), err
    assert len(err.splitlines()) == 1
    assert "hunter2" not in err
