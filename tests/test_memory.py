"""Peaks of memory are what is predicted, and a limit is held.

The peaks are those of numpy (tracemalloc sees no others), of small volumes: what counts is bytes a voxel.
"""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autosam_net import memory, parallel
from autosam_net.data.case import CaseProperties
from autosam_net.data.dataset import training_cases
from autosam_net.data.labels import LabelSet
from autosam_net.data.plan import Normalization, Preprocessing
from autosam_net.data.volume import Geometry, Volume
from autosam_net.errors import AutosamError
from autosam_net.evaluation.report import evaluate_files, evaluate_pairs
from autosam_net.imageio import write_label
from autosam_net.imageio.dicom import read_slices
from autosam_net.imageio.dicom_seg import segmentation_mib, write_segmentation
from autosam_net.inference.export import export_case, label_map
from autosam_net.memory import (
    CHANNEL_BYTES,
    EXPORT_BYTES,
    LABEL_BYTES,
    MIB,
    SLICE_COPIES,
    allowed_memory_mib,
    case_mib,
    demand_memory,
    evaluation_mib,
    memory_limit,
    prediction_mib,
)
from autosam_net.parallel import WHOLE, map_cases
from autosam_net.preprocessing.preprocess import largest_case_mib, preprocess_case
from planning.extract_fingerprint import measure_class, measure_part
from tests.dicom_files import noise, write_series
from tests.support import Prepared

SHAPE = (64, 80, 80)
VOXELS = math.prod(SHAPE)
CLASSES = LabelSet({"background": 0, **{f"organ{index}": index for index in range(1, 21)}})
FRAME_HEADER = 30_000  # bytes that highdicom and pydicom hold of each plane beside its bits
GEOMETRY = Geometry(spacing=(1.0, 1.0, 1.0))


def peak_of(work: Callable[[], object]) -> int:
    """Return the most bytes that numpy held at once beside what there was before."""
    work()  # imports
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def properties() -> CaseProperties:
    return CaseProperties("case", SHAPE, GEOMETRY, 0, ((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2])), SHAPE)


def slices(depth: int = SHAPE[0]):
    rng = np.random.default_rng(0)
    for _ in range(depth):
        yield rng.random((CLASSES.outputs, *SHAPE[1:]), np.float32)


def test_a_label_map_of_many_classes_is_made_slice_by_slice() -> None:
    whole = CLASSES.foreground_values  # all classes are one piece: nearly every voxel is looked at
    found = peak_of(lambda: label_map(slices(), properties(), CLASSES, [whole, (1,), (20,)]))
    one_slice = 4 * CLASSES.outputs * math.prod(SHAPE[1:])
    assert found < EXPORT_BYTES * VOXELS + SLICE_COPIES * one_slice


def test_saved_probabilities_take_no_memory(tmp_path) -> None:
    def export() -> None:
        export_case(tmp_path / "case.nii.gz", slices(), properties(), CLASSES, tmp_path / "case.npy")

    one_slice = 4 * CLASSES.outputs * math.prod(SHAPE[1:])
    assert peak_of(export) < EXPORT_BYTES * VOXELS + SLICE_COPIES * one_slice
    saved = np.load(tmp_path / "case.npy")
    np.testing.assert_allclose(saved, np.stack(list(slices()), axis=1), atol=1e-3)


def test_preprocessing_holds_the_image_and_what_it_becomes() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, *SHAPE)).astype(np.float32)
    labels = rng.integers(0, 21, SHAPE, np.uint8)
    settings = Preprocessing(0, 0.9, (Normalization("percentile", 0.5, 99.5),))
    found = peak_of(lambda: preprocess_case("case", Volume(image, GEOMETRY), labels, settings))
    assert found + image.nbytes + labels.nbytes < VOXELS * (CHANNEL_BYTES + LABEL_BYTES)


