"""Files of others become jobs; what cannot be read is counted, and what was assumed is said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from slurm_power.errors import ConfigError
from slurm_power.relocation.jobs import PowerClass
from slurm_power.replay.trace import TraceJob, assigned, collected, cut, scaled
from slurm_power.replay.trace_openb import read_openb_nodes, read_openb_pods
from slurm_power.replay.trace_sacct import clock_limit_s, clock_s, read_sacct, tres_gpus
from slurm_power.replay.trace_swf import read_swf

PODS = """\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
pod-a,4000,1024,1,460,,LS,Running,1000,5000,1100
pod-b,4000,1024,8,1000,,BE,Succeeded,1600,1700,1650
pod-c,4000,1024,0,0,,BE,Running,1600,1700,1650
pod-d,4000,1024,1,1000,,BE,Pending,1600,1700,
pod-e,4000,1024,one,1000,,BE,Running,1600,1700,1650
pod-f,4000,1024,1,1000,,Best,Running,1600,1700,1650
pod-g,4000,1024,2,1000,,Burstable,Running,1800,1700,1650
"""


class TestOpenb:
    def test_pods_become_jobs_and_a_share_of_a_gpu_becomes_a_whole_one(self):
        trace = read_openb_pods(PODS.splitlines())
        first, second = trace.jobs
        assert (first.source_id, first.submit_s, first.gpus, first.runtime_s) == ("pod-a", 0, 1, 3900)
        assert first.time_limit_s == 8100  # twice the run time, in quarters of an hour
        assert (first.power_class, second.power_class) == (PowerClass.FIRM, PowerClass.PREEMPTIBLE)
        assert (second.submit_s, second.gpus, second.runtime_s) == (600, 8, 50)
        assert "1 pods asked for a share of a GPU and get a whole one" in trace.notes

    def test_what_is_no_gpu_job_is_counted_and_bad_lines_are_named(self):
        trace = read_openb_pods(PODS.splitlines())
        assert trace.skipped == {"no GPU asked for": 1, "never scheduled": 1}
        assert [bad.number for bad in trace.bad_lines] == [6, 7, 8]
        assert "Best" in trace.bad_lines[1].reason

    def test_a_file_of_other_columns_is_refused_in_one_line(self):
        with pytest.raises(ConfigError, match=r"^openb pods: there is no column name, num_gpu.*$"):
            read_openb_pods(["a,b", "1,2"])

    def test_nodes_without_gpus_are_left_out(self):
        assert read_openb_nodes(["sn,cpu_milli,memory_mib,gpu,model", "a,1,1,2,T4", "b,1,1,0,", "c,1,1,8,G2"]) == (2, 8)


SACCT = """\
JobID|User|Submit|Start|End|Elapsed|Timelimit|ReqTRES|AllocTRES|NNodes|State|AdminComment
100|ada|2024-03-01T10:00:00|2024-03-01T10:05:00|2024-03-01T11:05:00|01:00:00|02:00:00|cpu=8,gres/gpu=2|billing=8,cpu=8,gres/gpu=2,gres/gpu:a100=2,mem=4G,node=1|1|COMPLETED|slurm-power:class=preemptible,slowdown=0.2,delay=600
100.batch||2024-03-01T10:05:00|2024-03-01T10:05:00|2024-03-01T11:05:00|01:00:00||||1|COMPLETED|
101_3|bob|2024-03-01T09:59:00|2024-03-01T10:05:00|2024-03-02T12:05:30|1-02:00:30|UNLIMITED|cpu=8,gres/gpu=16||2|TIMEOUT|
102|bob|2024-03-01T10:00:00|Unknown|Unknown|00:00:00|1-00:00:00|gres/gpu=1||1|CANCELLED by 1000|
103|bob|2024-03-01T10:00:00|2024-03-01T10:00:00|Unknown|00:10:00|1-00:00:00|gres/gpu=1|gres/gpu=1|1|RUNNING|
104|bob|2024-03-01T10:00:00|2024-03-01T10:00:00|2024-03-01T10:10:00|00:10:00|1-00:00:00|cpu=1|cpu=1|1|COMPLETED|
105|bob|yesterday|2024-03-01T10:00:00|2024-03-01T10:10:00|00:10:00|1-00:00:00|cpu=1|gres/gpu=1|1|COMPLETED|
106|bob|2024-03-01T10:00:00
"""


class TestSacct:
    def test_jobs_are_read_by_the_header_and_steps_are_skipped(self):
        trace = read_sacct(SACCT.splitlines())
        first, second = trace.jobs
        assert (first.source_id, first.user, first.gpus, first.nodes) == ("101_3", "bob", 16, 2)
        assert (first.runtime_s, first.time_limit_s, first.submit_s) == (26 * 3600 + 30, None, 0)
        assert (second.source_id, second.submit_s, second.time_limit_s) == ("100", 60, 7200)
        assert trace.origin_wall_s == datetime(2024, 3, 1, 9, 59, tzinfo=UTC).timestamp()
        assert trace.skipped == {"steps": 1, "never ran": 1, "not ended": 1, "no GPU asked for": 1}
        assert [(bad.number, bad.reason) for bad in trace.bad_lines] == [
            (8, "'yesterday' is no time"),
            (9, "3 columns, the header has 12"),
        ]

    def test_the_mark_of_the_controller_gives_class_and_bounds(self):
        job = read_sacct(SACCT.splitlines()).jobs[1]
        assert (job.power_class, job.max_slowdown_fraction, job.max_delay_s) == (PowerClass.PREEMPTIBLE, 0.2, 600)

    def test_dates_are_read_in_the_given_zone(self):
        trace = read_sacct(SACCT.splitlines(), zone=timezone(timedelta(hours=9)))
        assert trace.origin_wall_s == datetime(2024, 3, 1, 0, 59, tzinfo=UTC).timestamp()

    def test_a_job_that_overran_its_limit_gets_the_limit_it_had(self):
        rows = ["JobID|Submit|Elapsed|Timelimit|AllocTRES", "1|2024-03-01T10:00:00|00:10:07|00:10:00|gres/gpu=1"]
        assert read_sacct(rows).jobs[0].time_limit_s == 607

    def test_a_dump_without_the_needed_columns_is_refused_in_one_line(self):
        with pytest.raises(ConfigError, match=r"^sacct dump: there is no column Submit, AllocTRES, Elapsed"):
            read_sacct(["JobID|User", "1|ada"])

    def test_a_dump_without_any_job_is_refused_and_says_why(self):
        with pytest.raises(ConfigError, match=r"no job can be read \(line 2: 1 columns, the header has 4\)"):
            read_sacct(["JobID|Submit|Elapsed|AllocTRES", "garbage"])

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [("1-02:03:04", 93784), ("02:03:04", 7384), ("03:04", 184), ("03:04.567", 184), ("UNLIMITED", None)],
    )
    def test_durations(self, text, seconds):
        assert clock_limit_s(text) == seconds

    def test_a_duration_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match="no duration"):
            clock_s("soon")

    @pytest.mark.parametrize(
        ("text", "gpus"),
        [("cpu=4,gres/gpu=2,gres/gpu:h100=2", 2), ("gres/gpu:h100=3", 3), ("cpu=4", 0), ("", 0), ("gres/gpumem=4", 0)],
    )
    def test_gpus_of_a_tres_list(self, text, gpus):
        assert tres_gpus(text) == gpus


SWF = """\
; Version: 2.2
; UnixStartTime: 1000000
; MaxProcs: 128
1 0 10 3600 16 -1 -1 16 7200 -1 1 5 1 3 1 -1 -1 -1
2 60 0 100 -1 -1 -1 3 -1 -1 1 -1 1 -1 1 -1 -1 -1
3 70 0 -1 4 -1 -1 4 60 -1 0 5 1 3 1 -1 -1 -1
4 80 0 50 -1 -1 -1 -1 60 -1 0 5 1 3 1 -1 -1 -1
5 90 0 50 4
6 95 0 50 4 -1 -1 4 x -1 0 5 1 3 1 -1 -1 -1
"""


class TestSwf:
    def test_known_fields_are_taken_and_unknown_ones_left_open(self):
        trace = read_swf(SWF.splitlines(), processors_per_gpu=8)
        first, second = trace.jobs
        assert (first.gpus, first.runtime_s, first.time_limit_s, first.user) == (2, 3600, 7200, "user5")
        assert (second.gpus, second.time_limit_s, second.user, second.workload) == (1, None, "unknown", "")
        assert trace.origin_wall_s == 1_000_000
        assert sum(trace.skipped.values()) == 2
        assert [bad.number for bad in trace.bad_lines] == [8, 9]

    def test_a_file_without_jobs_is_refused_in_one_line(self):
        with pytest.raises(ConfigError, match=r"^SWF file: no job can be read \(the file is empty\)$"):
            read_swf(["; nothing"])


def _daily(days: int) -> list[TraceJob]:
    return [
        TraceJob(job_id=0, user="ada", submit_s=day * 86_400.0 + hour * 3600.0, gpus=2, runtime_s=1800.0)
        for day in range(days)
        for hour in (9, 10, 11)
    ]


class TestScaling:
    def test_copies_bring_the_load_that_was_asked_for(self):
        trace = scaled(collected(_daily(20), file_kind="test"), gpus=16, load_fraction=0.5, seed=1)
        assert trace.gpu_seconds / (trace.span_s * 16) == pytest.approx(0.5, rel=0.1)
        assert "seed 1" in trace.notes[-1]

    def test_a_load_below_the_traces_own_keeps_a_part_of_its_jobs(self):
        whole = collected(_daily(100), file_kind="test")
        trace = scaled(whole, gpus=1000, load_fraction=whole.gpu_seconds / whole.span_s / 2000)
        assert len(trace.jobs) == pytest.approx(150, abs=30)

    def test_the_hour_of_day_stays(self):
        origin = collected(_daily(20), file_kind="test")
        trace = scaled(origin, gpus=16, seed=2)
        hours = [job.submit_s % 86_400 / 3600 for job in trace.jobs]
        assert len(trace.jobs) > 10 * len(origin.jobs)
        assert 0 <= min(hours) <= max(hours) <= 3  # from the first job's hour on, and an hour of jitter

    def test_the_same_seed_gives_the_same_trace(self):
        trace = collected(_daily(3), file_kind="test")
        assert scaled(trace, gpus=64, seed=3) == scaled(trace, gpus=64, seed=3)
        assert scaled(trace, gpus=64, seed=3) != scaled(trace, gpus=64, seed=4)

    def test_jobs_wider_than_the_cluster_are_left_out_and_counted(self):
        wide = TraceJob(job_id=0, user="bob", submit_s=5.0, gpus=65, runtime_s=10.0)
        trace = scaled(collected([*_daily(3), wide], file_kind="test"), gpus=64)
        assert trace.skipped == {"wider than 64 GPUs": 1}
        assert {job.gpus for job in trace.jobs} == {2}

    def test_compression_brings_submissions_closer_and_leaves_run_times(self):
        trace = scaled(collected(_daily(20), file_kind="test"), gpus=16, load_fraction=0.5, compression=4.0)
        assert trace.span_s < 6 * 86_400
        assert {job.runtime_s for job in trace.jobs} == {1800.0}

    def test_job_numbers_stay_unique(self):
        trace = scaled(collected(_daily(5), file_kind="test"), gpus=64)
        assert len({job.job_id for job in trace.jobs}) == len(trace.jobs)

    def test_a_part_of_the_time_can_be_cut_out(self):
        trace = cut(collected(_daily(5), file_kind="test", origin_wall_s=0.0), 86_400.0, 2 * 86_400.0)
        assert [job.submit_s for job in trace.jobs] == [0, 3600, 7200]
        with pytest.raises(ConfigError, match="no job is submitted"):
            cut(trace, 1e7, 2e7)

    def test_workloads_and_classes_are_drawn_by_their_shares(self):
        trace = collected(_daily(200), file_kind="test")
        shares = {PowerClass.FIRM: 1.0, PowerClass.FLEXIBLE: 3.0}
        drawn = assigned(trace, workloads=("a", "b"), class_shares=shares, seed=5)
        firm = sum(job.power_class is PowerClass.FIRM for job in drawn.jobs)
        assert firm == pytest.approx(150, abs=40)
        assert {job.workload for job in drawn.jobs} == {"a", "b"}
        assert drawn.notes[-1] == "classes drawn: firm 25%, flexible 75%, seed 5"
