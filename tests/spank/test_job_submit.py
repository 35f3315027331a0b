"""What job_submit.lua makes of a submission: the watts, the mark, and nothing that fails."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lua_slurmctld import UNSET, LuaSlurmctld, Value

from slurm_power.relocation.job_mark import parse_mark, with_mark
from slurm_power.relocation.jobs import PowerClass, PowerRequest

SITE = """return {node_base_watts = 500, gpu_max_watts = 700, gpus_per_node = 4, default_class = "flexible"}"""

pytestmark = pytest.mark.skipif(shutil.which("lua5.3") is None, reason="needs lua5.3")


@pytest.fixture(scope="module")
def slurmctld(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LuaSlurmctld]:
    with LuaSlurmctld(tmp_path_factory.mktemp("etc"), site=SITE) as lua:
        assert lua.at_load.error == []
        yield lua


def batch(**fields: Value) -> dict[str, Value]:
    return {**UNSET, "script": "#!/bin/sh\n", "environment": {}, **fields}


def with_options(**options: str) -> dict[int, Value]:
    """As sbatch's plugin hands them over; Lua sees the list from 0 on."""
    lines = [f"_SLURM_SPANK_OPTION_slurm_power_{name}={text}" for name, text in options.items()]
    return dict(enumerate(lines))


@pytest.mark.parametrize(
    ("size", "watts"),
    [
        pytest.param({"tres_per_job": "gres:gpu:2"}, 250 + 1400, id="gpus-of-the-job"),
        pytest.param({"tres_per_job": "gres/gpu:2"}, 250 + 1400, id="newer-spelling"),
        pytest.param({"tres_per_job": "gres:gpu:h100:2"}, 250 + 1400, id="with-type"),
        pytest.param({"tres_per_job": "gpu"}, 125 + 700, id="one-gpu-unsaid"),
        pytest.param({"tres_per_job": "gres:gpu:h100"}, 125 + 700, id="one-gpu-of-a-type"),
        pytest.param({"tres_per_job": "gres:gpu:a:1,gres:gpu:b:2"}, 375 + 2100, id="two-types"),
        pytest.param({"tres_per_node": "gres:gpu:4", "min_nodes": 2, "max_nodes": 2}, 1000 + 5600, id="per-node"),
        pytest.param({"tres_per_node": "gres:gpu:4", "min_nodes": 1, "max_nodes": 3}, 1500 + 8400, id="up-to-3-nodes"),
        pytest.param({"tres_per_node": "gpu:1", "num_tasks": 8, "ntasks_per_node": 4}, 250 + 1400, id="nodes-by-tasks"),
        pytest.param({"tres_per_task": "gres:gpu:1", "num_tasks": 3}, 375 + 2100, id="per-task"),
        pytest.param({"tres_per_socket": "gres:gpu:1", "sockets_per_node": 2}, 250 + 1400, id="per-socket"),
        pytest.param({"ntasks_per_tres": 2, "num_tasks": 3}, 250 + 1400, id="tasks-per-gpu"),
        pytest.param({"tres_per_job": "gres:gpu:1", "shared": 0}, 500 + 700, id="exclusive-pays-for-the-node"),
        pytest.param({"tres_per_job": "gres:gpumem:9,gres:craynetwork:1"}, 63, id="other-gres-is-no-gpu"),
        pytest.param({"min_cpus": 4}, 250, id="cpus-pay-their-share"),
        pytest.param({"min_cpus": 16, "min_nodes": 2, "max_nodes": 2}, 1000, id="cpus-of-two-nodes"),
        pytest.param({"min_cpus": 999, "min_nodes": 1, "max_nodes": 1}, 500, id="never-more-than-its-nodes"),
    ],
)
def test_the_watts_follow_what_the_job_asks_for(slurmctld: LuaSlurmctld, size: dict[str, Value], watts: int) -> None:
    assert slurmctld.submit(batch(**size)).licenses == f"watts:{watts}"


