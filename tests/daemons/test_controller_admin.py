"""Hold, observe and target as the ticks obey them, and what the dashboard and Prometheus are told."""

from __future__ import annotations

import json

from slurm_power.relocation.job_mark import parse_mark
from tests.daemons.test_controller import NODES, TIGHT_WATTS, Site, tight_site

WHY = {"why": "maintenance"}


def hold(site: Site, *, for_s: float = 600.0) -> None:
    site.desk.hold({"for_s": for_s, **WHY}, who="ann")


def ticked(site: Site, *, gpu_watts: float = 700.0) -> list[str]:
    """What one more round changes in Slurm."""
    before = len(site.slurm.changes)
    site.tick(*NODES, gpu_watts=gpu_watts)
    return site.slurm.changes[before:]


def test_on_hold_nothing_new_is_decided_and_it_goes_on_afterwards() -> None:
    site = tight_site()
    hold(site)
    assert ticked(site) == []
    site.clock.advance(601)
    assert ticked(site) != []
    assert site.decided()[0] == ("hold", "controller")


def test_caps_that_stand_are_kept_while_on_hold() -> None:
    site = tight_site()
    site.tick(*NODES)
    leases = site.report(*NODES)
    caps = {node: dict(lease.cap_watts) for node, lease in leases.items() if lease is not None}
    assert all(caps.values()), caps
    hold(site)
    assert ticked(site, gpu_watts=100.0) == [], "the peak is over, but nobody takes the caps back"
    leases = site.report(*NODES)
    assert {node: dict(lease.cap_watts) for node, lease in leases.items() if lease is not None} == caps


def test_a_controller_that_restarts_on_hold_keeps_the_caps_it_finds_in_the_marks() -> None:
    site = tight_site()
    site.tick(*NODES)
    hold(site)
    site.start()
    assert ticked(site) == []
    for lease in site.report(*NODES).values():
        assert lease is not None
        job_caps = {parse_mark(job.admin_comment).capped_watts for job in site.slurm.jobs() if job.node_names}
        assert set(lease.cap_watts.values()) <= job_caps
        assert lease.cap_watts


def test_who_asks_to_observe_gets_every_cap_back_and_a_silent_battery() -> None:
    site = tight_site()
    site.tick(*NODES)
    commands = len(site.ess.commands)
    site.desk.observe({"on": True, **WHY}, who="ann")
    site.clock.advance(5)
    assert ticked(site) == []
    assert len(site.ess.commands) == commands, "nothing more is sent"
    assert all(lease is not None and not lease.cap_watts for lease in site.report(*NODES).values())
    assert site.controller.status()["mode"] == "observe"
    site.desk.observe({"on": False, **WHY}, who="ann")
    site.clock.advance(5)
    site.tick(*NODES)
    assert any(lease is not None and lease.cap_watts for lease in site.report(*NODES).values())
    assert len(site.ess.commands) > commands
    assert site.controller.status()["mode"] == "manage"


def test_a_promised_target_is_defended_from_the_next_tick_on_until_it_ends() -> None:
    site = Site()
    site.tick(*NODES)
    usual_watts = site.controller.status()["target_watts"]
    site.desk.target({"watts": TIGHT_WATTS, "for_s": 3600, **WHY}, who="ann")
    site.clock.advance(60)
    site.tick(*NODES)
    status = site.controller.status()
    assert status["target_watts"] == TIGHT_WATTS
    assert status["overrides"]["target"]["who"] == "ann"
    site.clock.advance(3600)
    site.tick(*NODES)
    assert site.controller.status()["target_watts"] == usual_watts


def test_a_wish_is_in_the_decisions_and_in_the_store_at_once() -> None:
    site = Site()
    site.tick(*NODES)
    hold(site)
    assert site.controller.events()[-1]["reason"] == "ann: maintenance (for 10 min)"
    decision = site.store.read("decision", since_wall_s=0.0)[-1]
    assert (decision.tags["verb"], decision.fields["subject"]) == ("hold", "controller")


def test_every_part_of_the_dashboard_is_json_before_and_after_the_first_tick() -> None:
    site = tight_site()
    for ask in site.controller.live.asks().values():
        json.dumps(ask(), allow_nan=False)
    site.tick(*NODES)
    site.clock.advance(60)
    site.tick(*NODES)
    parts = {name: ask() for name, ask in site.controller.live.asks().items()}
    json.dumps(parts, allow_nan=False)
    assert parts["gpus"]["nodes"] == list(NODES)
    assert len(parts["gpus"]["draw_watts"]) == 4 * len(NODES)
    assert parts["outlook"]["forecast"]["load_high_watts"][0] >= parts["outlook"]["forecast"]["load_low_watts"][0]
    assert parts["jobs"]["capped"] >= 1
    assert parts["trail"]["grid_import_watts"]


def test_metrics_tell_the_site_and_count_decisions() -> None:
    site = tight_site()
    site.tick(*NODES)
    text = site.controller.metrics()
    assert text.endswith("# EOF\n")
    assert f"slurm_power_grid_import_watts {site.meter.import_watts:g}".split(".")[0] in text
    assert 'slurm_power_decisions_total{verb="cap",outcome="done"}' in text
    assert "slurm_power_controller_held 0" in text
    hold(site)
    assert "slurm_power_controller_held 1" in site.controller.metrics()
