from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.labels import LabelSet
from autosam_net.errors import DatasetError
from autosam_net.evaluation.report import evaluate_folder, evaluate_pairs, pair_files, summary_table, write_summary

LABELS = LabelSet({"background": 0, "left": 1, "right": 2, "nowhere": 3})
WriteLabels = Callable[..., Path]


def blocks(left: bool = True, right: bool = True) -> np.ndarray:
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[1, 1:4, 1:4] = left
    labels[1, 5:7, 5:7] = 2 * right
    return labels


@pytest.fixture
def folders(tmp_path: Path, write_labels: WriteLabels) -> tuple[Path, Path]:
    """Return references and predictions: `a` right, `b` lacks "right" in the prediction, `c` in the reference."""
    references, predictions = tmp_path / "labels", tmp_path / "out" / "predictions"
    for name, reference, prediction in (
        ("a", blocks(), blocks()),
        ("b", blocks(), blocks(right=False)),
        ("c", blocks(right=False), blocks()),
    ):
        write_labels(references / f"{name}.nii.gz", reference)
        write_labels(predictions / f"{name}.nii.gz", prediction)
    return references, predictions


def test_means_and_presence(folders: tuple[Path, Path]) -> None:
    summary = evaluate_folder(*folders, LABELS, ".nii.gz", workers=1)
    assert summary.mean["left"]["Dice"] == 1
    assert summary.mean["right"]["Dice"] == pytest.approx(1 / 3)
    assert summary.mean["right"]["HD95"] == 0  # only where both have it
    assert summary.mean["nowhere"]["Dice"] is None
    assert summary.foreground_mean["Dice"] == pytest.approx(2 / 3)
    right = summary.presence["right"]
    assert (right.reference, right.prediction, right.missed, right.invented) == (2, 2, 1, 1)
    assert summary.unit == "mm"


def test_workers_do_not_change_the_result(tmp_path: Path, write_labels: WriteLabels) -> None:
    full, empty = (write_labels(tmp_path / f"{n}.nii.gz", blocks(bool(n), bool(n))) for n in (1, 0))
    pairs = [("a", full, empty), ("b", empty, full), ("c", empty, empty)]  # without distances, whose import is slow
    assert evaluate_pairs(pairs, LABELS, workers=2) == evaluate_pairs(pairs, LABELS, workers=1)


def test_written_files(folders: tuple[Path, Path]) -> None:
    references, predictions = folders
    summary = evaluate_folder(references, predictions, LABELS, ".nii.gz", workers=1)
    write_summary(summary, predictions)
    text = (predictions / "summary.json").read_text()
    content = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} in JSON"))
    assert content["foreground_mean"]["Dice"] == pytest.approx(2 / 3)
    assert list(content["mean"]) == ["1", "2", "3"]
    assert content["label_names"] == {"1": "left", "2": "right", "3": "nowhere"}
    assert content["mean"]["3"]["Dice"] is None
    assert content["presence"]["2"] == {"reference": 2, "prediction": 2, "missed": 1, "invented": 1}
    case = content["metric_per_case"][1]
    assert (case["reference_file"], case["prediction_file"]) == ("../../labels/b.nii.gz", "b.nii.gz")
    assert {"Dice", "IoU", "FN", "FP", "TN", "TP", "n_pred", "n_ref"} <= set(case["metrics"]["1"])
    with (predictions / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["class"]) for row in rows][:3] == [("a", "left"), ("a", "right"), ("a", "nowhere")]
    assert (rows[0]["Dice"], rows[2]["Dice"]) == ("1.0", "")


def test_region_keys_are_those_of_nnunet(tmp_path: Path, write_labels: WriteLabels) -> None:
    file = write_labels(tmp_path / "a.nii.gz", blocks())
    labels = LabelSet({"background": 0, "both": (1, 2), "right": 2}, (1, 2))
    write_summary(evaluate_pairs([("a", file, file)], labels), tmp_path)
    assert list(json.loads((tmp_path / "summary.json").read_text())["mean"]) == ["(1, 2)", "2"]


def test_nothing_present_at_all_is_null_not_nan(tmp_path: Path, write_labels: WriteLabels) -> None:
    file = write_labels(tmp_path / "a.nii.gz", blocks(left=False, right=False))
    summary = evaluate_pairs([("a", file, file)], LABELS)
    write_summary(summary, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["foreground_mean"]["Dice"] is None
    assert "-" in summary_table(summary)


def test_table_shows_every_class_and_the_counts(folders: tuple[Path, Path]) -> None:
    lines = summary_table(evaluate_folder(*folders, LABELS, ".nii.gz", workers=1)).splitlines()
    (right,) = [line for line in lines if "right" in line]
    assert right.replace("│", " ").split() == ["right", "0.333", "0.333", "0.00", "0.00", "0.333", "2", "2", "1", "1"]
    assert "3 cases, distances in mm" in lines[0]
    assert any("mean" in line and "0.667" in line for line in lines)


def test_plain_images_are_measured_in_pixels(tmp_path: Path, write_labels: WriteLabels) -> None:
    file = write_labels(tmp_path / "a.png", blocks()[1:2])
    assert evaluate_pairs([("a", file, file)], LABELS).unit == "pixels"


def test_missing_predictions_are_listed(folders: tuple[Path, Path]) -> None:
    references, predictions = folders
    (predictions / "a.nii.gz").unlink()
    (predictions / "c.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"no prediction for a, c \(2 of 3\)\. Predict them, or give --chill"):
        pair_files(references, predictions, ".nii.gz")
    assert [pair[0] for pair in pair_files(references, predictions, ".nii.gz", allow_missing=True)] == ["b"]


def test_predictions_without_reference_are_listed(folders: tuple[Path, Path]) -> None:
    references, predictions = folders
    (references / "b.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"no reference for b\. Add it"):
        pair_files(references, predictions, ".nii.gz")


def test_empty_and_absent_folders(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no file \*\.nii\.gz"):
        pair_files(tmp_path, tmp_path, ".nii.gz")
    with pytest.raises(DatasetError, match="absent: no such folder"):
        pair_files(tmp_path / "absent", tmp_path, ".nii.gz")


def test_mismatches_name_the_case(tmp_path: Path, write_labels: WriteLabels) -> None:
    good = write_labels(tmp_path / "good.nii.gz", blocks())
    small = write_labels(tmp_path / "small.nii.gz", blocks()[:2])
    fine = write_labels(tmp_path / "fine.nii.gz", blocks(), spacing=(1, 1, 1))
    strange = write_labels(tmp_path / "strange.nii.gz", blocks() * 7)
    with pytest.raises(DatasetError, match=r"one: reference has shape \(3, 8, 8\), prediction \(2, 8, 8\)"):
        evaluate_pairs([("one", good, small)], LABELS)
    with pytest.raises(DatasetError, match=r"one: reference has spacing \(2.0, 1.0, 1.0\) mm, prediction \(1.0, "):
        evaluate_pairs([("one", good, fine)], LABELS)
    with pytest.raises(DatasetError, match=r"one: prediction .*strange.nii.gz has values 0, 7, 14; the labels name"):
        evaluate_pairs([("one", good, strange)], LABELS)
