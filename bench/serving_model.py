"""What every engine of `make bench-serving` is given: one random model of 29 M parameters, and prompts. No job_wrappers
here: peers import this from virtual environments of their own."""

from __future__ import annotations

import random
from pathlib import Path

FOLDER = Path("build/bench/serving-model")
SMALL_FOLDER = Path("build/bench/serving-model-small")
"""What a site would switch to when power is short: a fifth of the weights."""

VOCABULARY = 8192
PROMPT_TOKENS = (32, 256)
NEW_TOKENS = 64
BATCHES = (1, 8, 32)
THREADS = 2
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
SMALL_SHAPE = SHAPE | {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}


def prompts(count: int, *, round_number: int = 0) -> list[list[int]]:
    """Every engine gets the same; no two rounds do, so that nobody's cache of prefixes can know them."""
    dice = random.Random(1_000_000 * count + round_number)
    lengths = [dice.randint(*PROMPT_TOKENS) for _ in range(count)]
    return [[dice.randrange(16, VOCABULARY) for _ in range(length)] for length in lengths]


def matrices() -> list[tuple[int, int]]:
    """[outputs, inputs] of every matrix that a token goes through, as an engine that merges what it can holds them."""
    hidden, inner, head_size = SHAPE["hidden_size"], SHAPE["intermediate_size"], 64
    queries, keys = SHAPE["num_attention_heads"] * head_size, SHAPE["num_key_value_heads"] * head_size
    layer = [(queries + 2 * keys, hidden), (hidden, queries), (2 * inner, hidden), (hidden, inner)]
    return layer * SHAPE["num_hidden_layers"] + [(VOCABULARY, hidden)]


def make(folder: Path, shape: dict[str, int]) -> Path:
    """The folder, made once. Wider random weights than usual, so that the best token leads by more than rounding."""
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = LlamaConfig(**shape, initializer_range=0.05, eos_token_id=None, bos_token_id=None, dtype="float32")
    words = {f"w{number}": number for number in range(shape["vocab_size"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder
