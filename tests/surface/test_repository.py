"""The repository's own promises: its layout, its commands, and a set-up that says clearly what it lacks."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

from training.run.config_text import example_config

ROOT = Path(__file__).resolve().parents[2]
LAYOUT = [
    *(
        "setup.cfg",
        "pyproject.toml",
        "Makefile",
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "LICENSE",
        ".ci/run",
    ),
    *("slurm_power", "job_wrappers", "spank", "training", "tests", "etc"),
    *("etc/job_submit.lua", "etc/dev/setup.sh", "etc/systemd/slurm-powerd.service"),
]


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _console_scripts() -> dict[str, str]:
    lines = _setup_cfg()["options.entry_points"]["console_scripts"].split("\n")
    return {name.strip(): target.strip() for name, _, target in (line.partition("=") for line in lines if line)}


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", LAYOUT)
def test_the_layout_is_the_agreed_one(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "target"), _console_scripts().items())
def test_every_console_script_leads_to_a_function(name: str, target: str) -> None:
    module, _, function = target.partition(":")
    assert callable(getattr(import_module(module), function)), name


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_of_the_pages_exists(page: str) -> None:
    named = set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named, f"{page} names no make command"
    assert named <= _make_targets()


def test_ci_runs_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_example_training_is_the_one_that_the_command_prints() -> None:
    assert (ROOT / "etc/examples/train.toml").read_text() == example_config()


def test_the_licence_is_the_one_the_metadata_names() -> None:
    assert _setup_cfg()["metadata"]["license"] == "GPL-2.0-or-later"
    assert "GNU GENERAL PUBLIC LICENSE\n                       Version 2, June 1991" in (ROOT / "LICENSE").read_text()


def test_every_c_file_names_the_licence_in_its_first_line() -> None:
    files = [*ROOT.glob("spank/*.[ch]"), *ROOT.glob("slurm_power/testing/**/*.[ch]")]
    without = [
        str(file.relative_to(ROOT))
        for file in files
        if "SPDX-License-Identifier: GPL-2.0-or-later" not in file.read_text().partition("\n")[0]
    ]
    assert files
    assert without == []


@pytest.mark.parametrize("shell_file", ["etc/dev/setup.sh", ".ci/run"])
def test_shell_files_parse_and_are_executable(shell_file: str) -> None:
    assert os.access(ROOT / shell_file, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / shell_file)], check=True)


class BareMachine:
    """A PATH with nothing of ours on it but a stand-in for apt-get that writes down what it is asked."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        self.asked = directory / "asked"
        self.policy = directory / "policy-rc.d"
        for tool in ("bash", "dirname", "env", "tee", "rm", "chmod", "cat"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))
        self.stand_in("ldconfig", "true")
        self.stand_in(
            "apt-get", f'echo "$@" >> {self.asked}; [ -x {self.policy} ] && echo policy >> {self.asked}; true'
        )
        script = (ROOT / "etc/dev/setup.sh").read_text().replace('PATH="$PATH:/usr/sbin:/sbin"\n', "")
        self.setup = directory / "tree/etc/dev/setup.sh"
        self.setup.parent.mkdir(parents=True)
        self.setup.write_text(script)

    def stand_in(self, name: str, script: str) -> None:
        file = self.bin / name
        file.write_text(f"#!{shutil.which('bash')}\n{script}\n")
        file.chmod(0o755)

    def run(self, kind: str, *, uid: int) -> subprocess.CompletedProcess[str]:
        self.stand_in("id", f"echo {uid}")
        environment = {"PATH": str(self.bin), "POLICY_RC_D": str(self.policy)}
        argv = [str(shutil.which("bash")), str(self.setup), "packages", kind]
        return subprocess.run(argv, env=environment, capture_output=True, text=True)


CLUSTER_PACKAGES = (
    "gcc libc6-dev python3-venv slurmctld slurmd slurm-client libslurm-dev munge libmunge2 lua5.3 influxdb nginx-light "
    "snmpd slurmdbd mariadb-server"
)
if "\nID=debian" in Path("/etc/os-release").read_text():
    CLUSTER_PACKAGES += " chromium chromium-driver"
    CLUSTER_PACKAGES += "" if Path("/usr/share/fonts/truetype/dejavu").exists() else " fonts-dejavu-core"


@pytest.fixture
def machine(tmp_path: Path) -> BareMachine:
    return BareMachine(tmp_path)


def test_without_root_the_set_up_says_in_one_line_what_to_install(machine: BareMachine) -> None:
    done = machine.run("cluster", uid=1000)
    assert done.returncode == 1
    assert done.stderr == (
        f"setup: missing packages; as root run: apt-get install --no-install-recommends {CLUSTER_PACKAGES}\n"
    )
    assert not machine.asked.exists()


def test_checking_needs_no_slurm(machine: BareMachine) -> None:
    assert "slurm" not in machine.run("base", uid=1000).stderr


def test_root_installs_the_missing_packages_and_no_service_starts_meanwhile(machine: BareMachine) -> None:
    done = machine.run("cluster", uid=0)
    assert done.returncode == 0, done.stderr
    asked = machine.asked.read_text().splitlines()
    assert asked[0].startswith("-qq -y install --no-install-recommends gcc libc6-dev ")
    assert asked[1] == "policy"
    assert not machine.policy.exists(), "afterwards the machine's own rules hold again"


def test_an_existing_service_policy_is_left_alone(machine: BareMachine) -> None:
    machine.policy.write_text("#!/bin/sh\nexit 0\n")
    machine.run("base", uid=0)
    assert machine.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_the_services_of_new_packages_are_not_enabled_at_boot(machine: BareMachine) -> None:
    machine.stand_in("systemctl", f'echo systemctl "$@" >> {machine.asked}')
    machine.run("cluster", uid=0)
    disabled = [line.split()[-1] for line in machine.asked.read_text().splitlines() if "disable" in line]
    names = ("slurmctld", "slurmd", "munge", "influxdb", "nginx", "snmpd", "slurmdbd", "mariadb")
    assert disabled == [f"{name}.service" for name in names]


def test_stale_package_lists_are_refreshed_once(machine: BareMachine) -> None:
    machine.stand_in("apt-get", f'echo "$@" >> {machine.asked}; [[ "$*" == *update* ]] || [ -e {machine.asked}.ok ]')
    done = machine.run("base", uid=0)
    assert done.returncode == 1
    assert "apt-get could not install: gcc" in done.stderr
    kinds = ["update" if "update" in line else "install" for line in machine.asked.read_text().splitlines()]
    assert kinds == ["install", "update", "install"]
    assert not machine.policy.exists()
