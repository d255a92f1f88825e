"""The label-efficiency command: which trainings it makes, what it keeps, and what it refuses."""

from __future__ import annotations

import csv
import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosam_net.commands.label_efficiency import main
from autosam_net.commands.trainings import parse_numbers
from autosam_net.data.prompts import PromptOptions
from autosam_net.errors import ModelError, UsageError
from autosam_net.inference import validate
from autosam_net.inference.zero_shot import ZeroShotRun
from autosam_net.jsonio import write_json
from tests.support import Prepared, Recorder, with_small_sam

ALL = ("-c", "linear", "cnn", "--labelled", "1", "all", "--seeds", "2")


@pytest.fixture
def root(prepared: Prepared, tmp_path: Path) -> Path:
    """Return a root with the phantom's data and results of its own."""
    for name in ("raw", "preprocessed"):
        (tmp_path / name).symlink_to(prepared.root / name)
    return tmp_path


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    facts = {"seconds": {"training": 6.0, "encoding": 0.5}}
    recorder = Recorder(facts, lambda configuration, options: 0.5 + 0.1 * options.seed + 0.01 * len(configuration))
    monkeypatch.setattr(validate, "train_and_validate", recorder)
    return recorder


def asked(recorder: Recorder) -> list[tuple[str, int | None, int]]:
    return [(configuration, options.labelled, options.seed) for configuration, options in recorder.runs]


def call(root: Path, *words: str) -> int:
    return main(["900", *words, "--root", str(root), "--device", "cpu"])


