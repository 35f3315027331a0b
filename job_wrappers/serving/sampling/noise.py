"""Random numbers that depend on seed, choice and position alone: batch, preemption and rank cannot change them."""

from __future__ import annotations

import hashlib

_BYTES = 6
"""Of a draw: few enough that its product with a total stays below the total."""


def uniform(seed: int, choice: int, position: int) -> float:
    """Within 0 (included) and 1 (never). Choice i of a seed draws as the only choice of seed + i does."""
    digest = hashlib.blake2b(f"{seed + choice} {position}".encode(), digest_size=_BYTES).digest()
    return int.from_bytes(digest, "little") / float(1 << 8 * _BYTES)
