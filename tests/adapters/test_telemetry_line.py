"""InfluxDB's text forms, without a server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_power.adapters.telemetry_line import decode_tag, encode_tag, line_of, points_of_answer, select_statement
from slurm_power.errors import Unavailable
from slurm_power.ports.telemetry_store import Point


@given(st.text())
def test_a_tag_value_comes_back_whole_and_without_what_the_line_cannot_hold(text: str) -> None:
    encoded = encode_tag(text)
    assert decode_tag(encoded) == text.encode("utf-8", "replace").decode()
    assert not set("\n\r\\\x00") & set(encoded)


def test_a_point_is_one_line() -> None:
    point = Point("job", 1.5, {"draw_watts": 400.0, "ok": True, "why": 'say "hi"\\'}, {"user": "a b,c=d\n"})
    assert line_of(point) == r'job,user=a\ b\,c\=d%0A draw_watts=400.0,ok=true,why="say \"hi\"\\" 1500000000'


def test_a_users_string_cannot_leave_its_quotes() -> None:
    statement = select_statement(
        ["job"], since_us=1, until_us=2, tags={"user": "x' OR 1=1; DROP DATABASE d --\\"}, limit=3
    )
    assert statement == (
        'SELECT * FROM "job" WHERE time >= 1000 AND time < 2000'
        " AND \"user\" = 'x\\' OR 1=1; DROP DATABASE d --%5C' GROUP BY * ORDER BY time DESC LIMIT 3"
    )


def answer(**series: object) -> str:
    return json.dumps({"results": [{"statement_id": 0, "series": [series]}]})


def test_an_answer_in_several_documents_is_read_whole() -> None:
    parts = [
        answer(name="job", tags={"user": "a%25", "node": ""}, columns=["time", "n"], values=[[1_000_000_000, 3]]),
        answer(name="job", tags={"user": "b", "node": "n1"}, columns=["time", "n", "s"], values=[[2_000, None, "x"]]),
        "",
    ]
    assert points_of_answer("job", parts) == [
        Point("job", 1.0, {"n": 3.0}, {"user": "a%"}),
        Point("job", 2e-6, {"s": "x"}, {"user": "b", "node": "n1"}),
    ]


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ('{"results":[{"error":"database not found: d"}]}', "database not found: d"),
        ('{"error":"unable to parse"}', "unable to parse"),
        ("<html>502</html>", "unreadable answer"),
        ("[]", "unreadable answer"),
        ('{"results":[{"series":[{"columns":["time","a"],"values":[[1]]}]}]}', "unreadable answer"),
        ('{"results":[{"series":[{"columns":["a"],"values":[[1]]}]}]}', "unreadable answer"),
    ],
)
def test_an_answer_that_is_none_is_unavailable(document: str, reason: str) -> None:
    with pytest.raises(Unavailable, match=reason):
        points_of_answer("job", [document])
