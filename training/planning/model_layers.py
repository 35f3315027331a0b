"""The pipeline's layers as numbers: GEMMs, parameters and what they keep for the backward pass. Pure.

The same list, in the same order and with the same names, as `training.model.layers.layer_specs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from training.model.config import ModelConfig

HEAD = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """x [rows, inner] times weight [outer, inner]. Sizes of the whole model, before any cut."""

    op: str
    inner: int
    outer: int
    rows_per_token: float = 1.0
    """Routed experts see each token several times, the head once per stream."""

    cut: bool = True
    """Over the tensor axis; else every tensor rank computes all of it."""

    reads_share: bool = False
    """Cut by row: a tensor rank multiplies its share of `inner`; else, where cut, it makes its share of `outer`."""

    same_input: bool = False
    """Reads what an earlier GEMM of the layer reads."""

    experts: int = 0
    """Weights of this shape, dealt out over the expert axis; 0: one, and not an expert's."""

    @property
    def weights(self) -> int:
        return self.inner * self.outer * max(1, self.experts)

    def flops_per_token(self, tensor: int = 1) -> float:
        """Of the forward pass on one of `tensor` ranks: a multiplication and an addition count as two."""
        return 2.0 * self.inner * self.outer * self.rows_per_token / (tensor if self.cut else 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """softmax(QK^T)V of one layer."""

    op: str
    heads: int
    key_width: int
    value_width: int

    def flops_per_token(self, sequence_length: int, tensor: int = 1) -> float:
        """Causal: a token sees half the sequence on average."""
        return sequence_length * self.heads / tensor * (self.key_width + self.value_width)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLayer:
    name: str
    hidden: int
    gemms: tuple[Gemm, ...] = ()
    core: Core | None = None
    streams: int = 1
    """Hidden states that leave the layer: the main one, and one for each depth of multi-token prediction so far."""

    vectors: int = 0
    """Parameters that no GEMM multiplies: norms."""

    looked_up: int = 0
    """Parameters of an embedding that this layer brings; shared ones count where they come first."""

    norms: int = 0
    swiglu_width: float = 0.0
    """Values a token has behind a SwiGLU, all experts it passes through together."""

    routed: int = 0
    """Experts that each token passes through; 0: no router."""

    summed_forward: int = 0
    """Values a token has summed over the tensor axis going forward (Megatron's g)."""

    summed_backward: int = 0
    """Gradients a token has summed over the tensor axis coming back (Megatron's f)."""

    is_embedding: bool = False


@lru_cache(maxsize=64)
def model_layers(config: ModelConfig) -> tuple[PlannedLayer, ...]:
    return tuple(_layers(config))


def _layers(config: ModelConfig) -> Iterator[PlannedLayer]:
    hidden, vocabulary = config.hidden_size, config.vocab_size
    yield PlannedLayer(name="embedding", hidden=hidden, looked_up=vocabulary * hidden, is_embedding=True)
    for number in range(config.num_hidden_layers):
        yield _block(config, number, name=f"layer.{number}")
    yield PlannedLayer(name="final_norm", hidden=hidden, vectors=hidden, norms=1)
    for depth in range(1, config.num_nextn_predict_layers + 1):
        yield PlannedLayer(name=f"mtp.{depth}.embedding", hidden=hidden, streams=1 + depth, is_embedding=True)
        yield _block(config, config.num_hidden_layers + depth - 1, name=f"mtp.{depth}", depth=depth)
    streams = 1 + config.num_nextn_predict_layers
    yield PlannedLayer(
        name=HEAD,
        hidden=hidden,
        gemms=(Gemm(op="head", inner=hidden, outer=vocabulary, rows_per_token=streams),),
        streams=streams,
        summed_backward=streams * hidden,
    )


def _block(config: ModelConfig, number: int, *, name: str, depth: int = 0) -> PlannedLayer:
    hidden = config.hidden_size
    ahead = (Gemm(op="mtp.projection", inner=2 * hidden, outer=hidden, cut=False),) if depth else ()
    norms = 2 + (3 if depth else 0)
    latent_vectors = (config.q_lora_rank or 0) + config.kv_lora_rank  # zero for a llama
    is_moe = config.is_moe_layer(number)
    return PlannedLayer(
        name=name,
        hidden=hidden,
        gemms=(*ahead, *_attention(config), *(_experts(config) if is_moe else _dense(config))),
        core=Core(
            op="attention.core" if config.family == "llama" else "mla.core",
            heads=config.num_attention_heads,
            key_width=config.qk_head_dim,
            value_width=config.value_head_dim,
        ),
        streams=1 + depth,
        vectors=norms * hidden + latent_vectors,
        norms=norms,
        swiglu_width=(config.num_experts_per_tok + config.n_shared_experts) * config.moe_intermediate_size
        if is_moe
        else config.intermediate_size,
        routed=config.num_experts_per_tok if is_moe else 0,
        summed_forward=2 * hidden,
        summed_backward=_into_attention(config) + hidden + (config.num_experts_per_tok if is_moe else 0),
    )


def _into_attention(config: ModelConfig) -> int:
    """Width of what the heads are made of: the hidden state, or latent attention's three short ones."""
    if config.family == "llama":
        return config.hidden_size
    return (config.q_lora_rank or config.hidden_size) + config.kv_lora_rank + config.qk_rope_head_dim


def _attention(config: ModelConfig) -> Iterator[Gemm]:
    hidden, heads = config.hidden_size, config.num_attention_heads
    if config.family == "llama":
        rows = (heads + 2 * config.num_key_value_heads) * config.head_dim
        yield Gemm(op="attention.qkv_proj", inner=hidden, outer=rows)
        yield Gemm(op="attention.o_proj", inner=heads * config.head_dim, outer=hidden, reads_share=True)
        return
    if config.q_lora_rank is not None:
        yield Gemm(op="mla.q_proj", inner=hidden, outer=config.q_lora_rank, cut=False)
    yield Gemm(op="mla.q_proj", inner=config.q_lora_rank or hidden, outer=heads * config.qk_head_dim)
    compressed = config.kv_lora_rank + config.qk_rope_head_dim
    yield Gemm(op="mla.kv_compress", inner=hidden, outer=compressed, cut=False, same_input=True)
    expanded = heads * (config.qk_nope_head_dim + config.v_head_dim)
    yield Gemm(op="mla.kv_proj", inner=config.kv_lora_rank, outer=expanded)
    yield Gemm(op="mla.o_proj", inner=heads * config.v_head_dim, outer=hidden, reads_share=True)


def _dense(config: ModelConfig) -> Iterator[Gemm]:
    yield Gemm(op="ffn.linear", inner=config.hidden_size, outer=2 * config.intermediate_size)
    yield Gemm(op="ffn.linear", inner=config.intermediate_size, outer=config.hidden_size, reads_share=True)


def _experts(config: ModelConfig) -> Iterator[Gemm]:
    hidden, width = config.hidden_size, config.moe_intermediate_size
    copies, experts = config.num_experts_per_tok, config.n_routed_experts
    yield Gemm(op="moe.router", inner=hidden, outer=experts, cut=False)
    yield Gemm(op="moe.expert", inner=hidden, outer=2 * width, rows_per_token=copies, experts=experts)
    yield Gemm(op="moe.expert", inner=width, outer=hidden, rows_per_token=copies, reads_share=True, experts=experts)
    if config.n_shared_experts:
        yield Gemm(op="moe.expert", inner=hidden, outer=2 * width * config.n_shared_experts, same_input=True)
        yield Gemm(op="moe.expert", inner=width * config.n_shared_experts, outer=hidden, reads_share=True)


def flops_per_token(config: ModelConfig, sequence_length: int) -> float:
    """Of the model, forward and backward (twice the forward), for one trained token; recomputation does not count."""
    return sum(3.0 * _forward_flops(layer, sequence_length) for layer in model_layers(config))


def _forward_flops(layer: PlannedLayer, sequence_length: int) -> float:
    core = 0.0 if layer.core is None else layer.core.flops_per_token(sequence_length)
    return core + sum(gemm.flops_per_token() for gemm in layer.gemms)
