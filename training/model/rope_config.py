"""Rotary position embedding as config.json states it: its base, and how it is stretched to longer texts. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from training.errors import ConfigError, require

KINDS = ("default", "linear", "yarn", "llama3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rope:
    """What `kind` does not use is None."""

    kind: str = "default"
    theta: float = 10_000.0
    factor: float | None = None
    original_max_position_embeddings: int | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    low_freq_factor: float | None = None
    high_freq_factor: float | None = None

    def __post_init__(self) -> None:
        require(self.kind in KINDS, "rope_type", self.kind, f"must be one of {', '.join(KINDS)}")
        require(self.theta > 0, "rope_theta", self.theta, "must be positive")
        needed = {
            "default": (),
            "linear": ("factor",),
            "yarn": ("factor", "original_max_position_embeddings"),
            "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
        }[self.kind]
        for key in needed:
            if getattr(self, key) is None:
                raise ConfigError(f"rope_scaling: {self.kind} needs {key}")

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> Rope:
        """From config.json, whether it writes `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`."""
        scaling = dict(values.get("rope_parameters") or values.get("rope_scaling") or {})
        kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
        theta = scaling.pop("rope_theta", None) or values.get("rope_theta") or 10_000.0
        known = {f.name for f in fields(cls)} - {"kind", "theta"}
        if kind in ("yarn", "llama3"):
            scaling.setdefault("original_max_position_embeddings", values.get("max_position_embeddings"))
        return cls(kind=kind, theta=theta, **{key: scaling[key] for key in scaling if key in known})

    def to_hf(self) -> dict[str, Any]:
        if self.kind == "default":
            return {"rope_theta": self.theta, "rope_scaling": None}
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("kind", "theta")}
        stretched = {key: value for key, value in given.items() if value is not None}
        return {"rope_theta": self.theta, "rope_scaling": {"type": self.kind, "rope_type": self.kind, **stretched}}

    @property
    def query_scale(self) -> float:
        """By what latent attention multiplies 1 / sqrt(head width) (transformers, `yarn_apply_mscale`)."""
        if self.kind == "default" or not self.mscale_all_dim or self.factor is None:
            return 1.0
        return yarn_scale(self.factor, self.mscale_all_dim) ** 2


def yarn_scale(factor: float, mscale: float = 1.0) -> float:
    """arXiv 2309.00071, section 3.4."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
