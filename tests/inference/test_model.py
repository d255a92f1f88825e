"""Trained models: chosen, loaded, and predicting on the raw grid."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from autosam_net.data.dataset import training_cases
from autosam_net.data.plan import Plan
from autosam_net.errors import DatasetError, ImageFileError, ModelError, UsageError, WeightsError
from autosam_net.imageio import read_image, read_label
from autosam_net.imageio.dicom import read_slices
from autosam_net.imageio.dicom_seg import read_segments
from autosam_net.inference.load import load_model
from autosam_net.inference.model import Model
from autosam_net.inference.segment import segment
from autosam_net.inference.validate import train_and_validate, validate_fold
from autosam_net.jsonio import write_json
from autosam_net.paths import Folders
from autosam_net.training.cases import training_split
from autosam_net.training.checkpoint import load_tensors, save_tensors
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.dicom_files import noise, write_series
from tests.support import TINY, Prepared, with_unet


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


OBLIQUE = (0.8, 0.6, 0.0, 0.0, 0.0, -1.0)


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
    with pytest.raises(DatasetError, match=r"no data set 12; .* Run autosam_train first"):
        load_model(12, folders=folders)


def test_folder_file_and_array_give_the_same_labels(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    file = images(prepared)[0]
    (written,) = model.predict_folder(file, tmp_path)
    assert written.name == file.name.replace("_0000", "")
    volume, labels = read_image(file), read_label(written)
    assert labels.geometry == volume.geometry
    assert labels.shape == volume.shape
    assert set(np.unique(labels.array)) <= {0, 1, 2, 3}
    in_memory = segment(volume.array[0], model, volume.geometry.spacing)
    for result in (in_memory, *(segment(image, model) for image in (file, [str(file)], volume))):
        np.testing.assert_array_equal(result.labels, labels.array[0])


def test_predicting_goes_on_where_it_stopped(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    first, second = images(prepared)[:2]
    (written,) = model.predict_folder(first, tmp_path)
    before = written.stat().st_mtime_ns
    model.predict_folder([first, second], tmp_path, skip_existing=True)
    assert written.stat().st_mtime_ns == before
    assert len(list(tmp_path.glob("*.nii.gz"))) == 2


def test_probabilities_that_are_lacking_are_made_up_for(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    image = images(prepared)[0]
    model.predict_folder(image, tmp_path)
    model.predict_folder(image, tmp_path, save_probabilities=True, skip_existing=True)
    assert len(list(tmp_path.glob("*_probabilities.npy"))) == 1


def test_an_image_is_never_overwritten(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    image = Path(shutil.copy(images(prepared)[0], tmp_path / "scan.nii.gz"))
    before = image.read_bytes()
    with pytest.raises(UsageError, match=r"scan.nii.gz: the label map would overwrite the image. Choose another"):
        model.predict_folder(tmp_path, tmp_path)
    assert image.read_bytes() == before
    assert list(tmp_path.iterdir()) == [image]


def test_a_series_is_predicted_and_segmented_as_dicom(model: Model, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_series(tmp_path / "in" / name, noise((3, 40, 36)), OBLIQUE, seed=name)
    written = model.predict_folder(tmp_path / "in", tmp_path / "out", save_dicom_seg=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("[!.]*")) == [
        "cases.csv",
        *("one.dcm", "one.nii.gz"),
        "plan.json",
        *("two.dcm", "two.nii.gz"),
    ]
    labels = read_label(written[0])
    slices = read_slices(tmp_path / "in" / "one")
    for axis in ("spacing", "origin", "direction"):
        expected = getattr(read_image(tmp_path / "in" / "one").geometry, axis)
        np.testing.assert_allclose(getattr(labels.geometry, axis), expected, atol=1e-5)
    segments = read_segments(tmp_path / "out" / "one.dcm", slices)
    assert list(segments) == ["RV", "MYO", "LV"]
    for value, mask in enumerate(segments.values(), start=1):
        np.testing.assert_array_equal(mask, labels.array[0] == value)


def test_a_segmentation_that_is_lacking_is_made_up_for(model: Model, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", noise((3, 40, 36)))
    (written,) = model.predict_folder(series, tmp_path / "out")
    before = written.stat().st_mtime_ns
    model.predict_folder(series, tmp_path / "out", skip_existing=True, save_dicom_seg=True)
    assert (tmp_path / "out" / "ct.dcm").is_file() and written.stat().st_mtime_ns == before


def test_nothing_is_written_among_the_slices(model: Model, tmp_path: Path) -> None:
    series = write_series(tmp_path / "ct", noise((3, 40, 36)))
    with pytest.raises(UsageError, match=r"ct.nii.gz: would lie among the slices of a series. Choose another folder"):
        model.predict_folder(series, series)
    assert len(list(series.iterdir())) == 3


FORMATS = [".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".bmp", ".tif", ".jpg"]


@pytest.mark.parametrize("ending", FORMATS)
def test_flat_images_of_every_format_are_predicted(model: Model, tmp_path: Path, ending: str) -> None:
    plane = np.random.default_rng(0).integers(0, 255, (40, 36)).astype(np.uint8)
    (tmp_path / "in").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(plane), str(tmp_path / "in" / f"scan{ending}"))
    (written,) = model.predict_folder(tmp_path / "in", tmp_path / "out")
    assert written.name == "scan" + (".nii.gz" if ending == ".jpg" else ending)  # compression would spoil labels
    assert read_label(written).shape == (1, 40, 36)


def test_a_stack_with_its_spacing_is_predicted(model: Model, tmp_path: Path) -> None:
    image = tmp_path / "in" / "scan_0000.tif"
    image.parent.mkdir()
    tifffile.imwrite(image, noise((5, 40, 36)))
    (tmp_path / "in" / "scan.json").write_text(json.dumps({"spacing": [5, 1.5, 1.5]}))
    (written,) = model.predict_folder(tmp_path / "in", tmp_path / "out")
    labels = read_label(written)
    assert written.name == "scan.tif" and labels.shape == (5, 40, 36)
    assert labels.geometry.spacing == (5.0, 1.5, 1.5)


def test_leftovers_of_a_killed_run_are_removed(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    (tmp_path / ".writing-killed").mkdir()
    model.predict_folder(images(prepared)[0], tmp_path)
    assert not list(tmp_path.glob(".writing-*"))


def test_saved_probabilities_agree_with_the_labels(prepared: Prepared, model: Model, tmp_path: Path) -> None:
    (written,) = model.predict_folder(images(prepared)[0], tmp_path, save_probabilities=True)
    labels = read_label(written).array[0]
    probabilities = np.load(next(tmp_path.glob("*_probabilities.npy")))
    assert probabilities.dtype == np.float16 and probabilities.shape == (4, *labels.shape)
    np.testing.assert_allclose(probabilities.astype(np.float32).sum(0), 1, atol=5e-3)
    assert (probabilities.argmax(0) == labels).mean() > 0.999


def test_bad_arrays_and_files_are_refused(model: Model, tmp_path: Path, prepared: Prepared) -> None:
    with pytest.raises(DatasetError, match="2 channels, the plan was made for 1"):
        segment(np.zeros((2, 4, 4, 4)), model, (1, 1, 1))
    with pytest.raises(DatasetError, match="NaN or infinite"):
        segment(np.full((4, 4, 4), np.nan), model, (1, 1, 1))
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
    with pytest.raises((ModelError, WeightsError), match=r"other\.pth|but the weights found are"):
        load_model(900, ["cnn"], folders=moved)


@pytest.fixture
def moved(folders: Folders, tmp_path: Path) -> Folders:
    """Return folders with a copy of the results that a test may change."""
    shutil.copytree(folders.results, tmp_path / "results")
    return replace(folders, results=tmp_path / "results")


def rewrite_plan(prepared: Prepared, folders: Folders, plan: Plan, name: str = "cnn") -> Path:
    path = folders.results / prepared.dataset.name / name / "plan.json"
    write_json(path, plan)
    return path


def test_weights_that_did_not_move_along_are_missed_by_name(prepared: Prepared, moved: Folders) -> None:
    encoding = replace(prepared.plan.encoding, weights="/elsewhere/tiny.pth")
    path = rewrite_plan(prepared, moved, replace(prepared.plan, encoding=encoding))
    expected = (
        rf"{path}: encoding: weights: /elsewhere/tiny.pth does not exist here. Put .* or correct the path in this"
    )
    with pytest.raises(WeightsError, match=expected):
        load_model(900, ["cnn"], folders=moved)


def test_a_plan_that_was_edited_after_training_is_refused(prepared: Prepared, moved: Folders) -> None:
    preprocessing = replace(prepared.plan.preprocessing, spacing=1.0)
    rewrite_plan(prepared, moved, replace(prepared.plan, preprocessing=preprocessing))
    with pytest.raises(ModelError, match=r"fold_0.*: trained by another plan: preprocessing was .* is now"):
        load_model(900, ["cnn"], folders=moved)


def test_a_forged_setting_takes_no_memory(prepared: Prepared, moved: Folders) -> None:
    file = moved.results / prepared.dataset.name / "cnn" / "fold_0" / "model.safetensors"
    tensors, metadata = load_tensors(file)
    file.with_name("run.json").unlink()
    save_tensors(file, tensors, {**metadata, "settings": {"width": float(2**24)}})
    with pytest.raises(ModelError, match=r"model.safetensors: not the weights of a cnn head"):
        load_model(900, ["cnn"], folders=moved)


def test_models_of_different_plans_do_not_predict_together(prepared: Prepared, moved: Folders) -> None:
    other = replace(prepared.plan, encoding=replace(prepared.plan.encoding, overlap=0.5))
    rewrite_plan(prepared, moved, other, "linear")
    with pytest.raises(ModelError, match=r"linear and .*cnn were trained by different plans; predict with each alone"):
        load_model(900, ["cnn", "linear"], folders=moved)


def test_models_that_keep_other_components_do_not_predict_together(prepared: Prepared, moved: Folders) -> None:
    rewrite_plan(prepared, moved, replace(prepared.plan, keep_largest=("RV", "LV")), "linear")
    expected = r"linear keeps the largest component of RV, LV, .*cnn of no class. Write the same keep_largest"
    with pytest.raises(ModelError, match=expected):
        load_model(900, ["cnn", "linear"], folders=moved)
    assert len(load_model(900, ["linear"], folders=moved).largest_only) == 2


@pytest.fixture(scope="module")
def unet(prepared: Prepared, folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Return folders with a U-Net trained beside the heads."""
    results = tmp_path_factory.mktemp("unet")
    shutil.copytree(folders.results, results, dirs_exist_ok=True)
    beside = replace(folders, results=results)
    _, summary = train_and_validate(
        prepared.dataset, with_unet(prepared.plan), "unet", "0", TrainingOptions(epochs=1), beside
    )
    assert summary is not None and summary.foreground_mean["Dice"] is not None
    return beside


