"""Choose among candidates by their Dice on held-out cases, and estimate how good such a choice is on other cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosam_net.data.splits import SPLIT_SEED

PAIR_MARGIN = 0.002
"""Mean Dice that a pair must gain over the best single one; it costs twice the heads and their training."""
COMPONENT_MARGIN = 0.001
"""Mean Dice that a class must gain before all but its largest component are thrown away."""

Rows = NDArray[np.bool_]
"""Which rows of a table are meant."""


@dataclass(frozen=True)
class Choice:
    """What is predicted with: configurations, and the classes of which only the largest component is kept."""

    configurations: tuple[str, ...]
    keep_largest: tuple[str, ...]


@dataclass(frozen=True)
class DiceTable:
    """Dice of every held-out case as every candidate predicts it.

    Attributes:
        candidates: names of the configurations whose mean is predicted; single ones before pairs, the simpler first.
        folds: one a row, the fold that held the row's case out.
        patients: one a row.
        values: `(candidates, rows, classes, 2)`: as predicted, and with only the largest component of the class; NaN
            where neither reference nor prediction has the class.
    """

    candidates: tuple[tuple[str, ...], ...]
    folds: tuple[str, ...]
    patients: tuple[str, ...]
    classes: tuple[str, ...]
    values: NDArray[np.floating]

    def of_choice(self, choice: Choice) -> NDArray[np.floating]:
        """Return the Dice `(rows, classes)` that a choice gives."""
        largest = [int(name in choice.keep_largest) for name in self.classes]
        return self.values[self.candidates.index(choice.configurations)][:, np.arange(len(self.classes)), largest]


@dataclass(frozen=True)
class Figures:
    """Dice: the mean over cases of each class, and the mean over classes; None where a class is nowhere."""

    mean: float | None
    classes: dict[str, float | None]


@dataclass(frozen=True)
class JudgedPart:
    """Cases that were judged by a choice made on the other patients."""

    cases: str
    number: int
    choice: Choice


@dataclass(frozen=True)
class NestedEstimate:
    """How well the way of choosing does on cases that it has not seen."""

    dice: Figures
    parts: tuple[JudgedPart, ...]


def class_means(dice: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the means `(classes)` of `(cases, classes)` over the cases where a class is defined; NaN without any."""
    defined = ~np.isnan(dice)
    count = defined.sum(axis=0)
    return np.where(count > 0, np.nansum(dice, axis=0) / np.maximum(count, 1), np.nan)


def figures(dice: NDArray[np.floating], classes: Sequence[str]) -> Figures:
    """Return the figures of `(cases, classes)`, means as in summary.json."""
    means = class_means(dice)
    overall = class_means(means[:, None])[0]
    return Figures(
        mean=None if np.isnan(overall) else float(overall),
        classes={name: None if np.isnan(mean) else float(mean) for name, mean in zip(classes, means, strict=True)},
    )


def choose(table: DiceTable, rows: Rows) -> Choice:
    """Return the best single candidate or pair on some rows, and the post-processing that improves its classes.

    The simpler choice is taken unless the other gains `PAIR_MARGIN` in the mean over classes, or `COMPONENT_MARGIN` in
    a class.
    """
    means = [figures(dice[rows, :, 0], table.classes).mean or 0.0 for dice in table.values]
    best = _highest(means, [index for index, names in enumerate(table.candidates) if len(names) == 1])
    if pairs := [index for index, names in enumerate(table.candidates) if len(names) > 1]:
        pair = _highest(means, pairs)
        best = pair if means[pair] - means[best] >= PAIR_MARGIN else best
    plain, largest = (class_means(table.values[best, rows, :, option]) for option in (0, 1))
    gains = np.nan_to_num(largest - plain)
    kept = tuple(name for name, gain in zip(table.classes, gains, strict=True) if gain >= COMPONENT_MARGIN)
    return Choice(table.candidates[best], kept)


def _highest(means: Sequence[float], among: Sequence[int]) -> int:
    return max(among, key=lambda index: means[index])  # the first of equals, which is the simplest


def nested_estimate(table: DiceTable) -> NestedEstimate | None:
    """Return the figures of choices that were each judged on patients they were not made on.

    Each fold's cases are judged by the choice made on the other folds' cases; with one fold, each half of its patients
    by the choice made on the other half. None where there is one patient only.
    """
    patients = np.array(table.patients)
    judged = np.full(table.values.shape[1:3], np.nan)
    parts = []
    for name, rows in _parts(table).items():
        others = ~np.isin(patients, patients[rows])
        if not others.any():
            return None
        choice = choose(table, others)
        judged[rows] = table.of_choice(choice)[rows]
        parts.append(JudgedPart(name, int(rows.sum()), choice))
    return NestedEstimate(figures(judged, table.classes), tuple(parts))


def _parts(table: DiceTable) -> dict[str, Rows]:
    """Return name -> rows of what is judged together: folds, or the halves of one fold's patients."""
    folds = np.array(table.folds)
    if len(names := sorted(set(table.folds))) > 1:
        return {f"fold {name}": folds == name for name in names}
    drawn = np.random.default_rng(SPLIT_SEED).permutation(sorted(set(table.patients)))
    halves = zip(("first", "second"), np.array_split(drawn, 2), strict=True)
    return {f"{name} half of the patients": np.isin(table.patients, half) for name, half in halves}
