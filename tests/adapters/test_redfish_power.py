"""Which number of a Redfish resource is the live power: shapes as several makers' services answer them."""

from __future__ import annotations

from typing import Any

import pytest

from slurm_power.adapters.redfish_power import live_watts
from slurm_power.errors import Unavailable

DELL_POWER = {
    "@odata.type": "#Power.v1_5_0.Power",
    "PowerControl": [
        {
            "@odata.id": "/redfish/v1/Chassis/System.Embedded.1/Power#/PowerControl/0",
            "MemberId": "PowerControl",
            "Name": "System Power Control",
            "PowerCapacityWatts": 1806,
            "PowerConsumedWatts": 412,
            "PowerLimit": {"CorrectionInMs": 0, "LimitException": "HardPowerOff", "LimitInWatts": None},
            "PowerMetrics": {"AverageConsumedWatts": 405, "IntervalInMin": 1, "MaxConsumedWatts": 690},
        }
    ],
    "PowerSupplies": [{"MemberId": "PSU.Slot.1", "PowerInputWatts": 210.5}],
}
HPE_POWER = {
    "@odata.type": "#Power.v1_3_0.Power",
    "PowerControl": [
        {
            "MemberId": "0",
            "PowerCapacityWatts": 1600,
            "PowerConsumedWatts": 139,
            "PowerMetrics": {
                "AverageConsumedWatts": 151,
                "IntervalInMin": 20,
                "MaxConsumedWatts": 252,
                "MinConsumedWatts": 137,
            },
        }
    ],
}
LENOVO_POWER = {
    "@odata.type": "#Power.v1_6_1.Power",
    "PowerControl": [
        {"MemberId": "0", "Name": "Server Power Control", "PowerConsumedWatts": 344},
        {"MemberId": "1", "Name": "CPU Sub-system Power", "PowerConsumedWatts": 140},
        {"MemberId": "2", "Name": "Memory Sub-system Power", "PowerConsumedWatts": 25},
    ],
}
GPU_METRICS = {
    "@odata.type": "#EnvironmentMetrics.v1_2_0.EnvironmentMetrics",
    "Id": "EnvironmentMetrics",
    "EnergyJoules": {"Reading": 17_212_345.678},
    "PowerLimitWatts": {"AllowableMax": 700, "AllowableMin": 200, "SetPoint": 700},
    "PowerWatts": {"DataSourceUri": "/redfish/v1/Chassis/HGX_GPU_SXM_1/Sensors/Power_0", "Reading": 374.912},
}
RACK_PDU_METRICS = {
    "@odata.type": "#PowerDistributionMetrics.v1_3_0.PowerDistributionMetrics",
    "PowerWatts": {"Reading": 6438, "ApparentVA": 6450, "ReactiveVAR": 100, "PowerFactor": 0.93},
    "EnergykWh": {"Reading": 325_675},
}


@pytest.mark.parametrize(
    ("resource", "watts"),
    [
        pytest.param(DELL_POWER, 412.0, id="dell-power"),
        pytest.param(HPE_POWER, 139.0, id="hpe-power-not-its-20-minutes"),
        pytest.param(GPU_METRICS, 374.912, id="environment-metrics"),
        pytest.param(RACK_PDU_METRICS, 6438.0, id="rack-pdu"),
    ],
)
def test_the_live_power_is_taken(resource: Any, watts: float) -> None:
    assert live_watts(resource) == watts


def test_of_several_power_controls_the_one_that_is_asked_for_is_taken() -> None:
    assert live_watts(LENOVO_POWER, member_id="0") == 344.0
    assert live_watts(LENOVO_POWER, member_id="1") == 140.0


@pytest.mark.parametrize(
    ("resource", "member_id", "words"),
    [
        pytest.param(LENOVO_POWER, "", "several PowerControl, member_id must say which: 0 (Server", id="several"),
        pytest.param(LENOVO_POWER, "7", "no PowerControl with MemberId 7", id="another-member"),
        pytest.param({"PowerControl": []}, "", "PowerControl is empty", id="no-member"),
        pytest.param({"PowerControl": None}, "", "no list of objects", id="null-list"),
        pytest.param({"PowerControl": [None]}, "", "no list of objects", id="null-member"),
        pytest.param({"PowerControl": "many"}, "", "no list of objects", id="text-list"),
        pytest.param({"PowerControl": [{"MemberId": "0"}]}, "", "PowerConsumedWatts is null or missing", id="missing"),
        pytest.param(
            {
                "PowerControl": [
                    {"PowerConsumedWatts": None, "PowerMetrics": HPE_POWER["PowerControl"][0]["PowerMetrics"]}
                ]
            },
            "",
            "only a mean over 20 min (PowerMetrics), which is not live",
            id="only-a-mean",
        ),
        pytest.param({"PowerWatts": {"Reading": None}}, "", "PowerWatts.Reading is null or missing", id="null"),
        pytest.param({"PowerWatts": {}}, "", "PowerWatts.Reading is null or missing", id="no-reading"),
        pytest.param({"PowerWatts": None}, "", "PowerWatts.Reading is null or missing", id="no-sensor"),
        pytest.param({"PowerWatts": {"Reading": "374 W"}}, "", "no number but '374 W'", id="text"),
        pytest.param({"PowerWatts": {"Reading": True}}, "", "no number but 'True'", id="true"),
        pytest.param({"PowerWatts": {"Reading": float("nan")}}, "", "no number but 'nan'", id="nan"),
        pytest.param(
            {"@odata.type": "#Thermal.v1_5_0.Thermal"}, "", "#Thermal.v1_5_0.Thermal has neither", id="another-resource"
        ),
        pytest.param([1, 2], "", "no JSON object", id="list"),
    ],
)
def test_what_is_no_live_power_is_named(resource: Any, member_id: str, words: str) -> None:
    with pytest.raises(Unavailable) as caught:
        live_watts(resource, member_id=member_id)
    assert words in str(caught.value)
