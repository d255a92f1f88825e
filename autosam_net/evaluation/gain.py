"""Whether a model is better than another on the same patients by more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autosam_net.evaluation.metric_table import MetricTable

LEVEL = 0.05


@dataclass(frozen=True)
class Gain:
    """What patients gain from one model to another.

    Attributes:
        patients: with a Dice by both.
        better: how many of them gain.
        before: mean Dice over the patients, by the one model.
        after: by the other.
        p: of Wilcoxon's signed-rank test (1945) that patients gain nothing, one-sided; 1 without any difference.
    """

    patients: int
    better: int
    before: float
    after: float
    p: float

    @property
    def is_sure(self) -> bool:
        """Return whether the mean rises, and so many patients gain that it is hardly chance (5 %)."""
        return self.after > self.before and self.p < LEVEL


def measure_gain(before: MetricTable, after: MetricTable, patients: Mapping[str, str]) -> Gain:
    """Compare the Dice of two models on the same cases, patient by patient.

    The cases of a patient count as one, by their mean: two frames of one heart are no two independent observations.

    Args:
        patients: case -> patient.
    """
    from scipy import stats

    first, second = (_dice_by_patient(table, patients) for table in (before, after))
    shared = sorted(first.keys() & second.keys())
    if not shared:
        return Gain(0, 0, 0.0, 0.0, 1.0)
    old, new = (np.array([dice[patient] for patient in shared]) for dice in (first, second))
    p = stats.wilcoxon(new, old, alternative="greater", zero_method="zsplit").pvalue
    return Gain(len(shared), int((new > old).sum()), float(old.mean()), float(new.mean()), float(p))


def _dice_by_patient(table: MetricTable, patients: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for case, dice in zip(table.cases, table.case_dice, strict=True):
        if not np.isnan(dice):
            found.setdefault(patients[case], []).append(float(dice))
    return {patient: sum(values) / len(values) for patient, values in found.items()}
