"""On which cases a run fails, and in what way, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.evaluation.case_table import CaseTable
from autosam_net.reporting.runs import RunRecord

MM3_PER_ML = 1000.0


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


def list_failures(run: RunRecord, fingerprint: Fingerprint) -> list[Failure]:
    """Return the held-out cases of a run, the worst first; those without any class are left out."""
    table = run.table
    assert table is not None
    means = table.case_dice
    rows = [row for row in np.argsort(means, kind="stable").tolist() if not np.isnan(means[row])]
    return [_describe(table, row, run.unit, fingerprint) for row in rows]


def _describe(table: CaseTable, row: int, unit: str, fingerprint: Fingerprint) -> Failure:
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


def _finding(table: CaseTable, row: int, column: int, unit: str) -> str:
    """Return in words how the prediction of a class differs from its reference."""
    voxels = {name: float(table.values[name][row, column]) for name in ("n_ref", "n_pred", "volume_ref_mm3", "volume_pred_mm3")}
    expected, found = (_amount(voxels, name, unit) for name in ("ref", "pred"))
    if not voxels["n_pred"]:
        return f"missed, {expected} in the reference"
    if not voxels["n_ref"]:
        return f"invented, {found} where the reference has none"
    ratio = voxels["n_pred"] / voxels["n_ref"]
    size = "much too small" if ratio < 0.5 else "too small" if ratio < 0.8 else "size right"
    size = "much too large" if ratio > 2 else "too large" if ratio > 1.25 else size
    place = ", misplaced" if size == "size right" and table.values["Dice"][row, column] < 0.7 else ""
    return f"{size}{place}, {found} instead of {expected}"


def _amount(voxels: Mapping[str, float], which: str, unit: str) -> str:
    if unit != "mm":
        return f"{voxels[f'n_{which}']:.0f} pixels"
    volume = voxels[f"volume_{which}_mm3"]
    return f"{volume / MM3_PER_ML:.3g} ml" if volume >= 100 else f"{volume:.3g} mm³"
