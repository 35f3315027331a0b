"""A decoder, or this rank's part of one: embedding, layers, head. Inference only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from job_wrappers.serving.attention.interface import LayerCache, PagedAttention
from job_wrappers.serving.kernels.packed_matrix import PackedMatrix
from job_wrappers.serving.models.attention_layers import AttentionLayer, HeadAttention, LatentAttention
from job_wrappers.serving.models.decoder_config import DecoderConfig
from job_wrappers.serving.models.device_step import DeviceStep
from job_wrappers.serving.models.linear import Linear
from job_wrappers.serving.models.parts import Experts, FeedForward, Norm, Rotation, experts, feed_forward
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.models.weights import Weights


class Layer:
    def __init__(self, norms: tuple[Norm, Norm], attention: AttentionLayer, network: FeedForward | Experts) -> None:
        self.norms, self.attention, self.network = norms, attention, network


class Decoder:
    def __init__(self, weights: Weights, config: DecoderConfig, place: ModelPlace, attention: PagedAttention) -> None:
        self.config, self.place, self.dtype = config, place, weights.dtype
        self._rope, self._attention = Rotation(weights, config), attention
        self._table: Linear | PackedMatrix | None = None
        self._head: Linear | PackedMatrix | None = None
        self._tokens = place.vocabulary(config.vocab_size)
        if place.is_first or (place.is_last and config.tied_embeddings):
            self._table = self._of_tokens(weights, "model.embed_tokens.weight")
        self.layers = [self._layer(weights, index) for index in place.layers(config.layers)]
        if place.is_last:
            self._norm = Norm(weights.tensor("model.norm.weight", (config.hidden_size,)), config.eps)
            self._head = self._table if config.tied_embeddings else self._of_tokens(weights, "lm_head.weight")
        self._tensors = weights.kept

    def forward(self, step: DeviceStep, caches: Sequence[LayerCache], hidden: Tensor | None) -> Tensor:
        """The first stage embeds the step's tokens, others go on from `hidden` [T, hidden size]. The last stage gives
        FP32 logits [S, vocabulary] on its first tensor rank ([S, 0] on the others), the others hidden states."""
        place = self.place
        x = self._embed(step.token_ids) if place.is_first else hidden
        assert x is not None, "a later stage goes on from hidden states"
        angles = self._rope.at(step.positions)
        for layer, cache in zip(self.layers, caches, strict=True):
            x = x + place.sum(layer.attention(layer.norms[0](x), angles, step.slots, cache, step.plan))
            if self._head is not None and layer is self.layers[-1] and step.logit_rows is not None:
                x = x[step.logit_rows]  # the other tokens are in the caches by now: nobody asks for more
            x = x + place.sum(layer.network(layer.norms[1](x)))
        if self._head is None:
            return x
        return place.gather(self._head(self._norm(x)).float(), self.config.vocab_size)

    def _embed(self, token_ids: Tensor) -> Tensor:
        assert self._table is not None
        if self.place.tp_size == 1:
            return self._table.rows(token_ids)
        ours = (token_ids >= self._tokens.start) & (token_ids < self._tokens.stop)
        rows = self._table.rows((token_ids - self._tokens.start) * ours)
        return self.place.sum(rows * ours.unsqueeze(1))

    def _of_tokens(self, weights: Weights, name: str) -> Linear | PackedMatrix:
        shape = (self.config.vocab_size, self.config.hidden_size)
        return weights.product(weights.read(name, shape, (self._tokens, slice(None))))

    def _layer(self, weights: Weights, index: int) -> Layer:
        config, place, prefix = self.config, self.place, f"model.layers.{index}."
        names = ("input_layernorm", "post_attention_layernorm")
        before, between = (
            Norm(weights.tensor(f"{prefix}{n}.weight", (config.hidden_size,)), config.eps) for n in names
        )
        attention: AttentionLayer
        common = (place, self._attention, self._rope)
        if config.latent is not None:
            attention = LatentAttention(weights, f"{prefix}self_attn.", config, config.latent, *common)
        else:
            attention = HeadAttention(weights, f"{prefix}self_attn.", config, *common)
        network: FeedForward | Experts
        if config.experts is not None and config.has_experts(index):
            network = experts(weights, f"{prefix}mlp.", config, config.experts, place)
        else:
            network = feed_forward(weights, f"{prefix}mlp.", config, config.intermediate_size, place)
        return Layer((before, between), attention, network)

    def to(self, device: torch.device) -> None:
        """Move all weights: for sleep and wake. In CPU RAM they are pinned, to come back at the pace of the bus."""
        for tensor in self._tensors:
            if tensor.is_cuda and device.type == "cpu":
                tensor.data = torch.empty_like(tensor, device=device, pin_memory=True).copy_(tensor)
            else:
                tensor.data = tensor.data.to(device, non_blocking=True)
