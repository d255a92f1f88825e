"""cases.csv: one row a case and class; metrics where there is a reference, confidence and expected Dice without one."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from autosam_net.errors import DatasetError
from autosam_net.evaluation.confidence import Confidence
from autosam_net.evaluation.expected_dice import Confidences, Dice, mean_of
from autosam_net.evaluation.metrics import ClassMetrics
from autosam_net.files import alone, atomic_file

CASES_FILE = "cases.csv"
KEY = ("case", "class")
METRICS = tuple(field.name for field in dataclasses.fields(ClassMetrics))
CONFIDENCE = ("agreement", "certainty", "expected_Dice", "expected_mean_Dice", "flag")

WAIT = 20.0  # seconds between two writings of a growing table, at least
SHARE = 0.02  # of the time, at most, that they may take

Rows = Mapping[tuple[str, str], Mapping[str, Any]]
"""(case, class) -> column -> value; None and what is missing are empty cells."""


def read_rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Return the rows of a table, of the columns known here; nothing where it is missing or another table.

    Raises:
        DatasetError: the file is no table.
    """
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            rows = [row for row in reader if row.get("case") and row.get("class")]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a table ({error}). Remove it, it is written anew.") from error
    known = [name for name in (*METRICS, *CONFIDENCE) if name in columns]
    return {(row["case"], row["class"]): {name: row[name] or "" for name in known} for row in rows}


def replace_columns(path: Path, columns: Sequence[str], rows: Rows) -> None:
    """Put the values of whole columns into a table; the other columns stay, and rows without any value go."""
    with alone(path):
        kept = {
            key: {name: value for name, value in row.items() if name not in columns}
            for key, row in read_rows(path).items()
        }
        merged = {key: {**kept.get(key, {}), **rows.get(key, {})} for key in dict.fromkeys([*kept, *rows])}
        _write(path, {key: row for key, row in merged.items() if key in rows or any(row.values())})


def replace_cases(path: Path, rows: Rows) -> None:
    """Put whole cases into a table; the rows of other cases stay."""
    cases = {case for case, _ in rows}
    with alone(path):
        kept = {key: row for key, row in read_rows(path).items() if key[0] not in cases}
        _write(path, {**kept, **rows})


class GrowingTable:
    """A table that cases are put into one after the other, by several processes perhaps.

    It is written now and then, and when it is left, by an error too: with many cases to write it after each would cost
    more than the cases themselves.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple[str, str], Mapping[str, Any]] = {}
        self._next = time.monotonic() + WAIT

    def __enter__(self) -> GrowingTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

    def add(self, rows: Rows) -> None:
        """Take in the rows of one case."""
        self._rows.update(rows)
        if time.monotonic() > self._next:
            self._write()

    def _write(self) -> None:
        start = time.monotonic()
        if self._rows:
            replace_cases(self.path, self._rows)
            self._rows = {}
        end = time.monotonic()
        self._next = end + max(WAIT, (end - start) / SHARE)


def confidence_rows(
    case: str, confidences: Confidences, expected: Dice | None = None, bad: bool | None = None
) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of one case, with the expected Dice where it is known."""
    expected = expected or {}
    common = {"expected_mean_Dice": mean_of(expected.values()), "flag": {True: "bad", False: "ok", None: None}[bad]}
    return {
        (case, name): {
            "agreement": None if one is None else one.agreement,
            "certainty": None if one is None else one.certainty,
            "expected_Dice": expected.get(name),
            **common,
        }
        for name, one in confidences.items()
    }


def confidences_in(rows: Mapping[tuple[str, str], Mapping[str, str]]) -> dict[str, Confidences]:
    """Return case -> confidences of the rows of `read_rows`; cases without these columns are left out.

    Raises:
        DatasetError: a cell is no number.
    """
    cases: dict[str, dict[str, Confidence | None]] = {}
    for (case, name), row in rows.items():
        if "agreement" in row:
            where = f"{CASES_FILE}: {case}"
            agreement, certainty = (number(row[column], where, column) for column in ("agreement", "certainty"))
            one = None if agreement is None or certainty is None else Confidence(agreement, certainty)
            cases.setdefault(case, {})[name] = one
    return dict(cases)


def number(cell: str, where: str, column: str) -> float | None:
    """Return the number in a cell, None where it is empty.

    Raises:
        DatasetError: it is something else.
    """
    try:
        value = float(cell) if cell else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise DatasetError(f"{where}: {column} is {cell!r}, expected a number. Remove the file.")
    return value


def _write(path: Path, rows: Rows) -> None:
    used = {name for row in rows.values() for name in row}
    columns = [name for name in (*METRICS, *CONFIDENCE) if name in used]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, [*KEY, *columns])
    writer.writeheader()
    for key in sorted(rows, key=lambda entry: entry[0]):  # stable: classes stay in their order
        writer.writerow({**dict(zip(KEY, key, strict=True)), **rows[key]})
    content = table.getvalue().encode()
    if not path.is_file() or path.read_bytes() != content:
        with atomic_file(path) as temporary:
            temporary.write_bytes(content)