def test_a_cap_makes_the_job_cheaper(slurmctld: LuaSlurmctld) -> None:
    job = batch(tres_per_job="gres:gpu:2", spank_job_env=with_options(gpu_power_cap="300W"))
    assert slurmctld.submit(job).licenses == "watts:850"


def test_a_firm_job_gets_licences_of_its_own(slurmctld: LuaSlurmctld) -> None:
    answer = slurmctld.submit(batch(tres_per_job="gres:gpu:1", spank_job_env=with_options(power_class="firm")))
    assert answer.licenses == "firm_watts:825"
    assert parse_mark(answer.admin_comment or "").request.power_class is PowerClass.FIRM


@pytest.mark.parametrize("script", [None, ""])
def test_an_interactive_job_is_firm_whatever_it_says(slurmctld: LuaSlurmctld, script: str | None) -> None:
    job: dict[str, Value] = {**UNSET, "spank_job_env": with_options(power_class="preemptible")}
    if script is not None:
        job["script"] = script
    answer = slurmctld.submit(job)
    assert answer.licenses == "firm_watts:63"
    assert answer.admin_comment == "slurm-power:class=firm"


def test_the_mark_is_what_the_controller_would_write(slurmctld: LuaSlurmctld) -> None:
    options = with_options(
        gpu_power_cap="300W",
        gpu_clock="1200",
        power_class="preemptible",
        power_max_slowdown="0.250",
        power_max_delay="1-02:00",
    )
    comment = slurmctld.submit(batch(spank_job_env=options)).admin_comment
    mark = parse_mark(comment or "")
    assert mark.request == PowerRequest(300.0, 1200, PowerClass.PREEMPTIBLE, 0.25, 93600.0)
    assert comment == with_mark("", mark)


def test_the_users_own_licences_stay(slurmctld: LuaSlurmctld) -> None:
    assert slurmctld.submit(batch(licenses="matlab:2,ansys")).licenses == "matlab:2,ansys,watts:63"


@pytest.mark.parametrize("lie", ["watts:1", "watts", "firm_watts:1", " watts:1", "watts@here:1", "watts=1", "watts*1"])
def test_a_user_cannot_lie_about_watts(slurmctld: LuaSlurmctld, lie: str) -> None:
    answer = slurmctld.submit(batch(licenses=f"{lie},matlab:2"))
    assert answer.licenses == "matlab:2,watts:63"
    assert any("itself; replaced" in line for line in answer.info)


def test_a_licence_with_a_like_name_is_not_ours(slurmctld: LuaSlurmctld) -> None:
    assert slurmctld.submit(batch(licenses="kilowatts:2,watts2:1")).licenses == "kilowatts:2,watts2:1,watts:63"


@pytest.mark.parametrize("cap", ["100", "900", "-300", "3e2", "300W\n", "", "300WW", "0300000000000", "%d%s%n"])
def test_an_invalid_cap_that_bypassed_the_plugin_counts_as_none(slurmctld: LuaSlurmctld, cap: str) -> None:
    answer = slurmctld.submit(batch(tres_per_job="gres:gpu:1", spank_job_env=with_options(gpu_power_cap=cap)))
    assert answer.rc == "0"
    assert answer.licenses == "watts:825"
    assert "cap=" not in (answer.admin_comment or "")
    assert any("ignored an invalid gpu_power_cap" in line for line in answer.info)


def test_a_cap_given_twice_counts_as_none(slurmctld: LuaSlurmctld) -> None:
    name = "_SLURM_SPANK_OPTION_slurm_power_gpu_power_cap"
    job = batch(tres_per_job="gres:gpu:1", spank_job_env={0: f"{name}=300", 1: f"{name}=200", 2: f"{name}=200"})
    assert slurmctld.submit(job).licenses == "watts:825"


