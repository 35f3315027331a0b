"""From a loaded model to an engine: measure it, size its cache inside the budget, build its scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from job_wrappers.serving.engine.config import EngineConfig
from job_wrappers.serving.engine.model_engine import ModelEngine
from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.kv.block_pool import BlockPool
from job_wrappers.serving.kv.layout import KvLayout
from job_wrappers.serving.kv.sizing import CacheSize, size_cache
from job_wrappers.serving.models.build import kv_layout, read_config, torch_dtype, weight_bytes
from job_wrappers.serving.models.place import ModelPlace
from job_wrappers.serving.ranks.commands import Allocate, Free, Load, Loaded, Profile, Profiled, Wake
from job_wrappers.serving.ranks.team import Team
from job_wrappers.serving.scheduling.preemption import PreemptionRule
from job_wrappers.serving.scheduling.scheduler import Limits, Scheduler
from job_wrappers.serving.text.tokenizer import eos_tokens, load_text

if TYPE_CHECKING:
    from job_wrappers.serving.engine.host import EngineHost

_CPU_TOKENS, _GPU_TOKENS = 512, 8192


class ModelShelf:
    """What is known of each model, awake or not: its folder's config, its weights' size, what was measured."""

    def __init__(self, config: EngineConfig, team: Team) -> None:
        self._config, self._team = config, team
        self._paths = {model.name: model.path for model in config.models}
        self._configs = {name: read_config(path) for name, path in self._paths.items()}
        self._weights: dict[str, int] = {}
        self._loaded: dict[str, Loaded] = {}
        self._profiled: dict[str, Profiled] = {}
        self._asleep: set[str] = set()
        self._cache_bytes: dict[str, int] = {}
        on_gpu = team.rank.device.type == "cuda"
        self.limits = Limits(
            max_num_seqs=config.max_num_seqs,
            max_batched_tokens=config.max_batched_tokens or (_GPU_TOKENS if on_gpu else _CPU_TOKENS),
            max_waiting=config.max_waiting,
        )

    def vocabulary(self, name: str) -> int:
        return self._configs[name].vocab_size

    def max_model_len(self, name: str) -> int:
        longest = self._configs[name].max_positions
        asked = self._config.max_model_len
        if asked is not None and asked > longest:
            raise ConfigError(f"max_model_len = {asked}: {name} computes at most {longest}")
        return asked or longest

    def fetch(self, name: str) -> None:
        """Read the weights, or bring them back to the device."""
        if name in self._asleep:
            self._team.call(Wake(name))
            self._asleep.discard(name)
        elif name not in self._loaded:
            self._loaded[name] = _tightest(self._team.call(Load(name)))

    def size(self, name: str) -> CacheSize:
        """Measure the model once, then give it what the budget leaves beside all others that are awake."""
        loaded, longest = self._loaded[name], self.max_model_len(name)
        if name not in self._profiled:
            tokens, sequences = self.limits.max_batched_tokens, self.limits.max_num_seqs
            context = min(longest, tokens)
            answers = self._team.call(Profile(name, tokens, sequences, context))
            self._profiled[name] = max(answers, key=lambda answer: int(answer.activation_bytes))
        most = (self.limits.max_num_seqs + 1) * -(-longest // self._config.block_tokens)
        size = size_cache(
            budget_bytes=loaded.budget_bytes - self._awake_bytes(name),
            weight_bytes=loaded.weight_bytes,
            activation_bytes=self._profiled[name].activation_bytes,
            swap_bytes=min(self._config.swap_bytes, loaded.host_bytes // 2),
            layout=self._layout(name),
            max_model_len=longest,
            max_blocks=min([most, *self._shared_blocks(name, loaded.budget_bytes)]),
        )
        self._cache_bytes[name] = size.device_blocks * size.layout.block_bytes
        return size

    def allocate(self, name: str, size: CacheSize) -> PreemptionRule:
        speeds = self._team.call(Allocate(name, size.device_blocks, size.host_blocks))
        return PreemptionRule(
            mode=self._config.preemption,
            block_bytes=size.layout.block_bytes,
            block_tokens=size.layout.block_tokens,
            copy_bytes_per_s=min((speed for speed in speeds if speed), default=1.0),
            prefill_tokens_per_s=self._profiled[name].prefill_tokens_per_s,
        )

    def retired(self, name: str, *, sleeps: bool) -> None:
        self._cache_bytes.pop(name, None)
        if sleeps:
            self._asleep.add(name)
        else:
            self._loaded.pop(name, None)
            self._asleep.discard(name)

    def drop(self, name: str) -> None:
        """What was read of it, perhaps nothing."""
        if name in self._loaded:
            self._team.call(Free(name))
            self.retired(name, sleeps=False)

    def _awake_bytes(self, name: str) -> int:
        """Of the model that drains while this one begins; its activations are not needed at the same time."""
        return sum(
            self._loaded[other].weight_bytes + size for other, size in self._cache_bytes.items() if other != name
        )

    def _shared_blocks(self, name: str, budget_bytes: int) -> list[int]:
        """Two models are awake at once at most, while one drains. Beside each other model: as many blocks for both, so
        that the load of one also fits the other."""
        own_bytes, block_bytes = self._fixed_bytes(name), self._layout(name).block_bytes
        return [
            max(0, budget_bytes - own_bytes - self._fixed_bytes(other))
            // (block_bytes + self._layout(other).block_bytes)
            for other in self._paths
            if other != name
        ]

    def _fixed_bytes(self, name: str) -> int:
        """Weights and activations; the latter are guessed until the model was loaded once."""
        if name not in self._weights:  # of a large mixture of experts it takes seconds to reckon
            config = self._configs[name]
            self._weights[name] = weight_bytes(config, self._place(), torch_dtype(config, self._config.dtype))
        weights = self._weights[name]
        measured = self._profiled.get(name)
        return weights + (measured.activation_bytes if measured else weights // 4)

    def _layout(self, name: str) -> KvLayout:
        config = self._configs[name]
        number = torch_dtype(config, self._config.dtype).itemsize
        return kv_layout(config, self._place(), dtype_bytes=number, block_tokens=self._config.block_tokens)

    def _place(self) -> ModelPlace:
        """Rank 0's share: no other is larger."""
        return ModelPlace(tp_size=self._config.tensor_parallel, pp_size=self._config.pipeline_parallel)


