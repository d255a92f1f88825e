"""Folders of models: what may be thrown away, and which folds belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.data.plan import Plan, load_plan
from autosam_net.errors import ModelError
from autosam_net.training.run import ModelFolder, TrainingOptions, prepare_fold
from tests.support import Prepared

OVERWRITE = TrainingOptions(overwrite=True)


@pytest.fixture
def model(prepared: Prepared, tmp_path: Path) -> ModelFolder:
    """Return a model with the folds 0 and 1 trained and validated, as far as files tell."""
    model = ModelFolder(tmp_path / "Dataset900_Example" / "cnn")
    for fold in ("0", "1"):
        folder = prepare_fold(model, fold, prepared.plan, TrainingOptions(), "digest")
        (folder / "validation").mkdir()
        for name in ("model.safetensors", "validation/summary.json"):
            (folder / name).touch()
    return model


def coarser(plan: Plan) -> Plan:
    return replace(plan, preprocessing=replace(plan.preprocessing, spacing=3.0))


def other_labels(plan: Plan) -> Plan:
    names = list(plan.labels)
    return replace(plan, labels={name: plan.labels[name] for name in [names[0], *reversed(names[1:])]})


def test_names_of_runs() -> None:
    assert TrainingOptions().run_name("vit") == "vit"
    assert TrainingOptions(seed=2).run_name("vit") == "vit_seed2"
    assert TrainingOptions(labelled=1).run_name("vit") == "vit_labelled1_seed0"
    assert ModelFolder(Path("results/Dataset027_ACDC/vit")).name == "Dataset027_ACDC/vit"


def test_overwriting_takes_the_old_validation_along(prepared: Prepared, model: ModelFolder) -> None:
    (model.path / "expected_dice.json").touch()
    folder = prepare_fold(model, "0", prepared.plan, OVERWRITE, "digest")
    assert list(folder.iterdir()) == []
    assert not (model.path / "expected_dice.json").exists()
    assert model.trained_folds() == ["1"]


@pytest.mark.parametrize("change", [coarser, other_labels])
@pytest.mark.parametrize(("fold", "options"), [("0", OVERWRITE), ("2", TrainingOptions())])
def test_a_plan_that_does_not_fit_the_other_folds_is_refused_before_anything_is_lost(
    prepared: Prepared, model: ModelFolder, change, fold: str, options: TrainingOptions
) -> None:
    with pytest.raises(ModelError, match=r"fold .*1 was trained by another plan. Move this folder away"):
        prepare_fold(model, fold, change(prepared.plan), options, "digest")
    assert model.trained_folds() == ["0", "1"]
    assert not model.fold("2").exists()
    assert load_plan(model.plan_file) == prepared.plan


def test_the_only_fold_may_be_overwritten_by_another_plan(prepared: Prepared, model: ModelFolder) -> None:
    (model.fold("1") / "model.safetensors").unlink()
    prepare_fold(model, "0", coarser(prepared.plan), OVERWRITE, "digest")
    assert load_plan(model.plan_file) == coarser(prepared.plan)


def test_a_finished_fold_keeps_the_plan_it_was_trained_by(prepared: Prepared, model: ModelFolder) -> None:
    edited = replace(prepared.plan, reasons={"encoder": "edited"})
    prepare_fold(model, "0", edited, TrainingOptions(resume=True), "digest")
    assert load_plan(model.plan_file) == prepared.plan


def test_only_another_plan_makes_the_file_newer(prepared: Prepared, model: ModelFolder) -> None:
    before = model.plan_file.stat().st_mtime_ns
    prepare_fold(model, "2", prepared.plan, TrainingOptions(), "digest")
    assert model.plan_file.stat().st_mtime_ns == before
    other = replace(prepared.plan, keep_largest=("RV",))
    prepare_fold(model, "3", other, TrainingOptions(), "digest")
    assert model.plan_file.stat().st_mtime_ns > before and load_plan(model.plan_file) == other


def test_an_unfinished_training_is_not_lost_unasked(prepared: Prepared, model: ModelFolder) -> None:
    folder = prepare_fold(model, "2", prepared.plan, TrainingOptions(), "digest")
    (folder / "checkpoint.safetensors").touch()
    prepare_fold(model, "2", prepared.plan, TrainingOptions(), "digest")
    assert (folder / "checkpoint.safetensors").exists()


def test_leftovers_of_killed_runs_are_removed(prepared: Prepared, model: ModelFolder) -> None:
    places = (model.path, model.fold("0"), model.fold("0") / "validation")
    for place in places:
        (place / ".writing-killed").mkdir()
    prepare_fold(model, "0", prepared.plan, TrainingOptions(resume=True), "digest")
    assert not [place for place in places if (place / ".writing-killed").exists()]
