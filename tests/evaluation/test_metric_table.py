from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.labels import LabelSet
from autosam_net.errors import DatasetError
from autosam_net.evaluation.case_table import METRICS, seal_of
from autosam_net.evaluation.metric_table import read_metric_tables
from autosam_net.evaluation.report import evaluate_pairs, write_summary

LABELS = LabelSet({"background": 0, "left": 1, "right": 2})


@pytest.fixture
def folders(tmp_path: Path, write_labels: Callable[..., Path]) -> list[Path]:
    """Return two evaluated folds of one case each; the second has nothing of `right`."""
    maps = np.zeros((2, 2, 8, 8), np.uint8)
    maps[0, :, 1:4, 1:4], maps[0, :, 5:7, 5:7], maps[1, :, 2:5, 2:5] = 1, 2, 1
    folders = []
    for index, labels in enumerate(maps):
        file = write_labels(tmp_path / f"case{index}.nii.gz", labels)
        summary = evaluate_pairs([(f"case{index}", file, file)], LABELS, workers=1)
        write_summary(summary, tmp_path / f"fold_{index}")
        folders.append(tmp_path / f"fold_{index}")
    return folders


def test_folds_come_together_as_they_were_written(folders: list[Path]) -> None:
    table = read_metric_tables([folder / "cases.csv" for folder in folders])
    assert table.cases == ("case0", "case1") and table.classes == ("left", "right")
    assert set(table.values) == set(METRICS)
    assert table.values["Dice"][0].tolist() == [1, 1]
    assert table.values["Dice"][1, 0] == 1 and np.isnan(table.of_class("Dice", "right")[1])
    assert table.case_dice.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cases.csv: missing, or no table of metrics"),
        ("case,class,Dice\na,left,1\n", "cases.csv: missing, or no table of metrics"),
        ("not\x00a table", "no table of metrics|not a table"),
        (
            f"case,class,{','.join(METRICS)}\na,left{',x' * len(METRICS)}\n",
            r"cases.csv: a: Dice is 'x', expected a number",
        ),
    ],
)
def test_a_damaged_file_is_named(folders: list[Path], content: str | None, message: str) -> None:
    file = folders[1] / "cases.csv"
    file.unlink()
    if content is not None:
        file.write_text(content)
        seal_of(file).unlink()
    with pytest.raises(DatasetError, match=message):
        read_metric_tables([folder / "cases.csv" for folder in folders])


def test_a_row_that_is_missing_is_named(folders: list[Path]) -> None:
    file = folders[0] / "cases.csv"
    lines = file.read_text().splitlines()
    seal_of(file).unlink()
    file.write_text("\n".join([*lines, lines[1].replace("case0", "case7")]))
    with pytest.raises(DatasetError, match="no row for case7 right"):
        read_metric_tables([file])
