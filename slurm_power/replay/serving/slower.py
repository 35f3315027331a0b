"""A profile that is off: what is asked when the truth is not what was measured."""

from __future__ import annotations

from dataclasses import replace

from slurm_power.llm.profile import DecodeTime, ServingProfile, ShardProfile


def slower(profile: ServingProfile, factor: float) -> ServingProfile:
    """The same instances, every iteration `factor` times as long."""
    return replace(profile, shards={gpus: _slower(shard, factor) for gpus, shard in profile.shards.items()})


def _slower(shard: ShardProfile, factor: float) -> ShardProfile:
    time = shard.decode
    decode = DecodeTime(
        time.base_s * factor,
        time.per_sequence_s * factor,
        time.per_sequence_squared_s * factor,
        time.per_context_token_s * factor,
    )
    return replace(shard, decode=decode, prefill_s=tuple(one * factor for one in shard.prefill_s))
