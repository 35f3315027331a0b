"""The model as a list of layers for a pipeline; one process runs the same list.

A layer takes and returns a state: (streams, tokens). Streams [1 + depths so far, batch, sequence, hidden] holds the
main hidden state and, behind it, one for each depth of multi-token prediction. It is one tensor because DeepSpeed runs
a backward pass of its own for every tensor that a stage sends on: split, an FP8 gradient would be rounded twice, and
the loss would depend on where the pipeline is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training.matmul import linear
from training.model.block import Block
from training.model.boundary import boundary
from training.model.config import ModelConfig
from training.model.mtp import MtpLayer, ahead
from training.model.norm import RmsNorm
from training.parallel.context import ParallelContext
from training.parallel.shards import cut_rows
from training.parallel.tensor import copy_to_tensor_axis, new_parameter
from training.parallel.vocabulary import embed
from training.precision import PrecisionPolicy

State = tuple[Tensor, Tensor]
EMBEDDING = "embedding"
"""Key under which several uses of the embedding's weight find each other."""


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """`module(config, policy, context, **arguments)` builds the layer; its forward takes and returns a state."""

    name: str
    module: type[nn.Module]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tied_key: str | None = None
    """Layers with the same key share one module."""

    forward: Callable[[Any, Any], Any] | None = None
    """How this use runs the shared module, (module, state) -> state; None: its own forward."""


class VocabularyMatrix(nn.Module):
    """[vocabulary of this rank, hidden]: looked up at the front, multiplied at the end."""

    def __init__(
        self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext, name: str = "model.embed_tokens"
    ) -> None:
        super().__init__()
        self.policy, self.context = policy, context
        parts = cut_rows([(f"{name}.weight", config.vocab_size)], config.hidden_size, context.tensor)
        self.weight = new_parameter((config.vocab_size // context.tensor.size, config.hidden_size), policy, parts)

    def look_up(self, tokens: Tensor, op: str) -> Tensor:
        return boundary(embed(tokens, self.weight, self.context), op, self.policy)

    def logits(self, streams: Tensor) -> Tensor:
        """[..., hidden] -> FP32 [..., vocabulary of this rank]"""
        return linear(copy_to_tensor_axis(streams, self.context), self.weight, op="head", policy=self.policy)

    def forward(self, tokens: Tensor) -> State:
        """tokens int64 [batch, sequence] -> the first state"""
        return self.look_up(tokens, "embedding").unsqueeze(0), tokens


def embed_ahead(matrix: VocabularyMatrix, state: State, *, depth: int) -> State:
    """Append the embeddings of the tokens `depth` places on as a stream of their own."""
    streams, tokens = state
    embedded = matrix.look_up(ahead(tokens, depth, fill=0), "mtp.embedding")
    return torch.cat([streams, embedded.unsqueeze(0)]), tokens


def tied_logits(matrix: VocabularyMatrix, state: State) -> Tensor:
    return matrix.logits(state[0])


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext, layer: int) -> None:
        super().__init__()
        self.block = Block(config, policy, context, layer)

    def forward(self, state: State) -> State:
        streams, tokens = state
        return self.block(streams[0]).unsqueeze(0), tokens


class FinalNorm(nn.Module):
    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext) -> None:
        super().__init__()
        self.norm = RmsNorm(
            "model.norm.weight", config.hidden_size, config.rms_norm_eps, op="block.norm", policy=policy
        )

    def forward(self, state: State) -> State:
        streams, tokens = state
        return self.norm(streams), tokens


class MtpStep(nn.Module):
    """One depth: the last stream holds the embeddings ahead, the one before it the previous depth."""

    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext, depth: int) -> None:
        super().__init__()
        self.layer = MtpLayer(config, policy, context, depth)

    def forward(self, state: State) -> State:
        streams, tokens = state
        return torch.cat([streams[:-1], self.layer(streams[-1], streams[-2]).unsqueeze(0)]), tokens


class Head(VocabularyMatrix):
    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext) -> None:
        super().__init__(config, policy, context, "lm_head")

    def forward(self, state: State) -> Tensor:
        """-> FP32 logits [1 + depths, batch, sequence, vocabulary of this rank]"""
        return self.logits(state[0])


def layer_specs(config: ModelConfig) -> list[LayerSpec]:
    """Embedding, decoder layers, final norm, multi-token prediction, head, in the order in which they run."""
    depths = range(1, config.num_nextn_predict_layers + 1)
    tied = EMBEDDING if depths or config.tie_word_embeddings else None
    specs = [LayerSpec("embedding", VocabularyMatrix, tied_key=tied)]
    specs += [LayerSpec(f"layer.{n}", DecoderLayer, {"layer": n}) for n in range(config.num_hidden_layers)]
    specs.append(LayerSpec("final_norm", FinalNorm))
    for depth in depths:
        ahead_by = partial(embed_ahead, depth=depth)
        specs.append(LayerSpec(f"mtp.{depth}.embedding", VocabularyMatrix, tied_key=EMBEDDING, forward=ahead_by))
        specs.append(LayerSpec(f"mtp.{depth}", MtpStep, {"depth": depth}))
    if config.tie_word_embeddings:
        specs.append(LayerSpec("head", VocabularyMatrix, tied_key=EMBEDDING, forward=tied_logits))
    else:
        specs.append(LayerSpec("head", Head))
    return specs