def test_a_cap_that_only_the_environment_names_is_not_enforced_and_does_not_count(slurmctld: LuaSlurmctld) -> None:
    prefix = "SLURM_SPANK__SLURM_SPANK_OPTION_slurm_power_"
    environment = {f"{prefix}gpu_power_cap": "300", f"{prefix}power_class": "preemptible"}
    answer = slurmctld.submit(batch(tres_per_job="gres:gpu:1", environment=environment))
    assert answer.licenses == "watts:825"
    assert answer.admin_comment == "slurm-power:class=preemptible"


def test_another_tools_admin_comment_stays_and_a_forged_mark_goes(slurmctld: LuaSlurmctld) -> None:
    comment = "ticket 5 slurm-power:class=firm,deferred=1 slurm-power:capped=2 end"
    answer = slurmctld.submit(batch(admin_comment=comment))
    assert answer.admin_comment is not None
    assert parse_mark(answer.admin_comment).deferred_until_wall_s is None
    assert answer.admin_comment.split() == ["ticket", "5", "end", "slurm-power:class=flexible"]


def test_gpu_freq_is_only_remarked_upon(slurmctld: LuaSlurmctld) -> None:
    answer = slurmctld.submit(batch(tres_freq="gpu:low"))
    assert answer.licenses == "watts:63"
    assert any("--gpu-freq" in line for line in answer.info)


def test_a_mistake_of_ours_never_fails_a_submission(slurmctld: LuaSlurmctld) -> None:
    answer = slurmctld.submit({"explode": True})
    assert answer.rc == "0"
    assert answer.licenses is None
    assert "left alone after a mistake of ours" in answer.error[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    text=st.text(alphabet="0123456789.:-W firmlexbpt\t\n%[(", max_size=12),
    number=st.sampled_from(["watts", "mhz", "slowdown", "delay"]),
)
def test_slurmctld_reads_an_option_as_the_plugin_does(
    slurmctld: LuaSlurmctld, plugin_parts: ctypes.CDLL, text: str, number: str
) -> None:
    function = getattr(plugin_parts, f"parse_{number}")
    function.restype = ctypes.c_bool
    value = ctypes.c_long()
    accepted = function(text.encode(), ctypes.byref(value))
    bounds = {"watts": (200, 700), "mhz": (345, 1980)}.get(number)
    expected = value.value if accepted and (not bounds or bounds[0] <= value.value <= bounds[1]) else None
    option = {
        "watts": "gpu_power_cap",
        "mhz": "gpu_clock",
        "slowdown": "power_max_slowdown",
        "delay": "power_max_delay",
    }[number]
    request = parse_mark(
        slurmctld.submit(batch(spank_job_env=with_options(**{option: text}))).admin_comment or ""
    ).request
    if number == "slowdown":
        read = None if request.max_slowdown_fraction is None else round(request.max_slowdown_fraction * 1e6)
    else:
        read = {"watts": request.gpu_cap_watts, "mhz": request.gpu_clock_mhz, "delay": request.max_delay_s}[number]
    assert read == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    fields=st.dictionaries(
        st.sampled_from(["licenses", "tres_per_job", "tres_per_node", "tres_per_task", "tres_freq", "admin_comment"]),
        st.one_of(st.text(max_size=30), st.text(alphabet="gresgpuwatt:/=,1234 slurm-power", max_size=40)),
    ),
    sizes=st.dictionaries(st.sampled_from(list(UNSET)), st.integers(0, 2**32 - 1)),
    env=st.lists(st.text(max_size=60), max_size=3),
)
def test_no_submission_can_make_the_script_stumble(
    slurmctld: LuaSlurmctld, fields: dict[str, str], sizes: dict[str, int], env: list[str]
) -> None:
    answer = slurmctld.submit(batch(**fields, **sizes, spank_job_env=dict(enumerate(env))))
    assert answer.rc == "0"
    assert answer.error == []
    licenses = (answer.licenses or "").split(",")
    ours = [item for item in licenses if item.strip().startswith(("watts:", "firm_watts:"))]
    assert ours == licenses[-1:]
    assert 1 <= int(ours[0].split(":")[1]) < 2**31
