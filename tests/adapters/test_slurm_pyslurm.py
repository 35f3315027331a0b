"""The pyslurm client against a stand-in that has the names and the manners of pyslurm 25.11.2's object API."""

from __future__ import annotations

import enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.adapters.slurm_pyslurm import PyslurmClient
from slurm_power.errors import ConfigError, DeviceRefused, Unavailable
from slurm_power.relocation.jobs import JobState, LicensePool, LicenseReservation

NOW_S = 1_795_403_000.0


class RPCError(Exception):
    def __init__(self, errno: int = -1, msg: str = "") -> None:
        self.errno = errno
        super().__init__(msg)


class ReservationFlags(enum.Flag):
    ANY_NODES = enum.auto()
    IGNORE_RUNNING_JOBS = enum.auto()
    MAINTENANCE = enum.auto()


class StandIn:
    """One slurmctld as pyslurm shows it. `calls` keeps every change that reached it."""

    __version__ = "25.11.2"
    RPCError = RPCError
    ReservationFlags = ReservationFlags

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.job_list: list[Any] = []
        self.node_list: list[Any] = []
        self.reservations: dict[str, Any] = {}
        self.failure: RPCError | None = None
        config = SimpleNamespace(
            version="25.11.1",
            licenses={"watts": 13200, "firm_watts": 13200},
            accounting_storage_tres=["cpu", "gres/gpu"],
        )
        self.config = config
        self.slurmctld = SimpleNamespace(Config=SimpleNamespace(load=lambda: self._answer(config)))
        self.Jobs = SimpleNamespace(load=self._load_jobs)
        self.Nodes = SimpleNamespace(load=lambda: self._answer({node.name: node for node in self.node_list}))
        self.Reservations = SimpleNamespace(load=lambda: self._answer(self.reservations))
        self.JobSubmitDescription = lambda **changes: changes
        self.Job = self._job
        self.Reservation = _ReservationType(self)

    def _answer(self, value: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        return value

    def _load_jobs(self, preload_passwd_info: bool = False, frozen: bool = False) -> Any:
        return self._answer({job.id: job for job in self.job_list})

    def _job(self, job_id: int) -> Any:
        def record(verb: str, *values: Any) -> None:
            self._answer(None)
            self.calls.append((verb, (job_id, *values)))

        return SimpleNamespace(
            modify=lambda changes: record("modify", changes),
            requeue=lambda hold=False: record("requeue", hold),
            cancel=lambda: record("cancel"),
        )


class _ReservationType:
    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def __call__(self, name: str, **values: Any) -> Any:
        def delete() -> None:
            if name not in self._stand_in.reservations:
                raise RPCError(2069, "Requested reservation is invalid")
            self._stand_in.calls.append(("delete", name))

        return SimpleNamespace(
            create=lambda: self._stand_in.calls.append(("create", {"name": name, **values})), delete=delete
        )

    def load(self, name: str) -> Any:
        if name not in self._stand_in.reservations:
            raise RPCError(msg=f"Reservation '{name}' doesn't exist")
        return self._stand_in.reservations[name]


def job(**values: Any) -> Any:
    given = {
        "id": 7, "name": "train", "user_name": "eva", "user_id": 1000, "partition": "main", "state": "RUNNING",
        "state_reason": "None", "allocated_nodes": "n[1-2]", "num_nodes": 2, "submit_time": 1795402000,
        "eligible_time": 1795402000, "start_time": 1795402100, "end_time": 1795405600, "time_limit": 60,
        "licenses": ["watts:1650"], "is_batch_job": True, "is_requeueable": True, "admin_comment": None,
        "account": "physics", "gpus": {"gpu": SimpleNamespace(count=4)},
    }  # fmt: skip
    return SimpleNamespace(**{**given, **values})


def client(stand_in: StandIn, *, running: str = "slurm 25.11.1") -> PyslurmClient:
    return PyslurmClient(
        SlurmConfig(adapter="pyslurm"),
        load=lambda: stand_in,
        running_version=lambda: running,
        wall_s=lambda: NOW_S,
    )


@pytest.fixture
def stand_in() -> StandIn:
    return StandIn()


def test_a_missing_pyslurm_names_the_running_slurm() -> None:
    def load() -> Any:
        raise ImportError("No module named 'pyslurm'")

    with pytest.raises(ConfigError, match=r"cannot be loaded .*Slurm is 22\.05.* adapter = \"command\""):
        PyslurmClient(SlurmConfig(), load=load, running_version=lambda: "slurm-wlm 22.05.8")


def test_a_pyslurm_of_another_release_names_both(stand_in: StandIn) -> None:
    with pytest.raises(ConfigError, match=r"pyslurm is 25\.11\.2, but Slurm is 24\.11"):
        client(stand_in, running="slurm 24.11.5")


def test_a_slurm_that_does_not_track_gpus_is_not_enough(stand_in: StandIn) -> None:
    stand_in.config.accounting_storage_tres = ["cpu", "mem"]
    with pytest.raises(ConfigError, match="AccountingStorageTRES=gres/gpu"):
        client(stand_in)


def test_slurm_conf_is_set_before_pyslurm_reads_it(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", "/elsewhere")
    config = SlurmConfig(adapter="pyslurm", slurm_conf=Path("/ours/slurm.conf"))
    seen: list[str] = []

    def load() -> StandIn:
        import os

        seen.append(os.environ["SLURM_CONF"])
        return stand_in

    PyslurmClient(config, load=load, running_version=lambda: "25.11.1")
    assert seen == ["/ours/slurm.conf"]


def test_a_running_job_is_read(stand_in: StandIn) -> None:
    stand_in.job_list = [job()]
    [read] = client(stand_in).jobs()
    assert (read.job_id, read.user_name, read.uid, read.name) == (7, "eva", 1000, "train")
    assert (read.state, read.gpus, read.node_names) == (JobState.RUNNING, 4, ("n1", "n2"))
    assert (read.start_wall_s, read.end_wall_s, read.begin_wall_s, read.time_limit_s) == (1795402100, None, None, 3600)
    assert (dict(read.licenses), read.requeueable, read.admin_comment) == ({"watts": 1650}, True, "")
    assert read.account == "physics"


def test_a_deferred_job_is_read(stand_in: StandIn) -> None:
    waiting = job(state="PENDING", eligible_time=1795409000, allocated_nodes=None, time_limit=None, licenses=None)
    stand_in.job_list = [waiting]
    [read] = client(stand_in).jobs()
    assert (read.state, read.begin_wall_s, read.start_wall_s, read.time_limit_s) == (
        JobState.PENDING,
        1795409000,
        None,
        None,
    )


def test_gpus_of_a_type_are_not_counted_twice(stand_in: StandIn) -> None:
    both = {"gpu": SimpleNamespace(count=4), "gpu:h100": SimpleNamespace(count=4)}
    stand_in.job_list = [job(gpus=both), job(id=8, gpus={"gpu:h100": SimpleNamespace(count=2)}), job(id=9, gpus={})]
    assert [read.gpus for read in client(stand_in).jobs()] == [4, 2, 0]


def test_nodes_are_read(stand_in: StandIn) -> None:
    stand_in.node_list = [
        SimpleNamespace(name="n1", state="IDLE", configured_gres={"gpu:h100": 4, "nic": 2}),
        SimpleNamespace(name="n2", state="IDLE+DRAIN", configured_gres={}),
    ]
    nodes = client(stand_in).nodes()
    assert [(node.node_name, node.gpus, node.up) for node in nodes] == [("n1", 4, True), ("n2", 0, False)]


def test_used_licences_are_those_of_jobs_that_hold_some(stand_in: StandIn) -> None:
    stand_in.job_list = [job(), job(id=8, state="SUSPENDED", licenses=["watts:50"]), job(id=9, state="PENDING")]
    assert client(stand_in).license_pools()["watts"] == LicensePool("watts", 13200, 1700)


def test_a_reservation_is_created_without_nodes(stand_in: StandIn) -> None:
    client(stand_in).create_reservation(LicenseReservation("slurm_power_a", NOW_S + 1, NOW_S + 90, {"watts": 9000}))
    [(verb, values)] = stand_in.calls
    assert verb == "create"
    assert values == {
        "name": "slurm_power_a", "start_time": 1795403001, "end_time": 1795403090, "licenses": ["watts:9000"],
        "users": ["root"], "node_count": 0, "partition": "main",
        "flags": ReservationFlags.ANY_NODES | ReservationFlags.IGNORE_RUNNING_JOBS,
    }  # fmt: skip


def test_the_start_of_a_reservation_that_has_begun_is_left_alone(stand_in: StandIn) -> None:
    modified: list[str] = []
    present = SimpleNamespace(
        is_active=True, start_time=1, end_time=2, licenses=["watts:1"], modify=lambda: modified.append("yes")
    )
    stand_in.reservations["slurm_power_a"] = present
    client(stand_in).update_reservation(LicenseReservation("slurm_power_a", NOW_S - 9, NOW_S + 90, {"watts": 5}))
    assert (present.start_time, present.end_time, present.licenses) == (1, 1795403090, ["watts:5"])
    assert modified == ["yes"]


def test_changing_a_reservation_that_does_not_exist_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(DeviceRefused, match="doesn't exist"):
        client(stand_in).update_reservation(LicenseReservation("slurm_power_a", NOW_S, NOW_S + 90, {"watts": 5}))


def test_deleting_a_reservation_twice_is_no_error(stand_in: StandIn) -> None:
    client(stand_in).delete_reservation("slurm_power_a")
    assert stand_in.calls == []


def test_reservations_without_licences_are_left_out(stand_in: StandIn) -> None:
    stand_in.reservations = {
        "a": SimpleNamespace(name="a", start_time=10, end_time=20, licenses=["watts:5"]),
        "b": SimpleNamespace(name="b", start_time=10, end_time=20, licenses=[]),
    }
    assert client(stand_in).license_reservations() == [LicenseReservation("a", 10.0, 20.0, {"watts": 5})]


def test_all_changes_of_a_job_go_in_one_request(stand_in: StandIn) -> None:
    asked = client(stand_in)
    asked.update_job(7, begin_wall_s=NOW_S - 50, licenses={"watts": 700}, admin_comment="x")
    asked.update_job(7)
    asked.requeue(7)
    asked.cancel(7)
    changes = {"begin_time": round(NOW_S), "licenses": ["watts:700"], "admin_comment": "x"}
    assert stand_in.calls == [("modify", (7, changes)), ("requeue", (7, False)), ("cancel", (7,))]


@pytest.mark.parametrize(
    ("errno", "error"),
    [
        (2021, DeviceRefused),
        (-1, DeviceRefused),
        (1800, Unavailable),
        (5004, Unavailable),
        (111, Unavailable),
    ],
)
def test_no_answer_and_a_refusal_are_told_apart(stand_in: StandIn, errno: int, error: type[Exception]) -> None:
    asked = client(stand_in)
    stand_in.failure = RPCError(errno, "Slurm's words")
    with pytest.raises(error, match="Slurm's words"):
        asked.requeue(7)
