"""Slurm's hostlists, as `scontrol show hostnames` writes them out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_wrappers.training.hostlist import MAX_HOSTS, expand, first
from training.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("n1", "n1"),
        ("n[1-3,7],gpu-01", "n1 n2 n3 n7 gpu-01"),
        ("gpu[009-011]", "gpu009 gpu010 gpu011"),
        ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
        ("n[1-2]-ib", "n1-ib n2-ib"),
        ("a,b,c", "a b c"),
        ("10.0.0.[8-10]", "10.0.0.8 10.0.0.9 10.0.0.10"),
    ],
)
def test_a_hostlist_names_its_hosts_in_order(text: str, hosts: str) -> None:
    assert expand(text) == hosts.split()
    assert first(text) == hosts.split()[0]


@pytest.mark.parametrize(
    "text", ["", ",", "n[1-", "n[]", "n]1[", "n[3-1]", "n[a-b]", "n[1-2", "n[1,]", "n[[1]]", "n[0-99999999]", "a,,b"]
)
def test_what_is_not_a_hostlist_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^hostlist = [^\n]*$"):
        expand(text)


def test_a_range_cannot_fill_the_memory() -> None:
    with pytest.raises(ConfigError, match=f"{MAX_HOSTS} hosts"):
        expand("a[1-1000]b[1-1000]")


@given(st.text(alphabet="n1-9,[]", max_size=30))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        hosts = expand(text)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert all(hosts)
