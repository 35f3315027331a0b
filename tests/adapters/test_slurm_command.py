"""What the command-line client asks Slurm's commands to do, and what it makes of their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from slurm_power.adapters.run_command import CommandResult, run_command
from slurm_power.adapters.slurm_command import CommandSlurmClient
from slurm_power.adapters.slurm_config import SlurmConfig
from slurm_power.errors import ConfigError, DeviceRefused, Unavailable
from slurm_power.relocation.jobs import LicenseReservation

NOW_S = 1_795_403_000.0
RESERVATION = LicenseReservation("slurm_power_a", NOW_S + 600, NOW_S + 1200, {"watts": 9000})


class RecordedCommands:
    """Answers in turn; remembers what was asked."""

    def __init__(self, *answers: CommandResult) -> None:
        self.answers = list(answers)
        self.asked: list[list[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.timeouts_s: list[float] = []

    def __call__(self, argv: Sequence[str], *, timeout_s: float, env: Mapping[str, str]) -> CommandResult:
        self.asked.append(list(argv))
        self.environments.append(env)
        self.timeouts_s.append(timeout_s)
        return self.answers.pop(0) if self.answers else CommandResult(0, "", "")


def client(commands: RecordedCommands, **config: object) -> CommandSlurmClient:
    return CommandSlurmClient(SlurmConfig(**config), run=commands, wall_s=lambda: NOW_S)  # type: ignore[arg-type]


def said(words: str) -> CommandResult:
    return CommandResult(1, "", words)


def test_one_call_tells_all_jobs() -> None:
    commands = RecordedCommands(CommandResult(0, '{"jobs": []}', ""))
    assert list(client(commands).jobs()) == []
    assert commands.asked == [["squeue", "--all", "--states=all", "--json"]]


def test_a_reservation_holds_licences_and_no_nodes() -> None:
    commands = RecordedCommands()
    client(commands, partition="gpu").create_reservation(RESERVATION)
    assert commands.asked == [
        [
            "scontrol", "create", "reservation", "ReservationName=slurm_power_a", "StartTime=uts1795403600",
            "EndTime=uts1795404200", "Licenses=watts:9000", "Users=root", "NodeCnt=0",
            "Flags=LICENSE_ONLY,IGNORE_JOBS", "PartitionName=gpu",
        ]
    ]  # fmt: skip


def test_a_reservation_that_has_begun_is_updated_without_its_start() -> None:
    commands = RecordedCommands(said("Error updating the reservation: Reservation already started"))
    begun = LicenseReservation("slurm_power_a", NOW_S - 5, NOW_S + 600, {"watts": 5})
    client(commands).update_reservation(begun)
    assert [word.split("=")[0] for word in commands.asked[1]] == [
        "scontrol", "update", "ReservationName", "EndTime", "Licenses",
    ]  # fmt: skip


def test_a_reservation_that_has_begun_cannot_be_put_off() -> None:
    commands = RecordedCommands(said("Reservation already started"))
    with pytest.raises(DeviceRefused, match="already started"):
        client(commands).update_reservation(RESERVATION)


def test_deleting_what_is_gone_is_no_error() -> None:
    words = "delete_reservation ReservationName=x: Requested reservation is invalid"
    client(RecordedCommands(said(words))).delete_reservation("x")
    with pytest.raises(DeviceRefused, match="denied"):
        client(RecordedCommands(said("Access/permission denied"))).delete_reservation("x")


def test_all_changes_of_a_job_go_in_one_request() -> None:
    commands = RecordedCommands()
    client(commands).update_job(
        7, begin_wall_s=NOW_S + 60, licenses={"watts": 700, "db": 1}, admin_comment="a b; rm -rf 'x' JobId=1"
    )
    assert commands.asked == [
        [
            "scontrol", "update", "JobId=7", "StartTime=uts1795403060", "Licenses=watts:700,db:1",
            "AdminComment=a b; rm -rf 'x' JobId=1",
        ]
    ]  # fmt: skip


def test_a_begin_in_the_past_means_now() -> None:
    commands = RecordedCommands()
    client(commands).update_job(7, begin_wall_s=NOW_S - 60)
    assert commands.asked == [["scontrol", "update", "JobId=7", "StartTime=now"]]


def test_no_change_is_no_request() -> None:
    commands = RecordedCommands()
    client(commands).update_job(7)
    assert commands.asked == []


def test_the_waiting_tasks_of_an_array_are_named_apart_from_the_running_ones() -> None:
    entry = {
        "job_id": 3, "job_state": "PENDING", "user_id": 0, "submit_time": 1, "array_job_id": 3,
        "array_task_string": "2-4%1",
    }  # fmt: skip
    commands = RecordedCommands(CommandResult(0, json.dumps({"jobs": [entry]}), ""))
    asked = client(commands)
    asked.jobs()
    asked.update_job(3, licenses={"watts": 1})
    asked.cancel(3)
    assert commands.asked[1:] == [
        ["scontrol", "update", "JobId=3_[2-4]", "Licenses=watts:1"],
        ["scancel", "3_[2-4]"],
    ]


@pytest.mark.parametrize(
    "words",
    [
        "slurm_update error: Unable to contact slurm controller (connect failure)",
        "scontrol: error: Socket timed out on send/recv operation",
        "slurm_update error: Zero Bytes were transmitted or received",
    ],
)
def test_no_answer_from_slurmctld_is_not_a_refusal(words: str) -> None:
    with pytest.raises(Unavailable):
        client(RecordedCommands(said(words))).requeue(5)


def test_a_refusal_keeps_slurms_own_words() -> None:
    with pytest.raises(DeviceRefused, match="Invalid license specification for job 7"):
        client(RecordedCommands(said("Invalid license specification for job 7"))).update_job(7, licenses={"x": 1})


def test_a_question_without_an_answer_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="slurm_load_jobs error"):
        client(RecordedCommands(said("slurm_load_jobs error: whatever"))).jobs()


def test_a_shells_own_formats_do_not_reach_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    monkeypatch.setenv("SLURM_CONF", "/elsewhere/slurm.conf")
    commands = RecordedCommands(CommandResult(0, '{"nodes": []}', ""), CommandResult(0, '{"nodes": []}', ""))
    client(commands).nodes()
    client(commands, slurm_conf=Path("/ours/slurm.conf"), timeout_s=3.0).nodes()
    first, second = commands.environments
    assert "SQUEUE_FORMAT" not in first
    assert "SLURM_CLUSTERS" not in first
    assert (first["SLURM_TIME_FORMAT"], first["SLURM_CONF"]) == ("%s", "/elsewhere/slurm.conf")
    assert second["SLURM_CONF"] == "/ours/slurm.conf"
    assert commands.timeouts_s[1] == 3.0


def test_a_command_that_hangs_is_given_up() -> None:
    with pytest.raises(Unavailable, match=r"sleep did not answer within 0\.1 s"):
        run_command(["sleep", "30"], timeout_s=0.1, env={"PATH": "/usr/bin:/bin"})


def test_a_command_that_is_missing_is_a_matter_for_a_person() -> None:
    with pytest.raises(ConfigError, match="no_such_program"):
        run_command(["no_such_program"], timeout_s=1, env={"PATH": "/usr/bin:/bin"})


def test_bytes_that_are_no_text_are_survived() -> None:
    result = run_command(["printf", r"\377ok"], timeout_s=5, env={"PATH": "/usr/bin:/bin"})
    assert result.output.endswith("ok")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adapter", "rest"),
        ("timeout_s", 0),
        ("partition", ""),
    ],
)
def test_a_bad_value_in_the_config_is_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{key} = "):
        SlurmConfig(**{key: value})  # type: ignore[arg-type]
