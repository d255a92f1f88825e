from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.evaluation.interval import bootstrap_mean


@given(st.integers(0, 2**30), st.integers(2, 12), st.integers(1, 4))
def test_the_interval_holds_the_mean_and_stays_within_the_values(seed: int, cases: int, classes: int) -> None:
    values = np.random.default_rng(seed).random((cases, classes))
    found = bootstrap_mean(values, [str(case // 2) for case in range(cases)])
    assert found.mean == pytest.approx(values.mean())
    if cases > 2:
        assert found.low is not None and found.high is not None
        edges = [values.min(), found.low, found.mean, found.high, values.max()]
        assert all(lower <= higher + 1e-9 for lower, higher in pairwise(edges))  # but for rounding


def test_cases_of_one_patient_are_no_independent_observations() -> None:
    values = np.repeat(np.random.default_rng(0).random(20), 5)[:, None]
    patients = [str(row // 5) for row in range(100)]
    honest, too_narrow = (bootstrap_mean(values, groups) for groups in (patients, list(map(str, range(100)))))
    assert honest.high - honest.low > 1.5 * (too_narrow.high - too_narrow.low)


def test_it_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, (200, 1))
    found = bootstrap_mean(values, list(map(str, range(200))))
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.003)
    assert found.high == pytest.approx(values.mean() + half, abs=0.003)


def test_undefined_values_take_no_part() -> None:
    values = np.array([[0.5, np.nan], [0.7, 0.9], [np.nan, np.nan]])
    assert bootstrap_mean(values, ["a", "b", "c"]).mean == pytest.approx((0.6 + 0.9) / 2)
    nothing = bootstrap_mean(np.full((3, 2), np.nan), ["a", "b", "c"])
    assert (nothing.mean, nothing.low) == (None, None)
    single = bootstrap_mean(values[:2], ["a", "a"])
    assert single.mean is not None and single.low is None


def test_the_same_cases_give_the_same_interval() -> None:
    values = np.random.default_rng(2).random((9, 3))
    assert bootstrap_mean(values, list("aabbccdde")) == bootstrap_mean(values, list("aabbccdde"))
