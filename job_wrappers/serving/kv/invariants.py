"""What must hold between any two iterations. For tests and for `--check-invariants`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.kv.block_table import BlockTable, blocks_for


class InvariantBroken(AssertionError):
    """The engine's books are wrong: stop before wrong tokens are served."""


def check(pool: BlockPool, owners: Iterable[tuple[BlockTable, int]], *, block_tokens: int) -> None:
    """`owners`: every table in this pool with the number of tokens computed in it."""
    free, held, idle = pool.counts()
    _require(free + held + idle == pool.blocks, f"{free} free + {held} held + {idle} idle != {pool.blocks} blocks")
    counted: Counter[int] = Counter()
    tails: Counter[int] = Counter()
    for table, computed in owners:
        counted.update(table.blocks)
        enough = len(table.blocks) >= blocks_for(computed, block_tokens)
        _require(enough, f"{computed} tokens in {len(table.blocks)} blocks")
        _require(len(set(table.blocks)) == len(table.blocks), f"a block stands twice in one table: {table.blocks}")
        tails.update(table.blocks[blocks_for(computed, block_tokens) :])
        unfinished = table.blocks[computed // block_tokens :]
        _require(not any(map(pool.published, unfinished)), f"a block of {unfinished} is found before it is full")
    for block in range(pool.blocks):
        holders = pool.holders(block)
        _require(holders == counted[block], f"block {block}: {holders} holders counted, {counted[block]} tables")
    for block, owners_of_tail in tails.items():
        alone = owners_of_tail == 1 and counted[block] == 1
        _require(alone, f"block {block} waits to be written by {counted[block]} tables")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise InvariantBroken(text)
