"""A plan that is damaged or forged is refused by name before anything is computed by it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autosam_net.errors import PlanError
from autosam_net.jsonio import write_json
from autosam_net.training.check_plan import MOST_CLASSES, check_configuration, check_plan, load_checked_plan
from tests.support import Prepared


def test_a_sound_plan_is_loaded(prepared: Prepared, tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", prepared.plan)
    assert load_checked_plan(tmp_path / "plan.json", "cnn") == prepared.plan


def test_the_file_is_named(prepared: Prepared, tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", replace(prepared.plan, keep_largest=("RVV",)))
    with pytest.raises(PlanError, match=r"/plan.json: keep_largest: 'RVV' is not known; did you mean 'RV'"):
        load_checked_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_size": 65536}, "encoding: input_size: found 65536, expected a multiple of 16 up to 1024"),
        ({"input_size": 100}, "encoding: input_size: found 100, expected a multiple of 16"),
        ({"overlap": 0.999999}, "encoding: overlap: found 0.999999, expected 0 to 0.75"),
        ({"poses": ("upside down",)}, "encoding: poses: found ..upside down.., expected some of"),
        ({"encoder": "tiny"}, "encoding: encoder: 'tiny' is not known"),
        ({"maximum_views": 0}, "encoding: maximum_views: found 0, expected 1 or more"),
    ],
)
def test_what_cannot_be_encoded_is_refused(prepared: Prepared, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        check_plan(replace(prepared.plan, encoding=replace(prepared.plan.encoding, **change)))


@pytest.mark.parametrize(
    "change", [{"spacing": 0.0}, {"spacing": float("nan")}, {"slice_axis": 7}, {"normalizations": ()}]
)
def test_what_cannot_be_preprocessed_is_refused(prepared: Prepared, change: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=f"preprocessing: {next(iter(change))}: found"):
        check_plan(replace(prepared.plan, preprocessing=replace(prepared.plan.preprocessing, **change)))


def test_labels_that_contradict_each_other_or_are_too_many_are_refused(prepared: Prepared) -> None:
    with pytest.raises(PlanError, match=r"plan.json: label values must be consecutive"):
        check_plan(replace(prepared.plan, labels={"background": 0, "heart": 2}))
    many = {"background": 0, **{f"class {value}": value for value in range(1, MOST_CLASSES + 2)}}
    with pytest.raises(PlanError, match=r"plan.json: labels: found 1001, expected at most 1000 classes"):
        check_plan(replace(prepared.plan, labels=many))


def test_a_configuration_that_cannot_be_trained_is_refused(prepared: Prepared) -> None:
    for change, message in (({"head": "cnm"}, "did you mean 'cnn'"), ({"batch_size": 0}, "batch_size: found 0")):
        edited = {"cnn": replace(prepared.plan.configuration("cnn"), **change)}
        with pytest.raises(PlanError, match=message):
            check_configuration(replace(prepared.plan, configurations=edited), "cnn")