def test_a_network_from_scratch_predicts_alone(prepared: Prepared, unet: Folders, tmp_path: Path) -> None:
    model = load_model(900, ["unet"], folders=unet)
    assert model.source.encoder.name == "image"
    (written,) = model.predict_folder(images(prepared)[0], tmp_path)
    assert read_label(written).shape == read_image(images(prepared)[0]).shape


def test_heads_of_different_encoders_do_not_predict_together(unet: Folders) -> None:
    expected = rf"unet works on the encoder image, .*cnn on {TINY}; an ensemble has one encoder. Predict with each"
    with pytest.raises(ModelError, match=expected) as caught:
        load_model(900, ["cnn", "unet"], folders=unet)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_version_is_refused(prepared: Prepared, moved: Folders) -> None:
    file = moved.results / prepared.dataset.name / "cnn" / "fold_0" / "model.safetensors"
    tensors, metadata = load_tensors(file)
    save_tensors(file, tensors, metadata | {"version": 99})
    with pytest.raises(ModelError, match=r"model of version 99, expected 2. Train this fold again"):
        load_model(900, ["cnn"], folders=moved)


def test_a_data_set_without_a_finished_fold(moved: Folders) -> None:
    (moved.results / "Dataset901_Empty").mkdir()
    with pytest.raises(ModelError, match=r"Dataset901_Empty: no fold has been trained to its end. Run autosam_train"):
        load_model(901, folders=moved)


def test_validation_writes_label_maps_and_a_summary(prepared: Prepared, folders: Folders) -> None:
    folder = folders.results / prepared.dataset.name / "cnn" / "fold_0"
    held_out = training_split(prepared.dataset, "0", TrainingOptions(), folders).val
    summary = validate_fold(prepared.dataset, prepared.plan, folder, held_out, "cpu", folders)
    assert {path.name for path in (folder / "validation").glob("*.nii.gz")} == {f"{case}.nii.gz" for case in held_out}
    assert (folder / "validation" / "summary.json").is_file() and (folder / "validation" / "cases.csv").is_file()
    assert summary.foreground_mean["Dice"] is not None
