"""control.json: what is asked reaches the run once, and nothing else does."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from training.errors import StorageError
from training.run.control import CONTROL_FILE, ControlFile, ControlRequest, write_control


def request(**changes: object) -> ControlRequest:
    return ControlRequest(**{"asked_at_unix_s": 100.0, **changes})  # type: ignore[arg-type]


def asked(folder: Path, text: bytes, mode: int = 0o600) -> ControlRequest | str | None:
    (folder / CONTROL_FILE).write_bytes(text)
    (folder / CONTROL_FILE).chmod(mode)
    return ControlFile(folder, not_before_unix_s=0.0).poll()


def test_a_request_is_told_once(tmp_path: Path):
    control = ControlFile(tmp_path, not_before_unix_s=0.0)
    assert control.poll() is None
    write_control(tmp_path, request(micro_sequences=2))
    assert control.poll() == request(micro_sequences=2)
    assert control.poll() is None
    write_control(tmp_path, request(micro_sequences=2))
    assert control.poll() == request(micro_sequences=2)


def test_the_file_is_the_owners_alone(tmp_path: Path):
    write_control(tmp_path, request(checkpoint_now=True))
    assert stat.S_IMODE((tmp_path / CONTROL_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [CONTROL_FILE]


def test_a_request_for_an_earlier_run_is_not_heard(tmp_path: Path):
    write_control(tmp_path, request(micro_sequences=2))
    assert ControlFile(tmp_path, not_before_unix_s=100.5).poll() is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "Expecting value"),
        (b"\xff", "codec can't decode"),
        (b"[1]", "must hold an object"),
        (b"{}", "asked_at_unix_s = None: must be a number"),
        (b'{"asked_at_unix_s": 1, "micro_sequences": "2"}', "micro_sequences = '2': must be a whole number"),
        (b'{"asked_at_unix_s": 1, "micro_sequences": true}', "micro_sequences = True: must be a whole number"),
        (b'{"asked_at_unix_s": 1, "ramp_held": 1}', "ramp_held = 1: must be true or false"),
        (b'{"asked_at_unix_s": 1, "checkpoint": true}', "unknown key 'checkpoint'; known are asked_at_unix_s"),
        (b"[" * 60000, "recursion"),
    ],
)
def test_garbage_is_ignored_in_one_line(tmp_path: Path, text: bytes, words: str):
    found = asked(tmp_path, text)
    assert isinstance(found, str)
    assert words in found
    assert f"{tmp_path}/control.json is ignored: " in found
    assert "\n" not in found


def test_garbage_is_told_once(tmp_path: Path):
    (tmp_path / CONTROL_FILE).write_text("{")
    (tmp_path / CONTROL_FILE).chmod(0o600)
    control = ControlFile(tmp_path, not_before_unix_s=0.0)
    assert isinstance(control.poll(), str)
    assert control.poll() is None


def test_a_file_that_others_may_write_is_ignored(tmp_path: Path):
    found = asked(tmp_path, json.dumps({"asked_at_unix_s": 1}).encode(), mode=0o666)
    assert isinstance(found, str)
    assert found.endswith("others have access (mode 666); must be 600")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_ignored(tmp_path: Path):
    write_control(tmp_path, request())
    os.chown(tmp_path / CONTROL_FILE, 12345, 12345)
    found = ControlFile(tmp_path, not_before_unix_s=0.0).poll()
    assert isinstance(found, str)
    assert "belongs to user 12345" in found


def test_a_link_and_a_pipe_are_ignored(tmp_path: Path):
    (tmp_path / "elsewhere").write_text("{}")
    (tmp_path / CONTROL_FILE).symlink_to("elsewhere")
    control = ControlFile(tmp_path, not_before_unix_s=0.0)
    assert isinstance(control.poll(), str)
    assert control.poll() is None
    (tmp_path / CONTROL_FILE).unlink()
    os.mkfifo(tmp_path / CONTROL_FILE, 0o600)
    found = control.poll()
    assert isinstance(found, str)
    assert found.endswith("not a regular file")


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path):
    with pytest.raises(StorageError, match=r"nowhere/control\.json: No such file or directory$"):
        write_control(tmp_path / "nowhere", request())
