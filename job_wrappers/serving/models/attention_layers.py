"""The two kinds of attention layer: heads with keys and values of their own, and latent attention."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from job_wrappers.serving.attention.interface import LayerCache, PagedAttention
from job_wrappers.serving.models.decoder_config import DecoderConfig, LatentSizes
from job_wrappers.serving.models.linear import AnyLinear
from job_wrappers.serving.models.parts import Norm, Rotation
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.models.weights import Part, Weights

LATENT_EPS = 1e-6
"""Of the latents' norms, whatever rms_norm_eps says (transformers, DeepseekV3Attention)."""


class AttentionLayer(Protocol):
    def __call__(self, x: Tensor, angles: Tensor, slots: Tensor, cache: LayerCache, plan: Any) -> Tensor:
        """x [T, hidden], normed -> this rank's summand of the result."""
        ...


class HeadAttention:
    def __init__(
        self,
        weights: Weights,
        prefix: str,
        config: DecoderConfig,
        place: ModelPlace,
        attention: PagedAttention,
        rope: Rotation,
    ) -> None:
        self._size, self._scale = config.head_size, config.attention_scale
        self._attention, self._rope = attention, rope
        kv_heads = place.kv_share(config.kv_heads)
        self._heads, self._kv_heads = config.heads // place.tp_size, kv_heads.stop - kv_heads.start
        self._qkv = self._merged(weights, prefix, config, place)
        self._output = weights.linear(
            [Part(name=f"{prefix}o_proj", total=config.hidden_size)],
            config.heads * self._size,
            place.share(config.heads, "num_attention_heads", of=self._size),
            bias=config.output_bias,
            keep_bias=place.tp_rank == 0,
        )
        self._norms: tuple[Norm, Norm] | None = None
        if config.query_key_norms:
            order = rope.order(1, self._size)
            query, key = (weights.read(f"{prefix}{name}_norm.weight", (self._size,))[order] for name in "qk")
            self._norms = Norm(weights.keep(query), config.eps), Norm(weights.keep(key), config.eps)

    def _merged(self, weights: Weights, prefix: str, config: DecoderConfig, place: ModelPlace) -> AnyLinear:
        size, kv_total, order = self._size, config.kv_heads * self._size, self._rope.order
        query = place.share(config.heads, "num_attention_heads", of=size)
        kv = place.kv_share(config.kv_heads, of=size)
        q_order, k_order = order(self._heads, size), order(self._kv_heads, size)
        parts = [
            Part(name=f"{prefix}q_proj", total=config.heads * size, rows=query, order=q_order),
            Part(name=f"{prefix}k_proj", total=kv_total, rows=kv, order=k_order),
            Part(name=f"{prefix}v_proj", total=kv_total, rows=kv),
        ]
        return weights.linear(parts, config.hidden_size, bias=config.qkv_bias)

    def __call__(self, x: Tensor, angles: Tensor, slots: Tensor, cache: LayerCache, plan: Any) -> Tensor:
        merged = self._qkv(x).unflatten(-1, (-1, self._size))
        heads, turned = self._heads, self._heads + self._kv_heads
        if self._norms is None:
            self._rope.turn(merged[:, :turned], angles)
            queries, keys = merged[:, :heads], merged[:, heads:turned]
        else:
            queries = self._rope.turn(self._norms[0](merged[:, :heads]), angles)
            keys = self._rope.turn(self._norms[1](merged[:, heads:turned]), angles)
        cache.write(keys, merged[:, turned:], slots)
        mixed = self._attention.attend(queries, cache, plan, scale=self._scale)
        return self._output(mixed.flatten(1))


