"""One truth for many processes: other users, dead and stopped ones, and one killed while it held the lock."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_power.errors import DeviceGone, Unavailable
from slurm_power.testing.nvml_emulator.emulator import ENVIRONMENT, EmulatedNode, build_library

NOBODY_UID = 65534
Start = Callable[..., subprocess.Popen[str]]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[EmulatedNode]:
    with EmulatedNode.create(tmp_path / "n1" / "gpus.state") as opened:
        yield opened


@pytest.fixture
def start(node: EmulatedNode) -> Iterator[Start]:
    """Run Python text in a child that sees the node as NVML does; `pass_fds`, `preexec_fn` go to Popen."""
    started: list[subprocess.Popen[str]] = []

    def start_child(text: str, **more: object) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(build_library()),
            ENVIRONMENT: str(node.state_file),
        }
        child: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(text)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            **more,  # type: ignore[call-overload]
        )
        started.append(child)
        return child

    yield start_child
    for child in started:
        child.kill()
        child.communicate()


def settled(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true within a generous time."""
    deadline_s = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.05)
    return True


OPEN_NODE = """
    import os, sys, time
    from slurm_power.testing.nvml_emulator.emulator import EmulatedNode
    node = EmulatedNode.open_from_environment()
    uuid = node.gpu_uuids()[0]
"""

OPEN_LOAD = (
    OPEN_NODE
    + """
    node.open_load(uuid, pid=os.getpid(), utilisation_fraction=0.9)
    print("ready", flush=True)
    time.sleep(600)
"""
)


def test_pynvml_finds_the_library_by_name_and_sees_what_the_other_process_does(
    node: EmulatedNode, start: Start
) -> None:
    node.set_found_cap(node.gpu_uuids()[2], 333)
    child = start("""
        import pynvml
        pynvml.nvmlInit()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            print(pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    """)
    output, _ = child.communicate(timeout=60)
    limits = dict(line.split() for line in output.splitlines())
    assert list(limits) == node.gpu_uuids()
    assert list(limits.values()) == ["700000", "700000", "333000", "700000"]


def test_a_load_of_a_killed_process_is_dropped(node: EmulatedNode, start: Start) -> None:
    child = start(OPEN_LOAD)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    uuid = node.gpu_uuids()[0]
    assert node.gpu_draw_watts(uuid) > 600
    child.kill()
    child.wait()
    assert settled(lambda: node.gpu_draw_watts(uuid) == 70)
    with pytest.raises(DeviceGone):
        node.work_done(uuid, pid=child.pid)


def test_a_stopped_process_uses_nothing_until_it_goes_on(node: EmulatedNode, start: Start) -> None:
    child = start(OPEN_LOAD)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    uuid = node.gpu_uuids()[0]
    child.send_signal(signal.SIGSTOP)
    assert settled(lambda: node.gpu_draw_watts(uuid) == 70)
    stopped_at_s = node.work_done(uuid, pid=child.pid)
    node.pass_time(100)
    assert node.work_done(uuid, pid=child.pid) == stopped_at_s
    child.send_signal(signal.SIGCONT)
    assert settled(lambda: node.gpu_draw_watts(uuid) > 600)


