"""The metrics in cases.csv as arrays: many cases and classes, of one or several files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import DatasetError
from autosam_net.evaluation.case_table import METRICS, number, read_rows
from autosam_net.evaluation.selection import class_means


@dataclass(frozen=True)
class MetricTable:
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


def read_metric_tables(files: Sequence[Path]) -> MetricTable:
    """Return the cases of one or several cases.csv together, such as those of a model's folds.

    Raises:
        DatasetError: a file is missing or damaged, or the files name different classes.
    """
    rows = {file: _read_metrics(file) for file in files}
    classes = {file: tuple(dict.fromkeys(name for _, name in found)) for file, found in rows.items()}
    first = classes[files[0]]
    for file in files[1:]:
        if set(classes[file]) != set(first):
            raise DatasetError(
                f"{file}: has the classes {', '.join(classes[file])}, {files[0]} has {', '.join(first)}. "
                "Validate both by one plan."
            )
    merged = {key: row for found in rows.values() for key, row in found.items()}
    cases = tuple(dict.fromkeys(case for case, _ in merged))
    try:
        array = np.array([[merged[case, name] for name in first] for case in cases], float)  # None becomes NaN
    except KeyError as error:
        raise DatasetError(f"{files[0]}: no row for {' '.join(error.args[0])}. Evaluate these cases again.") from error
    return MetricTable(cases, first, {metric: array[..., index] for index, metric in enumerate(METRICS)})


def _read_metrics(file: Path) -> dict[tuple[str, str], list[float | None]]:
    """Return (case, class) -> the metrics in the order of `METRICS`."""
    found = read_rows(file)
    if not found or any(metric not in row for row in found.values() for metric in METRICS):
        raise DatasetError(f"{file}: missing, or no table of metrics. Validate or evaluate again.")
    return {
        (case, name): [number(row[metric], f"{file}: {case}", metric) for metric in METRICS]
        for (case, name), row in found.items()
    }
