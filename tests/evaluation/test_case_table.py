"""cases.csv: metrics and expectations side by side, each replaced without touching the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from autosam_net.errors import DatasetError
from autosam_net.evaluation.case_table import (
    CONFIDENCE,
    confidence_rows,
    confidences_in,
    read_rows,
    replace_cases,
    replace_columns,
    seal_of,
)
from autosam_net.evaluation.confidence import Confidence


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "cases.csv"


CONFIDENCES = {"a": Confidence(0.9, 0.8), "b": None}


def test_confidences_come_back_exactly(table: Path) -> None:
    replace_cases(table, confidence_rows("x", CONFIDENCES, {"a": 0.7, "b": None}, bad=False))
    assert confidences_in(read_rows(table)) == {"x": CONFIDENCES}
    row = read_rows(table)["x", "a"]
    assert (row["expected_Dice"], row["expected_mean_Dice"], row["flag"]) == ("0.7", "0.7", "ok")


def test_metrics_and_expectations_lie_side_by_side(table: Path) -> None:
    replace_cases(table, confidence_rows("x", CONFIDENCES, {"a": 0.7, "b": 0.1}, bad=True))
    replace_columns(table, ["Dice"], {("x", "a"): {"Dice": 0.6}, ("x", "b"): {"Dice": 0.2}})
    row = read_rows(table)["x", "a"]
    assert (row["Dice"], row["expected_Dice"], row["flag"]) == ("0.6", "0.7", "bad")
    assert table.read_text().startswith("case,class,Dice,agreement,certainty,expected_Dice,expected_mean_Dice,flag\n")


def test_whole_columns_are_replaced_and_empty_rows_go(table: Path) -> None:
    replace_columns(table, ["Dice"], {("x", "a"): {"Dice": 0.6}, ("y", "a"): {"Dice": 0.5}})
    replace_columns(table, ["Dice"], {("y", "a"): {"Dice": None}})
    assert list(read_rows(table)) == [("y", "a")]


def test_a_case_predicted_again_loses_what_was_said_of_the_old_one(table: Path) -> None:
    for name in ("x", "y"):
        replace_cases(table, confidence_rows(name, CONFIDENCES))
    replace_columns(table, ["Dice"], {(name, "a"): {"Dice": 0.6} for name in ("x", "y")})
    replace_cases(table, confidence_rows("x", CONFIDENCES))
    assert read_rows(table)["x", "a"]["Dice"] == "" and read_rows(table)["y", "a"]["Dice"] == "0.6"


def test_rows_are_sorted_by_case_and_classes_keep_their_order(table: Path) -> None:
    for name in ("y", "x"):
        replace_cases(table, {(name, label): {"Dice": 1} for label in ("b", "a")})
    assert list(read_rows(table)) == [("x", "b"), ("x", "a"), ("y", "b"), ("y", "a")]


def test_another_table_of_that_name_is_not_taken_for_one(table: Path) -> None:
    table.write_text("id,age\n1,50\n")
    assert read_rows(table) == {}
    assert confidences_in({("x", "a"): {"Dice": "1"}}) == {}
    assert "flag" in CONFIDENCE


def test_a_file_that_is_no_table(table: Path) -> None:
    table.write_bytes(b"case,class,Dice\n\xff\xfe,a,1\n")
    with pytest.raises(DatasetError, match=r"cases.csv: not a table .* Remove it, it is written anew"):
        read_rows(table)


def test_a_table_that_has_changed_is_refused_and_one_without_a_checksum_is_used(table: Path) -> None:
    replace_cases(table, confidence_rows("x", CONFIDENCES))
    rows = read_rows(table)
    table.write_text(table.read_text().replace("0.9", "0.8"))
    with pytest.raises(DatasetError, match=r"cases.csv: damaged or edited, .* or remove \.cases\.csv\.sha256 to use"):
        read_rows(table)
    seal_of(table).unlink()
    assert read_rows(table) != rows
    replace_cases(table, confidence_rows("x", CONFIDENCES))
    assert read_rows(table) == rows and seal_of(table).is_file()


def test_a_table_is_read_while_it_is_written_anew(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_cases(table, confidence_rows("x", CONFIDENCES))
    before, others = seal_of(table).read_bytes(), iter([confidence_rows("y", CONFIDENCES)])
    plain_read = Path.read_bytes

    def read_after_another_process(file: Path) -> bytes:
        if file == table and (rows := next(others, None)):
            replace_cases(table, rows)
        return plain_read(file)

    monkeypatch.setattr(Path, "read_bytes", read_after_another_process)
    assert {case for case, _ in read_rows(table)} == {"x", "y"}
    assert seal_of(table).read_bytes() != before


def test_a_cell_that_is_no_number(table: Path) -> None:
    table.write_text("case,class,agreement,certainty\nx,a,0.5,many\n,,1,1\ny,a,nan,1\n")
    rows = read_rows(table)
    assert len(rows) == 2
    with pytest.raises(DatasetError, match=r"cases.csv: x: certainty is 'many', expected a number. Remove the file"):
        confidences_in(rows)
