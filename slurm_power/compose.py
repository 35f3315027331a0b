"""Builds the controller from the site's config: with site_config.py the only file that knows both sides."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC
from functools import partial
from typing import cast

from slurm_power.adapters.clock_system import SystemClock
from slurm_power.adapters.ess_sunspec import SunSpecEss, SunSpecEssConfig
from slurm_power.adapters.grid_signal import GridSignalConfig, open_grid_signal
from slurm_power.adapters.journal_file import FileJournal
from slurm_power.adapters.meter_open import MeterConfig, PartsConfig, PartsMeterConfig, open_meter, open_parts
from slurm_power.adapters.meter_sum import SumMeter
from slurm_power.adapters.model_store_files import FileModelStore
from slurm_power.adapters.munge_credentials import MungeCredentials
from slurm_power.adapters.rate_file import RateFileConfig, read_rate
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.table_file import write_table
from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import NO_SPOOL, open_store, open_upkeep
from slurm_power.daemons.admin_desk import AdminDesk
from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.daemons.battery_loop import BatteryLoop
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller import Controller
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.job_watts_book import JobWattsBook
from slurm_power.daemons.learning_loop import LearningLoop
from slurm_power.daemons.live_views import new_trail, trail_values
from slurm_power.daemons.parts_watch import PartsWatch
from slurm_power.daemons.pool_budgets import PoolBudgets
from slurm_power.daemons.site_history import MEASUREMENT, SiteHistory
from slurm_power.daemons.site_planner import Forecasters, Settings
from slurm_power.errors import Unavailable
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.rate_schedule import RateSchedule
from slurm_power.ess.rates import Rates
from slurm_power.ess.tariff import Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.monitoring.trail import Trail
from slurm_power.ports.meter import Meter
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.ports.telemetry_store import TelemetryStore
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.site_config import SiteConfig

log = logging.getLogger(__name__)


def slurm_client(config: SlurmConfig) -> SlurmClient:
    if config.adapter == "pyslurm":
        from slurm_power.adapters.slurm_pyslurm import PyslurmClient

        return PyslurmClient(config)
    from slurm_power.adapters.slurm_command import CommandSlurmClient

    return CommandSlurmClient(config)


def telemetry_upkeep(config: SiteConfig) -> Callable[[], object] | None:
    """What thins the store a little at a time; None where the store does it by itself."""
    chosen = config.table(StoreConfig)
    if chosen.kind == "sqlite":
        return None
    upkeep = open_upkeep(chosen, open_store(chosen, spool=NO_SPOOL))
    return None if upkeep is None else upkeep.some


def site_rates(config: SiteConfig) -> Rates:
    """What [tariff] says. Raise ConfigError for a rate file that cannot be read."""
    chosen = config.chosen("tariff")
    if isinstance(chosen, RateFileConfig):
        return read_rate(chosen.file, chosen.zone)
    return config.table(Tariff)


def controller(config: SiteConfig) -> Controller:
    """Raise ConfigError for a bad table. A store that cannot be read costs the history, not the controller."""
    settings = Settings(
        controller=config.table(ControllerConfig),
        site=config.table(SiteLimits),
        rates=site_rates(config),
        battery=config.table(BatteryLimits),
        planner=config.table(PlannerConfig),
        forecast=config.table(ForecastConfig),
        relocation=config.table(RelocationConfig),
    )
    clock = SystemClock()
    own, slot_s = settings.controller, settings.planner.slot_s
    store = open_store(config.table(StoreConfig))
    history = SiteHistory(
        keep_s=own.history_s, slot_s=slot_s, max_gap_s=own.max_reading_age_s, queue_gap_s=3 * own.tick_period_s
    )
    try:
        history.load(store, wall_s=clock.wall_s())
    except Unavailable as failure:
        log.warning("starting without history: %s", failure)
    billing = BillingState(
        journal=FileJournal(own.state_path),
        rates=settings.rates,
        max_gap_s=own.max_reading_age_s,
        wall_s=clock.wall_s(),
    )
    forecasters, learning = _forecasters(settings, history, clock)
    return Controller(
        settings=settings,
        clock=clock,
        slurm=slurm_client(config.table(SlurmConfig)),
        store=store,
        registry=AgentRegistry(
            clock=clock,
            credentials=MungeCredentials(socket=own.munge_socket),
            allowed_uids=own.allowed_agent_uids,
            lease_s=own.lease_s,
        ),
        pools=PoolBudgets(
            clock=clock,
            credentials=MungeCredentials(socket=own.munge_socket),
            allowed_uids=own.allowed_pool_uids,
            admin_uids={0, os.getuid()},
            max_age_s=own.lease_s,
        ),
        battery_loop=_battery_loop(config, settings, clock, billing),
        billing=billing,
        history=history,
        forecasters=forecasters,
        learning=learning,
        job_watts=JobWattsBook(
            FileJournal(own.state_path.with_name("job_watts.json")),
            write_table=None if own.job_watts_file is None else partial(write_table, own.job_watts_file),
            gpu_max_watts=settings.relocation.gpu_max_watts,
        ),
        grid_signal=open_grid_signal(config.table(GridSignalConfig)) if "grid_signal" in config.given else None,
        parts_watch=_parts_watch(config, clock, max_gap_s=own.max_reading_age_s),
        desk=_desk(settings, clock),
        trail=_trail(settings, store, clock),
    )


def _desk(settings: Settings, clock: SystemClock) -> AdminDesk:
    """What admins ask for stands beside the billing state."""
    own = settings.controller
    return AdminDesk(
        journal=FileJournal(own.state_path.with_name("overrides.json")),
        clock=clock,
        grid_limit_watts=settings.site.grid_limit_watts,
        may_manage=own.mode == "manage",
    )


def _trail(settings: Settings, store: TelemetryStore, clock: SystemClock) -> Trail:
    """The last hours for the dashboard, as the store remembers them."""
    horizon_s = settings.planner.horizon_s
    trail = new_trail(settings.controller, horizon_s=horizon_s)
    with suppress(Unavailable):
        for point in store.read(MEASUREMENT, since_wall_s=clock.wall_s() - horizon_s / 2):
            trail.add(point.wall_s, trail_values(point))
    return trail


def _forecasters(
    settings: Settings, history: SiteHistory, clock: SystemClock
) -> tuple[Forecasters, LearningLoop | None]:
    planner = settings.planner
    naive = NaiveForecaster(settings.forecast, slot_s=planner.slot_s)
    if settings.forecast.model == "naive":
        return Forecasters(building=naive, it=naive), None
    from slurm_power.forecasting.live import LearningForecaster  # LightGBM takes a second to load

    building, it = (
        LearningForecaster(
            naive,
            slot_s=planner.slot_s,
            slots=planner.slots,
            period_s=settings.forecast.period_s,
            zone=settings.rates.zone if isinstance(settings.rates, RateSchedule) else UTC,
        )
        for _ in range(2)
    )
    models = FileModelStore(settings.controller.state_path.parent)
    loop = LearningLoop(history, clock=clock, slot_s=planner.slot_s, building=building, it=it, models=models)
    return Forecasters(building=building, it=it), loop


def _battery_loop(config: SiteConfig, settings: Settings, clock: SystemClock, billing: BillingState) -> BatteryLoop:
    pcs = config.table(SunSpecEssConfig)
    return BatteryLoop(
        clock=clock,
        meter=_meter(config, clock),
        ess=SunSpecEss(pcs, clock=clock),
        billing=billing,
        site=settings.site,
        battery=settings.battery,
        revert_s=pcs.revert_s,
        manage=settings.controller.mode == "manage",
    )


def _meter(config: SiteConfig, clock: SystemClock) -> Meter:
    match config.chosen("meter"):
        case PartsMeterConfig():
            return SumMeter(open_parts(config.table(PartsConfig), clock=clock))
        case chosen:
            return open_meter(cast(MeterConfig, chosen), clock=clock)


def _parts_watch(config: SiteConfig, clock: SystemClock, *, max_gap_s: float) -> PartsWatch | None:
    """None where there is nothing to hold the parts against: no parts, or no meter but them."""
    if "parts" not in config.given or isinstance(config.chosen("meter"), PartsMeterConfig):
        return None
    parts = config.table(PartsConfig)
    return PartsWatch(open_parts(parts, clock=clock), clock=clock, rules=parts.conservation, max_gap_s=max_gap_s)
