"""Small random Hugging Face folders, one per family, with a tokenizer trained on the spot and a chat template.

Weights are drawn wide, so that greedy choices are far apart and rounding does not decide them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "deepseek_v3")
VOCAB_SIZE = 512
MAX_POSITIONS = 1024
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<|start|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
START, END = SPECIAL[:2]

_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_POSITIONS,
    "initializer_range": 0.25,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_OWN: Mapping[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"head_dim": 16, "sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 24},
    "deepseek_v3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 48,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 24,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 3,
        "n_group": 4,
        "topk_group": 2,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 32,
    },
}


def write_model(folder: Path, family: str = "llama", *, seed: int = 0, tokenizer: bool = True, **sizes: Any) -> Path:
    """A folder as `save_pretrained` leaves it, in fp32; `sizes` override those of config.json."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **(_SIZES | dict(_OWN[family]) | sizes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
                _roughen(name, tensor)
    model.save_pretrained(folder)
    if tokenizer:
        write_tokenizer(folder)
    return folder


def _roughen(name: str, tensor: Any) -> None:
    """What initialisation leaves at zero or one would hide a bias added twice or a norm's weight left out."""
    if name.endswith("bias"):
        tensor.normal_(std=0.3)
    elif "norm" in name:
        tensor.uniform_(0.5, 1.5)
    elif name.endswith("mlp.gate.weight"):
        tensor.normal_(std=0.25)


@lru_cache(maxsize=1)
def _folders() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tiny-models-")


@lru_cache(maxsize=64)
def tiny_folder(family: str = "llama", seed: int = 0, overrides: str = "{}") -> Path:
    """Written once per process, removed at its end; `overrides`: JSON of `sizes`. Not to be changed by a test."""
    folder = Path(_folders().name) / f"{family}-{seed}-{len(list(Path(_folders().name).iterdir()))}"
    return write_model(folder, family, seed=seed, **json.loads(overrides))


@lru_cache(maxsize=8)
def oracle(folder: Path) -> Any:
    """The folder as transformers runs it: fp32, plain attention."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def oracle_logits(folder: Path, token_ids: Sequence[int]) -> Any:
    """[tokens, vocabulary]"""
    import torch

    with torch.inference_mode():
        return oracle(folder)(torch.tensor([list(token_ids)])).logits[0].float()


def oracle_greedy(folder: Path, token_ids: Sequence[int], *, new_tokens: int) -> list[int]:
    """What transformers' `generate` appends; it stops behind an end token."""
    import torch

    prompt = torch.tensor([list(token_ids)])
    with torch.inference_mode():
        output = oracle(folder).generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new_tokens, do_sample=False
        )
    return [int(token) for token in output[0, len(token_ids) :]]


def write_tokenizer(folder: Path) -> None:
    """Byte-level BPE: every text can be encoded, and token ids stay under VOCAB_SIZE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


_TEXTS = (
    "The battery is charged when the sun shines, and gives its energy back in the evening.",
    "A scheduler starts the job that waits longest, unless another one needs less power.",
    "Every request knows how many joules it took. Straße, café, naïve, 電力, ⚡, emoji 🔋.",
    "def usable_watts(battery): return min(battery.max_watts, battery.stored_joules / 60)",
    "What is the power of one GPU? It draws 700 watts at most; at a lower clock it draws 300.",
)
