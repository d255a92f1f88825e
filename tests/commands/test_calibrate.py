"""The command that learns which Dice to expect and reports how well it works."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.commands.calibrate import main
from autosam_net.inference.validate import train_and_validate
from autosam_net.training.run import TrainingOptions
from tests.support import Prepared


@pytest.fixture
def root(prepared: Prepared, tmp_path: Path) -> Path:
    """Return a root with one validated fold, which holds out fewer patients than are needed."""
    shutil.copytree(prepared.root, tmp_path, dirs_exist_ok=True)
    folders = replace(prepared.folders, results=tmp_path / "results")
    train_and_validate(prepared.dataset, prepared.plan, "linear", "0", TrainingOptions(epochs=1), folders)
    return tmp_path


def test_validations_of_earlier_versions_are_done_again(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autosam_net.evaluation.expected_dice.MINIMUM_PATIENTS", 2)
    model = root / "results" / "Dataset900_Example" / "linear"
    (model / "fold_0" / "validation" / "cases.csv").unlink()
    (model / "MODEL_CARD.md").unlink()
    assert main(["900", "--root", str(root), "--device", "cpu"]) == 0
    assert "linear" in capsys.readouterr().out
    assert (model / "expected_dice.json").is_file() and (model / "MODEL_CARD.md").is_file()


def test_too_few_patients_are_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["900", "-c", "linear", "--root", str(root), "--device", "cpu"]) == 2
    expected = "Dataset900_Example: nothing learnt for linear: too few patients are held out. Train more folds."
    assert expected in capsys.readouterr().err
