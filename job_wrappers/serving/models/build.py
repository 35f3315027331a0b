"""From a folder to a decoder on this rank, and what it will need before it is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from job_wrappers.serving.attention.interface import PagedAttention
from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.kv.layout import KvLayout
from job_wrappers.serving.models.decoder import Decoder
from job_wrappers.serving.models.decoder_config import DecoderConfig
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.models.shard_reader import FolderSource, NoSource
from job_wrappers.serving.models.weights import Weights

__all__ = ["Decoder", "kv_layout", "load_decoder", "read_config", "torch_dtype", "weight_bytes"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.bfloat16}


def read_config(folder: Path) -> DecoderConfig:
    """Raise ConfigError naming file, key and rule."""
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ConfigError("must hold a JSON object")
        return DecoderConfig.from_hf(values)
    except FileNotFoundError:
        raise ConfigError(f"{folder}: there is no config.json") from None
    except (OSError, ValueError) as cause:
        raise ConfigError(f"{path}: {cause}") from cause
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def torch_dtype(config: DecoderConfig, asked: str) -> torch.dtype:
    """`auto`: as the weights are stored; 16-bit floats become BF16, which has the range of FP32."""
    return _DTYPES[asked] if asked != "auto" else _STORED.get(config.stored_dtype, torch.bfloat16)


def load_decoder(
    folder: Path,
    config: DecoderConfig,
    *,
    place: ModelPlace,
    dtype: torch.dtype,
    device: torch.device,
    attention: PagedAttention,
    read_bytes: Callable[[int], None] = lambda count: None,
) -> tuple[Decoder, int]:
    """The decoder and the bytes of its weights. Reads only this rank's share. Raise ConfigError for a folder that does
    not hold what config.json says."""
    source = FolderSource(folder, device, read_bytes)
    weights = Weights(source, dtype)
    decoder = Decoder(weights, config, place, attention)
    source.refuse_unread(place.layers(config.layers))
    return decoder, weights.bytes


def weight_bytes(config: DecoderConfig, place: ModelPlace, dtype: torch.dtype) -> int:
    """What `load_decoder` will hold, without reading anything but the config."""
    weights = Weights(NoSource(fp8=config.fp8), dtype)
    Decoder(weights, config, place, attention=None)  # type: ignore[arg-type]
    return weights.bytes


def kv_layout(config: DecoderConfig, place: ModelPlace, *, dtype_bytes: int, block_tokens: int) -> KvLayout:
    """What a token leaves in this rank's cache."""
    layers = len(place.layers(config.layers))
    latent = config.latent
    if latent is not None:
        return KvLayout(
            layers=layers,
            kv_heads=1,
            key_size=latent.rank + latent.rotary_size,
            value_size=latent.rank,
            values_in_keys=True,
            bytes_per_number=dtype_bytes,
            block_tokens=block_tokens,
        )
    heads = place.kv_share(config.kv_heads)
    return KvLayout(
        layers=layers,
        kv_heads=heads.stop - heads.start,
        key_size=config.head_size,
        value_size=config.head_size,
        bytes_per_number=dtype_bytes,
        block_tokens=block_tokens,
    )
