"""cases.csv as arrays: metrics of many cases and classes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import PlanError
from autosam_net.evaluation.report import METRICS
from autosam_net.evaluation.selection import class_means


@dataclass(frozen=True)
class CaseTable:
    """Metrics of cases, one a row, and classes, one a column.

    Attributes:
        values: metric -> `(cases, classes)`, NaN where it is undefined.
    """

    cases: tuple[str, ...]
    classes: tuple[str, ...]
    values: Mapping[str, NDArray[np.float64]]

    @property
    def case_dice(self) -> NDArray[np.floating]:
        """Return the mean Dice `(cases)` over the classes that a case has, NaN where it has none."""
        return class_means(self.values["Dice"].T)

    def of_class(self, metric: str, name: str) -> NDArray[np.float64]:
        """Return a metric `(cases)` of one class."""
        return self.values[metric][:, self.classes.index(name)]


def read_case_tables(files: Sequence[Path]) -> CaseTable:
    """Return the cases of one or several cases.csv together, such as those of a model's folds.

    Raises:
        PlanError: a file is missing or damaged, or the files name different classes.
    """
    rows = {file: _read_rows(file) for file in files}
    classes = {file: tuple(dict.fromkeys(name for _, name in found)) for file, found in rows.items()}
    first = classes[files[0]]
    for file in files[1:]:
        if set(classes[file]) != set(first):
            raise PlanError(
                f"{file}: has the classes {', '.join(classes[file])}, {files[0]} has {', '.join(first)}. "
                "Validate both by one plan."
            )
    merged = {key: row for found in rows.values() for key, row in found.items()}
    cases = tuple(dict.fromkeys(case for case, _ in merged))
    try:
        array = np.array([[merged[case, name] for name in first] for case in cases]).reshape(len(cases), len(first), -1)
    except KeyError as error:
        raise PlanError(f"{files[0]}: no row for {' '.join(error.args[0])}. Evaluate these cases again.") from error
    return CaseTable(cases, first, {metric: array[..., index] for index, metric in enumerate(METRICS)})


def _read_rows(file: Path) -> dict[tuple[str, str], list[float]]:
    """Return (case, class) -> the metrics in the order of `METRICS`."""
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            return {
                (row["case"], row["class"]): [float(row[metric] or "nan") for metric in METRICS]
                for row in csv.DictReader(stream)
            }
    except FileNotFoundError:
        raise PlanError(f"{file}: no such file. Validate or evaluate again.") from None
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(f"{file}: not a table of cases ({error}). Validate or evaluate again.") from error
