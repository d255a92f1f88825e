"""One image in a notebook: whatever form it has, the result is the same, and it is written nowhere unless asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net.data.dataset import training_cases
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Geometry
from autosam_net.errors import UsageError
from autosam_net.evaluation.expected_dice import ExpectedDice, Judgement, Line
from autosam_net.imageio import read_image, read_label
from autosam_net.inference.load import load_model
from autosam_net.inference.model import Model
from autosam_net.inference.segment import Segmentation, segment
from autosam_net.paths import Folders
from autosam_net.training.run import TrainingOptions
from autosam_net.training.train import train_head
from tests.support import Prepared


@pytest.fixture(scope="module")
def folders(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    folders = replace(prepared.folders, results=tmp_path_factory.mktemp("results"))
    for fold in (0, 1):
        train_head(prepared.dataset, prepared.plan, "linear", fold, TrainingOptions(), folders)
    return folders


@pytest.fixture(scope="module")
def model(folders: Folders) -> Model:
    return load_model(900, device="cpu", folders=folders)


@pytest.fixture
def file(prepared: Prepared) -> Path:
    return training_cases(prepared.dataset)[0].images[0]


def test_probabilities_agree_with_the_labels(model: Model, file: Path) -> None:
    result = segment(file, model, probabilities=True)
    assert result.probabilities is not None
    assert result.probabilities.shape == (4, *result.labels.shape) == (4, *read_image(file).shape)
    np.testing.assert_allclose(result.probabilities.astype(np.float32).sum(0), 1, atol=5e-3)
    assert (result.probabilities.argmax(0) == result.labels).mean() > 0.999
    assert segment(file, model).probabilities is None


def test_a_plane_stays_a_plane(model: Model, tmp_path: Path) -> None:
    plane = np.random.default_rng(0).random((90, 70))
    result = segment(plane, model, (1.5, 2.0), probabilities=True)
    assert result.labels.shape == (90, 70)
    assert result.probabilities is not None and result.probabilities.shape == (4, 90, 70)
    saved = read_label(result.save(tmp_path / "plane.nii.gz"))
    assert saved.geometry == result.geometry and saved.geometry.spacing == (1.0, 1.5, 2.0)
    np.testing.assert_array_equal(saved.array[0, 0], result.labels)


def test_what_is_saved_lies_where_the_image_lies(model: Model, file: Path, tmp_path: Path) -> None:
    result = segment(file, model)
    saved = read_label(result.save(str(tmp_path / "labels.nii.gz")))
    assert saved.geometry == read_image(file).geometry
    np.testing.assert_array_equal(saved.array[0], result.labels)


def test_masks_and_volumes_of_classes_and_regions() -> None:
    labels = np.array([[[0, 1, 2, 2]]], np.uint8)
    regions = LabelSet({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
    result = Segmentation(labels, Geometry((10.0, 2.0, 5.0)), regions, None, {}, None)
    assert result.mask("whole").tolist() == [[[False, True, True, True]]]
    assert result.volumes() == pytest.approx({"whole": 0.3, "core": 0.2})  # ml
    flat = replace(result, labels=labels[0], geometry=Geometry((1.0, 2.0, 5.0), dimensions=2))
    assert flat.volumes() == pytest.approx({"whole": 30.0, "core": 20.0})  # mm^2
    with pytest.raises(UsageError, match="class 'cor': not one of this model's; did you mean 'core'"):
        result.mask("cor")


def test_the_dice_to_expect(model: Model, file: Path) -> None:
    unknown = segment(file, model)
    assert (unknown.expected_mean_dice, unknown.flagged) == (None, None)
    judgement = Judgement(None, None, None, 0.0, 0, 0, 0)
    lines = {name: Line(0.25, 0.0, 0.0, always_there=True) for name in ("RV", "MYO", "LV")}
    learnt = ExpectedDice(lines, 0.5, cases=10, patients=10, judgement=judgement)
    result = segment(file, replace(model, expected_dice=(learnt, learnt)))
    assert set(result.expected_dice) == {"RV", "MYO", "LV"}
    assert result.expected_mean_dice is not None and result.expected_mean_dice <= 0.25  # 0 for a class not found
    assert result.flagged is True


def test_a_model_may_be_named_by_its_folder(model: Model, folders: Folders, file: Path) -> None:
    named = segment(file, folders.results / "Dataset900_Example" / "linear")
    np.testing.assert_array_equal(named.labels, segment(file, model).labels)


def test_a_spacing_goes_with_an_array_and_with_nothing_else(model: Model, file: Path) -> None:
    with pytest.raises(UsageError, match=r"array: no spacing\. Give spacing in mm along \(Z, Y, X\)"):
        segment(np.zeros((3, 8, 8)), model)
    with pytest.raises(UsageError, match=r"no spacing.*\(Y, X\); 1 for images without a scale"):
        segment(np.zeros((8, 8)), model)
    with pytest.raises(UsageError, match=r"spacing \(1, 1, 1\): goes with an array"):
        segment(file, model, (1, 1, 1))
