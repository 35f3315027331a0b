"""Endpoint files: who owns a server finds it, nobody else reads its token, what a killed one left does not count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from job_wrappers.serving.errors import ConfigError
from job_wrappers.serving.launch.endpoint import (
    Endpoint,
    endpoint_folder,
    find_endpoint,
    own_token,
    prepare_folder,
    read_token,
    registered,
    server_name,
)

HERE = Endpoint(
    name="7",
    url="http://127.0.0.1:1",
    unix_socket="/tmp/7.sock",
    token_file="/tmp/7.token",
    node=os.uname().nodename,
    pid=os.getpid(),
    models=("large", "small"),
    public_name="chat",
    started_unix_s=1.7e9,
)


def test_a_server_is_found_while_it_runs_and_not_afterwards(tmp_path: Path) -> None:
    with registered(HERE, tmp_path) as path:
        assert path.stat().st_mode & 0o777 == 0o600
        assert find_endpoint(None, tmp_path) == HERE
        assert find_endpoint("7", tmp_path) == HERE
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="knows none"):
        find_endpoint("7", tmp_path)


def test_of_several_servers_one_must_be_named(tmp_path: Path) -> None:
    other = replace(HERE, name="8", public_name="code", node="n2")
    with registered(HERE, tmp_path), registered(other, tmp_path):
        assert find_endpoint("8", tmp_path) == other
        with pytest.raises(ConfigError, match=r"7 \(chat on .*\), 8 \(code on n2\); name one with --job"):
            find_endpoint(None, tmp_path)
        with pytest.raises(ConfigError, match="knows 7"):
            find_endpoint("9", tmp_path)


def test_what_a_killed_server_left_here_does_not_count_and_the_next_server_takes_it_away(tmp_path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = replace(HERE, name="6", pid=int(gone.stdout))
    (tmp_path / "6.token").touch()
    (tmp_path / "6.json").write_text(json.dumps(asdict(dead)))
    (tmp_path / "5.json").write_text(json.dumps(asdict(replace(dead, name="5", node="n2"))))
    assert find_endpoint(None, tmp_path).name == "5", "of another node nothing is known"
    with registered(HERE, tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["5.json", "7.json"]


def test_a_file_of_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "5.json").write_text('{"models": [], "surprise": 1}')
    with pytest.raises(ConfigError, match=r"5\.json: cannot be read"):
        find_endpoint("5", tmp_path)


def test_a_job_is_known_by_its_number_and_a_second_step_by_its_own_too() -> None:
    assert server_name({"SLURM_JOB_ID": "12"}) == "12"
    assert server_name({"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}) == "12"
    assert server_name({"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "2"}) == "12.2"
    assert server_name({}) == f"pid-{os.getpid()}"


def test_endpoints_lie_in_the_home_which_all_nodes_see_unless_the_variable_says_otherwise() -> None:
    assert endpoint_folder({"HOME": "/home/a"}) == Path("/home/a/.local/state/slurm-power-serve")
    assert endpoint_folder({"HOME": "/home/a", "SLURM_POWER_SERVE_DIR": "/shared"}) == Path("/shared")


def test_a_folder_is_the_owners_alone_and_somebody_elses_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a" / "b"
    prepare_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    monkeypatch.setattr("os.getuid", lambda: 424242)
    with pytest.raises(ConfigError, match="belongs to user"):
        prepare_folder(folder)


def test_a_token_of_its_own_is_random_and_gone_with_the_server(tmp_path: Path) -> None:
    with own_token(None, tmp_path, "7") as path, own_token(None, tmp_path, "8") as other:
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(read_token(path)) > 40
        assert read_token(path) != read_token(other)
    assert list(tmp_path.iterdir()) == []


def test_a_given_token_must_be_secret_and_not_empty(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("of-a-person\n")
    path.chmod(0o640)
    with own_token(path, tmp_path, "7") as given, pytest.raises(ConfigError, match="others may read it; chmod 600"):
        read_token(given)
    path.chmod(0o600)
    assert read_token(path) == "of-a-person"
    path.write_text(" \n")
    with pytest.raises(ConfigError, match="is empty"):
        read_token(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_token(tmp_path / "none")
