"""Folds, epochs, tuning and largest components follow from patients and classes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from autosam_net.data.configuration import STRATEGIES
from autosam_net.data.fingerprint import Fingerprint
from autosam_net.data.labels import LabelSet
from planning.machine import TunedProbe
from planning.rules.training import (
    LARGE_PIXELS,
    TUNING,
    choose_folds,
    choose_head,
    choose_keep_largest,
    choose_strategy,
)
from tests.planning.figures import RECIPES, case, fingerprint, has_figures, machine


def test_folds_shrink_with_few_patients() -> None:
    groups = {f"{patient}_{frame}": str(patient) for patient in range(3) for frame in range(4)}
    folds, reason = choose_folds(groups, None)
    assert folds == 3
    assert "fewer groups than 5" in reason
    assert choose_folds({str(index): str(index) for index in range(9)}, None)[0] == 5
    assert choose_folds(groups, 2)[0] == 2


@pytest.mark.parametrize(
    ("inputs", "patients", "factor"),
    [(1, 1, 1.0), (40, 2, 1.0), (160, 2, 2.0), (640, 2, 2.5), (10**6, 2, 2.5), (80, 80, 2.5), (8, 8, 2.0)],
)
def test_epochs_grow_with_the_training_inputs_and_patients(inputs: int, patients: int, factor: float) -> None:
    found, reason = choose_head("cnn", RECIPES["cnn"], inputs, patients, largest=30.0)
    assert found.epochs_for(inputs, patients) == round(RECIPES["cnn"].epochs * factor)
    assert found.batch_size == min(8, inputs)
    assert has_figures(reason)


def test_large_structures_get_context_where_a_head_has_it() -> None:
    recipe = replace(RECIPES["cnn"], settings={"context": 0.0}, batch_size=16, crop=0.5)
    small, _ = choose_head("cnn", recipe, 100, 5, largest=LARGE_PIXELS)
    large, reason = choose_head("cnn", recipe, 100, 5, largest=99.0)
    assert (small.settings["context"], large.settings["context"]) == (0.0, 1.0)
    assert (small.crop, small.batch_size) == (0.5, 16)
    assert (large.crop, large.batch_size) == (1.0, 8)  # whole inputs, so that the context is seen
    assert "99 px across" in reason
    assert "context" not in choose_head("linear", RECIPES["linear"], 100, 5, largest=99.0)[0].settings


def shares(*largest: float) -> Fingerprint:
    cases = [case(f"case{index}") for index in range(len(largest))]
    return fingerprint(
        *(
            replace(one, classes={"organ": replace(one.classes["organ"], largest_component_mm3=share * 1e4)})
            for one, share in zip(cases, largest, strict=True)
        )
    )


@pytest.mark.parametrize(
    ("largest", "kept"), [((1.0, 0.96), ("organ",)), ((1.0, 0.9), ()), ((1.0,), ()), ((0.95, 0.95, 1.0), ("organ",))]
)
def test_only_classes_of_one_piece_in_every_case_lose_their_other_components(
    largest: tuple[float, ...], kept: tuple[str, ...]
) -> None:
    found, reason = choose_keep_largest(shares(*largest), LabelSet({"background": 0, "organ": 1, "absent": 2}))
    assert found == kept
    assert f"organ {min(largest):.1%}" in reason


@pytest.mark.parametrize(("together", "kept"), [(1.0, ("foreground", "first", "second")), (0.5, ("first", "second"))])
def test_classes_that_hang_together_are_one_piece_before_each_is(together: float, kept: tuple[str, ...]) -> None:
    cases = [case(f"case{index}", extents={"first": 60.0, "second": 60.0}) for index in range(2)]
    joined = [replace(one, foreground=replace(one.foreground, largest_component_mm3=together * 1e4)) for one in cases]
    labels = LabelSet({"background": 0, "first": 1, "second": 2})
    assert choose_keep_largest(fingerprint(*joined), labels)[0] == kept


def test_regions_keep_every_component() -> None:
    regions = LabelSet({"background": 0, "organ": (1, 2), "core": 2}, (1, 2))
    assert choose_keep_largest(shares(1.0, 1.0), regions)[0] == ()


@pytest.mark.parametrize(
    ("device", "tuned", "patients", "expected", "why"),
    [
        (
            "cpu",
            None,
            80,
            "head",
            "at 0.4 s for one input on cpu: it has no blocks to tune, or there is no memory for it",
        ),
        ("cpu", TunedProbe(1.5, {TUNING: 3e3}), 80, "head", "600 fit an hour, under the 1000"),
        ("cuda", TunedProbe(0.01, {TUNING: 9e3}), 80, "head", "takes 9000 MiB of memory, 8000 are there"),
        ("cuda", TunedProbe(0.01, {TUNING: 3e3}), 24, "head", "trains on 24 patients, under the 25"),
        ("cuda", TunedProbe(0.01, {TUNING: 3e3}), 25, TUNING, "if a trial on 5 of the patients shows that it helps"),
        ("cuda", TunedProbe(0.01, {TUNING: 3e3}), 80, TUNING, r"--tune encoder\+head:lora --from-head"),
        ("cpu", TunedProbe(0.1, {TUNING: 3e3}), 80, TUNING, "9000 fit an hour"),
    ],
)
def test_the_encoder_learns_where_time_memory_and_patients_allow_it(
    device: str, tuned: TunedProbe | None, patients: int, expected: str, why: str
) -> None:
    strategy, reason = choose_strategy(machine(device), 0.4, tuned, patients)
    assert strategy == expected and strategy in STRATEGIES
    assert re.search(why, reason) and "\n" not in reason


def test_an_encoder_that_is_too_slow_to_learn_is_named() -> None:
    strategy, reason = choose_strategy(machine("cpu"), 2.84, None, 80)
    assert strategy == "head" and "one input takes 2.8 s on cpu, over 2, so that too few steps" in reason
