"""Encrypted disks: with cryptsetup and QEMU as oracles, in both directions; keys that come and go; loss of power."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from blockyard.block.building import open_stack
from blockyard.block.cipher.administration import create_cipher, open_cipher
from blockyard.block.cipher.device import CipherDevice
from blockyard.block.cipher.keys import LuksError, merge, split
from blockyard.block.cipher.luks2 import DATA_AT, read_header
from blockyard.block.cipher.sources import Change, Encryption, Formatting, NewKey, Numbered
from blockyard.block.cipher.xts import Xts
from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.block.layers import Opening
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size
from tests.block.disks import Disk

MIB = 1 << 20
QUICKLY = ["--pbkdf-force-iterations", "1000"]
SECRETS = Opening(secret=lambda name: name.encode())
BY_SECRET = Encryption(secret="first")


def formatting(**others: Any) -> Formatting:
    return Formatting(**{"secret": "first", "kdf": "pbkdf2", "time": 1000, **others})


def new_key(name: str, kind: type = NewKey, **others: Any) -> Any:
    return kind(secret=name, kdf="pbkdf2", time=1000, **others)


def nobody(done: int, total: int) -> None:
    """Nobody looks at the progress."""


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(device: Device, offset: int, length: int) -> bytes:
    data = bytearray(length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


def opened(path: Path, **options: Any) -> CipherDevice:
    options = options or {"secret": "first"}
    below = FileDevice(path)
    below.label = path.name
    try:
        return open_cipher([below], Encryption(**options), SECRETS)
    except BaseException:
        below.close()
        raise


# ---- other programs


@pytest.mark.parametrize(
    ("sector", "kdf"),
    [
        (512, ["--pbkdf", "pbkdf2", *QUICKLY]),
        (
            4096,
            ["--pbkdf", "argon2id", "--pbkdf-memory", "8192", "--pbkdf-parallel", "2", "--pbkdf-force-iterations", "4"],
        ),
    ],
)
def test_what_cryptsetup_encrypts_reads_as_it_was(tmp_path: Path, sector: int, kdf: list[str]) -> None:
    plain, image, key = random.Random(1).randbytes(3 * MIB), tmp_path / "image", tmp_path / "key"
    key.write_bytes(b"a secret\nof two lines\n")
    image.write_bytes(plain + bytes(32 * MIB))
    run("cryptsetup", "reencrypt", "--batch-mode", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "--sector-size",
        sector, "--key-file", key, *kdf, image)  # fmt: skip
    device = opened(image, key_file=str(key))
    assert device.sector_size == sector
    assert read(device, 0, len(plain)) == plain
    assert read(device, 5 * 512, 1024) == plain[5 * 512 : 7 * 512]
    device.close()


@pytest.mark.parametrize("sector", [512, 4096])
def test_cryptsetup_decrypts_what_is_written_here(tmp_path: Path, sector: int) -> None:
    plain, image, key = random.Random(2).randbytes(4 * MIB), tmp_path / "image", tmp_path / "key"
    key.write_bytes(b"first")
    create(image, DATA_AT + len(plain))
    below = FileDevice(image)
    create_cipher([below], formatting(sector=Size(sector)), SECRETS)
    below.close()
    device = opened(image)
    assert device.size == len(plain)
    for at in range(0, len(plain), 96 << 10):
        device.pwritev([plain[at : at + (96 << 10)]], at)
    device.close()
    run("cryptsetup", "luksOpen", "--test-passphrase", "--key-file", key, image)
    decrypt = ["--decrypt", "--header", tmp_path / "header", "--force-offline-reencrypt", "--key-file", key]
    run("cryptsetup", "reencrypt", "--batch-mode", *decrypt, image)
    assert image.read_bytes()[: len(plain)] == plain


def test_cryptsetup_knows_the_keys_that_are_made_here(tmp_path: Path) -> None:
    image = tmp_path / "image"
    create(image, DATA_AT + MIB)
    below = FileDevice(image)
    said = create_cipher([below], Formatting(secret="first", memory=Size(8 * MIB), label="a disk"), SECRETS)
    below.close()

    def fits(passphrase: str) -> bool:
        command = ["cryptsetup", "luksOpen", "--disable-locks", "--test-passphrase", "--key-file", "-", str(image)]
        return not subprocess.run(command, input=passphrase.encode(), capture_output=True, check=False).returncode

    dump = run("cryptsetup", "luksDump", image)
    assert dump.split("UUID:")[1].split()[0] in said
    for text in ("argon2id", "Label:         \ta disk", "sector: 4096", "Epoch:         \t1"):
        assert text in dump
    assert fits("first")
    device = opened(image)
    device.pwritev([b"x" * 4096], 0)
    actions = device.actions()
    actions["add-key"].run(new_key("second"), nobody)
    actions["add-key"].run(NewKey(secret="third", memory=Size(8 * MIB)), nobody)
    assert all(map(fits, ("first", "second", "third")))
    actions["change-key"].run(new_key("fourth", Change), nobody)
    actions["remove-key"].run(Numbered(1), nobody)
    assert [fits(name) for name in ("first", "second", "third", "fourth")] == [False, False, True, True]
    with pytest.raises(ValueError, match="is open by key slot 0"):
        actions["remove-key"].run(Numbered(0), nobody)
    with pytest.raises(ValueError, match="there is no key slot 7; there are 0, 2"):
        actions["remove-key"].run(Numbered(7), nobody)
    assert "key slots 0, 2" in str(device.report()["text"])
    device.close()
    for name in ("third", "fifth"):
        (tmp_path / name).write_text(name)
    run(
        "cryptsetup",
        "luksAddKey",
        "--key-file",
        tmp_path / "third",
        "--pbkdf",
        "pbkdf2",
        *QUICKLY,
        image,
        tmp_path / "fifth",
    )
    device = opened(image, secret="fifth")
    assert read(device, 0, 4096) == b"x" * 4096
    device.close()
    with pytest.raises(LuksError, match="The key from the secret second fits none") as caught:
        opened(image, secret="second")
    assert caught.value.errno == errno.ENOKEY
    for at in (0, 16384):  # either copy of the header may be lost
        data = bytearray(image.read_bytes())
        data[at + 5000] ^= 1
        (tmp_path / "damaged").write_bytes(data)
        opened(tmp_path / "damaged", secret="third").close()
        run("cryptsetup", "luksDump", tmp_path / "damaged")


def test_qemu_and_luks1(tmp_path: Path) -> None:
    """QEMU writes, here it is read and written, and QEMU reads that."""
    image, key, plain = tmp_path / "image", tmp_path / "key", tmp_path / "plain"
    key.write_bytes(b"secret")
    data = bytearray(random.Random(3).randbytes(2 * MIB))
    plain.write_bytes(data)
    create(image, 2 * MIB + len(data))
    run("cryptsetup", "luksFormat", "-q", "--type", "luks1", "--key-size", "512", *QUICKLY, image, key)
    secret = ["--object", f"secret,id=k,file={key}"]
    where = f"driver=luks,file.filename={image},key-secret=k"
    run("qemu-img", "convert", *secret, "-n", "-f", "raw", "--target-image-opts", plain, where)
    device = opened(image, key_file=str(key))
    assert device.sector_size == 512
    assert read(device, 0, len(data)) == data
    for offset, length in ((512, 512), (8192, 65536), (MIB, 100 * 512)):
        data[offset : offset + length] = b"y" * length
        device.pwritev([data[offset : offset + length]], offset)
    assert device.actions() == {}
    assert not device.erase_keys()
    device.close()
    plain.write_bytes(data)
    run("qemu-img", "compare", *secret, "--image-opts", f"driver=raw,file.filename={plain}", where)
    run("cryptsetup", "luksOpen", "--test-passphrase", "--type", "luks1", "--key-file", key, image)


# ---- the model


class Ciphers(RuleBasedStateMachine):
    """Anything in any order; keys change meanwhile; the process dies, and power is lost."""

    sector = 4096
    discard = False

    def __init__(self) -> None:
        super().__init__()
        self.size = 12 * 4096
        self.disk = Disk(data=bytes(DATA_AT + self.size))
        create_cipher([self.disk], formatting(sector=Size(self.sector)), SECRETS)
        self.bytes = itertools.cycle(range(1, 256))
        self.names = {"first"}
        self.known = "first"
        self.now = [0] * (self.size // 512)
        self.possible = [{0} for _ in self.now]
        self.open()

    def open(self) -> None:
        options = Encryption(secret=self.known, discard=self.discard)
        self.device = open_cipher([self.disk], options, SECRETS)
        assert self.device.size == self.size

    def teardown(self) -> None:
        for name in self.names:
            open_cipher([self.disk], Encryption(secret=name), SECRETS)

    cells = st.integers(0, 12 * 8 - 1)

    def changed(self, cell: int, count: int, byte: int) -> None:
        for at in range(cell, cell + count):
            self.now[at] = byte
            self.possible[at].add(byte)

    @rule(cell=cells, count=st.integers(1, 30))
    def write(self, cell: int, count: int) -> None:
        count, byte = min(count, len(self.now) - cell), next(self.bytes)
        data = bytes([byte]) * 512 * count
        self.device.pwritev([data[:512], data[512:]], cell * 512)
        self.changed(cell, count, byte)

    @rule(cell=cells, count=st.integers(1, 30), free=st.booleans())
    def zero(self, cell: int, count: int, free: bool) -> None:
        count = min(count, len(self.now) - cell)
        (self.device.discard if free else self.device.write_zeroes)(cell * 512, count * 512)
        self.changed(cell, count, 0)

    @rule(cell=cells, count=st.integers(1, 30))
    def compare(self, cell: int, count: int) -> None:
        count = min(count, len(self.now) - cell)
        assert read(self.device, cell * 512, count * 512) == b"".join(
            bytes([b]) * 512 for b in self.now[cell : cell + count]
        )

    @rule()
    def flush(self) -> None:
        self.device.flush()
        self.possible = [{byte} for byte in self.now]

    @rule(name=st.sampled_from(("second", "third")))
    def add(self, name: str) -> None:
        if name not in self.names:
            self.device.actions()["add-key"].run(new_key(name), nobody)
            self.names.add(name)
            self.flush()

    @rule(
        seed=st.integers(0, 1 << 32),
        density=st.sampled_from((0.0, 0.3, 0.7, 1.0)),
        name=st.sampled_from(sorted({"first"})),
    )
    def the_power_fails(self, seed: int, density: float, name: str) -> None:
        self.disk.lose_power(seed, density)
        self.known = name
        self.open()
        for cell, possible in enumerate(self.possible):
            data = read(self.device, cell * 512, 512)
            assert data.count(data[0]) == 512
            assert data[0] in possible
            self.now[cell] = data[0]
        self.flush()


class Thin(Ciphers):
    sector = 512
    discard = True


Ciphers.TestCase.settings = settings(max_examples=5, stateful_step_count=25, deadline=None)
Thin.TestCase.settings = settings(max_examples=5, stateful_step_count=25, deadline=None)
TestCiphers = Ciphers.TestCase
TestThin = Thin.TestCase


class Torn(MemoryDevice):
    """Remembers what it was like before each flush, and the writes since."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.states: list[bytes] = []
        self.safe = bytearray(size)

    def pwritev(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        super().pwritev(buffers, offset)
        half = bytearray(self.safe)
        data = b"".join(buffers)
        half[offset : offset + len(data) // 2] = data[: len(data) // 2]
        self.states += [bytes(half), bytes(self.data)]

    def flush(self) -> None:
        self.safe[:] = self.data


@pytest.mark.parametrize("what", ["add-key", "change-key", "remove-key", "erase"])
def test_power_fails_while_keys_change(what: str) -> None:
    """At each step one of the passphrases opens the disk, before as after."""
    disk = Torn(DATA_AT + 8192)
    create_cipher([disk], formatting(), SECRETS)
    device = open_cipher([disk], BY_SECRET, SECRETS)
    device.pwritev([b"x" * 4096], 0)
    device.actions()["add-key"].run(new_key("second"), nobody)
    disk.states.clear()
    if what == "erase":
        assert device.erase_keys()
    elif what == "remove-key":
        device.actions()[what].run(Numbered(1), nobody)
    else:
        device.actions()[what].run(new_key("third", Change if what == "change-key" else NewKey), nobody)
    assert len(disk.states) >= 6
    for state in disk.states:
        copy = MemoryDevice(len(state))
        copy.data[:] = state
        found = []
        for name in ("first", "third"):
            try:
                found.append(read(open_cipher([copy], Encryption(secret=name), SECRETS), 0, 4096))
            except LuksError:
                continue
        assert found
        assert all((data == b"x" * 4096) or what == "erase" for data in found)


def test_erased_keys() -> None:
    disk = MemoryDevice(DATA_AT + 8192)
    create_cipher([disk], formatting(), SECRETS)
    device = open_cipher([disk], BY_SECRET, SECRETS)
    device.actions()["add-key"].run(new_key("second"), nobody)
    device.pwritev([b"x" * 4096], 0)
    before = bytes(disk.data)
    old = [slot for _, slot in device.keys.header.slots()]
    assert device.erase_keys()
    assert read(device, 0, 4096) != b"x" * 4096
    assert read(device, 4096, 4096) == bytes(4096), "nobody has ever written there"
    device.pwritev([b"y" * 4096], 0)
    assert read(open_cipher([disk], BY_SECRET, SECRETS), 0, 4096) == b"y" * 4096
    with pytest.raises(LuksError):
        open_cipher([disk], Encryption(secret="second"), SECRETS)
    for slot in old:
        area = slice(slot.offset, slot.offset + slot.length)
        assert sum(a == b for a, b in zip(before[area], disk.data[area], strict=True)) < slot.length // 64, (
            "it is written over"
        )


# ---- its parts


def test_many_sectors_at_once_are_the_same_as_one_after_the_other() -> None:
    chance = random.Random(4)
    for size, count in ((512, 32), (512, 100), (1024, 40), (4096, 40)):
        for key_size in (32, 64):
            xts, data, first = Xts(chance.randbytes(key_size), size, 5), chance.randbytes(size * count), 3 * 4096
            one_by_one = [xts.encrypt(data[at : at + size], first + at) for at in range(0, len(data), size)]
            assert bytes(xts.encrypt(data, first)) == b"".join(map(bytes, one_by_one))
            assert bytes(xts.decrypt(xts.encrypt(data, first), first)) == data


def test_without_numpy_all_is_the_same() -> None:
    program = """
import sys
sys.modules["numpy"] = None
from blockyard.block.cipher.xts import Xts
xts = Xts(bytes(range(64)), 512)
import hashlib
print(hashlib.sha256(bytes(xts.encrypt(bytes(512) * 100, 512))).hexdigest())
"""
    with_numpy = hashlib.sha256(bytes(Xts(bytes(range(64)), 512).encrypt(bytes(512) * 100, 512))).hexdigest()
    assert run(sys.executable, "-c", program).strip() == with_numpy


@pytest.mark.parametrize("hash", ["sha1", "sha256", "sha512"])
def test_what_is_split_merges_again(hash: str) -> None:
    key = os.urandom(64)
    data = split(key, 50, hash)
    assert merge(data, 64, 50, hash) == key
    assert merge(bytes([data[0] ^ 1]) + data[1:], 64, 50, hash) != key


def test_short_road(tmp_path: Path) -> None:
    create(tmp_path / "disk", DATA_AT + MIB)
    below = FileDevice(tmp_path / "disk")
    create_cipher([below], formatting(), SECRETS)
    device = open_cipher([below], BY_SECRET, SECRETS)
    assert device.quick is not None
    buffer = memoryview(bytearray(8192))
    assert device.quick.read([buffer], 0, 8192), "what nobody has written"
    assert buffer == bytes(8192)
    assert device.quick.write(memoryview(b"a" * 8192), 4096)
    assert device.quick.read([buffer[:4096], buffer[4096:]], 4096, 8192)
    assert buffer == b"a" * 8192
    assert not device.quick.read([buffer], 0, 8192), "half of it is a hole"
    assert device.quick.read([buffer[:512], buffer[512:1024]], 4096 + 512, 1024), "a part of a sector"
    assert buffer[:1024] == b"a" * 1024
    assert not device.quick.write(memoryview(b"b" * 512), 4096)
    assert read(device, 0, 16384) == bytes(4096) + b"a" * 8192 + bytes(4096)
    device.close()


def test_parts_of_sectors_by_many() -> None:
    disk = MemoryDevice(DATA_AT + 16384)
    create_cipher([disk], formatting(), SECRETS)
    device = open_cipher([disk], BY_SECRET, SECRETS)

    def use(number: int) -> None:
        for round in range(1, 100):
            for sector in range(number, 32, 4):
                device.pwritev([bytes([round]) * 512], sector * 512)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read(device, 0, 16384) == bytes([99]) * 16384


def test_where_keys_come_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="say where the key comes from"):
        Encryption()
    with pytest.raises(ValueError, match="say where the key comes from"):
        Encryption(secret="a", key_file="b")
    command = Encryption(key_command=(sys.executable, "-c", "print('a key')"))
    assert command.passphrase(Opening()) == b"a key"
    assert "a key" not in str(command)
    for source, problem in (
        (Encryption(key_command=(sys.executable, "-c", "import sys; sys.exit('no such key')")), "no such key"),
        (Encryption(key_command=("/nowhere/kms",)), "cannot be started"),
        (Encryption(key_command=("true",)), "has 0 bytes"),
        (Encryption(key_file=str(tmp_path / "none")), "No such file"),
        (Encryption(secret="none"), "no secret 'none'"),
    ):
        with pytest.raises(OSError, match=problem):
            source.passphrase(Opening())


