"""What a development cluster writes, and what it refuses, before any daemon runs."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from slurm_power.cli.cluster import cluster
from slurm_power.errors import ConfigError, NotPermitted
from slurm_power.testing.cluster import ClusterLayout, ClusterSettings, DevCluster, requirements
from slurm_power.testing.cluster.ports import all_free, free_ports
from slurm_power.testing.cluster.record import ClusterRecord, read_record, write_record
from slurm_power.testing.cluster.slurm_conf import ConfInputs, gres_conf, plugstack_conf, site_lua, slurm_conf

LAYOUT = ClusterLayout(Path("/d"))


def conf(settings: ClusterSettings, *, lua: bool = True) -> list[str]:
    inputs = ConfInputs(
        layout=LAYOUT,
        settings=settings,
        hostname="host",
        ports=list(range(20000, 20001 + settings.node_count)),
        job_submit_lua=lua,
        spank_library=None,
    )
    return slurm_conf(inputs).splitlines()


def test_every_path_lies_inside_the_directory() -> None:
    paths = [word for line in conf(ClusterSettings()) for word in line.replace("=", " ").split() if word[0] == "/"]
    assert [path for path in paths if not path.startswith("/d/") and path != "/bin/true"] == []


def test_the_pool_is_what_all_nodes_can_draw_together() -> None:
    assert "Licenses=watts:13200,firm_watts:13200" in conf(ClusterSettings())
    assert "Licenses=watts:5000,firm_watts:5000" in conf(ClusterSettings(licensed_watts=5000))


def test_nodes_share_the_host_and_differ_by_port() -> None:
    assert (
        "NodeName=n[1-4] NodeHostname=host NodeAddr=127.0.0.1 Port=[20001-20004] CPUs=32 RealMemory=32000 "
        "Gres=gpu:4 State=UNKNOWN"
    ) in conf(ClusterSettings())


def test_a_cluster_without_gpus_names_none() -> None:
    settings = ClusterSettings(node_count=1, gpus_per_node=0)
    assert not any("gpu" in line.lower() for line in conf(settings))
    assert gres_conf(LAYOUT, settings) == ""


def test_the_plugin_is_optional_and_knows_each_nodes_socket() -> None:
    line = plugstack_conf(LAYOUT, Path("/p/slurm_power.so"))
    assert line.startswith("optional /p/slurm_power.so agent_socket=/d/nodes/%n/agent.sock min_cap=200 max_cap=700")


def test_a_job_that_asks_for_it_by_its_exit_code_is_requeued() -> None:
    assert "RequeueExit=75" in conf(ClusterSettings())


def test_submissions_are_left_alone_without_the_script() -> None:
    assert "JobSubmitPlugins=lua" in conf(ClusterSettings())
    assert "JobSubmitPlugins=lua" not in conf(ClusterSettings(), lua=False)
    assert "max_watts = 13200," in site_lua(ClusterSettings())


@pytest.mark.parametrize("directory", ["relative", "/with space", "/quo'te", "/" + "x" * 100])
def test_a_directory_that_slurm_cannot_use_is_refused(directory: str) -> None:
    with pytest.raises(ConfigError, match=r"^directory = "):
        ClusterLayout(Path(directory))


@pytest.mark.parametrize(("key", "value"), [("node_count", 0), ("node_count", 65), ("gpus_per_node", -1)])
def test_sizes_have_limits(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"^{key} = {value}"):
        ClusterSettings(**{key: value})  # type: ignore[arg-type]


def test_others_may_pass_through_but_not_write(tmp_path: Path) -> None:
    layout = ClusterLayout(tmp_path / "c")
    layout.create(["n1"])
    assert layout.node("n1").stat().st_mode & 0o777 == 0o755
    assert layout.state.stat().st_mode & 0o777 == 0o700
    assert layout.jobs.stat().st_mode & 0o7777 == 0o1777


def test_a_parent_that_is_closed_to_others_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    one = DevCluster(closed / "c")
    # pytest's own folders may be closed as well: the outermost one is named.
    assert one.layout.closed_parent() in {closed, *closed.parents}
    assert "chmod o+x" in one.advice()[1]


def test_ports_in_use_are_not_chosen() -> None:
    ports = free_ports(3)
    assert all_free(ports)
    with socket.socket() as taken:
        taken.bind(("", ports[1]))
        taken.listen()
        assert not all_free(ports)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = ClusterRecord(ClusterSettings(node_count=2), [20000, 20001, 20002])
    write_record(tmp_path / "cluster.json", record)
    assert read_record(tmp_path / "cluster.json") == record
    assert read_record(tmp_path / "none.json") is None


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text('{"settings": {"colour": "red"}, "ports": []}')
    with pytest.raises(ConfigError, match="not a record"):
        read_record(tmp_path / "cluster.json")


def test_missing_packages_are_named_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(
        ConfigError, match="apt-get install --no-install-recommends munge slurm-client slurmctld slurmd"
    ):
        requirements.check_machine()


def test_without_root_there_is_one_clear_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: f"/usr/sbin/{name}")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NotPermitted, match="needs root"):
        requirements.check_machine()


def test_the_status_of_a_cluster_that_never_ran_is_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(cluster, ["status", "--dir", str(tmp_path), "--json"], catch_exceptions=False)
    assert json.loads(done.output)["daemons"] == {}
    done = CliRunner().invoke(cluster, ["down", "--dir", str(tmp_path)], catch_exceptions=False)
    assert done.output == f"nothing runs in {tmp_path}\n"


def test_logs_of_an_unknown_daemon_are_a_usage_matter(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    (log / "slurmctld.log").write_text("line\n")
    with pytest.raises(ConfigError, match=r"daemon = nosuch: must be one of slurmctld"):
        CliRunner().invoke(cluster, ["logs", "nosuch", "--dir", str(tmp_path)], catch_exceptions=False)
