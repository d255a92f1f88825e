"""On which cases a run fails, and in what way, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.evaluation.metric_table import MetricTable

MM3_PER_ML = 1000.0
SMALL = 1000.0  # mm3, below which millilitres would be fractions
ELSEWHERE = 0.5  # of the Dice that the volumes allow; below it they lie too far apart for size to be the fault


@dataclass(frozen=True)
class Failure:
    """One held-out case.

    Attributes:
        dice: mean over its classes.
        classes: class -> Dice; None where it is undefined.
        worst: its worst class.
        finding: what is wrong with that class.
    """

    case: str
    patient: str
    dice: float
    classes: Mapping[str, float | None]
    worst: str
    finding: str


def list_failures(table: MetricTable, unit: str, fingerprint: Fingerprint) -> list[Failure]:
    """Return the held-out cases of a run, the worst first; those without any class are left out.

    Args:
        unit: of distances in the table, "mm" or "pixels".
    """
    means = table.case_dice
    rows = [row for row in np.argsort(means, kind="stable").tolist() if not np.isnan(means[row])]
    return [_describe(table, row, unit, fingerprint) for row in rows]


def _describe(table: MetricTable, row: int, unit: str, fingerprint: Fingerprint) -> Failure:
    dice = table.values["Dice"][row]
    worst = int(np.nanargmin(dice))
    case = table.cases[row]
    return Failure(
        case=case,
        patient=fingerprint.groups.get(case, case),
        dice=round(float(table.case_dice[row]), 3),
        classes={
            name: None if np.isnan(value) else round(float(value), 3)
            for name, value in zip(table.classes, dice, strict=True)
        },
        worst=table.classes[worst],
        finding=_finding(table, row, worst, unit),
    )


def _finding(table: MetricTable, row: int, column: int, unit: str) -> str:
    """Return in words how the prediction of a class differs from its reference."""
    measures = ("volume_ref_mm3", "volume_pred_mm3") if unit == "mm" else ("n_ref", "n_pred")
    expected, found = (float(table.values[name][row, column]) for name in measures)
    size, name = (1.0, "pixels") if unit != "mm" else (1.0, "mm³") if expected < SMALL else (MM3_PER_ML, "ml")
    expected_text, found_text = (_digits(value / size) for value in (expected, found))
    if not found:
        return f"missed, {expected_text} {name} in the reference"
    if not expected:
        return f"invented, {found_text} {name}"
    attainable = 2 * min(found, expected) / (found + expected)  # Dice, by volumes of these sizes at the same place
    if table.values["Dice"][row, column] < ELSEWHERE * attainable:
        return f"in the wrong place, {found_text} for {expected_text} {name}"
    return f"{_judge(found / expected)}, {found_text} instead of {expected_text} {name}"


def _digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _judge(ratio: float) -> str:
    """Return what is to be said of a volume that is `ratio` times that of the reference."""
    for limit, words in ((0.5, "much too small"), (0.8, "too small"), (1.25, "of the right size"), (2, "too large")):
        if ratio <= limit:
            return words
    return "much too large"
