"""slurm-power report: what operators hand out and customers check. The readings are made up."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from slurm_power.cli.main import slurm_power
from slurm_power.errors import ConfigError, SlurmPowerError
from slurm_power.ports.telemetry_store import Point
from tests.cli.report_store import HOSTILE_NAME, ReportStore
from tests.sla.made_up import BEGIN_S, busy, capped, hot, jittering

PERIOD = ("--since", f"@{BEGIN_S:.0f}", "--until", f"@{BEGIN_S + 700:.0f}")
CLEAN, HOT, CAPPED = 1, 2, 3


@pytest.fixture
def store(tmp_path: Path) -> ReportStore:
    made = ReportStore(tmp_path)
    made.add_job(CLEAN, busy, uuid="GPU-a")
    made.add_job(HOT, lambda second: hot(second) if second > 300 else busy(second), uuid="GPU-b")
    made.add_job(CAPPED, capped, uuid="GPU-c", account="chemistry")
    return made


def run(store: ReportStore, *arguments: str, config: bool = True) -> Result:
    """Without Slurm's commands: what is known of jobs is what the controller wrote down."""
    where = ["--config", str(store.config)] if config else []
    environment = {"PATH": str(store.folder), "COLUMNS": "100"}
    return CliRunner().invoke(slurm_power, ["report", *arguments, *where], env=environment)


def sla(store: ReportStore, *arguments: str) -> dict[str, Any]:
    result = run(store, "sla", *arguments, *PERIOD, "--json")
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def error_of(result: Result) -> str:
    assert isinstance(result.exception, SlurmPowerError), result.output
    return str(result.exception)


# What is reported


def test_a_job_is_reported_from_blocks_and_from_points_that_are_not_sealed_yet(store: ReportStore) -> None:
    report = sla(store, "--job", str(CLEAN))
    assert report["verdict"] == "pass"
    assert report["data"] | {"gaps": 0} == {
        "gpus": 1,
        "samples": 599,
        "wanted_gpu_s": 599.0,
        "known_gpu_s": 599.0,
        "coverage_fraction": 1.0,
        "gaps": 0,
        "damaged_blocks": 0,
    }
    assert report["scope"]["user"] == "ann"


def test_an_accounts_report_is_of_its_own_jobs_alone(store: ReportStore) -> None:
    physics, chemistry = sla(store, "--account", "physics"), sla(store, "--account", "chemistry")
    assert physics["scope"]["jobs"] == [CLEAN, HOT]
    assert physics["verdict"] == "fail"
    assert chemistry["scope"]["jobs"] == [CAPPED]
    assert chemistry["verdict"] == "pass"


def test_nodes_and_the_site_are_reported_whoever_held_them(store: ReportStore) -> None:
    for arguments in (("--node", "n1"), ()):
        assert [gpu["uuid"] for gpu in sla(store, *arguments)["gpus"]] == ["GPU-a", "GPU-b", "GPU-c"]


def test_a_changed_block_is_not_used_and_is_told(store: ReportStore) -> None:
    store.write([Point("gpu_block", BEGIN_S + 100, {"samples": 99}, {"node": "n1", "uuid": "GPU-a"})])
    data = sla(store, "--job", str(CLEAN))["gpus"][0]["data"]
    assert data["damaged_blocks"] == 1
    assert (data["gap_count"], data["gap_s"]) == (1, 101)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(("--job", "99"), "job 99: no agent saw it hold a GPU", id="no-such-job"),
        pytest.param(("--node", "n9"), "n9: no agent reported a GPU", id="no-such-node"),
        pytest.param(("--account", "law"), "account law: none of its jobs", id="no-such-account"),
    ],
)
def test_what_is_not_there_is_one_clear_line(store: ReportStore, arguments: tuple[str, ...], words: str) -> None:
    assert words in error_of(run(store, "sla", *arguments, *PERIOD))


def test_two_scopes_at_once_and_a_signature_of_nothing_are_wrong_usage(store: ReportStore) -> None:
    assert run(store, "sla", "--job", "1", "--node", "n1").exit_code == 2
    assert run(store, "sla", "--job", "1", "--sign", "key").exit_code == 2