class LatentAttention:
    """Only the latent and the rotated part of the key are cached. The matrices that would make keys and values of the
    latent are applied to query and result instead (arXiv 2405.04434, section 2.1.2)."""

    def __init__(
        self,
        weights: Weights,
        prefix: str,
        config: DecoderConfig,
        sizes: LatentSizes,
        place: ModelPlace,
        attention: PagedAttention,
        rope: Rotation,
    ) -> None:
        self._sizes, self._scale, self._head_size = sizes, config.attention_scale, config.head_size
        self._attention, self._rope = attention, rope
        self._query_size = sizes.query_rank or config.heads // place.tp_size * config.head_size
        self._down = self._merged_down(weights, prefix, config, place)
        self._kv_norm = Norm(weights.tensor(f"{prefix}kv_a_layernorm.weight", (sizes.rank,)), LATENT_EPS)
        self._query: AnyLinear | None = None
        if sizes.query_rank is not None:
            self._q_norm = Norm(weights.tensor(f"{prefix}q_a_layernorm.weight", (sizes.query_rank,)), LATENT_EPS)
            self._query = weights.linear([self._query_part(f"{prefix}q_b_proj", config, place)], sizes.query_rank)
        self._key_up, self._value_up = self._split_up(weights, prefix, config, place)
        self._output = weights.linear(
            [Part(name=f"{prefix}o_proj", total=config.hidden_size)],
            config.heads * sizes.value_size,
            place.share(config.heads, "num_attention_heads", of=sizes.value_size),
        )

    def _query_part(self, name: str, config: DecoderConfig, place: ModelPlace) -> Part:
        size = config.head_size
        return Part(
            name=name,
            total=config.heads * size,
            rows=place.share(config.heads, "num_attention_heads", of=size),
            order=self._rope.order(config.heads // place.tp_size, size),
        )

    def _merged_down(self, weights: Weights, prefix: str, config: DecoderConfig, place: ModelPlace) -> AnyLinear:
        """What is made of the hidden state directly: queries or their latent, and the latent of keys and values."""
        width, rank = self._sizes.rank + self._sizes.rotary_size, self._sizes.query_rank
        latent = Part(name=f"{prefix}kv_a_proj_with_mqa", total=width, order=self._rope.order(1, width))
        if rank is None:
            query = self._query_part(f"{prefix}q_proj", config, place)
        else:
            query = Part(name=f"{prefix}q_a_proj", total=rank)
        return weights.linear([query, latent], config.hidden_size)

    def _split_up(
        self, weights: Weights, prefix: str, config: DecoderConfig, place: ModelPlace
    ) -> tuple[Tensor, Tensor]:
        """[heads, plain size, rank] and [heads, rank, value size]"""
        sizes = self._sizes
        each = sizes.plain_size + sizes.value_size
        rows = place.share(config.heads, "num_attention_heads", of=each)
        up = weights.dense(Part(name=f"{prefix}kv_b_proj", total=config.heads * each, rows=rows), sizes.rank)
        key_up, value_up = up.unflatten(0, (-1, each)).split([sizes.plain_size, sizes.value_size], dim=1)
        return weights.keep(key_up), weights.keep(value_up.transpose(1, 2))

    def __call__(self, x: Tensor, angles: Tensor, slots: Tensor, cache: LayerCache, plan: Any) -> Tensor:
        sizes = self._sizes
        queries, latent, key = self._down(x).split([self._query_size, sizes.rank, sizes.rotary_size], dim=-1)
        if self._query is not None:
            queries = self._query(self._q_norm(queries))
        plain, rotary = queries.unflatten(-1, (-1, self._head_size)).split(
            [sizes.plain_size, sizes.rotary_size], dim=-1
        )
        key = self._rope.turn(key.unsqueeze(1), angles)
        cache.write(torch.cat([self._kv_norm(latent).unsqueeze(1), key], dim=-1), None, slots)
        in_latent = torch.bmm(plain.transpose(0, 1), self._key_up).transpose(0, 1)
        queries = torch.cat([in_latent, self._rope.turn(rotary, angles)], dim=-1)
        mixed = self._attention.attend(queries, cache, plan, scale=self._scale)
        values = torch.bmm(mixed.transpose(0, 1), self._value_up)
        return self._output(values.transpose(0, 1).flatten(1))
