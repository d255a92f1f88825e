"""What strategies cost and bring, as tables and a plot."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from autosam_net.errors import PlanError
from autosam_net.evaluation.run_table import LabelRun
from autosam_net.evaluation.strategies import read_strategy_figures, strategies_table, write_strategies


def written(folder: Path, seconds: float) -> Path:
    """Write what a training of 20 steps leaves."""
    summary: dict[str, Any] = {"foreground_mean": {"Dice": 0.7, "HD95": None}, "mean": {}, "label_names": {}}
    (folder / "validation").mkdir(parents=True)
    (folder / "validation" / "summary.json").write_text(json.dumps(summary))
    record = {
        "seconds": {"training": seconds, "encoding": 20.0},
        "iterations": 20,
        "parameters": {"encoder": {"all": 100, "trained": 10}, "head": {"all": 7, "trained": 7}},
        "peak_memory_mib": {"cpu": 900, "cuda": 0},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_figures_count_what_learns_and_what_the_head_before_took(tmp_path: Path) -> None:
    tuned, head = written(tmp_path / "tuned", 40.0), written(tmp_path / "head", 100.0)
    figures = read_strategy_figures(tuned, "cpu", head)
    assert (figures["trained parameters"], figures["steps"], figures["seconds per step"]) == (17, 20, 2.0)
    assert (figures["peak memory (MiB)"], figures["minutes"]) == (900, 3.0)
    assert read_strategy_figures(tuned, "cuda")["peak memory (MiB)"] is None
    assert read_strategy_figures(tuned, "cpu")["minutes"] == 1.0


def runs(tmp_path: Path) -> list[LabelRun]:
    figures = read_strategy_figures(written(tmp_path / "run", 40.0), "cpu")
    return [
        LabelRun("lite_medsam head", "1", 1, 0, figures),
        LabelRun("lite_medsam head", "1", 1, 1, {**figures, "Dice": 0.8}),
        LabelRun("lite_medsam head:lora", "7", 7, 0, {**figures, "Dice": None}),
    ]


def test_the_table_has_a_row_for_each_strategy_and_number(tmp_path: Path) -> None:
    lines = strategies_table(runs(tmp_path)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2] == "| lite_medsam head | 1 | 2 | 17 | 20 | 2.00 | 900 | 1.0 | 0.750 ± 0.071 | - |"
    assert lines[3] == "| lite_medsam head:lora | 7 | 1 | 17 | 20 | 2.00 | 900 | 1.0 | - | - |"


def test_the_files_hold_every_run_and_every_group(tmp_path: Path) -> None:
    write_strategies(tmp_path / "out", "Dataset900, 20 steps each", runs(tmp_path))
    rows = list(csv.DictReader((tmp_path / "out" / "runs.csv").read_text().splitlines()))
    assert [row["Dice"] for row in rows] == ["0.7", "0.8", ""]
    assert (tmp_path / "out" / "table.md").read_text().startswith("Dataset900, 20 steps each\n\n| strategy |")
    assert (tmp_path / "out" / "strategies.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_without_its_record_is_named(tmp_path: Path) -> None:
    (written(tmp_path, 40.0) / "run.json").unlink()
    with pytest.raises(PlanError, match=r"run.json: no such file"):
        read_strategy_figures(tmp_path, "cpu")
