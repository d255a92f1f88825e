"""The page in a real browser, opened from disk: no message of an error, no request, and a viewer that works."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autosam_net.data.dataset import find_dataset
from autosam_net.inference.validate import train_and_validate
from autosam_net.jsonio import write_json
from autosam_net.paths import find_folders
from autosam_net.preprocessing.preprocess import preprocess_dataset
from autosam_net.reporting.report import write_report
from autosam_net.training.run import TrainingOptions
from dataset_conversion import acdc
from planning.extract_fingerprint import extract_fingerprint
from tests.support import Prepared, real_data, tiny_plan, write_records

SCREEN = 768  # pixels
MOST_BYTES = 15_000_000
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


@dataclass(frozen=True)
class Shown:
    """A report in the browser, as it lies on disk.

    Attributes:
        complaints: what the page said on the console, or of an error.
        requests: the addresses it asked for.
    """

    page: Any
    file: Path
    complaints: list[str]
    requests: list[str]

    def check(self) -> None:
        """Assert that nothing went wrong and nothing was asked for but the file itself, which is small."""
        assert (self.complaints, self.requests) == ([], [self.file.as_uri()])
        assert self.file.stat().st_size < MOST_BYTES


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Callable[[Prepared], Shown]]:
    """Return a function that writes the report of a data set and opens it."""
    page = browser.new_page(viewport={"width": 1366, "height": SCREEN})
    shown = Shown(page, tmp_path / "report.html", [], [])
    page.on("console", lambda message: shown.complaints.append(message.text))
    page.on("pageerror", lambda error: shown.complaints.append(str(error)))
    page.on("dialog", lambda dialog: shown.complaints.append(dialog.message))
    page.on("request", lambda request: shown.requests.append(request.url))

    def write_and_open(place: Prepared) -> Shown:
        write_report(place.dataset, shown.file, place.folders)
        page.goto(shown.file.as_uri())
        return shown

    yield write_and_open
    page.close()


def bottom_of(page: Any, selector: str) -> float:
    """Return where the first element that fits ends, in pixels from the top of the page."""
    box = page.locator(selector).first.bounding_box()
    return float(box["y"] + box["height"])


def answers_come_first(shown: Shown, places: int) -> None:
    """Assert that the three questions are answered without scrolling twice."""
    page = shown.page
    for heading in ("How good is it?", "Where does it fail?", "Why this plan?"):
        box = page.get_by_role("heading", name=heading).bounding_box()
        assert box["y"] + box["height"] < SCREEN  # seen without scrolling
    assert page.locator("#summary a[data-case]").count() >= places
    assert bottom_of(page, "#summary") < 2 * SCREEN
    assert re.search(r"0\.\d\d", page.inner_text("#summary"))


def test_the_report_of_a_trained_model(show: Callable[[Prepared], Shown], trained: Prepared) -> None:
    shown = show(trained)
    page = shown.page
    answers_come_first(shown, places=2)

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

    shown.check()


def test_the_report_before_training(show: Callable[[Prepared], Shown], planned: Prepared) -> None:
    shown = show(planned)
    assert "validated yet" in shown.page.inner_text("#summary")
    assert shown.page.locator("#predicted").is_hidden() and shown.page.locator("#reference path").count() > 0
    shown.check()


@pytest.fixture(scope="module")
def hearts(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Prepared:
    """Return five patients of ACDC with a head trained for a moment, by the plan of the tiny encoder."""
    source, root = real_data("ACDC", "training"), tmp_path_factory.mktemp("hearts")
    for patient in ("patient001", "patient021", "patient041", "patient061", "patient081"):
        shutil.copytree(source / patient, root / "download" / "training" / patient)
    assert acdc.main(["-i", str(root / "download"), "--workers", "1", "--root", str(root)]) == 0
    folders = find_folders(root)
    dataset = find_dataset(27, folders)
    plan = replace(tiny_plan(dataset, tiny_weights), reasons={"encoder": "the smallest there is"})
    preprocess_dataset(dataset, plan, folders, workers=1)
    write_records(dataset, plan, folders)
    folder = folders.preprocessed / dataset.name
    write_json(folder / "dataset_fingerprint.json", extract_fingerprint(dataset, folders, workers=1))
    train_and_validate(dataset, plan, "linear", "0", TrainingOptions(epochs=1), folders)
    return Prepared(dataset, plan, folders, root)


def test_the_report_of_real_hearts(show: Callable[[Prepared], Shown], hearts: Prepared) -> None:
    shown = show(hearts)
    answers_come_first(shown, places=2)
    assert "the smallest there is" in shown.page.inner_text("#summary")
    shown.page.click("#summary a[data-case] >> nth=0")
    assert shown.page.locator("#reference path").count() > 0
    shown.check()