def test_thresholds_of_the_site_are_used_and_named(store: ReportStore, tmp_path: Path) -> None:
    file = tmp_path / "thresholds.toml"
    file.write_text("[thermal]\nlow_margin_celsius = 30\n")
    report = sla(store, "--job", str(CLEAN), "--thresholds", str(file))
    assert report["quadrants"]["thermal"]["verdict"] == "fail"
    assert report["thresholds"]["thermal"]["low_margin_celsius"] == 30


# What people see


class _Addresses(HTMLParser):
    """Whatever of a page a browser might fetch, but for places within the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fetched = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}
        self.found += [value or "" for name, value in attrs if name in fetched and not (value or "").startswith("#")]
        self.found += [tag] if tag in ("script", "link", "iframe", "object", "embed", "base") else []
        self.handle_data(" ".join(value or "" for _, value in attrs))

    def handle_data(self, data: str) -> None:
        self.found += [found for found in re.findall(r"url\(([^)]*)\)|@import", data) if not found.startswith("#")]


def addresses(page: str) -> list[str]:
    parser = _Addresses()
    parser.feed(page)
    return parser.found


def test_the_terminal_shows_verdicts_and_what_to_do(store: ReportStore) -> None:
    text = run(store, "sla", "--job", str(HOT), *PERIOD).output
    assert "✗ fail" in text
    assert "by heat" in " ".join(text.split())
    assert "\x1b" not in text


def test_a_capped_job_reads_that_its_cap_is_no_fault(store: ReportStore) -> None:
    text = " ".join(run(store, "job", str(CAPPED), *PERIOD).output.split())
    assert "Job 3 ✓ pass" in text
    assert "held by the agreed power cap 100.0 % of the time (no fault)" in text
    assert "Nothing: the job used its GPUs well" in text


def test_one_jobs_screen_says_what_to_do_worst_first(store: ReportStore) -> None:
    content = json.loads(run(store, "job", str(HOT), *PERIOD, "--json").stdout)
    assert set(content) == {"quality", "energy", "decisions", "advice"}
    assert "while the infrastructure held it back" in content["advice"][0]
    assert "by heat" in content["advice"][1]


def test_the_page_escapes_what_users_wrote_and_asks_nobody_for_anything(store: ReportStore, tmp_path: Path) -> None:
    for number, arguments in enumerate((("sla", "--job"), ("job",))):
        file = tmp_path / f"{number}.html"
        assert run(store, *arguments, str(HOT), *PERIOD, "--html", str(file)).exit_code == 0
        page = file.read_text()
        assert HOSTILE_NAME not in page
        assert "&lt;script src=&quot;https://evil.example/x.js&quot;&gt;" in page
        assert "\x1b" not in page
        assert "<script" not in page
        assert addresses(page) == []
        assert "default-src 'none'" in page
        assert page.count("<svg") == 4
        assert "prefers-color-scheme: dark" in page
        assert "@media print" in page


def test_the_plots_are_png_files(store: ReportStore, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    assert run(store, "sla", "--job", str(HOT), *PERIOD, "--plots", str(folder)).exit_code == 0
    assert sorted(path.name for path in folder.iterdir()) == ["clock.png", "power.png", "thermal.png", "throttling.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


# What customers check


@pytest.fixture
def signed(store: ReportStore, tmp_path: Path) -> Path:
    """The report's file; key, key.pub and the signature stand beside it."""
    assert run(store, "keygen", str(tmp_path / "key"), config=False).exit_code == 0
    out = tmp_path / "report.json"
    done = run(store, "sla", "--job", str(HOT), *PERIOD, "--out", str(out), "--sign", str(tmp_path / "key"))
    assert done.exit_code == 0, done.output
    return out


def verify(store: ReportStore, report: Path, *options: str, key: str = "key.pub") -> Result:
    signature = report.with_name("report.json.sig")
    return run(store, "verify", str(report), str(signature), "--key", str(report.with_name(key)), *options)


def test_an_untouched_report_verifies_against_signature_and_samples(store: ReportStore, signed: Path) -> None:
    result = verify(store, signed, "--samples")
    assert result.exit_code == 0, result.output
    assert "as signed, every value" in result.output
    assert "599 of them" in result.output


def test_spaces_and_the_order_of_keys_do_not_matter(store: ReportStore, signed: Path) -> None:
    signed.write_text(json.dumps(json.loads(signed.read_text()), sort_keys=True))
    assert verify(store, signed).exit_code == 0


