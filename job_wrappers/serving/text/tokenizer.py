"""The tokenizer of a model folder: text to tokens, messages to a prompt, tokens to text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer

from job_wrappers.serving.errors import BadRequest, ConfigError
from job_wrappers.serving.text.detokenise import Decode

_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")

_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""A template is a program that runs over what the client sent."""


class ModelText:
    """Safe to use from several threads: nothing is changed after construction. A long text takes a second; whoever must
    not wait calls from a thread of its own (the library lets go of the interpreter meanwhile)."""

    def __init__(self, tokenizer: Any, *, eos: frozenset[int], vocabulary: int) -> None:
        self._tokenizer = tokenizer
        self.eos, self.vocabulary = eos, vocabulary
        self._longest_token = max((len(token) for token in tokenizer.get_vocab()), default=1)
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        """What does the work under transformers' wrapper; None: a tokenizer written in Python."""

        if self._backend is not None:
            self._backend.no_truncation()  # a folder may ask for it, and a prompt would lose its end unseen
            self._backend.no_padding()

    @property
    def decode(self) -> Decode:
        return self._decode

    def encode(self, text: str, *, most_tokens: int) -> tuple[int, ...]:
        """Raise BadRequest for a text that cannot fit, before any work is spent on a very long one."""
        return self._encode(text, most_tokens=most_tokens, special=True, parameter="prompt")

    def checked(self, token_ids: Sequence[int], *, parameter: str = "prompt") -> tuple[int, ...]:
        """A prompt given as tokens. Raise BadRequest for one that the model does not have, or for none at all."""
        if not token_ids:
            raise BadRequest("the prompt is empty: it has no tokens", parameter=parameter)
        for token in (min(token_ids), max(token_ids)):
            if not 0 <= token < self.vocabulary:
                raise BadRequest(f"token {token}: the vocabulary has 0 to {self.vocabulary - 1}", parameter=parameter)
        return tuple(token_ids)

    def chat(self, messages: Sequence[Mapping[str, Any]], *, most_tokens: int) -> tuple[int, ...]:
        """Raise BadRequest when the model has no chat template or the template refuses the messages."""
        if not getattr(self._tokenizer, "chat_template", None):
            raise BadRequest("this model has no chat template: use /v1/completions", parameter="messages")
        plain = [_plain(message) for message in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
        except _TEMPLATE_ERRORS as cause:
            raise BadRequest(f"the model's chat template refused them: {cause}", parameter="messages") from cause
        return self._encode(text, most_tokens=most_tokens, special=False, parameter="messages")

    def token_text(self, token_id: int) -> str:
        """For lists of logprobs: special tokens too."""
        return str(self._tokenizer.decode([token_id], skip_special_tokens=False))

    def _encode(self, text: str, *, most_tokens: int, special: bool, parameter: str) -> tuple[int, ...]:
        if len(text) > most_tokens * self._longest_token:
            told = f"{len(text)} characters cannot fit in the {most_tokens} tokens that are left"
            raise BadRequest(told, parameter=parameter)
        if not text.isascii():
            _require_unicode(text, parameter)
        if self._backend is None:
            return self.checked(self._tokenizer.encode(text, add_special_tokens=special), parameter=parameter)
        return self.checked(self._backend.encode(text, add_special_tokens=special).ids, parameter=parameter)

    def _decode(self, token_ids: Sequence[int]) -> str:
        if self._backend is not None:
            return str(self._backend.decode(token_ids, skip_special_tokens=True))
        # Spaces before punctuation are not "cleaned up": that would change text that was handed out already.
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return str(self._tokenizer.decode(list(token_ids), **options))


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of a content joined: templates of text models expect a string, and some would print a list as it is."""
    content = message.get("content")
    if not isinstance(content, list):
        return dict(message)
    joined = ""
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
        if not isinstance(text, str):
            raise BadRequest("content: only parts of type text can be served", parameter="messages")
        joined += text
    return {**message, "content": joined}


def _require_unicode(text: str, parameter: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise BadRequest(f"half a character at position {cause.start}: not Unicode", parameter=parameter) from cause


def load_text(folder: Path) -> ModelText | None:
    """None: the folder has no tokenizer, so prompts must come as tokens. Raise ConfigError for a broken one."""
    if not any((folder / name).exists() for name in _FILES):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        vocabulary = int(_read(folder / "config.json").get("vocab_size", len(tokenizer)))
    except (OSError, ValueError, TypeError, LookupError, ImportError) as cause:
        raise ConfigError(f"{folder}: the tokenizer cannot be read: {cause}") from cause
    return ModelText(tokenizer, eos=eos_tokens(folder, tokenizer.eos_token_id), vocabulary=vocabulary)


def eos_tokens(folder: Path, of_tokenizer: int | None = None) -> frozenset[int]:
    """From generation_config.json, config.json and the tokenizer: any of them ends the text."""
    found: set[int] = set() if of_tokenizer is None else {of_tokenizer}
    for name in ("generation_config.json", "config.json"):
        value = _read(folder / name).get("eos_token_id")
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(found)


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise ConfigError(f"{path}: not JSON: {cause}") from cause
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: must hold a JSON object")
    return found
