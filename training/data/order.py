"""Which sequence is read when: a seeded permutation an epoch, computed place by place. Pure; no state, no O(n) memory.

Place p of the whole run lies in epoch p // n. A Feistel network permutes the numbers below the next power of two; it
is walked until it lands below n (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import require

_ROUNDS = 6
_MASK64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SequenceOrder:
    """Epoch after epoch over `sequences` sequences, each epoch in another order."""

    seed: int
    sequences: int

    def __post_init__(self) -> None:
        require(self.sequences >= 1, "sequences", self.sequences, "must be at least 1")

    def at(self, place: int) -> int:
        """The sequence that stands at `place`, from 0, of the run."""
        epoch, position = divmod(place, self.sequences)
        key = _mixed(_mixed(self.seed & _MASK64) ^ epoch)
        found = _feistel(position, key, bits=(self.sequences - 1).bit_length())
        while found >= self.sequences:
            found = _feistel(found, key, bits=(self.sequences - 1).bit_length())
        return found


def rank_places(consumed: int, *, global_sequences: int, data_rank: int, data_ranks: int) -> range:
    """Places that one data rank reads in the step after `consumed` sequences: its part of one global batch.

    Cut into micro-batches from the front. The global batch is the same whatever the plan.
    """
    share = global_sequences // data_ranks
    first = consumed + data_rank * share
    return range(first, first + share)


def _feistel(number: int, key: int, *, bits: int) -> int:
    """A bijection of the numbers of so many bits."""
    left_bits = bits // 2
    right_bits = bits - left_bits
    left, right = number >> right_bits, number & ((1 << right_bits) - 1)
    for turn in range(_ROUNDS):
        # The halves change places, so their widths do too.
        left, right = right, left ^ (_mixed(right ^ key ^ (turn << 56)) & ((1 << left_bits) - 1))
        left_bits, right_bits = right_bits, left_bits
    return left << right_bits | right


def _mixed(number: int) -> int:
    """splitmix64's finaliser (Steele, Lea and Flood, OOPSLA 2014)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK64
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & _MASK64
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & _MASK64
    return number ^ number >> 31
