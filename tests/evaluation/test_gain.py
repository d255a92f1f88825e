from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.evaluation.gain import Gain, measure_gain
from autosam_net.evaluation.metric_table import MetricTable


def table(dice: Sequence[Sequence[float]]) -> MetricTable:
    """Return a table of Dice `(cases, classes)`."""
    cases, classes = np.shape(dice)
    names = tuple(f"case{case}" for case in range(cases))
    return MetricTable(names, tuple(f"class{number}" for number in range(classes)), {"Dice": np.array(dice, float)})


def gain_of(gains: Sequence[float], cases_of_one: int = 1) -> Gain:
    """Return what is measured where patients with a Dice of 0.5 gain so much."""
    old = np.full((len(gains) * cases_of_one, 1), 0.5)
    new = old + np.repeat(gains, cases_of_one)[:, None]
    patients = {f"case{case}": f"patient{case // cases_of_one}" for case in range(len(old))}
    return measure_gain(table(old), table(new), patients)


@pytest.mark.parametrize(
    ("gains", "p", "sure"),
    [
        ([0.01, 0.02, 0.03, 0.04], 1 / 16, False),
        ([0.01, 0.02, 0.03, 0.04, 0.05], 1 / 32, True),
        ([-0.01, 0.02, 0.03, 0.04, 0.05], 2 / 32, False),
        ([-0.01, 0.02, 0.03, 0.04, 0.05, 0.06], 2 / 64, True),
        ([-0.01, -0.02, -0.03, -0.04, -0.05, -0.06], 1, False),
    ],
)
def test_how_likely_it_is_by_chance_is_that_of_the_signs(gains: list[float], p: float, sure: bool) -> None:
    found = gain_of(gains)
    assert found.p == pytest.approx(p) and found.is_sure is sure
    assert (found.patients, found.better) == (len(gains), sum(gain > 0 for gain in gains))
    assert (found.before, found.after) == (pytest.approx(0.5), pytest.approx(0.5 + np.mean(gains)))


def test_no_difference_is_no_gain() -> None:
    found = gain_of([0.0] * 6)
    assert (found.p, found.better, found.is_sure) == (1, 0, False)


def test_one_patient_who_loses_much_outweighs_many_who_gain_little() -> None:
    found = gain_of([0.001 + 1e-4 * step for step in range(12)] + [-0.4])
    assert found.p < 0.05 and found.after < found.before and not found.is_sure


@given(st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=12, unique=True), st.integers(1, 4))
def test_the_cases_of_a_patient_count_once(gains: list[float], cases: int) -> None:
    once, often = gain_of(gains), gain_of(gains, cases)
    assert (often.patients, often.better) == (once.patients, once.better)
    assert often.after == pytest.approx(once.after) and often.p == pytest.approx(once.p)


def test_where_a_class_is_undefined_the_others_count() -> None:
    nan = float("nan")
    before, after = table([[0.5, nan], [nan, nan], [0.4, 0.6]]), table([[0.7, nan], [0.9, 0.9], [0.6, 0.6]])
    found = measure_gain(before, after, {"case0": "a", "case1": "b", "case2": "c"})
    assert (found.patients, found.better) == (2, 2)
    assert (found.before, found.after) == (pytest.approx(0.5), pytest.approx(0.65))
    nothing = measure_gain(table([[nan]]), table([[nan]]), {"case0": "a"})
    assert nothing.patients == 0 and not nothing.is_sure
