"""Composes the shipped serving profiles from public figures: `python -m bench.compose_serving_profile`.

Reads ../shared/data/llm, prints how far the fits are off and writes slurm_power/llm/profiles/*.json.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np

from slurm_power.llm.profile import ClockCurve, DecodeDraw, DecodeTime, ServingProfile, ShardProfile
from slurm_power.llm.profile_json import profile_as_json

DATA = Path("../shared/data/llm")
OUT = Path("slurm_power/llm/profiles")
H100_HIGHEST_MHZ = 1980
H100_CLOCKS_MHZ = (735, 840, 945, 1050, 1155, 1260, 1365, 1470, 1575, 1680, 1785, 1890, 1980)
CURVE_MEM_MHZ = "14001"
H100_BYTES, H100_BYTES_PER_S, READ_EFFICIENCY = 85.5e9, 3.35e12, 0.6
USABLE_FRACTION, ACTIVATION_BYTES = 0.9, 2e9
PREFILL_WATTS, IDLE_WATTS = 700.0, 75.0
"""Of one H100: splitwise's constants for prompts and for idleness."""

HOST_WATTS, BOOT_S, LOAD_BYTES_PER_S, WARM_UP_S, STARTING_WATTS = 2200.0, 240.0, 2e9, 30.0, 150.0
"""Assumptions, except HOST_WATTS: splitwise's idle server of 2800 W less eight idle GPUs."""

LLAMA_70B = (68.98e9, 80, 8)  # parameters, layers, heads of keys and values, each of 128 numbers of two bytes
LLAMA_8B = (8.03e9, 32, 8)
OUTLIER = (2, 512, 64)  # the engine had run out of cache

FORMULA = (
    "seconds = (prefill(P) + b B + d B^2 + c C) / speed(clock), prefill(0) = a; watts = watts(clock) x (share x "
    "prefill_watts + (1 - share) x (floor + span / (1 + exp(-steepness (log2 B - middle))))), share = (prefill(P) - a) "
    "/ seconds at the highest clock"
)
ORIGIN_70B = (
    "composed, not measured on one machine. Seconds: Llama2-70B on H100, splitwise-sim perf_model.csv (MIT; medians, "
    "without the pcap rows and without TP2 512x64). c: bytes of the cache / (0.6 x 3.35 TB/s x GPUs), reckoned. Watts "
    "over batch: Llama-3.1-70B and 3.3-70B on 4 H100, ML.ENERGY (Apache-2.0), the same per GPU at every TP and share "
    "of the batch. Curve over clock: RTX 5090 with locked clocks, club-3090 (Apache-2.0), as fractions of the highest. "
    "700 W for prompts, 75 W idle: constants of splitwise-sim. Start-up: assumed 2 GB/s, 30 s to warm up, 240 s boot."
)
ORIGIN_8B = (
    "composed, not measured on one machine. Seconds of decoding and watts over batch: Llama-3.1-8B on one H100, "
    "ML.ENERGY (Apache-2.0). Prompts: the 70B-shaped profile's, scaled by parameters and GPUs, not below one decode; "
    "TP2: assumed 0.62 of the seconds of TP1. The rest as for 70B: curve over clock of an RTX 5090, constants of "
    "splitwise-sim, assumed start-up."
)


def clock_curve() -> ClockCurve:
    rows = [row for row in _rows("rtx5090_clock_lock.csv") if row["mem_MHz"] == CURVE_MEM_MHZ]
    clocks = np.array([float(row["gpu_MHz"]) for row in rows])
    speeds = np.array([float(row["narr_TPS"]) + float(row["code_TPS"]) for row in rows])
    watts = np.array([float(row["actual_W"]) for row in rows])
    at = np.array(H100_CLOCKS_MHZ) / H100_HIGHEST_MHZ
    return ClockCurve(
        H100_CLOCKS_MHZ,
        tuple(np.interp(at, clocks / clocks[-1], speeds / speeds[-1]).round(4).tolist()),
        tuple(np.interp(at, clocks / clocks[-1], watts / watts[-1]).round(4).tolist()),
    )


