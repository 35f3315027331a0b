"""What is signed: every changed, added or removed value is told by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from slurm_power.errors import ConfigError
from slurm_power.sla.canonical import canonical, leaf_hashes, read_json, rounded
from slurm_power.sla.statement import differences, sample_differences, statement

REPORT: dict[str, Any] = {
    "verdict": "pass",
    "samples_sha256": "aa",
    "gpus": [
        {"uuid": "GPU-a", "clock": {"mean_mhz": 1980.0, "a/b": None}, "data": {"samples": 5, "samples_sha256": "x"}}
    ],
}


def changed() -> dict[str, Any]:
    return copy.deepcopy(REPORT)


def test_an_untouched_report_has_no_difference() -> None:
    assert differences(read_json(canonical(REPORT).decode()), statement(REPORT)) == []


def test_a_changed_number_is_told_by_its_place() -> None:
    report = changed()
    report["gpus"][0]["clock"]["mean_mhz"] = 1979.0
    assert differences(report, statement(REPORT)) == ["/gpus/0/clock/mean_mhz: changed after signing"]


def test_what_was_added_or_taken_out_is_told() -> None:
    report = changed()
    report["gpus"][0]["clock"]["max_mhz"] = 1.0
    del report["verdict"]
    assert differences(report, statement(REPORT)) == [
        "/gpus/0/clock/max_mhz: added after signing",
        "/verdict: was taken out after signing",
    ]


def test_a_null_that_became_a_number_and_a_number_that_became_a_text_are_changes() -> None:
    report = changed()
    report["gpus"][0]["clock"] = {"mean_mhz": "1980.0", "a/b": 0}
    assert len(differences(report, statement(REPORT))) == 2


def test_an_emptied_list_is_not_the_same() -> None:
    report = changed()
    report["gpus"] = []
    assert "/gpus: added after signing" in differences(report, statement(REPORT))


def test_readings_that_are_not_the_same_are_told_by_gpu() -> None:
    present = changed()
    present["samples_sha256"] = "bb"
    present["gpus"][0]["data"] = {"samples": 4, "samples_sha256": "y"}
    assert sample_differences(REPORT, present) == [
        "GPU-a: the store's readings are not the same (4 readings now, 5 when the report was made)"
    ]
    assert sample_differences(REPORT, {**present, "gpus": []}) == ["GPU-a: the store has no readings of it any more"]
    assert sample_differences(REPORT, changed()) == []


def test_pointers_keep_odd_keys_apart() -> None:
    assert set(leaf_hashes({"a/b": 1, "a": {"b": 1}, "a~1b": 1})) == {"/a~1b", "/a/b", "/a~01b"}


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a": NaN}', '{"a": Infinity}', "[1]", "{", '{"x": {"a": 1, "a": 1}}']
)
def test_json_that_could_be_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_json(text)


def test_what_is_not_finite_is_unknown_and_numbers_have_six_digits() -> None:
    assert rounded({"a": float("nan"), "b": (1 / 3, 2), "c": True}) == {"a": None, "b": [0.333333, 2], "c": True}
