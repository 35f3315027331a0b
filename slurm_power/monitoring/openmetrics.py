"""OpenMetrics 1.0 text: families of samples with their unit in the name. Pure; what is unknown has no sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = Mapping[str, str]
PREFIX = "slurm_power_"


@dataclass(frozen=True, slots=True)
class Family:
    """`name` without prefix and without `_total`; where there is a `unit` the name ends with it."""

    name: str
    kind: Literal["gauge", "counter", "info"]
    help: str
    unit: str = ""
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float | bool | None, **labels: str) -> None:
        """None, and what is no number, is left out."""
        if value is not None and math.isfinite(value):
            self.samples.append((labels, float(value)))

    @property
    def full_name(self) -> str:
        return PREFIX + self.name

    @property
    def sample_name(self) -> str:
        return self.full_name + {"gauge": "", "counter": "_total", "info": "_info"}[self.kind]


def gauge(name: str, help: str, value: float | bool | None = None, *, unit: str = "") -> Family:
    family = Family(name, "gauge", help, unit)
    family.add(value)
    return family


def counter(name: str, help: str, value: float | None = None, *, unit: str = "") -> Family:
    family = Family(name, "counter", help, unit)
    family.add(value)
    return family


def render(families: Iterable[Family]) -> str:
    lines: list[str] = []
    for family in families:
        lines.append(f"# TYPE {family.full_name} {family.kind}")
        if family.unit:
            lines.append(f"# UNIT {family.full_name} {family.unit}")
        lines.append(f"# HELP {family.full_name} {_escaped(family.help)}")
        lines += [f"{family.sample_name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join([*lines, "# EOF", ""])


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
