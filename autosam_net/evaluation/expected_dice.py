"""The Dice to expect of a prediction without a reference, learnt from the validation cases of cross-validation.

One line a class, from the confidence of a single head to the Dice of its prediction, by ridge regression with slopes
that are not negative. In an ensemble each member is judged by itself and the mean is taken: probabilities that are
averaged are less sure than those that the line was learnt from, and would be taken for bad ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autosam_net.errors import ModelError, PlanError
from autosam_net.evaluation.confidence import Confidence
from autosam_net.jsonio import load

EXPECTED_DICE_FILE = "expected_dice.json"
MINIMUM_PATIENTS = 5  # fewer say too little about others
RIDGE = 5.0  # on standardised features, as strong as five cases: the two features say nearly the same
BAD_QUANTILE = 0.25
ROUNDING = 1e-6

Confidences = Mapping[str, Confidence | None]
"""Class -> confidence, None where the prediction has not the class."""

Dice = dict[str, float | None]
"""Class -> Dice, None where it is undefined."""


@dataclass(frozen=True)
class ValidationCase:
    """A case that a head was not trained on: what its prediction says of itself, and how good it is."""

    name: str
    patient: str
    confidences: Confidences
    dice: Mapping[str, float | None]


@dataclass(frozen=True)
class Line:
    """Expected Dice of one class: intercept + agreement * its slope + certainty * its slope, within 0 and 1.

    Attributes:
        always_there: whether every validation case has the class, in reference or prediction, so that a prediction
            without it is expected to have missed it.
    """

    intercept: float
    agreement: float
    certainty: float
    always_there: bool

    def at(self, confidence: Confidence | None) -> float | None:
        """Return the expected Dice; None for a class that is rightly absent, as far as one can know."""
        if confidence is None:
            return 0.0 if self.always_there else None
        value = self.intercept + self.agreement * confidence.agreement + self.certainty * confidence.certainty
        return min(max(value, 0.0), 1.0)


@dataclass(frozen=True)
class Judgement:
    """How well the expected Dice of validation cases fits their true Dice, means over classes.

    Each patient is judged by lines that were learnt on the others.

    Attributes:
        rank_correlation: Spearman's, of the expected Dice; None where one of both is the same for all cases.
        agreement, certainty: Spearman's of these two as they are, before anything is learnt.
        mean_error: mean absolute difference between expected and true Dice.
        bad: cases with a true Dice below the threshold.
        flagged: cases with an expected Dice below the threshold.
        rightly_flagged: cases that are in both.
    """

    rank_correlation: float | None
    agreement: float | None
    certainty: float | None
    mean_error: float
    bad: int
    flagged: int
    rightly_flagged: int


@dataclass(frozen=True)
class ExpectedDice:
    """What was learnt on the validation cases of a model.

    Attributes:
        classes: class -> line.
        threshold: a mean Dice below it is flagged as bad; a quarter of the validation cases are truly below.
    """

    classes: Mapping[str, Line]
    threshold: float
    cases: int
    patients: int
    judgement: Judgement

    def of_case(self, confidences: Confidences) -> Dice:
        """Return class -> expected Dice of a prediction."""
        return {name: line.at(confidences.get(name)) for name, line in self.classes.items()}


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that are defined, None without any."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def is_bad(mean: float | None, threshold: float | None) -> bool | None:
    """Return whether a mean Dice is below the threshold by more than rounding, None where one of both is unknown."""
    return None if mean is None or threshold is None else mean < threshold - ROUNDING


def learn(cases: Sequence[ValidationCase]) -> ExpectedDice | None:
    """Return what the cases teach, judged patient by patient; None where they are of too few patients."""
    patients = {case.patient for case in cases}
    if len(patients) < MINIMUM_PATIENTS:
        return None
    means = {case.name: mean for case in cases if (mean := mean_of(case.dice.values())) is not None}
    threshold = float(np.quantile(list(means.values()), BAD_QUANTILE)) if means else 0.0
    expected = {name: mean_of(dice.values()) for name, dice in leave_patients_out(cases).items()}
    judgement = _judge(cases, means, expected, threshold)
    return ExpectedDice(_lines(cases), threshold, len(cases), len(patients), judgement)


def leave_patients_out(cases: Sequence[ValidationCase]) -> dict[str, Dice]:
    """Return case -> expected Dice, of each patient by lines learnt on the other patients' cases."""
    expected: dict[str, Dice] = {}
    for patient in sorted({case.patient for case in cases}):
        lines = _lines([case for case in cases if case.patient != patient])
        for case in cases:
            if case.patient == patient:
                expected[case.name] = {name: line.at(case.confidences[name]) for name, line in lines.items()}
    return expected


