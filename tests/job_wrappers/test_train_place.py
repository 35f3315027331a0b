"""Ranks from what Slurm says; the environments are those of a real step and a real batch script of Slurm 22.05."""

from __future__ import annotations

import pytest

from job_wrappers.training.place import (
    LOCAL_VARIABLE,
    RankPlace,
    local_places,
    place_from,
    restart_count,
    to_variable,
)
from training.errors import ConfigError

STEP = {
    "SLURMD_NODENAME": "n2",
    "SLURM_CLUSTER_NAME": "dev",
    "SLURM_CPUS_PER_TASK": "2",
    "SLURM_JOB_ID": "4",
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_LAUNCH_NODE_IPADDR": "127.0.0.1",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


def test_a_task_of_a_step_knows_its_rank_its_node_and_rank_0() -> None:
    assert place_from(STEP) == RankPlace(
        rank=3,
        world_size=4,
        local_rank=1,
        local_size=2,
        node_name="n2",
        nodes=("n1", "n2"),
        master_addresses=("n1", "127.0.0.1"),
        key="dev-4-0-0",
        cpus=2,
    )


def test_nodes_may_have_different_numbers_of_tasks() -> None:
    sizes = [
        place_from(STEP | {"SLURM_NODEID": str(node), "SLURM_STEP_TASKS_PER_NODE": "3,1"}).local_size for node in (0, 1)
    ]
    assert sizes == [3, 1]


def test_a_step_on_one_node_needs_no_network() -> None:
    one = STEP | {"SLURM_STEP_NODELIST": "n2", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "4"}
    assert place_from(one).master_addresses == ("127.0.0.1",)


def test_all_ranks_try_the_same_ports_and_the_next_start_tries_others() -> None:
    first = place_from(STEP)
    assert place_from(STEP | {"SLURM_PROCID": "0"}).ports == first.ports
    again = place_from(STEP | {"SLURM_RESTART_COUNT": "1"})
    other_step = place_from(STEP | {"SLURM_STEP_ID": "1"})
    assert len({first.ports[0], again.ports[0], other_step.ports[0]}) == 3
    assert len(set(first.ports)) == len(first.ports)
    assert all(20000 <= port < 30000 for port in first.ports)


def test_a_batch_script_without_srun_is_told_so_unless_it_wants_one_rank() -> None:
    batch = {"SLURM_JOB_ID": "4", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}
    with pytest.raises(ConfigError, match=r"^SLURM_NTASKS = 4: .*start the ranks with srun$"):
        place_from(batch)
    assert place_from(batch | {"SLURM_NTASKS": "1"}) == RankPlace()


def test_outside_slurm_there_is_one_rank() -> None:
    assert place_from({}) == RankPlace()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"SLURM_PROCID": ""}, id="no-rank"),
        pytest.param({"SLURM_PROCID": "4"}, id="rank-beyond-the-world"),
        pytest.param({"SLURM_NODEID": "2"}, id="node-beyond-the-list"),
        pytest.param({"SLURM_STEP_NODELIST": "n[1-"}, id="broken-nodelist"),
        pytest.param({"SLURM_STEP_TASKS_PER_NODE": "2(y2)"}, id="broken-counts"),
        pytest.param({"SLURM_LOCALID": "x"}, id="odd-number"),
    ],
)
def test_an_environment_that_contradicts_itself_is_one_clear_line(change: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^\w+ = [^\n]*$"):
        place_from(STEP | change)


def test_local_ranks_share_the_cpus_and_find_their_place_again() -> None:
    places = local_places(3, key="k", cpus=8)
    assert [(place.rank, place.local_rank, place.cpus) for place in places] == [(0, 0, 2), (1, 1, 2), (2, 2, 2)]
    assert [place_from({LOCAL_VARIABLE: to_variable(place)} | STEP) for place in places] == places
    with pytest.raises(ConfigError, match="not written by --local-ranks"):
        place_from({LOCAL_VARIABLE: '{"rank": 1}'})


@pytest.mark.parametrize(("text", "count"), [("2", 2), ("", 0), ("x", 0)])
def test_the_restart_count_is_slurms(text: str, count: int) -> None:
    assert restart_count({"SLURM_RESTART_COUNT": text}) == count
    assert restart_count({}) == 0
