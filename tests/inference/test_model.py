"""Trained models: chosen, loaded, and predicting on the raw grid."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.dataset import training_cases
from autosam_net.errors import DatasetError, ImageFileError, ModelError, UsageError, WeightsError
from autosam_net.imageio import read_image, read_label
from autosam_net.inference.model import Model, load_model
from autosam_net.inference.validate import validate_fold
from autosam_net.jsonio import write_json
from autosam_net.paths import Folders
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head, training_split
from tests.support import Prepared


@pytest.fixture(scope="module")
def folders(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Train two folds of cnn and one of linear."""
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("results"))
    for configuration, fold in (("cnn", 0), ("cnn", 1), ("linear", 0)):
        train_head(prepared.dataset, prepared.plan, configuration, fold, TrainingOptions(), folders)
    return folders


@pytest.fixture(scope="module")
def model(folders: Folders) -> Model:
    return load_model(900, ["cnn"], folders=folders)


def images(prepared: Prepared) -> list[Path]:
    return [case.images[0] for case in training_cases(prepared.dataset)]


def test_all_trained_folds_are_loaded_unless_some_are_named(folders: Folders, model: Model) -> None:
    assert len(model.heads) == 2
    assert len(load_model(900, ["cnn"], ["1"], folders=folders).heads) == 1
    assert len(load_model(900, ["cnn", "linear"], folders=folders).heads) == 3


def test_an_ambiguous_or_unknown_model_is_refused(folders: Folders) -> None:
    with pytest.raises(
        ModelError, match="several models are trained: Dataset900_Example/cnn, Dataset900_Example/linear"
    ):
        load_model(900, folders=folders)
    with pytest.raises(ModelError, match="no trained model 'vitt'"):
        load_model(900, ["vitt"], folders=folders)
    with pytest.raises(UsageError, match="fold 4 is not trained; trained folds: 0, 1"):
        load_model(900, ["cnn"], ["4"], folders=folders)
    with pytest.raises(DatasetError, match="no data set 12"):
        load_model(12, folders=folders)


def test_folder_file_and_array_give_the_same_labels(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    file = images(prepared)[0]
    (written,) = model.predict_folder(file, tmp_path)
    assert written.name == file.name.replace("_0000", "")
    volume, labels = read_image(file), read_label(written)
    assert labels.geometry == volume.geometry
    assert labels.shape == volume.shape
    assert set(np.unique(labels.array)) <= {0, 1, 2, 3}
    in_memory = model.predict_case(volume.array[0], volume.geometry.spacing)
    np.testing.assert_array_equal(in_memory, labels.array[0])


def test_a_plane_is_predicted_as_a_plane(model: Model) -> None:
    plane = np.random.default_rng(0).random((90, 70))
    assert model.predict_case(plane, (1.5, 1.5)).shape == (90, 70)


def test_predicting_goes_on_where_it_stopped(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    first, second = images(prepared)[:2]
    (written,) = model.predict_folder(first, tmp_path)
    before = written.stat().st_mtime_ns
    model.predict_folder([first, second], tmp_path, skip_existing=True)
    assert written.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*.nii.gz"))) == 2


def test_saved_probabilities_agree_with_the_labels(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    (written,) = model.predict_folder(images(prepared)[0], tmp_path, save_probabilities=True)
    labels = read_label(written).array[0]
    probabilities = np.load(next(tmp_path.glob("*_probabilities.npy")))
    assert probabilities.dtype == np.float16 and probabilities.shape == (4, *labels.shape)
    np.testing.assert_allclose(probabilities.astype(np.float32).sum(0), 1, atol=5e-3)
    assert (probabilities.argmax(0) == labels).mean() > 0.999


def test_bad_arrays_and_files_are_refused(model: Model, tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(DatasetError, match="give 2 or 3 spacings"):
        model.predict_case(np.zeros((4, 4, 4, 4, 4)), (1, 1, 1))
    with pytest.raises(DatasetError, match="2 channels, the plan was made for 1"):
        model.predict_case(np.zeros((2, 4, 4, 4)), (1, 1, 1))
    with pytest.raises(DatasetError, match="NaN or infinite"):
        model.predict_case(np.full((4, 4, 4), np.nan), (1, 1, 1))
    broken = tmp_path / "in" / "broken_0000.nii.gz"
    broken.parent.mkdir()
    broken.write_bytes(images(prepared)[0].read_bytes()[:2000])
    with pytest.raises(ImageFileError, match="broken_0000"):
        model.predict_folder(broken, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_other_encoder_weights_are_refused(prepared: Prepared, folders: Folders, tmp_path: Path) -> None:
    moved = replace(folders, results=tmp_path)
    shutil.copytree(folders.results, tmp_path, dirs_exist_ok=True)
    other = tmp_path / "other.pth"
    other.write_bytes(Path(prepared.plan.encoding.weights or "").read_bytes() + b"\0")
    plan = replace(prepared.plan, encoding=replace(prepared.plan.encoding, weights=str(other)))
    write_json(tmp_path / prepared.dataset.name / "cnn" / "plan.json", plan)
    with pytest.raises((ModelError, WeightsError), match="other.pth|but the weights found are"):
        load_model(900, ["cnn"], folders=moved)


def test_validation_writes_label_maps_and_a_summary(prepared: Prepared, folders: Folders) -> None:
    folder = folders.results / prepared.dataset.name / "cnn" / "fold_0"
    held_out = training_split(prepared.dataset, "0", TrainingOptions(), folders).val
    summary = validate_fold(prepared.dataset, prepared.plan, folder, held_out, "cpu", folders)
    assert {path.name for path in (folder / "validation").glob("*.nii.gz")} == {f"{case}.nii.gz" for case in held_out}
    assert (folder / "validation" / "summary.json").is_file() and (folder / "validation" / "cases.csv").is_file()
    assert summary.foreground_mean["Dice"] is not None
