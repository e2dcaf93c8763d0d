"""Certificates of the API: one that is given, or one of our own making, which clients pin or are told to trust.

What is pinned is the key (SHA-256 of its SubjectPublicKeyInfo, RFC 7469 §2.4), which stays when the certificate is made anew.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import secrets
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blockyard.control.errors import StateError
from blockyard.control.remote import pin_of

CERTIFICATE, KEY = "api.crt", "api.key"
_DAYS = 820  # what clients take at most (Apple, since iOS 13: 825)
_RENEW = datetime.timedelta(days=90)


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What encrypts with these. Raises StateError."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    try:
        made.load_cert_chain(certificate, key)
    except OSError as error:  # ssl.SSLError too
        raise StateError(f"the certificate {certificate} with the key {key}: {error.strerror or error}") from error
    return made


def own(directory: Path, host: str, names: Iterable[str]) -> tuple[Path, Path]:
    """Files of a certificate that signs itself, and of its key; made when they are missing, or when it is about to end.

    Raises StateError.
    """
    certificate, key = directory / CERTIFICATE, directory / KEY
    wanted = _names(host, names)
    try:
        secret = _key(key)
        if not _serves(certificate, wanted):
            _write(certificate, _certificate(secret, wanted).public_bytes(serialization.Encoding.PEM), 0o644)
    except (OSError, ValueError) as error:
        raise StateError(f"{directory}: the certificate of the API cannot be made or read: {error}") from error
    return certificate, key


def pin_of_file(path: Path) -> str:
    """What is pinned of a file's first certificate (PEM)."""
    return pin_of(x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER))


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    with contextlib.suppress(FileNotFoundError):
        found = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(found, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{path} is no key of an elliptic curve")
        return found
    made = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(path, made.private_bytes(*form), 0o600)
    return made


def _write(path: Path, data: bytes, mode: int) -> None:
    """Whole from the moment it has its name."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(draft, path)


def _names(host: str, names: Iterable[str]) -> list[x509.GeneralName]:
    addresses = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host.strip("[]"))
        addresses |= set() if address.is_unspecified else {address}
    labels = {"localhost", socket.gethostname().lower(), *names}
    return [*map(x509.DNSName, sorted(labels)), *(x509.IPAddress(each) for each in sorted(addresses, key=str))]


def _serves(path: Path, wanted: list[x509.GeneralName]) -> bool:
    """Whether the certificate that is there still does, and has all the names."""
    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    lasts = found.not_valid_after_utc - datetime.datetime.now(datetime.UTC) > _RENEW
    return lasts and all(name in list(names) for name in wanted)


def _certificate(key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName]) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Blockyard on {socket.gethostname()}"[:64])])
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of clients may be behind
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )  # so that it can be told to be trusted
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
