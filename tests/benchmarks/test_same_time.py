"""The same time for both sides: how it is kept, and what is told of it; nnU-Net itself is not needed here."""

from __future__ import annotations

import json
import shutil
import time
from itertools import count
from types import SimpleNamespace

import pytest

from autosam_net.data.dataset import training_cases
from autosam_net.training.run import TrainingOptions
from benchmarks.measuring import Setting, table
from benchmarks.peer import run_command, write_part
from benchmarks.same_time import Contest, Score, learn, rows_of, trained_before
from tests.support import Prepared


def test_training_stops_when_the_time_is_over_and_the_rate_falls_with_it() -> None:
    ticks, group, rates = count(), {"lr": 0.0}, []
    trainer = SimpleNamespace(
        network=SimpleNamespace(train=lambda: None),
        optimizer=SimpleNamespace(param_groups=[group]),
        initial_lr=0.01,
        dataloader_train=iter(range(100)),
        train_step=lambda batch: rates.append(group["lr"]),
    )
    assert learn(trainer, 10.0, lambda: float(next(ticks))) == 9
    assert rates[0] == pytest.approx(0.01 * 0.9**0.9) and rates[-1] == pytest.approx(0.01 * 0.1**0.9)
    assert rates == sorted(rates, reverse=True)


def test_the_table_has_both_and_the_difference() -> None:
    lines = table(rows_of(Score(100.0, 500, 0.8), Score(100.0, 90, 0.5)))[2:]
    assert lines == [
        "| nnunetv2 2d, 90 steps | 100 s a training | 0.5 mean Dice |  |",
        "| ours, 500 steps, encoding included | 100 s a training | 0.8 mean Dice |  |",
        "| difference |  | 0.3 more than nnunetv2 | >= 0.25 |",
    ]


def test_a_fold_that_was_trained_before_is_evaluated_on_the_same_cases(prepared: Prepared, tmp_path) -> None:
    setting = Setting(prepared.folders.raw.parent, prepared.dataset.name, tmp_path, 0, time.perf_counter)
    contest = Contest(setting, "cnn", "0", TrainingOptions(), 1)
    (case,) = contest.files(contest.validation_cases)
    (tmp_path / "validation").mkdir()
    shutil.copy(case.label, tmp_path / "validation" / (case.name + prepared.dataset.file_ending))
    (tmp_path / "run.json").write_text('{"iterations": 2000}')
    assert trained_before(contest, tmp_path, 120.0) == Score(120.0, 2000, 1.0)


def test_a_part_is_a_data_set_of_its_own(prepared: Prepared, tmp_path) -> None:
    chosen = training_cases(prepared.dataset)[1:3]
    part = write_part(prepared.dataset, chosen, tmp_path)
    assert [case.name for case in training_cases(part)] == [case.name for case in chosen]
    assert part.labels == prepared.dataset.labels
    assert json.loads((part.folder / "dataset.json").read_text())["numTraining"] == 2


def test_a_command_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match="No module named nothing_of_the_kind"):
        run_command("python", "-m", "nothing_of_the_kind")
