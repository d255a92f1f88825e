"""The choice among candidates on made-up tables: margins, ties, and that nothing is judged on what chose it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.evaluation.selection import Choice, DiceTable, choose, class_means, figures, nested_estimate

SINGLE, PAIR = ("a",), ("a", "b")
CANDIDATES = (SINGLE, ("b",), PAIR)


def table(
    plain: list[list[float]],
    gain: float = 0.0,
    folds: str = "0011",
    patients: tuple[str, ...] = ("p", "q", "r", "s"),
) -> DiceTable:
    """Return a table of one class: rows of Dice for each candidate, and what the largest component adds."""
    dice = np.array(plain, float)[..., None]
    return DiceTable(CANDIDATES, tuple(folds), patients, ("x",), np.stack([dice, dice + gain], axis=-1))


def everything(of: DiceTable) -> np.ndarray:
    return np.ones(len(of.folds), bool)


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ((0.7, 0.6, 0.7), SINGLE),
        ((0.7, 0.7, 0.7), SINGLE),  # a tie of single ones: the simpler, which comes first
        ((0.6, 0.7, 0.7), ("b",)),
        ((0.7, 0.6, 0.7019), SINGLE),
        ((0.7, 0.6, 0.7021), PAIR),
        ((0.7, 0.7019, 0.7021), ("b",)),  # compared with the best single one, not with the first
    ],
)
def test_a_pair_must_gain_its_margin(means: tuple[float, ...], expected: tuple[str, ...]) -> None:
    given_table = table([[mean] * 4 for mean in means])
    assert choose(given_table, everything(given_table)) == Choice(expected, ())


@pytest.mark.parametrize(("gain", "kept"), [(-0.1, ()), (0.0, ()), (0.0009, ()), (0.0011, ("x",))])
def test_post_processing_must_gain_its_margin(gain: float, kept: tuple[str, ...]) -> None:
    given_table = table([[0.7] * 4, [0.6] * 4, [0.5] * 4], gain)
    choice = choose(given_table, everything(given_table))
    assert choice == Choice(SINGLE, kept)
    np.testing.assert_allclose(given_table.of_choice(choice), 0.7 + gain * len(kept))


def test_post_processing_is_chosen_class_by_class() -> None:
    dice = np.full((1, 2, 3, 2), 0.5)
    dice[..., 1, 1] = 0.6  # the second class gains
    dice[..., 2, :] = np.nan  # the third is nowhere
    given_table = DiceTable((("a",),), ("0", "0"), ("p", "q"), ("x", "y", "z"), dice)
    choice = choose(given_table, everything(given_table))
    assert choice.keep_largest == ("y",)
    result = figures(given_table.of_choice(choice), given_table.classes)
    assert result.classes == {"x": 0.5, "y": pytest.approx(0.6), "z": None}
    assert result.mean == pytest.approx(0.55)


def test_means_leave_out_what_is_undefined() -> None:
    np.testing.assert_allclose(class_means(np.array([[0.2, np.nan], [0.6, np.nan]])), [0.4, np.nan])
    assert figures(np.full((2, 1), np.nan), ("x",)).mean is None


def test_only_the_rows_that_are_meant_count() -> None:
    given_table = table([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.9, 0.9], [0.0] * 4])
    assert choose(given_table, np.array([True, True, False, False])).configurations == SINGLE
    assert choose(given_table, np.array([False, False, True, True])).configurations == ("b",)


def test_each_fold_is_judged_by_the_choice_of_the_others() -> None:
    """Each candidate is good on one fold only, so that what the other fold chooses is always wrong."""
    given_table = table([[0.9, 0.9, 0.1, 0.1], [0.1, 0.1, 0.8, 0.8], [0.0] * 4])
    nested = nested_estimate(given_table)
    assert nested is not None
    assert [(part.cases, part.number) for part in nested.parts] == [("fold 0", 2), ("fold 1", 2)]
    assert [part.choice.configurations for part in nested.parts] == [("b",), SINGLE]
    assert nested.dice.mean == pytest.approx(0.1)
    assert figures(given_table.of_choice(Choice(SINGLE, ())), ("x",)).mean == pytest.approx(0.5)


def test_one_fold_is_judged_by_halves_of_its_patients() -> None:
    patients = ("p", "p", "q", "q", "r", "r", "s", "s")
    given_table = table([[0.5] * 8, [0.4] * 8, [0.3] * 8], 0.1, "0" * 8, patients)
    nested = nested_estimate(given_table)
    assert nested is not None
    assert [part.cases for part in nested.parts] == ["first half of the patients", "second half of the patients"]
    assert [part.number for part in nested.parts] == [4, 4]
    assert nested.dice.mean == pytest.approx(0.6)
    assert nested == nested_estimate(given_table)


def test_with_one_patient_there_is_no_nested_estimate() -> None:
    assert nested_estimate(table([[0.5] * 4] * 3, folds="0000", patients=("p",) * 4)) is None
    assert nested_estimate(table([[0.5] * 4] * 3, patients=("p",) * 4)) is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_no_case_is_judged_by_a_choice_made_on_its_patient(seed: int, folds: int) -> None:
    """With a patient's Dice changed at will, the choice for that patient's own part stays what it was."""
    rng = np.random.default_rng(seed)
    patients = tuple(f"p{row // 2}" for row in range(12))
    of_rows = "".join(str(row // 2 % folds) for row in range(12))
    dice = rng.random((3, 12, 1, 2))
    first = nested_estimate(DiceTable(CANDIDATES, tuple(of_rows), patients, ("x",), dice))
    changed = dice.copy()
    changed[:, :2] = rng.random((3, 2, 1, 2))
    second = nested_estimate(DiceTable(CANDIDATES, tuple(of_rows), patients, ("x",), changed))
    assert first is not None and second is not None
    own = [one.choice == other.choice for one, other in zip(first.parts, second.parts, strict=True)]
    assert own[0] if folds > 1 else any(own)
