"""Tables and curve of many trainings."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from autosam_net.errors import PlanError
from autosam_net.evaluation.label_efficiency import label_efficiency_table, write_label_efficiency
from autosam_net.evaluation.run_table import LabelRun, group_runs, read_figures


def record(
    configuration: str, labelled: str, seed: int, dice: float | None, hd95: float | None = 10.0, seconds: float = 60.0
) -> LabelRun:
    patients = 80 if labelled == "all" else int(labelled)
    figures = {"Dice": dice, "Dice A": dice, "HD95": hd95, "training_seconds": seconds, "encoding_seconds": 30.0}
    return LabelRun(configuration, labelled, patients, seed, figures)


RUNS = [
    record("cnn", "1", 0, 0.6),
    record("cnn", "1", 1, 0.8),
    record("cnn", "all", 0, 0.9),
    record("vit", "1", 0, None, None),
]


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_runs_are_grouped_by_configuration_and_number() -> None:
    several, single, undefined = group_runs(RUNS)
    assert (several.configuration, several.labelled, len(several.runs)) == ("cnn", "1", 2)
    assert several.mean["Dice"] == pytest.approx(0.7)
    assert several.sd["Dice"] == pytest.approx(0.2 / 2**0.5)
    assert (single.patients, single.mean["Dice"], single.sd["Dice"]) == (80, 0.9, None)
    assert undefined.mean["Dice"] is None and undefined.sd["Dice"] is None


def test_groups_do_not_depend_on_the_order_of_seeds() -> None:
    assert [group.mean for group in group_runs([RUNS[1], RUNS[0], *RUNS[2:]])] == [g.mean for g in group_runs(RUNS)]


def test_the_files_hold_every_run_and_every_group(tmp_path: Path) -> None:
    write_label_efficiency(tmp_path, RUNS)
    runs, groups = rows(tmp_path / "runs.csv"), rows(tmp_path / "table.csv")
    assert [(row["configuration"], row["labelled"], row["patients"], row["seed"]) for row in runs] == [
        ("cnn", "1", "1", "0"),
        ("cnn", "1", "1", "1"),
        ("cnn", "all", "80", "0"),
        ("vit", "1", "1", "0"),
    ]
    assert [row["Dice A"] for row in runs] == ["0.6", "0.8", "0.9", ""]
    assert [(row["runs"], row["Dice mean"], row["Dice sd"]) for row in groups] == [
        ("2", "0.7", "0.141421"),
        ("1", "0.9", ""),
        ("1", "", ""),
    ]
    assert (tmp_path / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_shows_mean_and_spread() -> None:
    lines = label_efficiency_table(RUNS).splitlines()
    (several,) = [line for line in lines if "0.700" in line]
    assert "0.700 ± 0.141" in several and "10.00 ± 0.00" in several and "1.5" in several
    assert any("0.900 " in line and "±" not in line for line in lines)
    assert any("vit" in line and "-" in line for line in lines)


def test_what_needs_prompts_is_marked_and_stands_apart(tmp_path: Path) -> None:
    zero = LabelRun("prompted", "0", 0, 0, RUNS[0].figures, "box prompts")
    few = LabelRun("prompted", "1", 1, 0, RUNS[1].figures, "box prompts")
    write_label_efficiency(tmp_path, [*RUNS, zero, few])
    assert [row["prompts"] for row in rows(tmp_path / "table.csv")] == ["", "", "", "box prompts", "box prompts"]
    assert rows(tmp_path / "runs.csv")[-2]["patients"] == "0"
    assert "prompted (box prompts)" in label_efficiency_table([zero])
    assert (tmp_path / "label_efficiency.png").read_bytes().startswith(b"\x89PNG")


def written(folder: Path) -> Path:
    summary: dict[str, Any] = {
        "foreground_mean": {"Dice": 0.7, "HD95": None},
        "mean": {"1": {"Dice": 0.6}, "(2, 3)": {"Dice": 0.8}},
        "label_names": {"1": "RV", "(2, 3)": "whole"},
    }
    (folder / "validation").mkdir()
    (folder / "validation" / "summary.json").write_text(json.dumps(summary))
    (folder / "run.json").write_text(json.dumps({"seconds": {"training": 5.0, "encoding": 2.0}}))
    return folder


def test_figures_are_those_of_the_validation_by_the_names_of_the_classes(tmp_path: Path) -> None:
    assert read_figures(written(tmp_path)) == {
        "Dice": 0.7,
        "Dice RV": 0.6,
        "Dice whole": 0.8,
        "HD95": None,
        "training_seconds": 5.0,
        "encoding_seconds": 2.0,
    }


def test_a_training_without_its_record_is_named(tmp_path: Path) -> None:
    (written(tmp_path) / "run.json").unlink()
    with pytest.raises(PlanError, match=r"run.json: no such file"):
        read_figures(tmp_path)