def splitwise(gpus: int) -> tuple[dict[int, float], dict[int, float]]:
    """Seconds of a prompt by its tokens, seconds of a decode by its batch (contexts of 512 to 640)."""
    prompts, decodes = defaultdict(list), defaultdict(list)
    for row in _rows("splitwise_perf_model.csv"):
        if (row["model"], row["hardware"], row["tensor_parallel"]) != ("llama2-70b", "h100-80gb", str(gpus)):
            continue
        prompt, batch = int(row["prompt_size"]), int(row["batch_size"])
        if (gpus, prompt, batch) == OUTLIER:
            continue
        prompts[prompt * batch].append(float(row["prompt_time"]) / 1000)
        if (prompt, row["token_size"]) == (512, "128"):
            decodes[batch].append(float(row["token_time"]) / 1000)
    return {k: median(v) for k, v in sorted(prompts.items())}, {k: median(v) for k, v in sorted(decodes.items())}


def ascending(points: dict[int, float], base_s: float) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Beginning with an iteration without prompts. A size that took longer than a larger one is left out."""
    tokens, seconds = [0], [base_s]
    for size, took_s in points.items():
        if took_s > seconds[-1] and took_s < min(
            [later_s for later, later_s in points.items() if later > size] or [1e9]
        ):
            tokens.append(size)
            seconds.append(round(took_s, 5))
    return tuple(tokens), tuple(seconds)


def decode_time(points: dict[int, float], per_context_s: float, context: int) -> tuple[DecodeTime, float]:
    """Least squares for a, b, d with none below 0; returns the mean error as a fraction, too."""
    batch = np.array(list(points), dtype=float)
    seen = np.array(list(points.values()))
    rest = seen - per_context_s * context * batch
    best = None
    for columns in ((0, 1, 2), (0, 2), (0, 1)):
        powers = np.stack([batch**power for power in columns], axis=1)
        found = np.linalg.lstsq(powers / seen[:, None], rest / seen, rcond=None)[0]
        if (found >= 0).all():
            whole = np.zeros(3)
            whole[list(columns)] = found
            best = whole
            break
    assert best is not None
    fitted = DecodeTime(*(float(f"{one:.4g}") for one in best), float(f"{per_context_s:.4g}"))
    off = [abs(fitted.seconds(int(b), context * b) / s - 1) for b, s in zip(batch, seen, strict=True)]
    return fitted, float(np.mean(off))


def decode_draw(names: tuple[str, ...], measured_gpus: int) -> tuple[DecodeDraw, float]:
    """Of one GPU, over the batch per GPU. The middle and the steepness by search, the rest by least squares."""
    points = [
        (float(row["avg_batch_size"]) / measured_gpus, float(row["avg_power_watts"]) / measured_gpus)
        for row in _rows("mlenergy_operating_points.csv")
        if row["model_id"] in names and row["gpu_model"] == "H100" and row["num_gpus"] == str(measured_gpus)
        if row["task"] == "lm-arena-chat" and row["weight_precision"] == "bfloat16"
    ]
    log2, watts = np.log2([b for b, _ in points]), np.array([w for _, w in points])
    best, best_error = None, np.inf
    for middle in np.arange(0.0, 9.0, 0.1):
        for steepness in np.arange(0.3, 2.0, 0.05):
            columns = np.stack([np.ones_like(log2), 1 / (1 + np.exp(-steepness * (log2 - middle)))], axis=1)
            found = np.linalg.lstsq(columns, watts, rcond=None)[0]
            error = float(np.abs(columns @ found / watts - 1).mean())
            if error < best_error and found[0] > IDLE_WATTS:
                best, best_error = (found[0], found[1], steepness, middle), error
    assert best is not None
    return DecodeDraw(*(round(float(one), 4) for one in best)), best_error


def for_gpus(draw: DecodeDraw, gpus: int) -> DecodeDraw:
    middle = round(draw.middle_log2 + float(np.log2(gpus)), 4)
    return DecodeDraw(round(draw.floor_watts * gpus, 1), round(draw.span_watts * gpus, 1), draw.steepness, middle)


def cache_tokens(model: tuple[float, int, int], gpus: int) -> int:
    free = gpus * (USABLE_FRACTION * H100_BYTES - ACTIVATION_BYTES) - 2 * model[0]
    return int(free / _bytes_per_token(model)) // 100 * 100


def per_context_s(model: tuple[float, int, int], gpus: int) -> float:
    return _bytes_per_token(model) / (READ_EFFICIENCY * H100_BYTES_PER_S * gpus)


def _bytes_per_token(model: tuple[float, int, int]) -> float:
    return model[1] * 2 * model[2] * 128 * 2


def shard(
    model: tuple[float, int, int],
    gpus: int,
    clock: ClockCurve,
    prefill: tuple[tuple[int, ...], tuple[float, ...]],
    decode: DecodeTime,
    draw: DecodeDraw,
    most_sequences: int,
) -> ShardProfile:
    startup_s = round(2 * model[0] / LOAD_BYTES_PER_S + WARM_UP_S, 1)
    return ShardProfile(
        gpus=gpus,
        clock=clock,
        prefill_tokens=prefill[0],
        prefill_s=prefill[1],
        decode=decode,
        decode_draw=for_gpus(draw, gpus),
        prefill_watts=PREFILL_WATTS * gpus,
        idle_watts=IDLE_WATTS * gpus,
        cache_tokens=cache_tokens(model, gpus),
        most_sequences=most_sequences,
        startup_s=startup_s,
        startup_joules=round(startup_s * STARTING_WATTS * gpus),
    )


def compose_70b(clock: ClockCurve) -> ServingProfile:
    draw, draw_error = decode_draw(("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"), 4)
    shards, errors = {}, {"decode_watts": draw_error}
    for gpus in (2, 4, 8):
        prompts, decodes = splitwise(gpus)
        decode, error = decode_time(decodes, per_context_s(LLAMA_70B, gpus), 576)
        prefill = ascending(prompts, decode.base_s)
        shards[gpus] = shard(LLAMA_70B, gpus, clock, prefill, decode, draw, max(decodes))
        errors |= {f"tp{gpus}_decode_s": error, f"tp{gpus}_prefill_s_left_out": left_out_error(*prefill)}
    return _profile("llama-70b-h100", shards, errors, ORIGIN_70B)


def compose_8b(clock: ClockCurve, large: ServingProfile) -> ServingProfile:
    name = "meta-llama/Llama-3.1-8B-Instruct"
    draw, draw_error = decode_draw((name,), 1)
    points = {
        round(float(row["avg_batch_size"])): float(row["median_itl_ms"]) / 1000
        for row in _rows("mlenergy_operating_points.csv")
        if (row["model_id"], row["gpu_model"], row["num_gpus"], row["task"]) == (name, "H100", "1", "lm-arena-chat")
        if int(row["max_num_seqs"]) <= 256
    }
    one, error = decode_time(points, per_context_s(LLAMA_8B, 1), 500)
    two = DecodeTime(
        *(float(f"{x * 0.62:.4g}") for x in (one.base_s, one.per_sequence_s, one.per_sequence_squared_s)),
        float(f"{one.per_context_token_s / 2:.4g}"),
    )
    shards = {}
    for gpus, decode in ((1, one), (2, two)):
        pair = large.shards[2]
        scale = LLAMA_8B[0] / LLAMA_70B[0] * 2 / gpus
        prompts = {
            tokens: max(took_s * scale, decode.seconds(1, tokens))
            for tokens, took_s in zip(pair.prefill_tokens[1:], pair.prefill_s[1:], strict=True)
        }
        shards[gpus] = shard(LLAMA_8B, gpus, clock, ascending(prompts, decode.base_s), decode, draw, 256)
    return _profile("llama-8b-h100", shards, {"decode_watts": draw_error, "tp1_decode_s": error}, ORIGIN_8B)


def left_out_error(tokens: tuple[int, ...], seconds: tuple[float, ...]) -> float:
    """Each point between two others against the line through those two."""
    off = []
    for i in range(1, len(tokens) - 1):
        share = (tokens[i] - tokens[i - 1]) / (tokens[i + 1] - tokens[i - 1])
        off.append(abs((seconds[i - 1] + share * (seconds[i + 1] - seconds[i - 1])) / seconds[i] - 1))
    return float(np.mean(off))


def _profile(name: str, shards: dict[int, ShardProfile], errors: dict[str, float], origin: str) -> ServingProfile:
    return ServingProfile(
        name=name,
        shards=shards,
        off_watts=0.0,
        host_watts=HOST_WATTS,
        gpus_per_server=8,
        boot_s=BOOT_S,
        origin=origin,
        formula=FORMULA,
        fit_error_fraction={key: round(value, 4) for key, value in errors.items()},
    )


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main() -> None:
    clock = clock_curve()
    large = compose_70b(clock)
    for profile in (large, compose_8b(clock, large)):
        file = OUT / f"{profile.name}.json"
        file.write_text(json.dumps(profile_as_json(profile), indent=1) + "\n", encoding="utf-8")
        print(file, json.dumps(profile.fit_error_fraction))


if __name__ == "__main__":
    main()
