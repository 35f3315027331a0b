"""One sequence's blocks in order: token i lies in block i // block_tokens. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.kv.prefix import next_key, root_key

Copy = tuple[int, int]


def blocks_for(tokens: int, block_tokens: int) -> int:
    return -(-tokens // block_tokens)


class BlockTable:
    """Holds its blocks in the pool until `release`. Of one sequence, whose tokens are only ever added to."""

    __slots__ = ("_block_tokens", "_keys", "_pool", "_published", "blocks")

    def __init__(self, pool: BlockPool, block_tokens: int, *, salt: str = "") -> None:
        self._pool, self._block_tokens = pool, block_tokens
        self.blocks = array("q")  # numpy reads it as it is: a step copies thousands of tables a second
        self._keys = [root_key(salt)]
        """Of full blocks from the start, behind the root's; as many as somebody asked for. They outlive a release: the
        tokens stay the same."""

        self._published = 0
        """So many of `blocks` can be found by others, or hold what another block can be found for."""

    def find_prefix(self, token_ids: Sequence[int]) -> list[int]:
        """Blocks in the pool whose content is the start of `token_ids`; never all of it, as the last token's logits
        are wanted. They are not taken yet."""
        found: list[int] = []
        for i in range((len(token_ids) - 1) // self._block_tokens):
            block = self._pool.find(self._key(i, token_ids))
            if block is None:
                break
            found.append(block)
        return found

    def adopt(self, blocks: Sequence[int]) -> int:
        """Start an empty table with blocks of `find_prefix`. Returns the tokens they hold."""
        for block in blocks:
            self._pool.share(block)
            self.blocks.append(block)
        self._published = len(blocks)
        return len(blocks) * self._block_tokens

    def wanted(self, computed: int, new_tokens: int) -> int:
        """Blocks that `reserve` will take."""
        missing = blocks_for(computed + new_tokens, self._block_tokens) - len(self.blocks)
        return max(0, missing) + self._shares_tail(computed)

    def reserve(self, computed: int, new_tokens: int) -> Copy | None:
        """Make room for tokens computed .. computed + new_tokens. Only the first of their blocks can be in other tables
        too: it is replaced by one of our own, and the copy to be made is returned."""
        copy = None
        if self._shares_tail(computed):
            tail = computed // self._block_tokens
            shared = self.blocks[tail]
            self.blocks[tail] = self._pool.take()
            self._pool.release(shared)
            copy = shared, self.blocks[tail]
        while len(self.blocks) * self._block_tokens < computed + new_tokens:
            self.blocks.append(self._pool.take())
        return copy

    def publish(self, token_ids: Sequence[int], computed: int) -> None:
        """Blocks that are full now may be found by others."""
        for i in range(self._published, computed // self._block_tokens):
            self._pool.publish(self.blocks[i], self._key(i, token_ids))
            self._published = i + 1

    def fork(self) -> BlockTable:
        """A second table over the same blocks."""
        other = self._empty_in(self._pool)
        other.blocks, other._published = self.blocks[:], self._published
        for block in self.blocks:
            self._pool.share(block)
        return other

    def copy_to(self, pool: BlockPool, computed: int) -> tuple[BlockTable, list[Copy]]:
        """A table in another pool for the tokens computed so far, and which block goes where. This one is still to be
        released."""
        other = self._empty_in(pool)
        moves = [(block, pool.take()) for block in self.blocks[: blocks_for(computed, self._block_tokens)]]
        other.blocks.extend(target for _, target in moves)
        return other, moves

    def release(self) -> None:
        """Last blocks first: where a prefix is evicted, its end goes before its start."""
        for block in reversed(self.blocks):
            self._pool.release(block)
        self.blocks, self._published = array("q"), 0

    def _empty_in(self, pool: BlockPool) -> BlockTable:
        other = BlockTable(pool, self._block_tokens)
        other._keys = self._keys[:]
        return other

    def _shares_tail(self, computed: int) -> bool:
        """Whether the block that the next token goes into is in other tables too."""
        index = computed // self._block_tokens
        return index < len(self.blocks) and self._pool.holders(self.blocks[index]) > 1

    def _key(self, index: int, token_ids: Sequence[int]) -> bytes:
        size = self._block_tokens
        while len(self._keys) < index + 2:
            start = (len(self._keys) - 1) * size
            self._keys.append(next_key(self._keys[-1], token_ids[start : start + size]))
        return self._keys[index + 1]
