"""Who may change something: a line `name token` for each admin, in a file that not everybody may read."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

from slurm_power.errors import ConfigError, NotPermitted, require

MIN_TOKEN_CHARACTERS = 24

OWN_HEADER = "X-Slurm-Power"
"""Goes with every wish: a page of another origin cannot send it without asking first, and we never say yes."""


class AdminTokens:
    """Kept as digests: nothing in memory or in a log can be used as a token."""

    def __init__(self, tokens: dict[str, str]) -> None:
        self._digests = {name: _digest(token) for name, token in tokens.items()}

    def name_of(self, header: str | None) -> str:
        """The admin whose token the Authorization header carries. Raise NotPermitted when it carries nobody's."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise NotPermitted("this needs an admin's token: Authorization: Bearer TOKEN")
        given, found = _digest(token.strip()), ""
        for name, digest in self._digests.items():  # all of them, whichever it is: nothing to learn from the time
            if hmac.compare_digest(given, digest):
                found = name
        if not found:
            raise NotPermitted("no admin has this token")
        return found


def read_admin_tokens(path: Path) -> AdminTokens:
    """Raise ConfigError as `read_token_lines` does."""
    return AdminTokens(read_token_lines(path))


def read_token_lines(path: Path) -> dict[str, str]:
    """Name -> token. Raise ConfigError naming what is wrong with the file; its content is never shown."""
    key = "admin_token_file"
    try:
        if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise ConfigError(f"{key} = {path}: anybody may read or write it; run chmod o-rw {path}")
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{key} = {path}: {cause}") from cause
    tokens: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        good = len(words) == 2 and len(words[1]) >= MIN_TOKEN_CHARACTERS and words[0] not in tokens
        rule = (
            f"line {number} must be `name token`, each name once, a token of {MIN_TOKEN_CHARACTERS} or more characters"
        )
        require(good and line.isprintable(), key, path, rule)
        tokens[words[0]] = words[1]
    require(bool(tokens), key, path, "must name an admin: a line `name token`")
    return tokens


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
