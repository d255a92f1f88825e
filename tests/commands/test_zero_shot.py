"""The zero-shot command: from a checkpoint to label maps and a summary, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autosam_net.commands.zero_shot import main
from autosam_net.data.splits import load_splits
from autosam_net.imageio import read_label
from tests.support import Prepared, snapshot, with_small_sam

NAME = "Dataset900_Example"


@pytest.fixture
def root(prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return with_small_sam(prepared, tmp_path, monkeypatch).root


def call(root: Path, *words: str) -> int:
    return main(["900", *words, "--root", str(root), "--device", "cpu"])


def test_held_out_cases_are_segmented_on_the_raw_grid(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(root, "--prompt", "box", "--fold", "1") == 0
    said = capsys.readouterr()
    assert "drawn from the reference labels" in said.out and "upper bound" in said.out
    assert "trained with" not in said.err
    held_out = load_splits(root / "preprocessed" / NAME / "splits_final.json")[1].val
    folder = root / "results" / NAME / "zero_shot_box" / "fold_1"
    for case in held_out:
        reference = read_label(root / "raw" / NAME / "labelsTr" / f"{case}.nii.gz")
        found = read_label(folder / "validation" / f"{case}.nii.gz")
        assert (found.shape, found.geometry) == (reference.shape, reference.geometry)
    summary: Any = json.loads((folder / "validation" / "summary.json").read_text())
    assert summary["number_of_cases"] == len(held_out)
    assert (folder / "validation" / "cases.csv").is_file()
    record: Any = json.loads((folder / "run.json").read_text())
    assert record["prompts"] == "drawn from the reference labels"
    assert record["options"]["kind"] == "box" and not record["options"]["holes"]
    assert summary["prompts"] == "box prompts, from the reference"
    assert record["held_out"] == list(held_out)


def test_the_same_command_gives_the_same_label_maps(root: Path) -> None:
    words = ("--prompt", "point", "--points", "2")
    assert call(root, *words) == 0
    folder = root / "results" / NAME / "zero_shot_point_points2" / "fold_0" / "validation"
    first = {name: entry[1] for name, entry in snapshot(folder).items() if entry and name.endswith(".nii.gz")}
    assert first
    assert call(root, *words) == 0
    assert {name: entry[1] for name, entry in snapshot(folder).items() if entry and name.endswith(".nii.gz")} == first


def test_prompts_that_the_decoder_never_saw_are_announced(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert call(root, "--prompt", "point") == 0
    assert "small_sam was trained with box prompts only" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompt", "box", "--points", "3"), "--points 3 goes with point or both"),
        (("--prompt", "point", "--points", "0"), "--points 0: give a number above 0"),
        (("--prompt", "point", "--jitter", "3"), "--jitter 3 goes with box or both"),
        (("--prompt", "box", "--fold", "all"), "fold all holds no case out"),
        (("--prompt", "box", "--fold", "9"), "fold 9 does not exist; this data set has folds 0-4 and all"),
    ],
)
def test_a_users_error_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert call(root, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (root / "results").exists()


def test_an_encoder_without_sams_decoder_is_refused(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(prepared.root, "--prompt", "box") == 2
    assert "weights hold no prompt encoder and mask decoder of SAM's" in capsys.readouterr().err
    assert not prepared.folders.results.exists()


def test_the_kind_of_prompt_must_be_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        call(root, "--prompt", "mask")
    assert exit_.value.code == 2
    assert "choose from" in capsys.readouterr().err
