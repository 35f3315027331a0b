"""The page itself: only our own files, no inline script or style, strict headers on every answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from slurm_power.web.app import create_app
from slurm_power.web.page import STATIC
from tests.web.made_up_site import MadeUpSite

OURS = [file for file in STATIC.rglob("*") if file.suffix in (".html", ".css", ".js") and "vendor" not in file.parts]


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(create_app(MadeUpSite(nodes=1))) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/static/js/main.js", "/api/status", "/health", "/nothing", "/api/admin/hold"])
def test_every_answer_forbids_foreign_content_and_frames(http: TestClient, path: str) -> None:
    headers = http.get(path).headers
    rules = dict(rule.partition(" ")[::2] for rule in headers["content-security-policy"].split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


def test_every_file_that_the_page_names_is_there(http: TestClient) -> None:
    page = http.get("/").text
    named = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(named) > 4
    for path in named:
        assert path.startswith("/static/"), path
        assert http.get(path).status_code == 200, path


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_no_file_of_ours_needs_another_host_or_makes_markup_of_text(file: object) -> None:
    text = file.read_text().replace('"http://www.w3.org/2000/svg"', "")  # type: ignore[attr-defined]
    assert not re.search(r"https?://", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r"\sstyle=|\son\w+=", text), "the policy would block it"


def test_every_module_that_a_script_imports_is_there() -> None:
    for file in (STATIC / "js").glob("*.js"):
        for named in re.findall(r'from "\./(.+?)"', file.read_text()):
            assert (STATIC / "js" / named).is_file(), f"{file.name}: {named}"


def test_the_charts_come_with_their_licence() -> None:
    (folder,) = (STATIC / "vendor").glob("uplot-*")
    assert "MIT" in (folder / "LICENSE").read_text()
    assert folder.name in (STATIC / "index.html").read_text()


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/"])
def test_nothing_outside_the_folder_is_served(http: TestClient, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 404
    assert "create_app" not in answer.text
