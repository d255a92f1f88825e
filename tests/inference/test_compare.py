"""What is compared, on which cases, and where the figures come from."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import Plan
from autosam_net.data.splits import load_splits
from autosam_net.data.volume import Geometry
from autosam_net.embedding.source import EncoderSource
from autosam_net.errors import DatasetError, ModelError, UsageError
from autosam_net.imageio import read_label, write_label
from autosam_net.inference import compare
from autosam_net.inference.compare import Comparison, measure, plan_comparison, predict_held_out
from autosam_net.inference.export import label_map
from autosam_net.inference.predict import slice_probabilities
from autosam_net.inference.trained_head import load_head
from autosam_net.inference.validate import validate_fold
from autosam_net.jsonio import read_sealed, write_json
from autosam_net.paths import Folders
from autosam_net.preprocessing.preprocess import cases_folder, load_case
from tests.support import Prepared, snapshot


@pytest.fixture(scope="module")
def comparison(prepared: Prepared, trained: Folders) -> Comparison:
    """Return a comparison whose held-out cases are predicted."""
    planned = plan_comparison(prepared.dataset, None, None, trained)
    predict_held_out(planned, "cpu")
    return planned


def names(of: Comparison) -> list[tuple[str, ...]]:
    return [tuple(model.path.name for model in candidate) for candidate in of.candidates]


def results(prepared: Prepared, folders: Folders) -> Path:
    return folders.results / prepared.dataset.name


def test_by_default_the_plans_own_configurations_and_their_common_folds(
    prepared: Prepared, comparison: Comparison
) -> None:
    assert names(comparison) == [("linear",), ("cnn",), ("linear", "cnn")]  # the smaller head first
    splits = load_splits(prepared.folders.preprocessed / prepared.dataset.name / "splits_final.json")
    assert comparison.held_out == {"0": splits[0].val, "1": splits[1].val}


def test_other_runs_are_compared_by_name_and_once(prepared: Prepared, trained: Folders) -> None:
    chosen = plan_comparison(prepared.dataset, ["cnn", "cnn_labelled1_seed0", "cnn"], None, trained)
    assert len(chosen.models) == 2 and list(chosen.held_out) == ["0"]


def test_a_pair_predicts_the_mean_of_the_heads_of_the_fold(prepared: Prepared, comparison: Comparison) -> None:
    plan, (linear, cnn) = prepared.plan, comparison.models
    source = EncoderSource(plan.encoding, "cpu")
    heads = [load_head(model.fold("1") / "model.safetensors", plan, source) for model in (cnn, linear)]
    for name, file in comparison.predictions((linear, cnn), "1").items():
        case = load_case(cases_folder(prepared.dataset, prepared.folders) / name)
        expected = label_map(slice_probabilities(case, heads, plan.label_set, source), case.properties, plan.label_set)
        assert (read_label(file).array[0] == expected).mean() > 0.99  # cached embeddings are half as precise


def test_the_table_agrees_with_the_validation_of_the_heads(prepared: Prepared, comparison: Comparison) -> None:
    table = measure(comparison)
    cases = [case for held_out in comparison.held_out.values() for case in held_out]
    assert table.values.shape == (3, len(cases), 3, 2)
    assert table.classes == tuple(prepared.dataset.labels.targets)
    assert len(set(table.patients)) == len(cases)
    for index, model in enumerate(comparison.models):
        summary = json.loads((model.fold("0") / "validation" / "summary.json").read_text())
        expected = [[metrics["Dice"] for metrics in case["metrics"].values()] for case in summary["metric_per_case"]]
        rows = np.array(table.folds) == "0"
        np.testing.assert_allclose(table.values[index, rows, :, 0], np.array(expected, float))


def test_what_is_there_is_not_predicted_again(
    comparison: Comparison, trained: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(trained.results)
    for name in ("validate_fold", "load_head"):
        monkeypatch.setattr(compare, name, None)  # not callable
    predict_held_out(comparison, "cpu")
    assert snapshot(trained.results) == before


def test_what_is_older_than_its_head_is_predicted_again(
    prepared: Prepared, changeable: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan_comparison(prepared.dataset, None, ["1"], changeable)
    predict_held_out(planned, "cpu")
    linear, cnn = planned.models
    pair = next(iter(planned.predictions((linear, cnn), "1").values()))
    later = pair.stat().st_mtime_ns + 10**9
    os.utime(cnn.fold("1") / "model.safetensors", ns=(later, later))
    validated = []
    monkeypatch.setattr(compare, "validate_fold", lambda *args: validated.append(args[2]) or validate_fold(*args))
    before = pair.stat().st_mtime_ns
    predict_held_out(planned, "cpu")
    assert validated == [cnn.fold("1")]
    assert pair.stat().st_mtime_ns > before


def test_what_is_older_than_its_plan_is_predicted_again(
    prepared: Prepared, changeable: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan_comparison(prepared.dataset, None, ["1"], changeable)
    predict_held_out(before, "cpu")
    plan = replace(prepared.plan, keep_largest=("RV",))
    for model in before.models:
        write_json(model.plan_file, plan)
    validated = []
    monkeypatch.setattr(compare, "validate_fold", lambda *args: validated.append(args[1]) or validate_fold(*args))
    predict_held_out(plan_comparison(prepared.dataset, None, ["1"], changeable), "cpu")
    assert validated == [plan, plan]


def test_regions_keep_all_components(tmp_path: Path) -> None:
    labels = LabelSet({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
    reference = np.zeros((1, 6, 6), np.uint8)
    reference[:, :2] = 1
    prediction = reference.copy()
    prediction[:, 5] = 1
    for name, array in (("reference", reference), ("prediction", prediction)):
        write_label(tmp_path / f"{name}.nii.gz", array, Geometry((1.0, 1.0, 1.0)))
    case = compare._HeldOutCase("case", tmp_path / "reference.nii.gz", (tmp_path / "prediction.nii.gz",))
    regions = compare._dice_of_case(case, labels)
    assert regions.shape == (1, 2, 2)
    np.testing.assert_array_equal(regions[..., 0], regions[..., 1])
    classes = compare._dice_of_case(case, LabelSet({"background": 0, "a": 1, "b": 2}))
    np.testing.assert_allclose(classes, [[[0.8, 1.0], [np.nan, np.nan]]])


def test_a_reference_of_another_grid(tmp_path: Path) -> None:
    for name, side in (("reference", 5), ("prediction", 6)):
        write_label(tmp_path / f"{name}.nii.gz", np.zeros((1, side, 6), np.uint8), Geometry((1.0, 1.0, 1.0)))
    case = compare._HeldOutCase("case", tmp_path / "reference.nii.gz", (tmp_path / "prediction.nii.gz",))
    with pytest.raises(DatasetError, match="case: reference has shape"):
        compare._dice_of_case(case, LabelSet({"background": 0, "a": 1}))


def test_errors_name_what_cannot_be_compared(prepared: Prepared, trained: Folders, tmp_path: Path) -> None:
    dataset = prepared.dataset
    with pytest.raises(ModelError, match="no trained model 'cnm'; did you mean 'cnn'"):
        plan_comparison(dataset, ["cnm"], None, trained)
    with pytest.raises(UsageError, match=r"linear: fold 3 is not trained; trained folds: 0, 1"):
        plan_comparison(dataset, ["linear"], ["3"], trained)
    (tmp_path / dataset.name).mkdir()
    with pytest.raises(ModelError, match="no fold has been trained to its end"):
        plan_comparison(dataset, None, None, replace(trained, results=tmp_path))


def test_nothing_of_the_plan_is_trained(prepared: Prepared, changeable: Folders) -> None:
    for name in ("cnn", "linear"):
        (results(prepared, changeable) / name).rename(results(prepared, changeable) / f"{name}_seed7")
    with pytest.raises(ModelError, match=r"choose with -c among cnn_labelled1_seed0, cnn_seed7, linear_seed7"):
        plan_comparison(prepared.dataset, None, None, changeable)


def test_no_fold_in_common(prepared: Prepared, changeable: Folders) -> None:
    for fold in ("cnn/fold_0", "linear/fold_1"):
        (results(prepared, changeable) / fold / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"trained for all of these \(cnn: 1; linear: 0\). Train the same folds"):
        plan_comparison(prepared.dataset, None, None, changeable)


def test_a_fold_that_holds_nothing_out(prepared: Prepared, changeable: Folders) -> None:
    folder = results(prepared, changeable) / "cnn"
    (folder / "fold_1").rename(folder / "fold_all")
    record = read_sealed(folder / "fold_all" / "run.json")
    write_json(folder / "fold_all" / "run.json", record | {"held_out": []})
    with pytest.raises(UsageError, match=r"cnn: fold all holds no case out"):
        plan_comparison(prepared.dataset, ["cnn"], ["all"], changeable)
    assert list(plan_comparison(prepared.dataset, ["cnn"], None, changeable).held_out) == ["0"]


def test_folds_that_held_out_other_cases(prepared: Prepared, changeable: Folders) -> None:
    record = results(prepared, changeable) / "cnn" / "fold_0" / "run.json"
    content = read_sealed(record)
    write_json(record, content | {"held_out": content["held_out"][1:]})
    with pytest.raises(ModelError, match=r"cnn and .*linear held out other cases in fold 0. Train one of them again"):
        plan_comparison(prepared.dataset, None, None, changeable)


def rewrite_plan(prepared: Prepared, folders: Folders, plan: Plan) -> None:
    write_json(results(prepared, folders) / "linear" / "plan.json", plan)


def test_models_that_do_not_fit_together(
    prepared: Prepared, changeable: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite_plan(prepared, changeable, replace(prepared.plan, encoding=replace(prepared.plan.encoding, overlap=0.5)))
    with caplog.at_level(logging.WARNING):
        assert names(plan_comparison(prepared.dataset, None, None, changeable)) == [("cnn",)]
    assert "linear does not fit together with the plan of today, and is left out" in caplog.text
    assert names(plan_comparison(prepared.dataset, ["linear"], None, changeable)) == [("linear",)]
    with pytest.raises(ModelError, match=r"linear and .*cnn were trained by different plans.* Compare each alone"):
        plan_comparison(prepared.dataset, ["cnn", "linear"], None, changeable)


def test_models_that_keep_other_components(prepared: Prepared, changeable: Folders) -> None:
    rewrite_plan(prepared, changeable, replace(prepared.plan, keep_largest=("RV",)))
    with pytest.raises(ModelError, match=r"largest component of .* Write the same keep_largest in their plan\.json"):
        plan_comparison(prepared.dataset, None, None, changeable)


def test_cases_that_were_preprocessed_anew(prepared: Prepared, changeable: Folders) -> None:
    other = replace(prepared.plan.preprocessing, spacing=1.0)
    rewrite_plan(prepared, changeable, replace(prepared.plan, preprocessing=other))
    with pytest.raises(ModelError, match=r"linear was trained on cases that were preprocessed by another plan"):
        plan_comparison(prepared.dataset, ["linear"], None, changeable)