@pytest.mark.parametrize("step", [0, 1])
def test_what_is_stopped_leaves_what_was_there(step: int) -> None:
    """Zeros where it looked for something, and data behind that, as when a partition table was wiped."""
    disk = MemoryDevice(DATA_AT + 8192)
    disk.pwritev([b"kept"], 2 * MIB)

    def stop(done: int, total: int) -> None:
        if done == step:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        create_cipher([disk], formatting(), SECRETS, stop)
    there = bytearray(disk.size)
    disk.preadv([memoryview(there)], 0)
    assert there == bytes(2 * MIB) + b"kept" + bytes(disk.size - 2 * MIB - 4)


def test_what_is_refused() -> None:
    disk = MemoryDevice(DATA_AT + 8192)
    with pytest.raises(LuksError, match="has no LUKS header"):
        open_cipher([disk], BY_SECRET, SECRETS)
    disk.pwritev([b"x"], 100)
    with pytest.raises(LuksError, match="holds something"):
        create_cipher([disk], formatting(), SECRETS)
    create_cipher([disk], formatting(force=True), SECRETS)
    with pytest.raises(LuksError, match="holds something"):
        create_cipher([disk], formatting(), SECRETS)
    with pytest.raises(LuksError, match="are too few"):
        create_cipher([MemoryDevice(MIB)], formatting(), SECRETS)
    with pytest.raises(ValueError, match="sector is one of"):
        formatting(sector=Size(8192))