def rows(root: Path, name: str) -> list[dict[str, str]]:
    path = root / "results" / "Dataset900_Example" / "label_efficiency" / name
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_configuration_number_and_seed_is_trained_once(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(root, *ALL) == 0
    expected = {(name, number, seed) for name in ("linear", "cnn") for number in (1, None) for seed in (0, 1)}
    assert set(asked(recorder)) == expected and len(recorder.runs) == len(expected)
    assert [seed for _, _, seed in asked(recorder)] == sorted(seed for _, _, seed in asked(recorder))
    runs, groups = rows(root, "runs.csv"), rows(root, "table.csv")
    assert [(row["configuration"], row["labelled"], row["patients"], row["seed"]) for row in runs[:4]] == [
        ("linear", "1", "1", "0"),
        ("linear", "1", "1", "1"),
        ("linear", "all", "4", "0"),
        ("linear", "all", "4", "1"),
    ]
    assert (runs[0]["Dice"], runs[0]["Dice RV"], runs[0]["HD95"]) == ("0.56", "0.56", "5.0")
    assert (runs[0]["training_seconds"], runs[0]["encoding_seconds"]) == ("6.0", "0.5")
    assert [(row["configuration"], row["runs"], row["Dice mean"]) for row in groups] == [
        ("linear", "2", "0.61"),
        ("linear", "2", "0.61"),
        ("cnn", "2", "0.58"),
        ("cnn", "2", "0.58"),
    ]
    assert "0.610 ± 0.071" in capsys.readouterr().out


def test_with_unlabelled_cases_both_curves_are_drawn(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-c", "linear", "--seeds", "2", "--unlabelled", "--labelled")
    assert call(root, *words, "1") == 0
    assert [(row["configuration"], row["runs"]) for row in rows(root, "table.csv")] == [
        ("linear", "2"),
        ("linear (unlabelled)", "2"),
    ]
    assert call(root, *words, "all") == 2
    assert "--unlabelled: all patients of this fold are labelled" in capsys.readouterr().err


def test_a_stopped_command_has_lost_nothing_and_goes_on(root: Path, recorder: Recorder) -> None:
    recorder.stop_at = 3
    assert call(root, *ALL) == 130
    assert len(rows(root, "runs.csv")) == 3
    recorder.stop_at = None
    assert call(root, *ALL) == 0
    assert len(recorder.runs) == len(set(asked(recorder))) == 8
    assert len(rows(root, "runs.csv")) == 8
    assert call(root, *ALL) == 0
    assert len(recorder.runs) == 8


def test_a_run_by_other_options_is_no_part_of_the_curve(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-c", "linear", "--labelled", "1", "--seeds", "1")
    assert call(root, *words, "--max-minutes", "2") == 0
    assert call(root, *words) == 2
    assert "linear_labelled1_seed0/fold_0: trained with max_minutes 2.0. Move it away" in capsys.readouterr().err


def test_a_run_by_another_recipe_is_no_part_of_the_curve(
    root: Path, prepared: Prepared, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-c", "linear", "--labelled", "1", "--seeds", "1")
    assert call(root, *words) == 0
    plan_file = root / "results" / "Dataset900_Example" / "linear_labelled1_seed0" / "plan.json"
    longer = replace(prepared.plan.configurations["linear"], epochs=7)
    write_json(plan_file, replace(prepared.plan, configurations={"linear": longer}))
    assert call(root, *words) == 2
    assert "trained with other settings of linear in its plan.json" in capsys.readouterr().err


@pytest.mark.parametrize("is_validated", [True, False])
def test_a_run_on_other_cases_is_no_part_of_the_curve(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str], is_validated: bool
) -> None:
    words = ("-c", "linear", "--labelled", "1", "--seeds", "1")
    assert call(root, *words) == 0
    folder = root / "results" / "Dataset900_Example" / "linear_labelled1_seed0" / "fold_0"
    record = json.loads((folder / "run.json").read_text())
    if not is_validated:
        (folder / "validation" / "summary.json").unlink()
    write_json(folder / "run.json", record | {"held_out": record["held_out"][1:], "unlabelled": ["scan"]})
    assert call(root, *words) == 2
    expected = "fold_0: trained with other cases as held_out in its run.json, other cases as unlabelled in its run.json"
    assert f"{expected}. Move it away" in capsys.readouterr().err
    assert len(recorder.runs) == 1


def test_it_trains_and_validates_as_the_training_command_does(root: Path) -> None:
    assert call(root, "-c", "linear", "--labelled", "1", "--seeds", "1") == 0
    folder = root / "results" / "Dataset900_Example" / "linear_labelled1_seed0" / "fold_0"
    summary: Any = json.loads((folder / "validation" / "summary.json").read_text())
    (row,) = rows(root, "runs.csv")
    assert float(row["Dice"]) == pytest.approx(summary["foreground_mean"]["Dice"], abs=1e-6)
    assert {"Dice RV", "Dice MYO", "Dice LV"} < set(row)
    assert float(row["training_seconds"]) >= 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-c", "cn", "--labelled", "1"), "no configuration 'cn'; did you mean 'cnn'"),
        (("-c", "cnn", "--labelled", "0"), "--labelled 0: give numbers above 0, or all"),
        (("-c", "cnn", "--labelled", "one"), "--labelled one: give numbers above 0, or all"),
        (("-c", "cnn", "--labelled", "1", "99"), "--labelled 99: this fold trains on 4 patients"),
        (("-c", "cnn", "--labelled", "1", "--seeds", "0"), "--seeds 0: give a number above 0"),
        (("-c", "cnn", "--labelled", "1", "--max-minutes", "0"), "--max-minutes 0.0: give a number above 0"),
        (("-c", "cnn", "--labelled", "1", "--fold", "all"), "fold all holds no case out"),
        (("-c", "cnn", "--labelled", "1", "--fold", "7"), "fold 7 does not exist"),
    ],
)
def test_a_users_error_is_one_line_before_anything_is_trained(
    root: Path, recorder: Recorder, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    assert call(root, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert recorder.runs == []
    assert not (root / "results").exists()


def test_numbers_of_patients() -> None:
    assert parse_numbers(Namespace(labelled=["1", "12", "all", "1"]), "labelled") == [1, 12, None]
    with pytest.raises(UsageError, match="--last-blocks -1: give numbers above 0, or all"):
        parse_numbers(Namespace(last_blocks=["-1"]), "last_blocks")


def test_sam_as_it_is_stands_at_no_patient_and_is_not_segmented_twice(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = with_small_sam(prepared, tmp_path, monkeypatch)
    words = ("-c", "linear", "--labelled", "1", "--seeds", "1", "--zero-shot", "box", "box-holes")
    assert call(tmp_path, *words) == 0
    said = capsys.readouterr().out
    assert "zero_shot_box fold 0" in said and "zero-shot (box prompts, holes apart, from the reference)" in said
    table = rows(tmp_path, "table.csv")
    assert [(row["configuration"], row["prompts"], row["patients"]) for row in table] == [
        ("zero-shot", "box prompts, from the reference", "0"),
        ("zero-shot", "box prompts, holes apart, from the reference", "0"),
        ("linear", "", "1"),
    ]
    assert call(tmp_path, *words) == 0
    assert "zero_shot_box fold 0" not in capsys.readouterr().out
    finer = replace(place.plan, preprocessing=replace(place.plan.preprocessing, spacing=1.9))
    with pytest.raises(ModelError, match=r"zero_shot_box/fold_0: made with other settings. Move it away"):
        _ = ZeroShotRun(place.dataset, finer, "0", PromptOptions("box"), place.folders).is_finished
