"""The pretraining command's own work: what it says, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autosam_net.commands.pretrain import main
from autosam_net.jsonio import write_json
from tests.support import TINY, Prepared, copied, with_unet


@pytest.fixture
def root(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the flags of a data set whose plan has a U-Net; the user's folder is empty."""
    place = copied(prepared, tmp_path / "root")
    write_json(place.folders.preprocessed / place.dataset.name / "plan.json", with_unet(place.plan))
    monkeypatch.setenv("autosam_encoders", str(tmp_path / "encoders"))
    monkeypatch.setattr("autosam_net.training.pretrain.ITERATIONS", 1)
    return ["--root", str(place.root), "--device", "cpu"]


def test_it_says_what_was_made_and_how_it_is_used(
    root: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["900", "--epochs", "1", "--max-minutes", "9", *root]) == 0
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "encoders" / f"{TINY}_900_fold0.json").read_text())
    assert f"{tmp_path}/encoders/{TINY}_900_fold0.safetensors (sha256 {record['sha256']})" in said
    assert f"autosam_plan_and_preprocess -d 900 --encoder {TINY}_900_fold0" in said
    assert "fold 0 has not been seen; other folds hold cases out that have" in said
    assert main(["900", "-c", "unet", "--fold", "all", "--epochs", "1", "--name", "mine", *root]) == 0
    said = capsys.readouterr().out
    assert "autosam_train 900 unet all --pretrained mine" in said and "has not been seen" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["900", "--epochs", "0"], "--epochs 0: give a number above 0"),
        (["900", "--batch-size", "-1"], "--batch-size -1: give a number above 0"),
        (["900", "--max-minutes", "nan"], "--max-minutes nan: give a number above 0"),
        (["900", "-c", "unett"], "no configuration 'unett'; did you mean 'unet'"),
        (["900", "--fold", "7"], "fold 7 does not exist"),
        (["900", "--unlabelled", "nowhere"], "--unlabelled nowhere: no .nii.gz files in it"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    root: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main([*words, *root]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "encoders").exists() and not (tmp_path / "root" / "results").exists()
