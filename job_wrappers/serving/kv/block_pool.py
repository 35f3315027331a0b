"""Who holds which block of a cache: counted holders, free blocks, and blocks whose content may be wanted again. Pure.

A block is free (content forgotten), held (by one table or several), or idle: held by none, but still found by its
content's key until its room is needed. The block that was left idle longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict, deque


class OutOfBlocks(Exception):
    """A caller's mistake: it must look at `available` first."""


class BlockPool:
    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._holders = [0] * blocks
        self._key_of: list[bytes | None] = [None] * blocks
        self._block_of: dict[bytes, int] = {}
        self._free: deque[int] = deque(range(blocks))
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def available(self) -> int:
        """Blocks that can be taken: free and idle ones."""
        return len(self._free) + len(self._idle)

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def held(self) -> int:
        return self.blocks - self.available

    def holders(self, block: int) -> int:
        return self._holders[block]

    def take(self) -> int:
        """A block for one holder. What it held, if it was idle, is forgotten."""
        if self._free:
            block = self._free.popleft()
        elif self._idle:
            block, _ = self._idle.popitem(last=False)
            self._forget(block)
        else:
            raise OutOfBlocks(f"all {self.blocks} blocks are held")
        self._holders[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder. An idle block comes back to life."""
        if self._holders[block] == 0:
            del self._idle[block]
        self._holders[block] += 1

    def release(self, block: int) -> None:
        """One holder less. Content with a key stays to be found."""
        if self._holders[block] <= 0:
            raise OutOfBlocks(f"block {block} is held by none")
        self._holders[block] -= 1
        if self._holders[block] == 0:
            if self._key_of[block] is None:
                self._free.append(block)
            else:
                self._idle[block] = None

    def find(self, key: bytes) -> int | None:
        """A block, held or idle, whose content has this key."""
        return self._block_of.get(key)

    def published(self, block: int) -> bool:
        return self._key_of[block] is not None

    def publish(self, block: int, key: bytes) -> None:
        """The block is full and will not be written again: others may find it. The first block of a key stays."""
        if key not in self._block_of and self._key_of[block] is None:
            self._block_of[key] = block
            self._key_of[block] = key

    def _forget(self, block: int) -> None:
        key = self._key_of[block]
        if key is not None:
            del self._block_of[key]
            self._key_of[block] = None

    def counts(self) -> tuple[int, int, int]:
        """(free, held, idle), counted one by one: for the invariants."""
        held = sum(holders > 0 for holders in self._holders)
        return len(self._free), held, len(self._idle)
