"""How much one user may ask of the agent. Root is not counted."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_USERS = 4096


@dataclass(slots=True)
class _Bucket:
    left: float
    at_s: float


class UserRates:
    """A bucket of two seconds' worth for every uid."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._buckets: dict[int, _Bucket] = {}

    def take(self, uid: int, count: float, *, now_s: float) -> bool:
        """False when `uid` has used up its share; then nothing is taken."""
        if uid == 0:
            return True
        if len(self._buckets) > _MAX_USERS:
            self._buckets.clear()
        full = 2 * self._per_s
        bucket = self._buckets.setdefault(uid, _Bucket(full, now_s))
        bucket.left = min(full, bucket.left + (now_s - bucket.at_s) * self._per_s)
        bucket.at_s = now_s
        if bucket.left < count:
            return False
        bucket.left -= count
        return True