def _tightest(answers: Sequence[Loaded]) -> Loaded:
    """Blocks have the same numbers on all ranks, so the rank with the least room decides."""
    return Loaded(
        weight_bytes=max(answer.weight_bytes for answer in answers),
        block_bytes=max(answer.block_bytes for answer in answers),
        budget_bytes=min(answer.budget_bytes for answer in answers),
        host_bytes=min(answer.host_bytes for answer in answers),
    )


def assemble(host: EngineHost, name: str) -> ModelEngine:
    """On the engine's thread: measuring and allocating must not meet an iteration."""
    shelf, config, ports = host.shelf, host.config, host.ports
    shelf.fetch(name)
    size = shelf.size(name)
    for line in size.explain():
        ports.say(line)
    rule = shelf.allocate(name, size)
    scheduler = Scheduler(
        pool=BlockPool(size.device_blocks),
        host_pool=BlockPool(size.host_blocks),
        block_tokens=config.block_tokens,
        limits=host.limits,
        max_model_len=shelf.max_model_len(name),
        preemption=rule,
        prefix_caching=config.prefix_caching,
        batch_patience_s=config.batch_patience_s,
        now_s=ports.now_s,
    )
    folder = next(model.path for model in config.models if model.name == name)
    text = load_text(folder)
    return ModelEngine(
        name,
        team=host.team,
        scheduler=scheduler,
        size=size,
        text=text,
        eos=text.eos if text is not None else eos_tokens(folder),
        shares=host.shares,
        figures=host.figures,
        ports=ports,
        check_invariants=config.check_invariants,
    )