def test_evaluation_holds_two_label_maps_and_one_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / name for name in ("reference.nii.gz", "prediction.nii.gz")]
    for file in files:  # pieces of organs, so that there are surfaces
        blocks = rng.integers(0, 21, [length // 8 for length in SHAPE], np.uint8)
        write_label(file, blocks.repeat(8, 0).repeat(8, 1).repeat(8, 2), GEOMETRY)
    found = peak_of(lambda: evaluate_files(("case", files[0], files[1]), CLASSES, 2.0))
    assert found < 2 * LABEL_BYTES * VOXELS


@pytest.mark.parametrize("regions", [False, True])
def test_a_dicom_seg_takes_what_is_predicted_for_it(tmp_path: Path, regions: bool) -> None:
    shape = (40, 96, 96)
    series = write_series(tmp_path / "ct", noise(shape))
    labels = np.random.default_rng(0).integers(0, 9, [length // 8 for length in shape], np.uint8)
    labels = labels.repeat(8, 0).repeat(8, 1).repeat(8, 2)
    targets = {f"organ {value}": (value, 8) if regions and value < 8 else (value,) for value in range(1, 9)}
    headers = peak_of(lambda: read_slices(series))
    found = peak_of(lambda: write_segmentation(tmp_path / "a.dcm", labels, targets, series))
    frames = 40 * 8 * FRAME_HEADER
    assert found < MIB * segmentation_mib(labels, targets) + headers + frames


def test_evaluation_follows_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "case.nii.gz"
    write_label(file, np.ones(SHAPE, np.uint8), GEOMETRY)
    pairs, labels = [("case1", file, file)], LabelSet({"background": 0, "organ": 1})
    with (
        memory_limit(evaluation_mib(VOXELS) - 1),
        pytest.raises(AutosamError, match=r"^case1: evaluation needs 0\.9 GiB"),
    ):
        evaluate_pairs(pairs, labels)
    with memory_limit(evaluation_mib(VOXELS)):
        assert evaluate_pairs(pairs, labels).foreground_mean["Dice"] == 1.0


def test_check_and_measure_follows_the_limit(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = replace(prepared.folders, preprocessed=tmp_path)
    needed = largest_case_mib(training_cases(prepared.dataset), 1)
    assert needed == case_mib(3 * 96 * 96)
    asked: list[float] = []
    monkeypatch.setattr("planning.extract_fingerprint.map_cases", lambda *rest: asked.append(rest[-1]) or [])
    measure_part(prepared.dataset, WHOLE, folders)
    assert asked == [needed]
    monkeypatch.undo()
    with memory_limit(needed - 1), pytest.raises(AutosamError, match=r": check and measure needs 0\.2 GiB of memory"):
        measure_part(prepared.dataset, WHOLE, folders, workers=1)
    with memory_limit(needed):
        assert len(measure_part(prepared.dataset, WHOLE, folders, workers=1)) == 6


def test_measuring_holds_the_image_and_one_class() -> None:
    mask = np.ones(SHAPE, bool)
    assert peak_of(lambda: measure_class(mask, (1.0, 1.0, 1.0))) + 5 * VOXELS < VOXELS * (CHANNEL_BYTES + LABEL_BYTES)


def test_a_whole_body_is_predicted_in_six_gibibytes() -> None:
    voxels, plane = 512 * 512 * 800, 512 * 512
    assert prediction_mib(voxels, 1, voxels, plane * 21) <= 6 * 1024


def test_what_needs_more_than_allowed_is_refused() -> None:
    demand_memory("case7: prediction", 1e9)
    with (
        memory_limit(2048),
        pytest.raises(
            AutosamError,
            match=r"^case7: prediction needs 3\.0 GiB of memory, --max-memory allows 2\.0\. Allow more, or",
        ),
    ):
        demand_memory("case7: prediction", 3072)


def test_a_case_too_large_is_refused_before_it_is_preprocessed() -> None:
    image = Volume(np.zeros((1, *SHAPE), np.float32), GEOMETRY)
    settings = Preprocessing(0, 1.0, (Normalization("min_max"),))
    with (
        memory_limit(case_mib(VOXELS, labelled=False) - 1),
        pytest.raises(AutosamError, match="case9: preprocessing needs"),
    ):
        preprocess_case("case9", image, None, settings)


def test_memory_decides_on_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    with memory_limit(1000):
        assert allowed_memory_mib() == 1000
        assert map_cases(lambda _: os.getpid(), [1, 2], "asking", 2, memory_mib=600) == [os.getpid()] * 2
        assert os.getpid() not in map_cases(lambda _: os.getpid(), [1, 2], "asking", 2, memory_mib=400)
        limits = map_cases(lambda _: parallel.memory_limit_mib(), [1, 2], "asking", 2, memory_mib=400)
    assert limits == [500, 500]
    monkeypatch.setattr(memory, "free_memory_mib", lambda: 0.0)
    assert math.isinf(allowed_memory_mib())
