"""A head labels unlabelled cases where it is sure, and goes on learning from that."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from autosam_net.data.case import CaseProperties
from autosam_net.data.labels import LabelSet
from autosam_net.data.volume import Geometry
from autosam_net.errors import UsageError
from autosam_net.inference.pseudo_labels import sure_labels
from autosam_net.inference.validate import train_and_validate
from autosam_net.paths import Folders
from autosam_net.training import loop
from autosam_net.training.batches import CachedBatches
from autosam_net.training.run import TrainingOptions
from autosam_net.training.unlabelled import CONFIDENCE, PseudoLabelledBatches, unknown_value
from tests.support import Prepared

CLASSES = LabelSet({"background": 0, "a": 1, "b": 2})
REGIONS = LabelSet({"background": 0, "whole": (1, 2), "core": (2,)}, (1, 2))
OPTIONS = TrainingOptions(labelled=1, unlabelled=True)


@pytest.fixture
def folders(prepared: Prepared, tmp_path: Path) -> Folders:
    return replace(prepared.folders, results=tmp_path / "results")


def properties(shape: tuple[int, int, int], planned: tuple[int, int]) -> CaseProperties:
    crop = tuple((0, length) for length in shape)
    return CaseProperties("a", shape, Geometry((1.0, 1.0, 1.0)), 0, crop, (shape[0], *planned))


def blocks(certainty: float) -> list[np.ndarray]:
    """Return two slices of probabilities: class 1 in a large block, and class 2 in a small one of some certainty."""
    probabilities = np.zeros((2, 3, 12, 12), np.float32)
    probabilities[:, 0] = 1.0
    for target, side, value in ((1, slice(2, 8), 0.95), (2, slice(9, 11), certainty)):
        probabilities[:, :, side, side] = (1 - value) / 2
        probabilities[:, target, side, side] = value
    return list(probabilities)


def test_what_is_not_sure_is_unknown() -> None:
    place = properties((2, 12, 12), (12, 12))
    sure, unsure = (sure_labels(blocks(value), place, CLASSES, ()) for value in (CONFIDENCE + 0.05, CONFIDENCE - 0.05))
    assert (sure[:, 2:8, 2:8] == 1).all() and (sure[:, 9:11, 9:11] == 2).all()
    assert (unsure[:, 9:11, 9:11] == unknown_value(CLASSES)).all()
    assert (unsure == 3).sum() == 8 and np.array_equal(unsure == 1, sure == 1)


def test_what_postprocessing_takes_away_is_unknown_and_the_grid_is_the_planned_one() -> None:
    slices = blocks(0.99)
    for probabilities in slices:
        probabilities[1:, 9:11, 9:11] = probabilities[[2, 1], 9:11, 9:11]  # a second, smaller component of class 1
    found = sure_labels(slices, properties((2, 12, 12), (24, 24)), CLASSES, ((1,),))
    assert found.shape == (2, 24, 24)
    assert (found[:, 19:21, 19:21] == unknown_value(CLASSES)).all()
    assert (found[:, 6:14, 6:14] == 1).all()


def test_of_regions_the_least_certain_counts() -> None:
    probabilities = np.full((2, 4, 4), 0.99, np.float32)
    probabilities[1, :2] = 0.6
    found = sure_labels([probabilities], properties((1, 4, 4), (4, 4)), REGIONS, ())
    assert (found[0, :2] == unknown_value(REGIONS)).all()
    assert (found[0, 2:] == 2).all()


def test_the_rest_of_the_fold_is_learnt_from_and_compared(prepared: Prepared, folders: Folders) -> None:
    folder, summary = train_and_validate(prepared.dataset, prepared.plan, "cnn", "0", OPTIONS, folders)
    assert folder.parent.name == "cnn_labelled1_seed0_unlabelled" and summary is not None
    manifest = json.loads((folder / "run.json").read_text())
    parts = [set(manifest[key]) for key in ("trained_on", "unlabelled", "held_out")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 6
    supervised = folder.parents[1] / "cnn_labelled1_seed0" / "fold_0"
    assert (supervised / "validation" / "summary.json").is_file()
    assert {file.stem for file in supervised.glob("pseudo_labels/*/*.npy")} == parts[1]
    assert (supervised / "model.safetensors").read_bytes() != (folder / "model.safetensors").read_bytes()


def test_half_of_what_an_iteration_sees_has_labels(prepared: Prepared, folders: Folders) -> None:
    train_and_validate(prepared.dataset, prepared.plan, "cnn", "0", replace(OPTIONS, unlabelled=False), folders)
    with (
        patch.object(CachedBatches, "draw", autospec=True, side_effect=CachedBatches.draw) as labelled,
        patch.object(PseudoLabelledBatches, "draw", autospec=True, side_effect=PseudoLabelledBatches.draw) as taught,
    ):
        train_and_validate(prepared.dataset, prepared.plan, "cnn", "0", OPTIONS, folders)
    half = prepared.plan.configuration("cnn").batch_size // 2
    for draw in (labelled, taught):
        assert {call.args[2] for call in draw.call_args_list} == {half}


def test_an_interrupted_training_goes_on_to_the_same_bytes(
    prepared: Prepared, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(options: TrainingOptions) -> bytes:
        folder, _ = train_and_validate(prepared.dataset, prepared.plan, "cnn", "0", options, folders)
        return (folder / "model.safetensors").read_bytes()

    plain_write, written = loop.write_log, []

    def stop_after_three_epochs(*arguments: object) -> None:
        written.append(arguments)
        if len(written) == 3:  # two of the supervised training, and one more
            raise KeyboardInterrupt
        plain_write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "write_log", stop_after_three_epochs)
        trained(OPTIONS)
    continued = trained(replace(OPTIONS, resume=True))
    shutil.rmtree(folders.results)
    assert trained(OPTIONS) == continued


def test_the_flag_is_refused_before_anything_is_written(prepared: Prepared, folders: Folders) -> None:
    with pytest.raises(UsageError, match="--unlabelled: all patients of this fold are labelled"):
        train_and_validate(prepared.dataset, prepared.plan, "cnn", "0", TrainingOptions(unlabelled=True), folders)
    assert not folders.results.exists()
