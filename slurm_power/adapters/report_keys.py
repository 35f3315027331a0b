"""Ed25519 keys and signatures of reports, in PEM files. The secret one is its owner's alone: mode 0600."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from slurm_power.errors import ConfigError, require

__all__ = ["Ed25519PrivateKey", "is_signed", "make_keys", "read_public_key", "read_secret_key", "signature"]

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_keys(secret_file: Path, public_file: Path) -> None:
    """Never over a file that is there: an old key still proves old reports. Raise ConfigError."""
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_new(secret_file, secret, mode=0o600)
    _write_new(public_file, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o644)


def read_secret_key(path: Path) -> Ed25519PrivateKey:
    """Raise ConfigError for a file that others may read, or that is no such key."""
    try:
        mode = path.stat().st_mode
        require(not mode & _OTHERS, "key", path, f"others may read or write it; run chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as cause:
        raise ConfigError(f"key = {path}: {cause.strerror}") from cause
    except (ValueError, TypeError, UnsupportedAlgorithm) as cause:
        raise ConfigError(f"key = {path}: not an unencrypted PEM key") from cause
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"key = {path}: not an Ed25519 key")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as cause:
        raise ConfigError(f"key = {path}: {cause.strerror}") from cause
    except (ValueError, UnsupportedAlgorithm) as cause:
        raise ConfigError(f"key = {path}: not a public key in PEM form") from cause
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"key = {path}: not an Ed25519 key")
    return key


def signature(message: bytes, key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.sign(message)).decode()


def is_signed(message: bytes, text: str, key: Ed25519PublicKey) -> bool:
    try:
        key.verify(base64.b64decode(text, validate=True), message)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def _write_new(path: Path, content: bytes, *, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
