"""The Dice to expect without a reference: learnt, judged on patients left out, and applied to ensembles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.errors import ModelError
from autosam_net.evaluation.confidence import Confidence
from autosam_net.evaluation.expected_dice import (
    EXPECTED_DICE_FILE,
    MINIMUM_PATIENTS,
    ValidationCase,
    expect,
    learn,
    leave_patients_out,
    read_expected_dice,
)
from autosam_net.jsonio import write_json


def case(index: int, dice: float | None, noise: float = 0.0, agreement: float | None = None) -> ValidationCase:
    level = (dice or 0.0) if agreement is None else agreement
    one = Confidence(0.5 + level / 2 + noise, 0.4 + level / 2 - noise)
    return ValidationCase(f"case{index}", f"patient{index // 2}", {"a": one, "b": one}, {"a": dice, "b": dice})


def cases(count: int = 24, noise: float = 0.02) -> list[ValidationCase]:
    rng = np.random.default_rng(0)
    return [case(index, float(rng.random()), float(noise * rng.normal())) for index in range(count)]


def test_what_can_be_learnt_is_learnt() -> None:
    learnt = learn(cases())
    assert learnt is not None
    assert (learnt.cases, learnt.patients) == (24, 12)
    judged = learnt.judgement
    assert judged.rank_correlation > 0.95 and judged.mean_error < 0.05
    assert judged.bad == 6 and judged.rightly_flagged >= 4
    assert learnt.of_case(case(99, 0.3).confidences)["a"] == pytest.approx(0.3, abs=0.06)


def test_what_has_nothing_to_do_with_the_dice_teaches_nothing() -> None:
    rng = np.random.default_rng(1)
    learnt = learn([case(index, float(rng.random()), agreement=float(rng.random())) for index in range(40)])
    assert learnt is not None and learnt.judgement.rank_correlation < 0.5
    assert learnt.judgement.mean_error == pytest.approx(0.25, abs=0.05)  # as of a constant


def test_a_case_has_no_part_in_its_own_expectation() -> None:
    known = cases()
    before = leave_patients_out(known)
    known[0] = replace(known[0], dice={"a": 1.0, "b": 0.0})
    known[1] = replace(known[1], dice={"a": 1.0, "b": 0.0})  # of the same patient
    after = leave_patients_out(known)
    assert (after["case0"], after["case1"]) == (before["case0"], before["case1"])
    assert after["case2"] != before["case2"]


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_more_confidence_never_lowers_the_expectation(
    seed: int, agreement: float, certainty: float, more: float
) -> None:
    rng = np.random.default_rng(seed)
    learnt = learn([case(i, float(rng.random()), float(0.3 * rng.normal())) for i in range(2 * MINIMUM_PATIENTS)])
    assert learnt is not None
    less, both = (
        learnt.of_case(dict.fromkeys("ab", Confidence(agreement + step, certainty + step))) for step in (0, more)
    )
    assert 0 <= less["a"] <= both["a"] <= 1


def test_a_class_that_is_always_there_and_not_predicted_is_expected_to_be_missed() -> None:
    learnt = learn(cases())
    assert learnt is not None and learnt.of_case({"a": None, "b": None}) == {"a": 0.0, "b": 0.0}
    absent = ValidationCase("x", "px", {"a": None, "b": case(0, 0.5).confidences["b"]}, {"a": None, "b": 0.5})
    learnt = learn([*cases(), absent])
    assert learnt is not None and learnt.of_case({"a": None, "b": None}) == {"a": None, "b": 0.0}


def test_too_few_patients_teach_nothing() -> None:
    assert learn(cases(2 * MINIMUM_PATIENTS - 2)) is None
    assert learn(cases(2 * MINIMUM_PATIENTS)) is not None
    assert learn([]) is None


def test_all_cases_alike() -> None:
    learnt = learn([case(index, 0.9) for index in range(20)])
    assert learnt is not None and learnt.judgement.rank_correlation is None
    assert learnt.judgement.flagged == 0
    assert learnt.of_case(case(0, 0.9).confidences)["a"] == pytest.approx(0.9)


def test_members_are_judged_one_by_one() -> None:
    learnt, confidences = learn(cases()), [case(0, dice).confidences for dice in (0.2, 0.9)]
    alone = [expect([(learnt, one)])[0]["a"] for one in confidences]
    together, bad = expect([(learnt, one) for one in confidences])
    assert together["a"] == pytest.approx(np.mean(alone))
    assert bad is (together["a"] < learnt.threshold)
    assert expect([(learnt, confidences[0]), (None, confidences[1])])[0]["a"] == alone[0]
    assert expect([(None, confidences[0])]) == ({"a": None, "b": None}, None)


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    assert read_expected_dice(tmp_path) is None
    learnt = learn(cases())
    write_json(tmp_path / EXPECTED_DICE_FILE, learnt)
    assert read_expected_dice(tmp_path) == learnt
    (tmp_path / EXPECTED_DICE_FILE).write_text("{")
    with pytest.raises(ModelError, match=r"expected_dice.json: not valid JSON .* write it anew with autosam_calibrate"):
        read_expected_dice(tmp_path)
