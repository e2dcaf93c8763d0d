"""Where the passphrase of an encrypted disk comes from: a file, a secret that somebody has said, or a command (a KMS)."""

from __future__ import annotations

import errno
import subprocess
from dataclasses import dataclass
from pathlib import Path

from blockyard.block.cipher.keys import ARGON2ID, PBKDF2
from blockyard.block.layers import Opening
from blockyard.block.size import Size

_MOST = 8 << 20  # bytes, as in cryptsetup
_TIME = 30.0  # seconds that a command has
_MEMORY, _SECTOR = Size(256 << 20), Size(4096)
SECTORS = (512, 1024, 2048, 4096)


@dataclass(frozen=True)
class KeySource:
    """One of the three. A file is taken to the last byte; of what a command prints, a newline at the end is left out."""

    key_file: str = ""
    secret: str = ""  # its name: who starts the server, or adds the key, is asked for it
    key_command: tuple[str, ...] = ()  # program and arguments; started without a shell

    def __post_init__(self) -> None:
        if sum(map(bool, (self.key_file, self.secret, self.key_command))) != 1:
            raise ValueError("say where the key comes from: one of key_file, secret and key_command")

    def passphrase(self, opening: Opening) -> bytes:
        """Raises OSError."""
        if self.key_file:
            with Path(self.key_file).open("rb") as file:
                found = file.read(_MOST + 1)
        elif self.secret:
            found = opening.secret(self.secret)
        else:
            found = _printed(self.key_command)
        if not found or len(found) > _MOST:
            raise OSError(errno.EINVAL, f"The key from {self} has {len(found)} bytes: 1 to {_MOST} are possible")
        return found

    def __str__(self) -> str:
        """Without what a command is given: that may be a secret of its own."""
        return self.key_file or (f"the secret {self.secret}" if self.secret else f"the command {self.key_command[0]}")


def _printed(command: tuple[str, ...]) -> bytes:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIME, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{command[0]} has not said the key within {_TIME:g} s") from None
    except OSError as error:
        raise OSError(
            error.errno, f"{command[0]}, which is to say the key, cannot be started: {error.strerror}"
        ) from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = f": {said[-1][:200]}" if said else ""
        raise OSError(errno.ENOKEY, f"{command[0]}, which is to say the key, has failed with {done.returncode}{why}")
    return done.stdout.removesuffix(b"\n")


@dataclass(frozen=True)
class Encryption(KeySource):
    """How an encrypted disk is opened."""

    discard: bool = False  # pass on what is freed: it shows below which parts are in use

    __str__ = KeySource.__str__


@dataclass(frozen=True)
class NewKey(KeySource):
    """A passphrase to be added."""

    kdf: str = ARGON2ID  # or pbkdf2
    time: int = 4  # passes over the memory, or iterations
    memory: Size = _MEMORY  # of argon2id

    __str__ = KeySource.__str__

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kdf not in (ARGON2ID, PBKDF2):
            raise ValueError(f'kdf is "{ARGON2ID}" or "{PBKDF2}", not "{self.kdf}"')
        if self.kdf == ARGON2ID and not 1 << 20 <= self.memory <= 4 << 30:
            raise ValueError("memory is from 1M to 4G")
        if not 1 <= self.time < 1 << 16 and self.kdf == ARGON2ID:
            raise ValueError("time is from 1 to 65535 passes")
        if self.kdf == PBKDF2 and not 1000 <= self.time < 1 << 32:
            raise ValueError("time is at least 1000 iterations for pbkdf2")


@dataclass(frozen=True)
class Formatting(NewKey):
    """How an encrypted disk is made."""

    sector: Size = _SECTOR  # bytes that are encrypted as one
    label: str = ""
    force: bool = False  # whatever is there already

    __str__ = KeySource.__str__

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sector not in SECTORS:
            raise ValueError(f"sector is one of {', '.join(map(str, SECTORS))}")


@dataclass(frozen=True)
class Numbered:
    """Of a key slot."""

    slot: int


@dataclass(frozen=True)
class Change(NewKey):
    """Another passphrase for a key slot; -1: for the one by which the disk was opened."""

    slot: int = -1

    __str__ = KeySource.__str__
