"""Builds the controller from the site's config: with site_config.py the only file that knows both sides."""

from __future__ import annotations

import logging

from slurm_power.adapters.clock_system import SystemClock
from slurm_power.adapters.ess_sunspec import SunSpecEss, SunSpecEssConfig
from slurm_power.adapters.journal_file import FileJournal
from slurm_power.adapters.meter_sunspec import SunSpecMeter, SunSpecMeterConfig
from slurm_power.adapters.munge_credentials import MungeCredentials
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.telemetry_config import StoreConfig
from slurm_power.adapters.telemetry_open import open_store
from slurm_power.daemons.agent_registry import AgentRegistry
from slurm_power.daemons.battery_loop import BatteryLoop
from slurm_power.daemons.billing_state import BillingState
from slurm_power.daemons.controller import Controller, Settings
from slurm_power.daemons.controller_config import ControllerConfig
from slurm_power.daemons.site_history import SiteHistory
from slurm_power.errors import Unavailable
from slurm_power.ess.battery import BatteryLimits
from slurm_power.ess.guard import SiteLimits
from slurm_power.ess.planner_config import PlannerConfig
from slurm_power.ess.tariff import Tariff
from slurm_power.forecasting.naive import NaiveForecaster
from slurm_power.forecasting.settings import ForecastConfig
from slurm_power.ports.slurm_client import SlurmClient
from slurm_power.relocation.settings import RelocationConfig
from slurm_power.site_config import SiteConfig

log = logging.getLogger(__name__)


def slurm_client(config: SlurmConfig) -> SlurmClient:
    if config.adapter == "pyslurm":
        from slurm_power.adapters.slurm_pyslurm import PyslurmClient

        return PyslurmClient(config)
    from slurm_power.adapters.slurm_command import CommandSlurmClient

    return CommandSlurmClient(config)


def controller(config: SiteConfig) -> Controller:
    """Raise ConfigError for a bad table. A store that cannot be read costs the history, not the controller."""
    settings = Settings(
        controller=config.table(ControllerConfig),
        site=config.table(SiteLimits),
        tariff=config.table(Tariff),
        battery=config.table(BatteryLimits),
        planner=config.table(PlannerConfig),
        forecast=config.table(ForecastConfig),
        relocation=config.table(RelocationConfig),
    )
    clock = SystemClock()
    own, slot_s = settings.controller, settings.planner.slot_s
    store = open_store(config.table(StoreConfig))
    history = SiteHistory(keep_s=own.history_s, slot_s=slot_s, max_gap_s=own.max_reading_age_s)
    try:
        history.load(store, wall_s=clock.wall_s())
    except Unavailable as failure:
        log.warning("starting without history: %s", failure)
    billing = BillingState(
        journal=FileJournal(own.state_path),
        tariff=settings.tariff,
        max_gap_s=own.max_reading_age_s,
        wall_s=clock.wall_s(),
    )
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
        battery_loop=_battery_loop(config, settings, clock, billing),
        billing=billing,
        history=history,
        forecaster=NaiveForecaster(settings.forecast, slot_s=slot_s),
    )


def _battery_loop(config: SiteConfig, settings: Settings, clock: SystemClock, billing: BillingState) -> BatteryLoop:
    pcs = config.table(SunSpecEssConfig)
    return BatteryLoop(
        clock=clock,
        meter=SunSpecMeter(config.table(SunSpecMeterConfig), clock=clock),
        ess=SunSpecEss(pcs, clock=clock),
        billing=billing,
        site=settings.site,
        battery=settings.battery,
        revert_s=pcs.revert_s,
        manage=settings.controller.mode == "manage",
        promised_watts=settings.planner.target_watts,
    )
