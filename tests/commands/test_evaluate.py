from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from autosam_net.commands.evaluate import main
from autosam_net.data.volume import Geometry
from autosam_net.imageio import write_label

DESCRIPTION = {"labels": {"background": 0, "heart": 1, "lung": 2}, "file_ending": ".nii.gz"}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Return a folder with `labels` and equal `predictions` of two cases that have the values 0 and 1."""
    labels = np.zeros((2, 6, 6), np.uint8)
    labels[:, 1:4, 1:4] = 1
    for name in ("labels/a", "labels/b", "predictions/a", "predictions/b"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        write_label(path, labels, Geometry((1.0, 1.0, 1.0)))
    return tmp_path


def evaluate(raw: Path, *words: str) -> int:
    return main(["-r", str(raw / "labels"), "-p", str(raw / "predictions"), *words])


def test_labels_are_found_beside_the_references(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "dataset.json").write_text(json.dumps(DESCRIPTION))
    assert evaluate(raw, "-o", str(raw / "report")) == 0
    shown = capsys.readouterr().out
    assert "heart" in shown
    assert "lung" in shown
    assert json.loads((raw / "report" / "summary.json").read_text())["foreground_mean"]["Dice"] == 1
    assert not (raw / "predictions" / "summary.json").exists()


def test_labels_with_the_predictions_come_first(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "dataset.json").write_text(json.dumps(DESCRIPTION))
    named = {**DESCRIPTION, "labels": {"background": 0, "spleen": 1}}
    (raw / "predictions" / "plan.json").write_text(json.dumps(named))
    assert evaluate(raw) == 0
    assert "spleen" in capsys.readouterr().out


def test_without_a_description_the_values_present_are_the_classes(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(raw) == 0
    assert "label 1" in capsys.readouterr().out
    assert evaluate(raw) == 0  # its own summary.json beside the predictions does not disturb


def test_values_with_gaps_need_a_description(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in raw.glob("*/*.nii.gz"):
        write_label(path, np.full((2, 6, 6), 255, np.uint8), Geometry((1.0, 1.0, 1.0)))
    assert evaluate(raw) == 2
    assert "values [0, 255] are not 0, 1, 2, ... Name them with --labels FILE." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ('{"labels": {}}', "key 'file_ending' is missing"),
        ('{"labels": {"background": "0"}, "file_ending": ".nii.gz"}', "labels: background: expected a whole number"),
        ('{"labels": {"background": 0, "x": 2}, "file_ending": ".nii.gz"}', "must be consecutive"),
    ],
)
def test_a_broken_description_is_one_line(
    raw: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (raw / "broken.json").write_text(content)
    assert evaluate(raw, "--labels", str(raw / "broken.json")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_missing_prediction_fails_unless_allowed(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (raw / "predictions" / "b.nii.gz").unlink()
    assert evaluate(raw) == 2
    assert "no prediction for b (1 of 2)" in capsys.readouterr().err
    assert not (raw / "predictions" / "summary.json").exists()
    assert evaluate(raw, "--chill") == 0


def test_folder_that_does_not_exist(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-r", str(raw / "nothing"), "-p", str(raw / "predictions")]) == 2
    assert "nothing: no such folder" in capsys.readouterr().err


def test_tolerance_moves_the_surface_dice(raw: Path) -> None:
    shifted = np.zeros((2, 6, 6), np.uint8)
    shifted[:, 1:4, 2:5] = 1
    write_label(raw / "predictions" / "a.nii.gz", shifted, Geometry((1.0, 1.0, 1.0)))
    scores = []
    for tolerance in ("0", "1"):
        assert evaluate(raw, "--nsd-tolerance", tolerance) == 0
        scores.append(json.loads((raw / "predictions" / "summary.json").read_text())["foreground_mean"]["NSD"])
    assert scores[0] < scores[1] == 1


@pytest.mark.parametrize("tolerance", ["-1", "nan", "wide"])
def test_impossible_tolerance(raw: Path, tolerance: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate(raw, f"--nsd-tolerance={tolerance}")