def test_a_process_killed_while_it_holds_the_lock_blocks_nobody(node: EmulatedNode, start: Start) -> None:
    child = start(
        OPEN_NODE
        + """
    node.hold_lock()
    print("held", flush=True)
    time.sleep(600)
    """
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.kill()
    child.wait()
    for _ in range(3):  # the recovered lock works again and again
        assert node.gpu_draw_watts(node.gpu_uuids()[0]) == 70


def test_a_live_holder_that_never_lets_go_is_reported_instead_of_waited_for(node: EmulatedNode, start: Start) -> None:
    child = start(
        OPEN_NODE
        + """
    node.hold_lock()
    print("held", flush=True)
    time.sleep(600)
    """
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(Unavailable, match="lock"):
        node.gpu_draw_watts(node.gpu_uuids()[0])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter; tmp_path is private."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


AS_NOBODY = f"""
    from slurm_power.testing.nvml_emulator import emulator, library
    library.load_library()  # as root, who can read this checkout wherever it lies
    os.setuid({NOBODY_UID})
"""


@as_root
def test_an_unprivileged_job_can_register_its_load(open_folder: Path, start: Start) -> None:
    with EmulatedNode.create(open_folder / "gpus.state") as node:
        child = start(
            "    import os, time"
            + AS_NOBODY
            + f"""
    from pathlib import Path
    node = emulator.EmulatedNode.open(Path("{node.state_file}"))
    node.open_load(node.gpu_uuids()[0], pid=os.getpid(), utilisation_fraction=0.9)
    print(os.geteuid(), flush=True)
    time.sleep(600)
    """
        )
        assert child.stdout is not None
        assert child.stdout.readline() == f"{NOBODY_UID}\n"
        assert node.gpu_draw_watts(node.gpu_uuids()[0]) > 600


@as_root
def test_a_folder_that_a_user_may_not_enter_is_said_to_be_that(node: EmulatedNode, start: Start) -> None:
    node.state_file.parent.chmod(0o700)
    child = start(
        "    import os"
        + AS_NOBODY
        + """
    from slurm_power.errors import NotPermitted
    try:
        emulator.EmulatedNode.open_from_environment()
    except NotPermitted as error:
        print(error)
    """
    )
    output, _ = child.communicate(timeout=60)
    assert output == f"{node.state_file}: this user may not open the state file\n"


@as_root
def test_no_setter_answers_an_unprivileged_user(node: EmulatedNode, start: Start) -> None:
    child = start(f"""
        import os, pynvml
        pynvml.nvmlInit()
        os.setuid({NOBODY_UID})
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        for name, arguments in [
            ("nvmlDeviceSetPowerManagementLimit", [300000]),
            ("nvmlDeviceSetGpuLockedClocks", [345, 1200]),
            ("nvmlDeviceResetGpuLockedClocks", []),
        ]:
            try:
                getattr(pynvml, name)(handle, *arguments)
            except pynvml.NVMLError_NoPermission as error:
                print(error)
    """)
    output, _ = child.communicate(timeout=60)
    assert output.splitlines() == ["Insufficient Permissions"] * 3
    assert node.gpu_cap_watts(node.gpu_uuids()[0]) == 700
    assert node.locked_clock_mhz(node.gpu_uuids()[0]) is None


def test_many_processes_at_once_lose_no_load_and_no_energy(node: EmulatedNode, start: Start) -> None:
    children = [start(OPEN_LOAD.replace("0.9", "0.1")) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    assert node.gpu_utilisation_fraction(node.gpu_uuids()[0]) == pytest.approx(0.4)


def test_a_state_file_of_another_kind_is_refused(tmp_path: Path, node: EmulatedNode) -> None:
    broken = tmp_path / "broken.state"
    broken.write_bytes(b"\0" * node.state_file.stat().st_size)
    short = tmp_path / "short.state"
    short.write_bytes(b"hello")
    for path in (broken, short, tmp_path / "missing.state"):
        with pytest.raises(Unavailable, match=path.name):
            EmulatedNode.open(path)


def test_after_another_boot_limits_are_default_and_a_lock_left_behind_is_void(
    node: EmulatedNode, tmp_path: Path, start: Start
) -> None:
    node.set_found_cap(node.gpu_uuids()[0], 300)
    child = start(
        OPEN_NODE
        + """
    node.hold_lock()
    print("held", flush=True)
    time.sleep(600)
    """
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    image = node.state_file.read_bytes()  # as a power cut would leave it on the disk
    assert image.count(boot_id) == 1
    after_reboot = tmp_path / "after.state"
    after_reboot.write_bytes(image.replace(boot_id, b"0" * len(boot_id)))
    with EmulatedNode.open(after_reboot) as rebooted:
        assert rebooted.gpu_uuids() == node_uuids(image)
        assert rebooted.gpu_cap_watts(rebooted.gpu_uuids()[0]) == 700


def node_uuids(image: bytes) -> list[str]:
    return [found.decode() for found in re.findall(rb"GPU-[0-9a-f-]{36}", image)]
