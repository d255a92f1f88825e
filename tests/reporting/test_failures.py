from __future__ import annotations

import numpy as np
import pytest

from autosam_net.evaluation.metric_table import MetricTable
from autosam_net.reporting.failures import _finding, _judge


def finding(expected: float, found: float, unit: str = "mm", dice: float | None = None) -> str:
    names = ("n_ref", "volume_ref_mm3"), ("n_pred", "volume_pred_mm3")
    values = {name: np.array([[value]]) for value, pair in zip((expected, found), names, strict=True) for name in pair}
    values["Dice"] = np.array([[2 * min(expected, found) / (expected + found) if dice is None else dice]])
    return _finding(MetricTable(("a",), ("left",), values), 0, 0, unit)


@pytest.mark.parametrize(
    ("expected", "found", "words"),
    [
        (41_200, 0, "missed, 41.2 ml in the reference"),
        (0, 35, "invented, 35 mm³"),
        (41_200, 125_000, "much too large, 125 instead of 41.2 ml"),
        (41_200, 40_000, "of the right size, 40 instead of 41.2 ml"),
        (5_000_000, 9_999_000, "too large, 9,999 instead of 5,000 ml"),
        (500, 300, "too small, 300 instead of 500 mm³"),
    ],
)
def test_what_is_wrong_is_said_in_words(expected: float, found: float, words: str) -> None:
    assert finding(expected, found) == words


@pytest.mark.parametrize(
    ("dice", "words"),
    [(0.0, "in the wrong place, 66.5 for 41.2 ml"), (0.5, "too large, 66.5 instead of 41.2 ml")],
)
def test_size_is_not_blamed_for_the_wrong_place(dice: float, words: str) -> None:
    assert finding(41_200, 66_500, dice=dice) == words


def test_without_spacing_pixels_are_counted() -> None:
    assert finding(200, 50, "pixels") == "much too small, 50 instead of 200 pixels"


def test_every_ratio_has_a_judgement() -> None:
    found = [_judge(ratio) for ratio in (0.1, 0.6, 1.0, 1.5, 9.0)]
    assert len(set(found)) == 5
