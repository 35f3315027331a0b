"""Text to token ids: plain bytes, a tokenizer.json of Hugging Face, or a BPE trained on the spot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from training.errors import ConfigError

CHUNK_BYTES = 1 << 22
SEPARATORS = ("<|endoftext|>", "<｜end▁of▁sentence｜>", "<|end_of_text|>", "<|eot_id|>", "</s>", "<eos>", "[SEP]")  # noqa: RUF001
"""Names that published tokenizers give to the end of a document, tried in this order."""

SMALLEST_VOCABULARY = 257
"""All bytes and the separator."""


class Encoder(Protocol):
    vocabulary_size: int
    separator: int

    def encode(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        """Ids of one file, piece by piece, without the separator. Raise ConfigError for a file that cannot be read."""
        ...

    def save(self, path: Path) -> bool:
        """Write a tokenizer.json; False when there is none to write."""
        ...


class ByteEncoder:
    vocabulary_size = SMALLEST_VOCABULARY
    separator = 256

    def encode(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        for chunk in _chunks(path):
            yield np.frombuffer(chunk, np.uint8)

    def save(self, path: Path) -> bool:
        return False


class JsonEncoder:
    """Text that is not UTF-8 is read with U+FFFD in its place."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.vocabulary_size = int(tokenizer.get_vocab_size(with_added_tokens=True))
        found = [tokenizer.token_to_id(name) for name in SEPARATORS]
        known = [identity for identity in found if identity is not None]
        if not known:
            raise ConfigError(f"tokenizer: has none of {', '.join(SEPARATORS)}, one must end a document")
        self.separator = int(known[0])

    def encode(self, path: Path) -> Iterator[npt.NDArray[Any]]:
        for text in _texts(path):
            yield np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def save(self, path: Path) -> bool:
        self._tokenizer.save(str(path))
        return True


def encoder(choice: str, files: Sequence[Path]) -> Encoder:
    """`choice`: "bytes", "train:<vocabulary size>" (a BPE over `files`) or the path of a tokenizer.json.

    Raise ConfigError for anything else.
    """
    if choice == "bytes":
        return ByteEncoder()
    kind, _, size = choice.partition(":")
    if kind == "train":
        if not size.isdecimal() or int(size) < SMALLEST_VOCABULARY:
            raise ConfigError(f"tokenizer = {choice}: train:N needs N of at least {SMALLEST_VOCABULARY}")
        return JsonEncoder(_trained(files, int(size)))
    return JsonEncoder(_read(Path(choice)))


def _trained(files: Sequence[Path], vocabulary_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[SEPARATORS[0]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for path in files for text in _texts(path)), trainer)
    return tokenizer


def _read(path: Path) -> Any:
    from tokenizers import Tokenizer

    if not path.is_file():
        raise ConfigError(
            f'tokenizer = {path}: no such file; give "bytes", "train:<vocabulary size>" or a tokenizer.json'
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as cause:  # tokenizers raises bare Exception for a file that it cannot read
        raise ConfigError(f"tokenizer = {path}: not a tokenizer.json: {cause}") from cause


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause


def _texts(path: Path) -> Iterator[str]:
    """The file in pieces that end with a line, so that no character and hardly a token is cut."""
    rest = b""
    for chunk in _chunks(path):
        whole, newline, tail = (rest + chunk).rpartition(b"\n")
        if newline:
            yield (whole + newline).decode("utf-8", errors="replace")
        rest = tail
    if rest:
        yield rest.decode("utf-8", errors="replace")
