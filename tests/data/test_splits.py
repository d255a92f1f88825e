from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosam_net.data.splits import (
    Split,
    check_splits,
    detect_group_pattern,
    draw_labelled,
    group_cases,
    held_out_cases,
    make_splits,
    select_fold,
)
from autosam_net.errors import PlanError, UsageError

NAMES = [f"patient{patient:03}_frame{frame:02}" for patient in range(1, 12) for frame in (1, 9)]
GROUPS = group_cases(NAMES, r"patient\d+")

groupings = st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from("abcdefgh"), min_size=2).filter(
    lambda groups: len(set(groups.values())) > 1
)


@given(groupings)
def test_every_case_is_held_out_once_and_no_group_leaks(groups: dict[str, str]) -> None:
    splits = make_splits(groups)
    assert len(splits) == min(5, len(set(groups.values())))
    assert sorted(case for split in splits for case in split.val) == sorted(groups)
    for split in splits:
        assert sorted((*split.train, *split.val)) == sorted(groups)
        assert not {groups[case] for case in split.train} & {groups[case] for case in split.val}
        assert split.train
        assert split.val
    check_splits(splits, groups, "here")


@given(groupings, st.randoms(use_true_random=False))
def test_the_order_of_cases_does_not_matter(groups: dict[str, str], shuffler: random.Random) -> None:
    names = list(groups)
    shuffler.shuffle(names)
    assert make_splits({name: groups[name] for name in names}) == make_splits(groups)


def test_another_seed_gives_other_folds() -> None:
    assert make_splits(GROUPS, seed=1) != make_splits(GROUPS, seed=2)


def test_folds_are_of_even_size() -> None:
    assert sorted(len(split.val) for split in make_splits(GROUPS)) == [4, 4, 4, 4, 6]


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(PlanError, match=r"of one patient: nothing can be held out\. Label at least two patients"):
        make_splits({"a": "x", "b": "x"})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [(None, "p1_x"), ("p[0-9]", "p1"), ("p([0-9])_(.)", "1"), ("nothing", "p1_x")],
)
def test_groups_by_pattern(pattern: str | None, expected: str) -> None:
    assert group_cases(["p1_x"], pattern) == {"p1_x": expected}


def test_a_broken_pattern_is_refused() -> None:
    with pytest.raises(PlanError, match=r"group_pattern '\(' is no regular expression"):
        group_cases(["a"], "(")


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (NAMES, 11),
        (["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"], 2),
        (["patient1_a", "patient2_a"], None),  # nobody has two cases
        (["sub-01_ses-1", "sub-01_ses-2", "phantom"], None),  # not all follow the habit
        (["hippocampus_001", "hippocampus_002"], None),
        ([], None),
    ],
)
def test_habits_of_naming_are_recognised(names: list[str], groups: int | None) -> None:
    pattern = detect_group_pattern(names)
    assert (None if pattern is None else len(set(group_cases(names, pattern).values()))) == groups


def test_selecting_a_fold() -> None:
    splits = make_splits(GROUPS)
    assert select_fold(splits, "4") == splits[4]
    assert select_fold(splits, "all") == Split(tuple(sorted(NAMES)), ())


@pytest.mark.parametrize("fold", ["7", "5", "-1", "one", ""])
def test_folds_that_do_not_exist(fold: str) -> None:
    with pytest.raises(UsageError, match=f"^fold {fold} does not exist; this data set has folds 0-4 and all$"):
        select_fold(make_splits(GROUPS), fold)


def test_what_is_compared_must_be_held_out() -> None:
    splits = make_splits(GROUPS)
    assert held_out_cases(splits, "1") == splits[1].val
    with pytest.raises(UsageError, match=r"fold all holds no case out, so there is nothing to compare with"):
        held_out_cases(splits, "all")


def test_stored_splits_are_checked() -> None:
    with pytest.raises(PlanError, match="here: fold 0 names case b, which is not in the data set"):
        check_splits([Split(("a",), ("b",))], {"a": "a"}, "here")
    with pytest.raises(PlanError, match="here: fold 0 has x in both training and validation"):
        check_splits([Split(("a",), ("b",))], {"a": "x", "b": "x"}, "here")


@given(st.integers(1, 10), st.integers(0, 5))
def test_more_labels_contain_fewer(count: int, seed: int) -> None:
    fewer, more = draw_labelled(NAMES, GROUPS, count, seed), draw_labelled(NAMES, GROUPS, count + 1, seed)
    assert set(fewer) < set(more)
    assert len({GROUPS[case] for case in fewer}) == count
    assert len(fewer) == 2 * count  # whole patients


@pytest.mark.parametrize("count", [0, 12])
def test_too_many_labelled_patients(count: int) -> None:
    with pytest.raises(UsageError, match=f"--labelled {count}: this fold trains on 11 patients. Give 1 to 11."):
        draw_labelled(NAMES, GROUPS, count, 0)
