"""What a GPU, its node and its network can do, with the source of every figure. Pure, but for reading a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from training.errors import ConfigError, require
from training.precision import FP8, FP32, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Peaks are dense ones; the efficiencies say how much of a peak is planned with. Links: one direction, per GPU."""

    name: str
    fp8_flops_per_s: float | None
    """None: no FP8 units. The emulating back-end then multiplies in FP32."""

    bf16_flops_per_s: float
    fp32_flops_per_s: float
    gemm_efficiency_fraction: float
    fp8_gemm_efficiency_fraction: float
    memory_bytes: float
    memory_bytes_per_s: float
    memory_efficiency_fraction: float
    gpus_per_node: float
    intra_node_bytes_per_s: float
    inter_node_bytes_per_s: float
    link_efficiency_fraction: float
    link_latency_s: float
    idle_watts: float
    waiting_watts: float
    """While blocked in a collective or for a neighbour: its kernels poll."""

    busy_watts: float
    sources: Mapping[str, str]
    """By name of the figure: where it comes from."""

    def __post_init__(self) -> None:
        for key in FIGURES:
            value = getattr(self, key)
            require(key in self.sources, f"hardware.{key}", value, "needs a source")
            if not (key == "fp8_flops_per_s" and value is None):
                require(value > 0, f"hardware.{key}", value, "must be positive")
            if key.endswith("_fraction"):
                require(value <= 1, f"hardware.{key}", value, "must be at most 1")
        order = f"{self.idle_watts}, {self.waiting_watts}, {self.busy_watts}"
        rising = self.idle_watts <= self.waiting_watts <= self.busy_watts
        require(rising, "hardware watts (idle, waiting, busy)", order, "must not fall")

    def gemm_flops_per_s(self, compute: Precision) -> float:
        """What is planned with for operands on this grid."""
        if compute is FP8 and self.fp8_flops_per_s is not None:
            return self.fp8_flops_per_s * self.fp8_gemm_efficiency_fraction
        peak = self.fp32_flops_per_s if compute in (FP8, FP32) else self.bf16_flops_per_s
        return peak * self.gemm_efficiency_fraction

    @property
    def planned_memory_bytes_per_s(self) -> float:
        return self.memory_bytes_per_s * self.memory_efficiency_fraction

    def link_bytes_per_s(self, span: int) -> float:
        """Between ranks at most `span` apart in rank order, nodes being filled one after the other."""
        peak = self.intra_node_bytes_per_s if span <= self.gpus_per_node else self.inter_node_bytes_per_s
        return peak * self.link_efficiency_fraction


FIGURES = tuple(field.name for field in fields(Hardware) if field.name not in ("name", "sources"))


def hardware(name_or_file: str) -> Hardware:
    """A preset's name, or the path of a TOML file. Raise ConfigError for neither."""
    if name_or_file in PRESETS:
        return PRESETS[name_or_file]
    if name_or_file.endswith(".toml"):
        return load_hardware(Path(name_or_file))
    raise ConfigError(f"hardware = {name_or_file}: must be one of {', '.join(PRESETS)} or a .toml file")