def _set(data: Any, path: str, value: object) -> None:
    *parts, last = path.split("/")
    for part in parts:
        data = data[part]
    if value is None:
        del data[last]
    else:
        data[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("segments/0/type", "linear"),
        ("segments/0/encryption", "aes-cbc-essiv:sha256"),
        ("segments/0/sector_size", 0),
        ("segments/0/offset", "x"),
        ("segments/0/size", "-4096"),
        ("segments/1", {}),
        ("segments", []),
        ("keyslots/0/area/offset", "0"),
        ("keyslots/0/area/offset", "1000000000000000"),
        ("keyslots/0/area/key_size", 7),
        ("keyslots/0/af/stripes", 1 << 40),
        ("keyslots/0/af/hash", "md5"),
        ("keyslots/0/kdf/iterations", 1 << 60),
        ("keyslots/0/kdf/type", "scrypt"),
        ("keyslots/0/kdf/salt", "%%"),
        ("keyslots/0/kdf", {"type": "argon2id", "time": 1, "memory": 1 << 40, "cpus": 1, "salt": "AAAAAAAAAAAAAAAA"}),
        ("keyslots/0/key_size", "64"),
        ("keyslots/0", None),
        ("keyslots", None),
        ("digests/0/digest", 7),
        ("digests", {}),
        ("tokens", 7),
        ("config/requirements", {"mandatory": ["online-reencrypt"]}),
        ("config", {}),
    ],
)
def test_headers_that_cannot_be_used(path: str, value: object) -> None:
    """Whatever stands in a header with a right checksum: an error that says so, and no work without end."""
    disk = MemoryDevice(DATA_AT + 8192)
    create_cipher([disk], formatting(), SECRETS)
    header = read_header(disk)
    assert header is not None
    header.metadata = json.loads(json.dumps(header.metadata))
    _set(header.metadata, path, value)
    header.write()
    with pytest.raises(LuksError):
        open_cipher([disk], BY_SECRET, SECRETS)


