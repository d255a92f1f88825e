"""Validated folds teach a model which Dice to expect, and its predictions say it."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autosam_net.data.dataset import training_cases
from autosam_net.data.fingerprint import load_groups
from autosam_net.evaluation.case_table import CONFIDENCE, read_rows, seal_of
from autosam_net.evaluation.expected_dice import read_expected_dice
from autosam_net.imageio import read_image
from autosam_net.inference.calibrate import calibrate, has_confidences
from autosam_net.inference.load import load_model
from autosam_net.inference.validate import train_and_validate
from autosam_net.paths import Folders
from autosam_net.training.run import ModelFolder, TrainingOptions
from tests.support import Prepared


@pytest.fixture(scope="module", autouse=True)
def three_patients_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autosam_net.evaluation.expected_dice.MINIMUM_PATIENTS", 3)
        yield


@pytest.fixture(scope="module")
def validated(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return folders with two folds of a head, which hold out three patients, trained for a moment and validated."""
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("validated"))
    for fold in ("0", "1"):
        train_and_validate(prepared.dataset, prepared.plan, "cnn", fold, TrainingOptions(epochs=1), folders)
    return folders


@pytest.fixture
def model(prepared: Prepared, validated: Folders, tmp_path: Path) -> ModelFolder:
    """Return a copy of the model that a test may change."""
    folder = tmp_path / "results" / prepared.dataset.name / "cnn"
    shutil.copytree(validated.results / prepared.dataset.name / "cnn", folder)
    return ModelFolder(folder)


def groups(prepared: Prepared):
    return load_groups(prepared.folders.preprocessed / prepared.dataset.name / "dataset_fingerprint.json")


def table(model: ModelFolder, fold: str) -> Path:
    return model.fold(fold) / "validation" / "cases.csv"


def test_the_cases_of_all_folds_are_learnt_from(prepared: Prepared, model: ModelFolder) -> None:
    learnt = read_expected_dice(model.path)
    assert learnt is not None
    assert learnt.cases == learnt.patients == 3
    assert set(learnt.classes) == {"RV", "MYO", "LV"}
    for fold in model.trained_folds():
        with table(model, fold).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert set(CONFIDENCE) <= set(rows[0])
        assert all(row["flag"] in ("ok", "bad") and 0 <= float(row["expected_mean_Dice"]) <= 1 for row in rows)


def test_learning_again_changes_nothing(prepared: Prepared, model: ModelFolder) -> None:
    files = [model.path / "expected_dice.json", *(table(model, fold) for fold in model.trained_folds())]
    before = [file.read_bytes() for file in files]
    calibrate(model, groups(prepared))
    assert [file.read_bytes() for file in files] == before


def test_what_was_learnt_of_more_patients_goes_with_them(prepared: Prepared, model: ModelFolder) -> None:
    shutil.rmtree(model.fold("1"))
    assert calibrate(model, groups(prepared)) is None
    assert read_expected_dice(model.path) is None


def test_a_validation_without_confidences_is_noticed(model: ModelFolder) -> None:
    assert has_confidences(model.fold("0"))
    table(model, "0").write_text("case,class,Dice\npatient001_frame01,RV,0.5\n")
    seal_of(table(model, "0")).unlink()
    assert not has_confidences(model.fold("0"))
    table(model, "0").unlink()
    assert not has_confidences(model.fold("0"))


def test_predictions_say_which_dice_to_expect(
    prepared: Prepared, validated: Folders, model: ModelFolder, tmp_path: Path
) -> None:
    folders = replace(validated, results=model.path.parent.parent)
    image = training_cases(prepared.dataset)[0].images[0]
    loaded = load_model(900, ["cnn"], folders=folders)
    assert len(loaded.expected_dice) == len(loaded.heads) == 2
    out = tmp_path / "out"
    (written,) = loaded.predict_folder(image, out, save_uncertainty=True)
    rows = read_rows(out / "cases.csv")
    assert [case for case, _ in rows] == [written.name.removesuffix(".nii.gz")] * 3
    assert {row["flag"] for row in rows.values()} <= {"ok", "bad"}
    entropy, apart = (read_image(file) for file in _maps(out, "entropy", "disagreement"))
    assert entropy.geometry == apart.geometry == read_image(image).geometry
    assert entropy.shape == apart.shape == read_image(image).shape
    assert apart.array.min() >= 0 and entropy.array.max() <= 1 and entropy.array.max() > 0.1
    assert (apart.array <= entropy.array + 1e-3).all() and apart.array.max() > 0


def test_without_anything_learnt_the_confidence_stands_alone(
    prepared: Prepared, validated: Folders, model: ModelFolder, tmp_path: Path
) -> None:
    (model.path / "expected_dice.json").unlink()
    folders = replace(validated, results=model.path.parent.parent)
    images = [case.images[0] for case in training_cases(prepared.dataset)[:2]]
    single, out = load_model(900, ["cnn"], ["0"], folders=folders), tmp_path / "out"
    single.predict_folder(images[0], out, save_uncertainty=True)
    single.predict_folder(images[1], out)
    rows = read_rows(out / "cases.csv")
    assert len({case for case, _ in rows}) == 2
    assert {row.get("flag", "") for row in rows.values()} == {""}
    assert any(row["agreement"] for row in rows.values())
    assert [file.name.rpartition("_")[2] for file in (out / "uncertainty").iterdir()] == ["entropy.nii.gz"]


def test_a_lacking_map_is_made_up_for(prepared: Prepared, validated: Folders, tmp_path: Path) -> None:
    image = training_cases(prepared.dataset)[0].images[0]
    single = load_model(900, ["cnn"], ["0"], folders=validated)
    single.predict_folder(image, tmp_path)
    single.predict_folder(image, tmp_path, skip_existing=True, save_uncertainty=True)
    assert len(list((tmp_path / "uncertainty").iterdir())) == 1


def test_an_interruption_while_maps_are_written_leaves_no_label_map(
    prepared: Prepared, validated: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autosam_net.inference.uncertainty.write_fractions", stop)
    with pytest.raises(KeyboardInterrupt):
        load_model(900, ["cnn"], ["0"], folders=validated).predict_folder(
            training_cases(prepared.dataset)[0].images[0], tmp_path, save_uncertainty=True
        )
    assert not list(tmp_path.glob("*.nii.gz"))


def _maps(folder: Path, *names: str) -> list[Path]:
    return [next((folder / "uncertainty").glob(f"*_{name}.nii.gz")) for name in names]
