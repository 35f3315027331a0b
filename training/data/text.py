"""The text that a run trains on and the text that it only looks at: stretches of datasets, cut into sequences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from training.data.dataset import Ids, TokenDataset
from training.data.order import SequenceOrder
from training.errors import require


@dataclass(frozen=True, slots=True)
class Stretch:
    """`count` sequences of a dataset, from the one numbered `first`."""

    dataset: TokenDataset
    sequence_length: int
    first: int
    count: int

    def sequence(self, index: int) -> Ids:
        """[sequence_length + 1]"""
        return self.dataset.sequence(self.first + index, self.sequence_length)


@dataclass(frozen=True, slots=True)
class RunText:
    trained: Stretch
    order: SequenceOrder
    held_out: Stretch | None
    evaluated: tuple[int, ...]
    """Numbers in `held_out` of the sequences that every evaluation reads: evenly spread, always the same."""


def open_text(
    dataset: Path,
    *,
    sequence_length: int,
    global_sequences: int,
    vocabulary_size: int,
    seed: int,
    held_out: Path | None = None,
    held_out_fraction: float = 0.0,
    evaluate_batches: int = 1,
) -> RunText:
    """Raise ConfigError where a dataset is missing, damaged, too short for a batch or beyond the model's vocabulary."""
    whole = _open(dataset, sequence_length, vocabulary_size, "data.dataset")
    kept = round(whole.count * held_out_fraction)
    trained = Stretch(whole.dataset, sequence_length, 0, whole.count - kept)
    _require_batch(trained, global_sequences, "data.dataset")
    looked_at: Stretch | None = None
    evaluated: tuple[int, ...] = ()
    if held_out is not None:
        looked_at = _open(held_out, sequence_length, vocabulary_size, "data.held_out")
    elif held_out_fraction > 0.0:
        looked_at = Stretch(whole.dataset, sequence_length, trained.count, kept)
    if looked_at is not None:
        needed = evaluate_batches * global_sequences
        _require_batch(looked_at, needed, "data.held_out" if held_out is not None else "data.held_out_fraction")
        evaluated = tuple(number * looked_at.count // needed for number in range(needed))
    return RunText(trained, SequenceOrder(seed, trained.count), looked_at, evaluated)


def _open(folder: Path, sequence_length: int, vocabulary_size: int, key: str) -> Stretch:
    dataset = TokenDataset(folder)
    rule = (
        f"its vocabulary of {dataset.meta.vocabulary_size} does not go into the model's vocab_size = {vocabulary_size}"
    )
    require(dataset.meta.vocabulary_size <= vocabulary_size, key, folder, rule)
    return Stretch(dataset, sequence_length, 0, dataset.sequences(sequence_length))


def _require_batch(stretch: Stretch, needed: int, key: str) -> None:
    rule = f"holds {stretch.count} sequences of {stretch.sequence_length} tokens, one batch needs {needed}"
    require(stretch.count >= needed, key, stretch.dataset.folder, rule)