def test_damage() -> None:
    """Any bytes: a disk that opens as it was, or a clear refusal."""
    disk, chance = MemoryDevice(DATA_AT + 8192), random.Random(6)
    create_cipher([disk], formatting(), SECRETS)
    sound = bytes(disk.data[:32768])
    for _ in range(25):
        for _ in range(chance.randrange(1, 5)):
            at = chance.choice((chance.randrange(600), 4096 + chance.randrange(1200))) + chance.choice((0, 16384))
            disk.data[at] = chance.randrange(256)
        with contextlib.suppress(LuksError):
            open_cipher([disk], BY_SECRET, SECRETS)
        disk.data[:32768] = sound


def test_as_a_layer_of_a_stack(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"first")
    create(tmp_path / "disk", DATA_AT + MIB)
    below = FileDevice(tmp_path / "disk")
    create_cipher([below], formatting(), SECRETS)
    below.close()
    device = open_stack(f"cache(ram=1M, luks(discard=true, key_file={tmp_path}/key, {tmp_path}/disk))")
    device.pwritev([b"a" * 4096], 0)
    assert device.erase_keys()
    assert read(device, 0, 4096) != b"a" * 4096
    device.discard(0, 4096)
    assert read(device, 0, 4096) == bytes(4096)
    device.close()
