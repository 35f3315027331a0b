"""The whole model in one process, and its loss."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from training.model.config import ModelConfig
from training.model.layers import layer_specs
from training.model.mtp import ahead
from training.parallel.context import SINGLE, ParallelContext
from training.parallel.vocabulary import IGNORED, mean_cross_entropy
from training.precision import PrecisionPolicy


@dataclass(frozen=True, slots=True)
class DecoderOutput:
    """FP32, over the vocabulary of this tensor rank."""

    streams: Tensor
    """[1 + depths, batch, sequence, vocabulary]"""

    @property
    def logits(self) -> Tensor:
        """[batch, sequence, vocabulary]: position i predicts token i + 1."""
        return self.streams[0]

    @property
    def mtp_logits(self) -> Tensor:
        """[depths, batch, sequence, vocabulary]: at depth k (counted from 1), position i predicts token i + 1 + k."""
        return self.streams[1:]


class Decoder(nn.Module):
    """`initialise` or `load_tensors` gives it values; until then they are not numbers."""

    def __init__(self, config: ModelConfig, policy: PrecisionPolicy, context: ParallelContext = SINGLE) -> None:
        """Raise ConfigError where the model cannot be cut as `context` says."""
        super().__init__()
        config.check_cuts(tensor=context.tensor.size, expert=context.expert.size)
        self.config = config
        self.specs = layer_specs(config)
        self.layers = nn.ModuleList()
        tied: dict[str, nn.Module] = {}
        for spec in self.specs:
            layer = None if spec.tied_key is None else tied.get(spec.tied_key)
            if layer is None:
                layer = spec.module(config, policy, context, **spec.arguments)
            if spec.tied_key is not None:
                tied[spec.tied_key] = layer
            self.layers.append(layer)

    def forward(self, tokens: Tensor) -> DecoderOutput:
        """tokens int64 [batch, sequence]"""
        state: object = tokens
        for spec, layer in zip(self.specs, self.layers, strict=True):
            state = layer(state) if spec.forward is None else spec.forward(layer, state)
        assert isinstance(state, Tensor)
        return DecoderOutput(state)


def loss(
    outputs: DecoderOutput | Tensor, labels: Tensor, config: ModelConfig, context: ParallelContext = SINGLE
) -> Tensor:
    """The mean cross-entropy of the next token, plus `mtp_loss_weight` times that of the tokens after it. FP32 scalar.

    `outputs`: the model's, or the head's [1 + depths, batch, sequence, vocabulary of this rank]; `labels` int64
    [batch, sequence]: the token after each position, -100 where it does not count. Equal on every tensor rank.
    """
    streams = outputs.streams if isinstance(outputs, DecoderOutput) else outputs
    total = mean_cross_entropy(streams[0], labels, context)
    depths = streams.shape[0] - 1
    for depth in range(1, depths + 1):
        further = mean_cross_entropy(streams[depth], ahead(labels, depth, fill=IGNORED), context)
        total = total + config.mtp_loss_weight / depths * further
    return total
