"""cases.csv: one row a case and class; metrics where there is a reference, confidence and expected Dice without one."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
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
        DatasetError: the file is no table, or has changed since it was written.
    """
    if not path.is_file():
        return {}
    content = _sealed_content(path)
    try:
        reader = csv.DictReader(io.StringIO(content.decode(), newline=""))
        columns = reader.fieldnames or ()
        rows = [row for row in reader if row.get("case") and row.get("class")]
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a table ({error}). Remove it, it is written anew.") from error
    known = [name for name in (*METRICS, *CONFIDENCE) if name in columns]
    return {(row["case"], row["class"]): {name: row[name] or "" for name in known} for row in rows}


def seal_of(path: Path) -> Path:
    """Return the file beside a table that holds its checksum, as sha256sum writes it; a table without one is used."""
    return path.with_name(f".{path.name}.sha256")


def _sealed_content(path: Path) -> bytes:
    seal, expected = seal_of(path), _content_of(seal_of(path))
    content = path.read_bytes()
    while (again := _content_of(seal)) != expected:  # another process has written the table anew meanwhile
        expected, content = again, path.read_bytes()
    if expected not in (None, _seal(path, content)):
        raise DatasetError(
            f"{path}: damaged or edited, it has another checksum than {seal.name} beside it says. Remove it, and "
            f"repeat what made it; or remove {seal.name} to use the table as it is."
        )
    return content


def _content_of(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _seal(path: Path, content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode()


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
    for file, new in ((path, content), (seal_of(path), _seal(path, content))):
        if _content_of(file) != new:
            seal_of(path).unlink(missing_ok=True)  # first, so that a killed process leaves a table without one
            with atomic_file(file) as temporary:
                temporary.write_bytes(new)
