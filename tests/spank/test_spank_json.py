"""The plugin's lines are valid JSON whatever the environment holds."""

from __future__ import annotations

import ctypes
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


class Json(ctypes.Structure):
    """struct json of json.h."""

    _fields_ = (
        ("text", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("overflow", ctypes.c_bool),
        ("needs_comma", ctypes.c_bool),
    )


def write(parts: ctypes.CDLL, value: bytes, *, size: int) -> bytes | None:
    parts.json_end_line.restype = ctypes.c_bool
    buffer = ctypes.create_string_buffer(size)
    writer = Json()
    at = ctypes.byref(writer)
    parts.json_begin(at, buffer, ctypes.c_size_t(size))
    parts.json_open(at, None)
    parts.json_unsigned(at, b"job_id", ctypes.c_ulong(4_294_967_295))
    parts.json_open(at, b"options")
    parts.json_string(at, b"value", value)
    parts.json_close(at)
    parts.json_string(at, b"node", b"n1")
    parts.json_close(at)
    return buffer.value if parts.json_end_line(at) else None


@settings(deadline=None)
@given(value=st.binary(max_size=200).map(lambda text: text.replace(b"\0", b"")))
def test_any_bytes_come_back(plugin_parts: ctypes.CDLL, value: bytes) -> None:
    line = write(plugin_parts, value, size=4096)
    assert line is not None
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"job_id": 4_294_967_295, "options": {"value": value.decode("latin-1")}, "node": "n1"}


@pytest.mark.parametrize("size", [1, 2, 20, 60])
def test_a_line_that_does_not_fit_is_not_sent(plugin_parts: ctypes.CDLL, size: int) -> None:
    assert write(plugin_parts, b"x" * 100, size=size) is None