def test_a_tampered_number_is_detected_and_named(store: ReportStore, signed: Path) -> None:
    report = json.loads(signed.read_text())
    report["gpus"][0]["throttling"]["infrastructure_s"] = 0.0
    report["quadrants"]["throttling"]["verdict"] = "pass"
    signed.write_text(json.dumps(report))
    result = verify(store, signed)
    assert "not what was signed: 2 differences" in error_of(result)
    assert "/gpus/0/throttling/infrastructure_s: changed after signing" in result.output
    assert "/quadrants/throttling/verdict: changed after signing" in result.output


def test_a_number_that_stands_twice_is_refused(store: ReportStore, signed: Path) -> None:
    signed.write_text(signed.read_text().replace('"verdict": "fail"', '"verdict": "pass", "verdict": "fail"', 1))
    assert "a key stands twice" in error_of(verify(store, signed))


@pytest.mark.parametrize("what", ["report_sha256", "samples_sha256", "values"])
def test_a_tampered_signature_counts_for_nothing(store: ReportStore, signed: Path, what: str) -> None:
    file = signed.with_name("report.json.sig")
    content = json.loads(file.read_text())
    content["statement"][what] = {} if what == "values" else "0" * 64
    file.write_text(json.dumps(content))
    assert "nothing it says counts" in error_of(verify(store, signed))


def test_another_ones_key_does_not_verify(store: ReportStore, signed: Path) -> None:
    assert run(store, "keygen", str(signed.with_name("other")), config=False).exit_code == 0
    assert "nothing it says counts" in error_of(verify(store, signed, key="other.pub"))


def test_samples_that_were_changed_later_are_told_by_gpu(store: ReportStore, signed: Path) -> None:
    store.write([Point("gpu", BEGIN_S + 550, {"draw_watts": 1.0}, {"node": "n1", "uuid": "GPU-b"})])
    result = verify(store, signed, "--samples")
    assert "not what was signed" in error_of(result)
    assert "GPU-b: the store's readings are not the same" in result.output


def test_sealing_what_were_single_points_changes_no_sample(store: ReportStore, signed: Path) -> None:
    from slurm_power.daemons.node_agent_samples import block_point
    from slurm_power.sla.seal import sealed

    late = [hot(second) for second in range(500, 600)]
    store.write([block_point(sealed(late), uuid="GPU-b", node_name="n1")])
    assert verify(store, signed, "--samples").exit_code == 0


def test_a_secret_key_that_others_may_read_is_refused_and_nothing_is_written(
    store: ReportStore, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    assert run(store, "keygen", str(key), config=False).exit_code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    out = tmp_path / "report.json"
    result = run(store, "sla", "--job", str(HOT), *PERIOD, "--out", str(out), "--sign", str(key))
    assert "chmod 600" in error_of(result)
    assert not out.exists()


def test_an_old_key_is_never_written_over(store: ReportStore, tmp_path: Path) -> None:
    assert run(store, "keygen", str(tmp_path / "key"), config=False).exit_code == 0
    before = (tmp_path / "key").read_bytes()
    assert isinstance(run(store, "keygen", str(tmp_path / "key"), config=False).exception, ConfigError)
    assert (tmp_path / "key").read_bytes() == before


def test_a_jittering_job_of_many_gpus_is_drawn_as_a_band(tmp_path: Path) -> None:
    store = ReportStore(tmp_path)
    for number in range(9):
        store.add_job(7, jittering, uuid=f"GPU-{number}")
    page = tmp_path / "page.html"
    assert run(store, "sla", "--job", "7", *PERIOD, "--html", str(page)).exit_code == 0
    assert page.stat().st_size < 1_000_000


@pytest.mark.parametrize(("arguments", "with_samples"), [(("job", str(HOT)), True), (("site",), False)])
def test_the_other_reports_are_signed_and_verified_in_the_same_way(
    store: ReportStore, tmp_path: Path, arguments: tuple[str, ...], with_samples: bool
) -> None:
    assert run(store, "keygen", str(tmp_path / "key"), config=False).exit_code == 0
    out = tmp_path / "report.json"
    done = run(store, *arguments, *PERIOD, "--out", str(out), "--sign", str(tmp_path / "key"))
    assert done.exit_code == 0, done.output
    assert verify(store, out).exit_code == 0
    result = verify(store, out, "--samples")
    if with_samples:
        assert result.exit_code == 0, result.output
    else:
        assert "names no samples" in error_of(result)
