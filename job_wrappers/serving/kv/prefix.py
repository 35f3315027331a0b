"""Keys of block contents: a chain, so that equal keys mean equal tokens from the very start of the sequence. Pure."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

_KEY_BYTES = 16


def root_key(salt: str) -> bytes:
    """What the first block's key is chained to: requests of other salts never find it."""
    return hashlib.blake2b(salt.encode(), digest_size=_KEY_BYTES, person=b"kv-prefix").digest()


def next_key(parent: bytes, token_ids: Sequence[int]) -> bytes:
    """Of a full block behind `parent`. A hash that nobody can find collisions for: prompts come from strangers."""
    return hashlib.blake2b(array("q", token_ids).tobytes(), key=parent, digest_size=_KEY_BYTES).digest()
