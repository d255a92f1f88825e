"""The same head in both precisions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autosam_net.jsonio import read_json
from autosam_net.training.run import TrainingOptions
from benchmarks.measuring import Setting, table
from benchmarks.same_dice import PRECISIONS, dice_in, rows_of
from benchmarks.same_time import Contest
from tests.support import Prepared


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_head_is_trained_and_validated_in_the_precision(prepared: Prepared, tmp_path: Path, precision: str) -> None:
    setting = Setting(prepared.folders.raw.parent, prepared.dataset.name, tmp_path, 0, time.perf_counter)
    assert 0 <= dice_in(Contest(setting, "linear", "0", TrainingOptions(epochs=1), 1), precision) <= 1
    (run,) = tmp_path.rglob("run.json")
    assert read_json(run)["precision"] == precision
    assert len(list(run.parent.glob("validation/*.nii.gz"))) == 1


def test_the_table_has_every_seed_and_the_mean_difference() -> None:
    lines = table(rows_of([{"bfloat16": 0.80, "float32": 0.81}, {"bfloat16": 0.83, "float32": 0.81}]))[2:]
    assert lines == [
        "| seed 0, bfloat16 |  | 0.8 mean Dice |  |",
        "| seed 0, float32 |  | 0.81 mean Dice |  |",
        "| seed 1, bfloat16 |  | 0.83 mean Dice |  |",
        "| seed 1, float32 |  | 0.81 mean Dice |  |",
        "| bfloat16 - float32, mean of -0.0100, +0.0200 |  | 0.005 | -0.002 or more |",
    ]
