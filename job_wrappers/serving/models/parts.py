"""What every decoder is built from: norms, rotations, feed-forward networks, experts. All work on [T, hidden]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from job_wrappers.serving.kernels.rows import gated, rms_norm
from job_wrappers.serving.models.decoder_config import DecoderConfig, ExpertSizes
from job_wrappers.serving.models.linear import AnyLinear
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.models.weights import Part, Weights
from training.model.rope import amplitude, inverse_frequencies


class Norm:
    """RMSNorm, computed in FP32."""

    __slots__ = ("eps", "weight")

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight, self.eps = weight, eps

    def __call__(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class Rotation:
    """Rotary positions. Numbers that rotate together lie side by side, as `order` puts a weight's rows: a rotation is
    then one product of complex numbers. Queries and keys are put in the same order, so their products are unchanged."""

    def __init__(self, weights: Weights, config: DecoderConfig) -> None:
        latent = config.latent
        self._size = config.rotary_size
        self._side_by_side = latent is not None and latent.interleaved
        self._frequencies = weights.keep(inverse_frequencies(config.rope, self._size))
        self._amplitude = weights.keep(torch.tensor(amplitude(config.rope)))

    def order(self, heads: int, head_size: int) -> Tensor | None:
        """In which a weight's rows, or a norm's numbers, of some heads are wanted. The end of a head rotates."""
        if self._side_by_side:
            return None
        rows = torch.arange(heads * head_size).view(heads, head_size)
        still, turned = rows.split([head_size - self._size, self._size], dim=1)
        pairs = turned.unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
        return torch.cat([still, pairs], dim=1).flatten()

    def at(self, positions: Tensor) -> Tensor:
        """For all layers of a step: complex [T, 1, width / 2]"""
        angles = positions.float().unsqueeze(1) * self._frequencies
        return torch.polar(self._amplitude.expand_as(angles), angles).unsqueeze(1)

    def turn(self, x: Tensor, angles: Tensor) -> Tensor:
        """x [T, heads, width], in place"""
        wide = x.float()
        torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(angles)
        return wide if wide is x else x.copy_(wide)


class FeedForward:
    """SwiGLU; the result is this rank's summand."""

    def __init__(self, gate_up: AnyLinear, down: AnyLinear) -> None:
        self._gate_up, self._down = gate_up, down

    def __call__(self, x: Tensor) -> Tensor:
        return self._down(gated(self._gate_up(x)))


def feed_forward(weights: Weights, prefix: str, config: DecoderConfig, width: int, place: ModelPlace) -> FeedForward:
    ours, bias = place.share(width, "intermediate_size"), config.mlp_bias
    gate, up = (Part(name=f"{prefix}{name}_proj", total=width, rows=ours) for name in ("gate", "up"))
    gate_up = weights.linear([gate, up], config.hidden_size, bias=bias)
    down = Part(name=f"{prefix}down_proj", total=config.hidden_size)
    return FeedForward(gate_up, weights.linear([down], width, ours, bias=bias, keep_bias=place.tp_rank == 0))


class Experts:
    """DeepSeek-V3's mixture (arXiv 2412.19437, section 2.1.2): sigmoid scores, groups, a bias only for the choice."""

    def __init__(
        self, sizes: ExpertSizes, gate: Tensor, bias: Tensor, routed: list[FeedForward], shared: FeedForward | None
    ) -> None:
        self._sizes, self._gate, self._bias, self._routed, self._shared = sizes, gate, bias, routed, shared

    def __call__(self, x: Tensor) -> Tensor:
        scores = functional.linear(x.float(), self._gate).sigmoid()
        chosen = self._choose(scores + self._bias)
        weights = scores.gather(1, chosen)
        if self._sizes.normalise:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        routed = self._routed_sum(x, chosen, weights * self._sizes.scale)
        return routed if self._shared is None else routed + self._shared(x)

    def _routed_sum(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """Rows sorted by expert; each expert is called once, with all of its rows."""
        by_expert = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self._routed)).tolist()
        rows = x[by_expert // self._sizes.per_token].split(counts)
        results = [expert(part) for expert, part in zip(self._routed, rows, strict=True) if len(part)]
        by_choice = x.new_empty(len(by_expert), x.shape[1])
        if results:
            by_choice[by_expert] = torch.cat(results)
        return torch.bmm(weights.unsqueeze(1), by_choice.view(*chosen.shape, x.shape[1]).float()).squeeze(1).to(x.dtype)

    def _choose(self, scores: Tensor) -> Tensor:
        """[T, experts per token]: the best of the best groups; a group counts as the sum of its two best."""
        sizes = self._sizes
        if sizes.groups > 1:
            groups = scores.unflatten(-1, (sizes.groups, -1))
            best = groups.topk(2, dim=-1)[0].sum(-1).topk(sizes.best_groups, dim=-1, sorted=False)[1]
            closed = torch.ones_like(groups[..., 0], dtype=torch.bool).scatter_(1, best, False)
            scores = groups.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(-2)
        return scores.topk(sizes.per_token, dim=-1, sorted=False)[1]


def experts(weights: Weights, prefix: str, config: DecoderConfig, sizes: ExpertSizes, place: ModelPlace) -> Experts:
    fp32 = torch.float32
    gate = weights.tensor(f"{prefix}gate.weight", (sizes.count, config.hidden_size), dtype=fp32)
    bias = weights.tensor(f"{prefix}gate.e_score_correction_bias", (sizes.count,), dtype=fp32)
    routed = [
        feed_forward(weights, f"{prefix}experts.{index}.", config, sizes.width, place) for index in range(sizes.count)
    ]
    shared = None
    if sizes.shared:
        shared = feed_forward(weights, f"{prefix}shared_experts.", config, sizes.width * sizes.shared, place)
    return Experts(sizes, gate, bias, routed, shared)