def load_hardware(path: Path) -> Hardware:
    """`name = "..."`, and for every figure `key = { value = ..., source = "..." }`. Raise ConfigError otherwise."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as cause:
        raise ConfigError(f"{path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise ConfigError(f"{path}: {cause}") from cause
    unknown = sorted(table.keys() - {"name", *FIGURES})
    require(not unknown, f"{path}: key", ", ".join(unknown), f"must be name or one of {', '.join(FIGURES)}")
    missing = [key for key in ("name", *FIGURES) if key not in table and key != "fp8_flops_per_s"]
    require(not missing, f"{path}: key", ", ".join(missing), "is missing")
    figures: dict[str, tuple[float | None, str]] = {key: _figure(key, table[key]) for key in FIGURES if key in table}
    figures.setdefault("fp8_flops_per_s", (None, "not stated: no FP8 units"))
    return _hardware(str(table["name"]), figures)


def _figure(key: str, entry: Any) -> tuple[float, str]:
    stated = isinstance(entry, dict) and entry.keys() == {"value", "source"}
    require(stated, f"hardware.{key}", entry, 'must be { value = number, source = "text" }')
    value, source = entry["value"], entry["source"]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    require(number, f"hardware.{key}", value, "must be a number")
    require(isinstance(source, str) and bool(source), f"hardware.{key}", source, "source must be a text")
    return float(value), source


def _hardware(name: str, figures: Mapping[str, tuple[float | None, str]]) -> Hardware:
    values: dict[str, Any] = {key: value for key, (value, _) in figures.items()}
    return Hardware(name=name, **values, sources={key: source for key, (_, source) in figures.items()})


_CHOICES: dict[str, tuple[float | None, str]] = {
    "gemm_efficiency_fraction": (0.60, "choice: cuBLAS reaches 0.6 to 0.75 of the dense peak on large BF16 GEMMs"),
    "fp8_gemm_efficiency_fraction": (
        0.50,
        "choice: forward 1234 of 1979 TFLOPS in torchao's DeepGEMM notes, less behind",
    ),
    "memory_efficiency_fraction": (0.80, "choice: torchao's quantisation kernels reach 0.78 to 0.91 of the bandwidth"),
    "link_efficiency_fraction": (0.75, "choice: large NCCL collectives reach about 0.8 of a link"),
    "link_latency_s": (10e-6, "choice: a small NCCL call"),
    "gpus_per_node": (8.0, "HGX baseboard"),
}

_H100: dict[str, tuple[float | None, str]] = _CHOICES | {
    "fp8_flops_per_s": (1978.9e12, "NVIDIA H100 datasheet, SXM5: 3,958 TFLOPS with sparsity, half of it dense"),
    "bf16_flops_per_s": (989.4e12, "NVIDIA H100 datasheet, SXM5: 1,979 TFLOPS with sparsity, half of it dense"),
    "fp32_flops_per_s": (66.9e12, "NVIDIA H100 datasheet, SXM5; not TF32"),
    "memory_bytes": (80e9, "NVIDIA H100 datasheet, SXM5"),
    "memory_bytes_per_s": (3.35e12, "NVIDIA H100 datasheet, SXM5"),
    "intra_node_bytes_per_s": (450e9, "NVIDIA H100 datasheet: NVLink 900 GB/s in both directions together"),
    "inter_node_bytes_per_s": (50e9, "DGX H100: one 400 Gb/s ConnectX-7 a GPU"),
    "idle_watts": (70.0, "choice: as slurm-power's emulated board"),
    "waiting_watts": (130.0, "choice: between idle and busy, to be measured on the site (Zeus, profile_p2p.py)"),
    "busy_watts": (700.0, "NVIDIA H100 datasheet, SXM5: the board's limit"),
}

PRESETS: Mapping[str, Hardware] = {
    "h100-sxm": _hardware("h100-sxm", _H100),
    "h200-sxm": _hardware(
        "h200-sxm",
        _H100
        | {
            "memory_bytes": (141e9, "NVIDIA H200 datasheet, SXM"),
            "memory_bytes_per_s": (4.8e12, "NVIDIA H200 datasheet, SXM"),
        },
    ),
    "a100-sxm": _hardware(
        "a100-sxm",
        _H100
        | {
            "fp8_flops_per_s": (None, "NVIDIA A100 datasheet: no FP8"),
            "bf16_flops_per_s": (312e12, "NVIDIA A100 datasheet, 80 GB SXM: dense"),
            "fp32_flops_per_s": (19.5e12, "NVIDIA A100 datasheet, 80 GB SXM; not TF32"),
            "memory_bytes_per_s": (2.039e12, "NVIDIA A100 datasheet, 80 GB SXM"),
            "intra_node_bytes_per_s": (300e9, "NVIDIA A100 datasheet: NVLink 600 GB/s in both directions together"),
            "inter_node_bytes_per_s": (25e9, "DGX A100: one 200 Gb/s ConnectX-6 a GPU"),
            "idle_watts": (55.0, "choice"),
            "waiting_watts": (90.0, "choice: between idle and busy, to be measured on the site"),
            "busy_watts": (400.0, "NVIDIA A100 datasheet, 80 GB SXM: the board's limit"),
        },
    ),
    "emulated": _hardware(
        "emulated",
        _H100
        | {
            "fp8_flops_per_s": (29e9, "512^3 dequantised to FP32, two threads of an AVX2 server CPU: 9.1 ms"),
            "bf16_flops_per_s": (50e9, "BF16 on a CPU is one FP32 GEMM"),
            "fp32_flops_per_s": (51e9, "512^3 FP32, two threads of an AVX2 server CPU: 5.2 ms"),
            "gemm_efficiency_fraction": (0.25, "choice: several ranks share two cores, and small GEMMs are slower"),
            "fp8_gemm_efficiency_fraction": (0.25, "choice: as above"),
            "memory_bytes": (8e9, "choice: a share of the host's memory"),
            "memory_bytes_per_s": (10e9, "choice: a server core's share"),
            "intra_node_bytes_per_s": (1e9, "choice: gloo over loopback"),
            "inter_node_bytes_per_s": (1e9, "choice: emulated nodes share a host"),
            "link_latency_s": (200e-6, "choice: a small gloo call between busy processes"),
            "busy_watts": (700.0, "slurm-power's emulated board: full use at the highest clock"),
        },
    ),
}
"""A CPU that plays a GPU is "emulated": its speed is the CPU's, its watts are the emulated board's."""
