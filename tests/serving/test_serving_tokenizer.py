"""The tokenizer of a folder: byte-level as Llama 3 and Qwen have it, with byte tokens as Llama 2 has it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.serving.errors import BadRequest, ConfigError
from job_wrappers.serving.text.detokenise import Detokeniser
from job_wrappers.serving.text.tokenizer import ModelText, eos_tokens, load_text
from tests.serving.tiny_models import VOCAB_SIZE, write_tokenizer

pytestmark = pytest.mark.torch

SAMPLE = "Straße, café , 電力 ⚡ 🔋  What 'is' it?\n\n👩‍👩‍👧 naïve"


def write_configs(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": VOCAB_SIZE} | config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    write_tokenizer(folder)
    write_configs(folder, eos_token_id=3)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 5]}))
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> ModelText:
    loaded = load_text(folder)
    assert loaded is not None
    return loaded


@pytest.fixture(scope="module")
def with_byte_tokens() -> ModelText:
    """Words begin with a mark for the space before them, and the first one's is not shown; the rest is bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "▁a": 257, "b": 258, "▁ab": 259}
    bpe = models.BPE(vocabulary, [("▁a", "b")], byte_fallback=True)  # type: ignore[arg-type]
    tokenizer = Tokenizer(bpe)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    strip = decoders.Strip(" ", 1, 0)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    return ModelText(fast, eos=frozenset(), vocabulary=260)


def streamed(text: ModelText, token_ids: list[int], prompt: list[int]) -> str:
    detokeniser = Detokeniser(text.decode, prompt)
    return "".join(detokeniser.add(token) for token in token_ids) + detokeniser.flush()


def test_text_comes_back_as_it_went_in(text: ModelText) -> None:
    tokens = text.encode(SAMPLE, most_tokens=500)
    assert text.decode(tokens) == SAMPLE
    assert streamed(text, list(tokens), []) == SAMPLE


@given(data=st.data())
def test_whatever_tokens_come_the_streamed_text_is_the_whole(text: ModelText, data: st.DataObject) -> None:
    """Of random tokens, most of them parts of characters: what a model without sense says."""
    tokens = data.draw(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=120))
    assert streamed(text, tokens, []) == text.decode(tokens)


def test_a_long_text_is_the_whole_too(text: ModelText, with_byte_tokens: ModelText) -> None:
    generator = random.Random(5)
    tokens = [generator.randrange(VOCAB_SIZE) for _ in range(5000)]
    assert streamed(text, tokens, []) == text.decode(tokens)
    characters = list(" " * 40 + "ab電🔋ß")
    written = "a" + "".join(generator.choice(characters) for _ in range(1000))
    tokens = list(with_byte_tokens.encode(written, most_tokens=5000))
    assert streamed(with_byte_tokens, tokens, []) == with_byte_tokens.decode(tokens) == written


@given(st.text("ab 電🔋ß", max_size=60), st.text("ab電 ", max_size=20))
def test_byte_tokens_and_marks_for_spaces_stream_as_the_whole(
    with_byte_tokens: ModelText, answer: str, prompt: str
) -> None:
    """Behind a prompt the first word keeps its space."""
    before = list(with_byte_tokens.encode("b" + prompt, most_tokens=500))
    tokens = list(with_byte_tokens.encode("b" + prompt + answer, most_tokens=500))
    if tokens[: len(before)] == before:
        assert streamed(with_byte_tokens, tokens[len(before) :], before) == answer


def test_a_character_begun_by_the_prompt_is_finished(text: ModelText) -> None:
    tokens = list(text.encode("🔋", most_tokens=500))
    assert len(tokens) > 1
    assert streamed(text, tokens[1:], tokens[:1]) == "🔋"


def test_the_tokens_are_those_of_transformers(folder: Path, text: ModelText) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SAMPLE}]
    assert list(text.encode(SAMPLE, most_tokens=500)) == theirs.encode(SAMPLE)
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert list(text.chat(messages, most_tokens=500)) == wanted


def test_a_content_in_parts_is_their_text(text: ModelText) -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "at?"}]
    whole = text.chat([{"role": "user", "content": "What?"}], most_tokens=500)
    assert text.chat([{"role": "user", "content": parts}], most_tokens=500) == whole


def test_any_end_token_of_the_folder_ends_the_text(folder: Path, text: ModelText) -> None:
    assert text.eos == {1, 3, 4, 5}
    assert eos_tokens(folder) == {3, 4, 5}


def test_special_tokens_are_shown_only_with_logprobs(text: ModelText) -> None:
    assert text.decode([1, 2]) == ""
    assert text.token_text(1) == "<|end|>"


def refusal(act: Any) -> BadRequest:
    with pytest.raises(BadRequest) as refused:
        act()
    return refused.value


def test_a_text_that_cannot_fit_is_refused_before_it_is_read(text: ModelText, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_backend", None)
    monkeypatch.setattr(text, "_tokenizer", None)
    assert "1000000 characters" in str(refusal(lambda: text.encode("x " * 500_000, most_tokens=100)))


@pytest.mark.parametrize("prompt", ["a\ud800b", ""], ids=["half-a-character", "nothing"])
def test_a_text_that_is_none_is_refused(text: ModelText, prompt: str) -> None:
    assert refusal(lambda: text.encode(prompt, most_tokens=100)).parameter == "prompt"


@pytest.mark.parametrize("tokens", [[], [3, -1], [VOCAB_SIZE], [2**70]])
def test_tokens_that_the_model_does_not_have_are_refused(text: ModelText, tokens: list[int]) -> None:
    assert refusal(lambda: text.checked(tokens)).parameter == "prompt"


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
        [{"role": "user", "content": [7]}],
        [{"role": "user", "content": "\udfff"}],
        [{"role": "user", "content": "long " * 9999}],
        [{"content": "no role"}],
    ],
)
def test_messages_that_cannot_be_a_prompt_are_refused(folder: Path, messages: list[dict[str, Any]]) -> None:
    strict = load_text(folder)
    assert strict is not None
    strict._tokenizer.chat_template = (
        "{% for m in messages %}{% if not m['role'] %}{{ raise_exception('a role, please') }}{% endif %}"
        "{{ '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}"
    )
    assert refusal(lambda: strict.chat(messages, most_tokens=50)).parameter == "messages"


def test_a_model_without_a_template_says_so(folder: Path) -> None:
    bare = load_text(folder)
    assert bare is not None
    bare._tokenizer.chat_template = None
    assert "no chat template" in str(refusal(lambda: bare.chat([{"role": "user", "content": "x"}], most_tokens=9)))


def test_a_folder_without_a_tokenizer_has_no_text(tmp_path: Path) -> None:
    write_configs(tmp_path)
    assert load_text(tmp_path) is None


@pytest.mark.parametrize(("name", "content"), [("tokenizer.json", "{"), ("config.json", "[]"), ("config.json", "{")])
def test_a_broken_folder_is_named(tmp_path: Path, name: str, content: str) -> None:
    write_tokenizer(tmp_path)
    write_configs(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_text(tmp_path)
