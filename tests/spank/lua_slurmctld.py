"""job_submit.lua in a Lua interpreter of its own, asked as slurmctld asks it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

DRIVER = Path(__file__).with_name("drive_job_submit.lua")
SCRIPT = Path(__file__).resolve().parents[2] / "etc" / "job_submit.lua"

NO_VAL = 4294967294
NO_VAL16 = 65534

Value = str | int | float | bool | Sequence["Value"] | Mapping[str, "Value"] | Mapping[int, "Value"]

# What sbatch leaves unset, as Slurm shows it to Lua.
UNSET: dict[str, Value] = {
    "min_nodes": NO_VAL,
    "max_nodes": NO_VAL,
    "num_tasks": NO_VAL,
    "min_cpus": NO_VAL,
    "ntasks_per_node": NO_VAL16,
    "ntasks_per_tres": NO_VAL16,
    "sockets_per_node": NO_VAL16,
    "shared": NO_VAL16,
}


@dataclass(slots=True)
class Answer:
    rc: str = ""
    licenses: str | None = None
    admin_comment: str | None = None
    info: list[str] = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    user: list[str] = field(default_factory=list)


class LuaSlurmctld:
    def __init__(self, directory: Path, *, site: str | None = None) -> None:
        """Copies the script into `directory`, beside the text of slurm_power_site.lua."""
        script = directory / "job_submit.lua"
        script.write_text(SCRIPT.read_text())
        if site is not None:
            (directory / "slurm_power_site.lua").write_text(site)
        command = ["lua5.3", str(DRIVER), str(script)]
        self._lua = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.at_load = self._read_answer()

    def __enter__(self) -> LuaSlurmctld:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lua.communicate(timeout=30)

    def submit(self, job_desc: Mapping[str, Value], *, uid: int = 1000) -> Answer:
        parts = {"main": {"total_cpus": 32, "total_nodes": 4, "flag_default": 1}}
        return self._ask({"call": "submit", "job_desc": job_desc, "part_list": parts, "uid": uid})

    def modify(self, job_desc: Mapping[str, Value], job_rec: Mapping[str, Value], *, uid: int = 1000) -> Answer:
        rec = {"job_id": 7, "job_state": 0, **job_rec}
        return self._ask({"call": "modify", "job_desc": job_desc, "job_rec": rec, "part_list": {}, "uid": uid})

    def _ask(self, request: Mapping[str, Value]) -> Answer:
        assert self._lua.stdin is not None
        self._lua.stdin.write(_literal(request) + "\n")
        self._lua.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> Answer:
        assert self._lua.stdout is not None
        answer = Answer()
        while line := self._lua.stdout.readline().strip("\n"):
            what, _, hex_text = line.partition(" ")
            text = bytes.fromhex(hex_text).decode("latin-1")
            if what in ("info", "error", "user"):
                getattr(answer, what).append(text)
            else:
                setattr(answer, what, text)
        assert answer.rc, "job_submit.lua ended"
        return answer


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(float(value))  # Slurm pushes every number as a float
    if isinstance(value, str):
        return '"' + "".join(f"\\{byte:03}" for byte in value.encode("utf-8", "surrogateescape")) + '"'
    if isinstance(value, Mapping):
        items = (f"[{_literal(k) if isinstance(k, str) else k}] = {_literal(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    return "{" + ", ".join(_literal(item) for item in value) + "}"
