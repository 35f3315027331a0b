"""Slurm's own notations."""

from __future__ import annotations

import pytest

from slurm_power.adapters.slurm_text import (
    checked_comment,
    checked_name,
    detail_gpu_count,
    expand_hosts,
    gpu_count,
    licenses_text,
    parse_licenses,
    release_of,
)
from slurm_power.errors import DeviceRefused, Unavailable


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("", ()),
        ("(null)", ()),
        ("n1", ("n1",)),
        ("n[1-3,7]", ("n1", "n2", "n3", "n7")),
        ("a[08-10],b,c[1]x", ("a08", "a09", "a10", "b", "c1x")),
    ],
)
def test_host_lists_are_written_out(text: str, hosts: tuple[str, ...]) -> None:
    assert expand_hosts(text) == hosts


@pytest.mark.parametrize("text", ["n[1-", "n[a-b]", "n[1-2", "n[1-9999999999]", "n[]", "n1]"])
def test_a_damaged_host_list_is_refused(text: str) -> None:
    with pytest.raises(Unavailable, match="unreadable host"):
        expand_hosts(text)


@pytest.mark.parametrize(
    ("text", "licenses"),
    [
        ("", {}),
        ("(null)", {}),
        ("watts:700", {"watts": 700}),
        ("watts:700,matlab,db@srv:2", {"watts": 700, "matlab": 1, "db@srv": 2}),
        ("a:1|b:2", {"a": 1, "b": 2}),
        ("watts=5", {"watts": 5}),
    ],
)
def test_licences_are_read(text: str, licenses: dict[str, int]) -> None:
    assert parse_licenses(text) == licenses


@pytest.mark.parametrize("text", ["watts:x", ":5", "watts:-1", ","])
def test_damaged_licences_are_refused(text: str) -> None:
    with pytest.raises(Unavailable, match="unreadable licences"):
        parse_licenses(text)


def test_licences_are_written_as_they_are_read() -> None:
    licenses = {"watts": 700, "firm_watts": 0}
    assert parse_licenses(licenses_text(licenses)) == licenses
    assert licenses_text({}) == ""


@pytest.mark.parametrize("name", ["watts:5,x", "a b", "", "x=y", "-n"])
def test_a_licence_name_that_could_say_more_is_refused(name: str) -> None:
    with pytest.raises(DeviceRefused):
        licenses_text({name: 1})


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", 0),
        ("(null)", 0),
        ("gres:gpu:2", 2),
        ("gres/gpu:2", 2),
        ("gres:gpu", 1),
        ("gpu:4", 4),
        ("gpu:h100:4(S:0-1)", 4),
        ("gpu:h100:2,gpu:a100:1,nic:3", 3),
        ("cpu=4,mem=1G,gres/gpu=4,gres/gpu:h100=4", 4),
        ("cpu=2,gres/gpu:h100=2", 2),
        ("gres:gpu:h100", 1),
        ("gres/gpumem=80G", 0),
    ],
)
def test_gpus_are_counted_in_every_spelling(text: str, gpus: int) -> None:
    assert gpu_count(text) == gpus


def test_the_gpus_of_a_running_job_are_summed_over_its_nodes() -> None:
    assert detail_gpu_count(["gpu:2(IDX:0-1)", "gpu:h100:1(IDX:3)"]) == 3


@pytest.mark.parametrize(
    ("text", "release"), [("slurm-wlm 22.05.8", (22, 5)), ("25.11.2", (25, 11)), ("slurm 26.05.0-rc1", (26, 5))]
)
def test_the_release_is_the_first_two_numbers(text: str, release: tuple[int, int]) -> None:
    assert release_of(text) == release


def test_a_version_without_numbers_is_refused() -> None:
    with pytest.raises(Unavailable):
        release_of("slurm")


def test_a_comment_may_hold_anything_printable() -> None:
    text = "a 'b' \"c\" = $(d) \\ é"
    assert checked_comment(text) == text


@pytest.mark.parametrize("name", ["", "x y", "-x", "a=b", "x\n", "x" * 65])
def test_a_reservation_name_is_one_plain_word(name: str) -> None:
    with pytest.raises(DeviceRefused):
        checked_name(name)
