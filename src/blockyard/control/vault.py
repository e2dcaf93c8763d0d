"""Secrets at rest: encrypted with a key that is kept apart from them.

    sealed secret:  version (1 byte, 01h) | nonce (12) | AES-256-GCM ciphertext and tag

What a secret is for is authenticated with it, so that a sealed secret is of no use in another place. The key is 32
random bytes. Whoever has only the database (a backup, a copy for a bug report) has no secret; whoever can read the key
file as well, has: so it belongs on another device, in a TPM by way of a systemd credential, or at least out of backups.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from blockyard.control.errors import StateError

KEY_FILE = "secrets.key"
CREDENTIAL = "blockyard-secrets-key"  # of systemd (LoadCredentialEncrypted=)
_VERSION = b"\x01"
_NONCE = 12  # bytes (NIST SP 800-38D §8.2)
_KEY = 32


class Vault:
    """Seals and opens secrets with one key."""

    def __init__(self, key: bytes, source: Path) -> None:
        self._cipher = AESGCM(key)
        self._source = source

    def seal(self, secret: bytes, purpose: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, secret, purpose.encode())

    def open(self, sealed: bytes, purpose: str) -> bytes:
        """The secret that was sealed for this purpose. Raises StateError when key and secret do not belong together."""
        version, nonce, rest = sealed[:1], sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :]
        try:
            if version == _VERSION:
                return self._cipher.decrypt(nonce, rest, purpose.encode())
        except (InvalidTag, ValueError):
            pass
        raise StateError(
            f"the secret of {purpose} cannot be decrypted with the key in {self._source}: is it another key?"
        )


def open_vault(directory: Path) -> Vault:
    """The vault of a state directory.

    Its key is systemd's credential `blockyard-secrets-key`, where there is one; else the file `secrets.key` in the
    directory, made when it is missing. Raises StateError for a key that cannot be used, or that others can read.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = Path(credentials) / CREDENTIAL
    if not credentials or not path.exists():
        path = directory / KEY_FILE
        _make_key(path)
    try:
        mode = path.stat().st_mode
        key = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: it is the key to the secrets of users") from error
    if mode & 0o077:
        raise StateError(
            f"{path} can be read by others: chmod 600 {path}, and change the secrets that it was the key to"
        )
    if len(key) != _KEY:
        raise StateError(f"{path} is no key: it has {len(key)} bytes, not {_KEY}")
    return Vault(key, path)


def _make_key(path: Path) -> None:
    """Create a key that is whole from the moment it has its name, unless there is one."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, secrets.token_bytes(_KEY))
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(draft, path)
        finally:
            draft.unlink()
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}: the key to the secrets of users cannot be made") from error
