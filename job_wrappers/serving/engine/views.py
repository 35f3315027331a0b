"""What the engine shows of itself: frozen, made between iterations, safe to read on any thread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from job_wrappers.serving.engine.figures import Quantiles

if TYPE_CHECKING:
    from job_wrappers.serving.scheduling.scheduler import Limits
    from job_wrappers.serving.text.tokenizer import ModelText


class ModelState(StrEnum):
    ABSENT = "absent"
    LOADING = "loading"
    ACTIVE = "active"
    DRAINING = "draining"
    """New requests go elsewhere; what runs here ends here."""

    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Where a request goes now."""

    name: str
    public_name: str
    names: frozenset[str]
    """All that clients may ask for it by: the public name, and any model's own."""

    text: ModelText | None
    vocabulary: int
    max_model_len: int
    created_unix_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    name: str
    state: ModelState
    running: int = 0
    waiting: int = 0
    blocks_total: int = 0
    blocks_held: int = 0
    blocks_idle: int = 0
    used_tokens: int = 0
    waste_fraction: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassView:
    """Of one priority."""

    running: int
    waiting: int
    least_slack_s: float | None
    """Time to the nearest deadline, or to what the service level asks for; None: nothing has one."""

    first_token: Quantiles
    between_tokens: Quantiles
    whole: Quantiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Steered:
    """The last change, and how long it took until an iteration ran under it."""

    what: str
    effect_s: float | None
    """None: nothing has run since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    public_name: str
    active: str
    draining: bool
    models: tuple[ModelView, ...]
    classes: Mapping[str, ClassView]
    limits: Limits
    sm_clock_mhz: int | None
    """What was asked for; None: the GPU's own."""

    tokens_per_s: float
    joules_per_token: float | None
    watts: float | None
    prompt_tokens_total: int
    generated_tokens_total: int
    preemptions_total: int
    finished_total: Mapping[str, int]
    energy_joules_total: float | None
    last_steered: Steered | None
    switch_s: float | None
    """The last change of model: from the wish to the first request it could take."""

    failure: str | None
