"""A profile with round numbers, for worked examples."""

from __future__ import annotations

from slurm_power.llm.profile import ClockCurve, DecodeDraw, DecodeTime, ServingProfile, ShardProfile

CLOCK = ClockCurve((500, 1000, 2000), (0.4, 0.6, 1.0), (0.3, 0.5, 1.0))


def shard(gpus: int, *, cache_tokens: int = 40_000, most_sequences: int = 32) -> ShardProfile:
    """30 ms without prompts, 0.5 ms a sequence, 0.1 us a token of context; 1000 prompt tokens: 80 ms."""
    return ShardProfile(
        gpus=gpus,
        clock=CLOCK,
        prefill_tokens=(0, 200, 1000),
        prefill_s=(0.03, 0.04, 0.08),
        decode=DecodeTime(0.03, 0.0005, 0.0, 1e-7),
        decode_draw=DecodeDraw(200.0 * gpus, 100.0 * gpus, 1.0, 4.0),
        prefill_watts=400.0 * gpus,
        idle_watts=50.0 * gpus,
        cache_tokens=cache_tokens,
        most_sequences=most_sequences,
        startup_s=60.0,
        startup_joules=6000.0 * gpus,
    )


def profile(*shards: ShardProfile) -> ServingProfile:
    chosen = shards or (shard(2), shard(4, cache_tokens=200_000, most_sequences=64))
    return ServingProfile(
        name="made-up",
        shards={one.gpus: one for one in chosen},
        off_watts=0.0,
        host_watts=1000.0,
        gpus_per_server=4,
        boot_s=100.0,
        origin="made up for tests. Nothing was measured",
        formula="as in slurm_power/llm/profile.py",
        fit_error_fraction={},
    )
