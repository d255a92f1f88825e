"""How good a run is on the cases that its folds held out, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autosam_net.data.fingerprint import Fingerprint
from autosam_net.evaluation.interval import Interval, bootstrap_mean
from autosam_net.evaluation.metric_table import MetricTable
from autosam_net.reporting.runs import RunRecord

METRICS = ("Dice", "IoU", "HD95", "ASSD", "NSD")


@dataclass(frozen=True)
class Result:
    """How good one run is.

    Attributes:
        dice: mean over the classes.
        classes: class -> metric -> mean over the cases.
        presence: class -> cases that have it, cases in which it was missed, and in which it was invented.
    """

    run: RunRecord
    table: MetricTable
    cases: int
    patients: int
    dice: Interval
    classes: Mapping[str, Mapping[str, Interval]]
    presence: Mapping[str, tuple[int, int, int]]


def measure_run(run: RunRecord, table: MetricTable, fingerprint: Fingerprint) -> Result:
    """Return the figures of a run that was validated."""
    patients = [fingerprint.groups.get(case, case) for case in table.cases]
    reference, predicted = (table.values[name] > 0 for name in ("n_ref", "n_pred"))
    counts = (reference.sum(axis=0), (reference & ~predicted).sum(axis=0), (~reference & predicted).sum(axis=0))
    return Result(
        run=run,
        table=table,
        cases=len(table.cases),
        patients=len(set(patients)),
        dice=bootstrap_mean(table.values["Dice"], patients),
        classes={
            name: {metric: bootstrap_mean(table.of_class(metric, name)[:, None], patients) for metric in METRICS}
            for name in table.classes
        },
        presence={
            name: (int(there), int(missed), int(invented))
            for name, there, missed, invented in zip(table.classes, *counts, strict=True)
        },
    )


def low_end(results: Sequence[Result]) -> float:
    """Return where the axis of Dice begins, so that all intervals fit and differences can be seen."""
    found = [interval for result in results for interval in (result.dice, *_dice_of_classes(result))]
    lowest = min((interval.low or interval.mean or 0.0 for interval in found), default=0.0)
    return max(0.0, math.floor(10 * lowest) / 10)


def _dice_of_classes(result: Result) -> list[Interval]:
    return [metrics["Dice"] for metrics in result.classes.values()]