def _lines(cases: Sequence[ValidationCase]) -> dict[str, Line]:
    return {name: _line([(case.confidences[name], case.dice[name]) for case in cases]) for name in cases[0].dice}


def _line(pairs: Sequence[tuple[Confidence | None, float | None]]) -> Line:
    always_there = all(dice is not None for _, dice in pairs)
    known = [(one.agreement, one.certainty, dice) for one, dice in pairs if one is not None and dice is not None]
    if not known:
        return Line(0.0, 0.0, 0.0, always_there)
    table = np.array(known)
    features, dice = table[:, :2], table[:, 2]
    slopes = _ridge(features, dice)
    intercept = float(dice.mean() - features.mean(axis=0) @ slopes)
    return Line(intercept, float(slopes[0]), float(slopes[1]), always_there)


def _ridge(features: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the slopes `(features)` of a ridge regression on standardised features `(cases, features)`.

    None is below zero: a prediction that is surer of itself is never expected to be worse, however much the features
    resemble each other in a few cases.
    """
    from scipy.optimize import nnls

    spread = features.std(axis=0)
    spread[spread < 1e-6] = np.inf  # what does not vary teaches nothing
    scaled = (features - features.mean(axis=0)) / spread
    count = features.shape[1]
    slopes, _ = nnls(
        np.vstack([scaled, np.sqrt(RIDGE) * np.eye(count)]), np.append(target - target.mean(), np.zeros(count))
    )
    return slopes / spread


def _judge(
    cases: Sequence[ValidationCase], true: Mapping[str, float], expected: Mapping[str, float | None], threshold: float
) -> Judgement:
    judged = [case for case in cases if case.name in true and expected[case.name] is not None]
    dice = [true[case.name] for case in judged]
    guess = [value for case in judged if (value := expected[case.name]) is not None]
    bad, flagged = (np.array([is_bad(value, threshold) for value in values], bool) for values in (dice, guess))
    return Judgement(
        rank_correlation=_spearman(guess, dice),
        agreement=_spearman([_mean_confidence(case, "agreement") for case in judged], dice),
        certainty=_spearman([_mean_confidence(case, "certainty") for case in judged], dice),
        mean_error=float(np.abs(np.subtract(guess, dice)).mean()) if judged else 0.0,
        bad=int(bad.sum()),
        flagged=int(flagged.sum()),
        rightly_flagged=int((bad & flagged).sum()),
    )


def _mean_confidence(case: ValidationCase, figure: str) -> float:
    """Return the mean over the classes of a case; a class that is not predicted counts as 0."""
    return float(np.mean([0.0 if one is None else getattr(one, figure) for one in case.confidences.values()]))


def _spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    from scipy import stats

    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)


def read_expected_dice(folder: Path) -> ExpectedDice | None:
    """Return what was learnt for the model in a folder, None where nothing was.

    Raises:
        ModelError: the file is damaged.
    """
    file = folder / EXPECTED_DICE_FILE
    if not file.is_file():
        return None
    try:
        return load(ExpectedDice, file)
    except PlanError as error:
        raise ModelError(f"{error}. Remove it, or write it anew with autosam_calibrate.") from error


def expect(members: Sequence[tuple[ExpectedDice | None, Confidences]]) -> tuple[Dice, bool | None]:
    """Return class -> expected Dice of an ensemble, and whether its mean is so low that the case counts as bad.

    Args:
        members: what was learnt for each member's model, and the confidences of its own prediction.
    """
    learnt = [(entry, confidences) for entry, confidences in members if entry is not None]
    dices = [entry.of_case(confidences) for entry, confidences in learnt]
    classes = {name: mean_of(dice.get(name) for dice in dices) for name in members[0][1]}
    mean, threshold = mean_of(classes.values()), mean_of(entry.threshold for entry, _ in learnt)
    return classes, is_bad(mean, threshold)
