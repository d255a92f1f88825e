"""The page in a real browser, opened from disk: no message of an error, no request, and a viewer that works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autosam_net.reporting.report import write_report
from tests.support import Prepared

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip(f"no browser found ({', '.join(CHROMIUM)}): apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
    """Return a page, what it complained of, and the addresses it asked for."""
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    yield page, complaints, requests
    page.close()


def test_the_report_of_a_trained_model(
    opened: tuple[Any, list[str], list[str]], trained: Prepared, tmp_path: Path
) -> None:
    page, complaints, requests = opened
    output = tmp_path / "report.html"
    write_report(trained.dataset, output, trained.folders)
    page.goto(output.as_uri())
    for heading in ("How good is it?", "Where does it fail?", "Why this plan?"):
        box = page.get_by_role("heading", name=heading).bounding_box()
        assert box["y"] + box["height"] < 768  # seen without scrolling

    page.click("a[data-case] >> nth=1")
    second = page.inner_text("a[data-case] >> nth=1")
    assert second in page.inner_text('#case-list button[aria-pressed="true"]')
    page.click("#strip button >> nth=0")
    assert page.inner_text("#position").startswith("slice ")
    outlines = page.locator("#reference path").count()
    assert outlines > 0
    assert page.locator("#reference image").get_attribute("href").startswith("data:image/jpeg")
    page.click("#mode button[data-value=fill]")
    assert page.locator("#reference g.fill path").count() == outlines
    page.click("#legend button >> nth=0")
    assert page.locator("#reference path").count() < outlines
    page.click("#mode button[data-value=off]")
    assert page.locator("#prediction path").count() == 0
    page.click("#zoom button[data-value=whole]")
    assert page.locator("#zoom button[aria-pressed=true]").inner_text() == "Whole slice"
    assert page.locator("#reference").get_attribute("viewBox").startswith("0 0 ")
    page.locator("#slice").focus()
    page.keyboard.press("End")
    page.hover("#panels")
    page.mouse.wheel(0, -100)
    page.wait_for_function("document.getElementById('slice').value < document.getElementById('slice').max")

    assert complaints == []
    assert requests == [output.as_uri()]


def test_the_report_before_training(
    opened: tuple[Any, list[str], list[str]], planned: Prepared, tmp_path: Path
) -> None:
    page, complaints, requests = opened
    output = tmp_path / "report.html"
    write_report(planned.dataset, output, planned.folders)
    page.goto(output.as_uri())
    assert "validated yet" in page.inner_text("#summary")
    assert page.locator("#predicted").is_hidden() and page.locator("#reference path").count() > 0
    assert (complaints, requests) == ([], [output.as_uri()])
