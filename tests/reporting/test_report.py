"""The page as text: what stands in it, before and after training, and that nothing in the data becomes HTML."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autosam_net.commands.report import main
from autosam_net.errors import PlanError
from autosam_net.evaluation.case_table import seal_of
from autosam_net.evaluation.expected_dice import EXPECTED_DICE_FILE, ExpectedDice, Judgement, Line
from autosam_net.jsonio import sealed, write_json
from autosam_net.reporting.report import write_report
from autosam_net.reporting.runs import FoldRecord, RunRecord, command_of
from autosam_net.training.run import ModelFolder, TrainingOptions
from tests.reporting.conftest import REASON
from tests.support import TINY, Prepared

HOSTILE = "<img src=x onerror=alert(1)>"


def page_of(place: Prepared, output: Path, names: list[str] | None = None) -> str:
    write_report(place.dataset, output, place.folders, names)
    return output.read_text(encoding="utf-8")


def viewer_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_after_training(trained: Prepared, tmp_path: Path) -> None:
    page = page_of(trained, tmp_path / "report.html")
    assert re.search(r"<b>0\.\d{3}</b>\s*<span>mean Dice<br>95&nbsp;% CI 0\.\d{3}–[01]\.\d{3}", page)
    assert "of 6 patients, none of them trained on" in page
    assert "because &lt;script&gt;" in page and REASON not in page
    assert "autosam_plan_and_preprocess -d 900" in page and "peak memory" in page
    viewer = viewer_of(page)
    assert list(viewer["colours"]) == list(trained.dataset.labels.targets)
    dice = [case["dice"] for case in viewer["cases"] if case["group"] == "worst"]
    assert dice == sorted(dice)
    for case in viewer["cases"]:
        assert case["slices"]
        assert all(entry["image"].startswith("data:image/jpeg;base64,") for entry in case["slices"])
        assert all(set(entry["reference"]) <= set(viewer["colours"]) for entry in case["slices"])
        assert any(entry["prediction"] is not None for entry in case["slices"])


def test_every_part_has_its_content(trained: Prepared, tmp_path: Path) -> None:
    page = page_of(trained, tmp_path / "report.html")
    headings, contents = re.findall(r"<h[23]>(.*?)</h", page), re.split(r"<h[23]>.*?</h[23]>", page)[1:]
    parts = dict(zip(headings, contents, strict=True))
    for name, charts in (("Results", 3), ("Training", 2), ("Data", 2)):  # box plots, curves, histograms
        assert parts[name].count("<svg") >= charts, name
    assert all(words in parts["Results"] for words in ("Dice", "NSD", "HD95", "bootstrapped over patients"))
    assert all(name in parts["Results"] for name in trained.dataset.labels.targets)
    assert "because" in parts["Plan"] and "the only one" in parts["Plan"]
    assert all(f"<th>{fold}</th>" in parts["Folds"] for fold in range(trained.plan.folds))
    assert f"{TINY}_64_" in parts["Cache of embeddings"]
    assert "autosam_plan_and_preprocess -d 900" in parts["Commands"]
    assert f"torch {torch.__version__}" in parts["Versions"]


def test_nothing_is_loaded_from_elsewhere(trained: Prepared, tmp_path: Path) -> None:
    page = page_of(trained, tmp_path / "report.html")
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(", re.sub(r"http://www\.w3\.org/2000/svg|^\s*//.*$", "", page, flags=re.M)
    )
    assert "default-src 'none'" in page
    assert len(page.encode()) < 2**20


def test_before_training_it_says_so_and_shows_data_and_plan(planned: Prepared, tmp_path: Path) -> None:
    page = page_of(planned, tmp_path / "report.html")
    assert "nothing has been<br>validated yet" in page
    assert "autosam_train 900 linear 0" in page
    assert "volume of" in page and "because" in page
    viewer = viewer_of(page)
    assert {case["group"] for case in viewer["cases"]} == {"example"}
    assert all(entry["prediction"] is None for case in viewer["cases"] for entry in case["slices"])


def with_copied_results(place: Prepared, root: Path) -> Prepared:
    """Return the same data set with results that a test may change."""
    shutil.copytree(place.folders.results, root / "results")
    return replace(place, folders=replace(place.folders, results=root / "results"))


def test_it_says_how_many_bad_cases_are_flagged(trained: Prepared, tmp_path: Path) -> None:
    place = with_copied_results(trained, tmp_path)
    folder = place.folders.results / place.dataset.name / "linear"
    learnt = ExpectedDice({"LV": Line(0.1, 0.5, 0.3, True)}, 0.5, 8, 8, Judgement(0.7, 0.6, 0.5, 0.1, 4, 5, 3))
    write_json(folder / EXPECTED_DICE_FILE, sealed(learnt))
    page = " ".join(page_of(place, tmp_path / "report.html").split())
    assert "of the 4 worst cases 3 are flagged by their expected Dice, which flags 5 in all" in page
    assert "its rank correlation with the true Dice is 0.70" in page
    (folder / EXPECTED_DICE_FILE).unlink()
    assert "Told without a reference" not in page_of(place, tmp_path / "report.html")


def test_names_out_of_files_stay_text(trained: Prepared, tmp_path: Path) -> None:
    place = with_copied_results(trained, tmp_path)
    run = place.folders.results / place.dataset.name / "linear"
    for table in run.rglob("cases.csv"):
        header, *rows = table.read_text().splitlines()
        table.write_text("\n".join([header, *(HOSTILE + row for row in rows)]))
        seal_of(table).unlink()
    run.rename(run.with_name(HOSTILE))
    page = page_of(place, tmp_path / "report.html")
    assert HOSTILE not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;") > 5


def test_a_run_that_is_unfinished_is_named_as_such(trained: Prepared, tmp_path: Path) -> None:
    place = with_copied_results(trained, tmp_path)
    (place.folders.results / place.dataset.name / "cnn" / "fold_0").mkdir(parents=True)
    page = page_of(place, tmp_path / "report.html")
    assert re.search(r"<th>cnn</th><td>0</td>\s*<td>unfinished</td>", page)
    assert "autosam_train 900 cnn 0" not in page


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"command": "autosam_train 900 cnn 0 --quiet"}, ("autosam_train 900 cnn 0 --quiet", True)),
        (
            {"options": {"labelled": 3, "seed": 2, "max_minutes": 7.5, "unlabelled": True}},
            ("autosam_train 900 cnn 0 --labelled 3 --seed 2 --max-minutes 7.5 --unlabelled", False),
        ),
        ({"options": {"labels": 3}}, None),
        ({}, None),
    ],
)
def test_the_command_of_a_fold(manifest: dict[str, Any], expected: tuple[str, bool] | None, tmp_path: Path) -> None:
    options = TrainingOptions(labelled=3, seed=2, unlabelled=True) if "options" in manifest else TrainingOptions()
    fold = FoldRecord("0", tmp_path, manifest, ())
    run = RunRecord(ModelFolder(tmp_path / options.run_name("cnn")), (fold,), None, "mm", 2.0)
    assert command_of(run, fold, 900) == expected


def test_a_damaged_log_is_named(trained: Prepared, tmp_path: Path) -> None:
    place = with_copied_results(trained, tmp_path)
    file = place.folders.results / place.dataset.name / "linear" / "fold_0" / "training_log.csv"
    file.write_text("epoch,loss\n1,many\n")
    with pytest.raises(PlanError, match=r"training_log\.csv: not a log of a training .*Train this fold again"):
        page_of(place, tmp_path / "report.html")


def test_a_case_whose_image_is_damaged_is_left_out(
    trained: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(trained.root, tmp_path, dirs_exist_ok=True)
    for image in sorted((tmp_path / "raw" / trained.dataset.name / "imagesTr").iterdir()):
        image.write_bytes(b"damaged")
    output = tmp_path / "report.html"
    assert main(["900", "--root", str(tmp_path), "-o", str(output)]) == 0
    assert "is not shown" in caplog.text
    assert viewer_of(output.read_text(encoding="utf-8"))["cases"] == []


def test_without_a_plan_it_says_what_to_do(
    trained: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained.folders.raw, tmp_path / "raw")
    assert main(["900", "--root", str(tmp_path)]) == 2
    assert "plan.json: no such file. Run autosam_plan_and_preprocess first." in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_file_of_the_users_is_not_replaced_unless_asked(
    trained: Prepared, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ("--root", str(trained.root))
    assert main(["900", *root]) == 0 and main(["900", *root]) == 0
    assert report.is_file()
    own = tmp_path / "mine.html"
    own.write_text("mine")
    assert main(["900", *root, "-o", str(own)]) == 2
    assert "exists. Give --overwrite to replace it" in capsys.readouterr().err
    assert own.read_text() == "mine"
    assert main(["900", *root, "-o", str(own), "--overwrite"]) == 0
    assert own.stat().st_size > 10_000
    assert main(["900", *root, "-o", str(tmp_path)]) == 2
    assert "is a folder. Name a file" in capsys.readouterr().err


def test_an_unknown_run_is_refused(trained: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["900", "-c", "linea", "--root", str(trained.root)]) == 2
    assert "no trained model 'linea'; did you mean 'linear'?" in capsys.readouterr().err
