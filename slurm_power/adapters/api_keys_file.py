"""Who may ask the router: NAME:KEY, one per line, in a file that others may not read. Read anew when it changes."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from slurm_power.errors import ConfigError

log = logging.getLogger(__name__)

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.@-]{0,63}):([\x21-\x7e]{16,256})")
_MOST_KEYS = 100_000


class ApiKeys:
    """Keys are held and looked up by their hashes: how long a look-up takes tells nothing of them."""

    def __init__(self, path: Path) -> None:
        """Raise ConfigError for a file that cannot be used."""
        self._path = path
        self._changed_ns: int | None = None
        self._callers: dict[bytes, str] = {}
        self._load()

    def caller(self, authorization: bytes) -> str | None:
        """Of `Bearer KEY`; None: nobody we know."""
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return None
        return self._callers.get(hashlib.sha256(key.strip()).digest())

    def refresh(self) -> None:
        """A file that has become unusable leaves the keys as they were."""
        try:
            if self._path.stat().st_mtime_ns != self._changed_ns:
                self._load()
        except (OSError, ConfigError) as trouble:
            log.warning("the API keys stay as they were: %s", trouble)

    def _load(self) -> None:
        try:
            found = self._path.stat()
            text = self._path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as cause:
            raise ConfigError(f"api_keys_file = {self._path}: {getattr(cause, 'strerror', None) or cause}") from cause
        if found.st_mode & 0o077:
            raise ConfigError(f"api_keys_file = {self._path}: others may read it; run chmod 600 {self._path}")
        callers: dict[bytes, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None or len(callers) >= _MOST_KEYS:
                rule = "must be NAME:KEY, the key of 16 to 256 printable characters"
                raise ConfigError(f"api_keys_file = {self._path}: line {number}: {rule}")
            callers[hashlib.sha256(match[2].encode()).digest()] = match[1]
        self._callers, self._changed_ns = callers, found.st_mtime_ns
