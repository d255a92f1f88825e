"""How sure a mean over cases is: bootstrap over patients, whose cases are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.evaluation.selection import class_means

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; None where it is undefined, as with a single patient."""

    mean: float | None
    low: float | None = None
    high: float | None = None


def bootstrap_mean(values: NDArray[np.floating], patients: Sequence[str], seed: int = 0) -> Interval:
    """Return the mean over classes of the means over cases, with its percentile interval (95 %).

    Patients are drawn with replacement, all their cases together (Efron, Tibshirani: An introduction to the bootstrap,
    1993): two frames of one heart are no two independent observations. With fewer than about ten patients the interval
    is too narrow.

    Args:
        values: `(cases, classes)`, NaN where undefined.
        patients: one a case.
    """
    mean = class_means(class_means(values)[:, None])[0]
    names, rows = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if np.isnan(mean) or len(names) < 2:
        return Interval(None if np.isnan(mean) else float(mean))
    sums, counts = np.zeros((2, len(names), values.shape[1]))
    np.add.at(sums, rows, np.nan_to_num(values))
    np.add.at(counts, rows, ~np.isnan(values))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    with np.errstate(invalid="ignore"):  # a draw may lack a class that few patients have
        means = class_means(((drawn @ sums) / (drawn @ counts)).T)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(means, (tail, 100 - tail))
    return Interval(float(mean), float(low), float(high))
