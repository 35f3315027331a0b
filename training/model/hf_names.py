"""The names that Hugging Face files give to what a module of ours holds: checkpoints and exports both go by them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.errors import ConfigError
from training.model.config import ModelConfig
from training.model.decoder import Decoder
from training.parallel.shards import Part
from training.precision import policy


@dataclass(frozen=True, slots=True)
class Shard:
    """This rank's piece of one named tensor."""

    part: Part
    parameter_name: str
    """In the module; several shards may lie in one parameter."""

    tensor: Tensor
    """The whole parameter or buffer."""

    @property
    def hf_name(self) -> str:
        return self.part.hf_name

    @property
    def local(self) -> Tensor:
        """A view into the parameter."""
        return self.of(self.tensor)

    def of(self, like: Tensor) -> Tensor:
        """The view into anything shaped as the parameter: its gradient, master copy or moments."""
        return like[self.part.where]

    def cut(self, whole: Tensor) -> Tensor:
        """This rank's piece of the whole tensor, a view."""
        return whole[self.part.piece]


def named_shards(module: nn.Module) -> Iterator[Shard]:
    """Every trained parameter and kept buffer of `module`, once each, however often it is used."""
    for name, parameter in module.named_parameters():
        for part in parameter.parts:
            yield Shard(part, name, parameter)
    for prefix, child in module.named_modules():
        for name, part in getattr(child, "buffer_parts", {}).items():
            yield Shard(part, f"{prefix}.{name}".lstrip("."), getattr(child, name))


@torch.no_grad()
def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Fill `module` from whole tensors, by name. Raise ConfigError where one is missing or has another shape."""
    for shard in named_shards(module):
        if shard.hf_name not in tensors:
            raise ConfigError(f"{shard.hf_name}: missing among the tensors given")
        whole = tensors[shard.hf_name]
        if tuple(whole.shape) != shard.part.shape:
            rule = f"has shape {list(whole.shape)}, the model needs {list(shard.part.shape)}"
            raise ConfigError(f"{shard.hf_name}: {rule}")
        shard.local.copy_(shard.cut(whole))


def whole_tensors(module: nn.Module) -> dict[str, Tensor]:
    """By name, views into an uncut module. Raise ConfigError for a cut one: no rank alone has its tensors."""
    shards = list(named_shards(module))
    for shard in shards:
        if shard.part.cut_count > 1 and shard.part.cut_dim is not None:
            raise ConfigError(f"{shard.hf_name}: is cut in {shard.part.cut_count}, collect it first")
    return {shard.hf_name: shard.local.detach() for shard in shards}


def expected_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor that a file of this model must hold."""
    with torch.device("meta"):
        module = Decoder(config, policy("fp32"))
    return {shard.hf_name: shard.part.shape for shard in named_shards(module)}
