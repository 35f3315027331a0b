"""plugstack.conf's arguments: strict, and the node's name can lead the socket's path nowhere else."""

from __future__ import annotations

import ctypes

import pytest


class Settings(ctypes.Structure):
    """struct settings of settings.h."""

    _fields_ = (
        ("min_cap_watts", ctypes.c_long),
        ("max_cap_watts", ctypes.c_long),
        ("min_clock_mhz", ctypes.c_long),
        ("max_clock_mhz", ctypes.c_long),
        ("deadline_ms", ctypes.c_long),
        ("agent_socket", ctypes.c_char * 256),
    )


def read(parts: ctypes.CDLL, *arguments: str) -> tuple[Settings, str | None]:
    parts.settings_read.restype = ctypes.c_char_p
    settings = Settings()
    argv = (ctypes.c_char_p * len(arguments))(*(argument.encode() for argument in arguments))
    unread = parts.settings_read(ctypes.byref(settings), len(arguments), argv)
    return settings, unread.decode() if unread else None


def socket_path(parts: ctypes.CDLL, settings: Settings, node: str, size: int = 256) -> str | None:
    parts.settings_socket_path.restype = ctypes.c_bool
    path = ctypes.create_string_buffer(size)
    fine = parts.settings_socket_path(ctypes.byref(settings), node.encode(), path, ctypes.c_size_t(size))
    return path.value.decode() if fine else None


def test_every_setting_can_be_given(plugin_parts: ctypes.CDLL) -> None:
    settings, unread = read(
        plugin_parts,
        "min_cap=100",
        "max_cap=400",
        "min_clock=300",
        "max_clock=1410",
        "deadline_ms=50",
        "agent_socket=/a",
    )
    assert unread is None
    assert (settings.min_cap_watts, settings.max_cap_watts) == (100, 400)
    assert (settings.min_clock_mhz, settings.max_clock_mhz) == (300, 1410)
    assert (settings.deadline_ms, settings.agent_socket) == (50, b"/a")


@pytest.mark.parametrize(
    "argument",
    [
        *["min_cap", "min_cap=", "min_cap=-1", "min_cap=2x", "maxcap=3", "deadline_ms=0", "deadline_ms=901"],
        *["agent_socket=relative", "agent_socket=" + "/x" * 200],
    ],
)
def test_an_unreadable_argument_is_named_and_the_others_count(plugin_parts: ctypes.CDLL, argument: str) -> None:
    defaults, _ = read(plugin_parts)
    settings, unread = read(plugin_parts, argument, "max_cap=400")
    assert unread == argument
    assert settings.max_cap_watts == 400
    assert settings.min_cap_watts == defaults.min_cap_watts
    assert settings.deadline_ms == defaults.deadline_ms
    assert settings.agent_socket == defaults.agent_socket


def test_the_nodes_name_enters_the_path(plugin_parts: ctypes.CDLL) -> None:
    settings, _ = read(plugin_parts, "agent_socket=/d/%n/x-%n.sock")
    assert socket_path(plugin_parts, settings, "n-1.a_b") == "/d/n-1.a_b/x-n-1.a_b.sock"


@pytest.mark.parametrize("node", ["", "..", ".hidden", "a/b", "a b", "n1\n", "%n", "ñ"])
def test_a_name_that_is_no_nodes_name_gives_no_path(plugin_parts: ctypes.CDLL, node: str) -> None:
    settings, _ = read(plugin_parts, "agent_socket=/d/%n/agent.sock")
    assert socket_path(plugin_parts, settings, node) is None


def test_a_path_without_the_name_needs_none(plugin_parts: ctypes.CDLL) -> None:
    settings, _ = read(plugin_parts, "agent_socket=/run/agent.sock")
    assert socket_path(plugin_parts, settings, "") == "/run/agent.sock"


def test_a_path_that_does_not_fit_is_none(plugin_parts: ctypes.CDLL) -> None:
    settings, _ = read(plugin_parts, "agent_socket=/d/%n")
    assert socket_path(plugin_parts, settings, "n" * 61, size=64) is None
    assert socket_path(plugin_parts, settings, "n" * 60, size=64) == "/d/" + "n" * 60
