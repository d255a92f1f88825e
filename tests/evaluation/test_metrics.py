from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from autosam_net.data.labels import LabelSet
from autosam_net.evaluation.metrics import class_metrics, dice_of_classes, evaluate_case

SPACING = (3.0, 1.0, 0.5)
LABELS = LabelSet({"background": 0, "wall": 1, "cavity": 2})
OVERLAPS = ("Dice", "IoU", "NSD")
DISTANCES = ("HD95", "ASSD")

label_maps = npst.arrays(np.uint8, (3, 5, 4), elements=st.integers(0, 2))


def box(shape: tuple[int, ...], *bounds: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def sphere(radius: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Return a ball of `radius` mm in the middle of a grid of 48 mm along each axis."""
    axes = [(np.arange(round(48 / step)) + 0.5) * step - 24 for step in spacing]
    return sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) <= radius**2


@settings(max_examples=60, deadline=None)
@given(label_maps, label_maps)
def test_symmetric_and_in_range(first: np.ndarray, second: np.ndarray) -> None:
    forth, back = evaluate_case(first, second, SPACING, LABELS), evaluate_case(second, first, SPACING, LABELS)
    for name, metrics in forth.items():
        mirrored = back[name]
        for field in (*OVERLAPS, *DISTANCES):
            value = getattr(metrics, field)
            assert value == pytest.approx(getattr(mirrored, field), abs=1e-6)
            assert value is None or 0 <= value <= (1 if field in OVERLAPS else math.dist((0, 0, 0), (9, 5, 2)))
        assert (metrics.FP, metrics.n_pred) == (mirrored.FN, mirrored.n_ref)
        assert first.size == metrics.TP + metrics.FP + metrics.FN + metrics.TN


@settings(max_examples=30, deadline=None)
@given(label_maps)
def test_equal_maps_agree_wholly(labels: np.ndarray) -> None:
    for metrics in evaluate_case(labels, labels, SPACING, LABELS).values():
        present = metrics.n_ref > 0
        assert [getattr(metrics, field) for field in OVERLAPS] == [1.0 if present else None] * 3
        assert [getattr(metrics, field) for field in DISTANCES] == [0.0 if present else None] * 2


def test_counts_and_volumes_of_two_boxes() -> None:
    reference, prediction = box((4, 8, 8), (1, 3), (2, 6), (2, 6)), box((4, 8, 8), (1, 3), (2, 6), (3, 7))
    metrics = class_metrics(reference, prediction, SPACING, tolerance=1)
    assert (metrics.TP, metrics.FP, metrics.FN, metrics.TN) == (24, 8, 8, 4 * 8 * 8 - 40)
    assert metrics.Dice == pytest.approx(0.75)
    assert metrics.IoU == pytest.approx(24 / 40)
    assert metrics.volume_ref_mm3 == pytest.approx(32 * 1.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shifted_box_is_as_far_as_its_shift(axis: int) -> None:
    reference = box((20, 20, 20), (8, 9), (8, 9), (8, 9))
    metrics = class_metrics(reference, np.roll(reference, 2, axis), SPACING, tolerance=2 * SPACING[axis] - 0.01)
    assert metrics.HD95 == metrics.ASSD == pytest.approx(2 * SPACING[axis])
    assert metrics.NSD == 0
    assert class_metrics(reference, np.roll(reference, 2, axis), SPACING, tolerance=2 * SPACING[axis]).NSD == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_concentric_spheres(spacing: tuple[float, float, float]) -> None:
    metrics = class_metrics(sphere(12, spacing), sphere(16, spacing), spacing, tolerance=2)
    assert metrics.Dice == pytest.approx(2 * 12**3 / (12**3 + 16**3), abs=0.03)
    assert pytest.approx(4, abs=max(spacing) / 2) == metrics.ASSD
    assert pytest.approx(4, abs=max(spacing)) == metrics.HD95
    assert pytest.approx(0, abs=0.2) == metrics.NSD
    assert class_metrics(sphere(12, spacing), sphere(16, spacing), spacing, tolerance=8).NSD == 1


def test_an_image_of_one_slice_is_measured_in_its_plane() -> None:
    reference, prediction = box((1, 40, 40), (0, 1), (10, 30), (10, 30)), box((1, 40, 40), (0, 1), (5, 35), (5, 35))
    flat = class_metrics(reference, prediction, (1, 1, 1), tolerance=2)
    assert flat.ASSD > 4  # taken as 3D every voxel would be surface, and the common ones would be at distance 0
    assert flat.NSD == 0


def test_empty_policy() -> None:
    some, none = box((3, 4, 4), (1, 2), (1, 3), (1, 3)), np.zeros((3, 4, 4), bool)
    both = class_metrics(none, none, SPACING, 2)
    assert [getattr(both, field) for field in (*OVERLAPS, *DISTANCES)] == [None] * 5
    for metrics in (class_metrics(some, none, SPACING, 2), class_metrics(none, some, SPACING, 2)):
        assert [getattr(metrics, field) for field in OVERLAPS] == [0.0] * 3
        assert [getattr(metrics, field) for field in DISTANCES] == [None] * 2


def test_ignored_voxels_count_nowhere() -> None:
    labels = LabelSet({"background": 0, "lesion": 1, "ignore": 2})
    reference, prediction = np.zeros((2, 6, 6), np.uint8), np.zeros((2, 6, 6), np.uint8)
    reference[:, 1:3, 1:3] = prediction[:, 1:3, 1:3] = 1
    reference[:, 4:], prediction[:, 4:] = 2, 1
    (metrics,) = evaluate_case(reference, prediction, SPACING, labels).values()
    assert (metrics.Dice, metrics.FP, metrics.HD95) == (1.0, 0, 0.0)
    assert metrics.TP + metrics.TN == 2 * 4 * 6


def test_regions_are_measured_as_unions() -> None:
    labels = LabelSet({"background": 0, "whole": (1, 2), "core": 2}, (1, 2))
    reference = np.zeros((2, 4, 4), np.uint8)
    reference[:, :2] = 1
    reference[:, 0] = 2
    prediction = np.where(reference == 2, 1, reference)
    metrics = evaluate_case(reference, prediction, SPACING, labels)
    assert (metrics["whole"].Dice, metrics["core"].Dice) == (1.0, 0.0)


@settings(max_examples=20, deadline=None)
@given(label_maps, label_maps)
def test_dice_alone_is_that_of_all_metrics(reference: np.ndarray, prediction: np.ndarray) -> None:
    for labels in (LABELS, LabelSet({"background": 0, "wall": 1, "ignore": 2})):
        metrics = evaluate_case(reference, np.minimum(prediction, 1), SPACING, labels)
        expected = {name: entry.Dice for name, entry in metrics.items()}
        assert dice_of_classes(reference, np.minimum(prediction, 1), labels) == expected


def test_no_value_is_nan_or_a_numpy_scalar() -> None:
    rng = np.random.default_rng(0)
    metrics = evaluate_case(rng.integers(0, 2, (2, 5, 5)), np.zeros((2, 5, 5), int), SPACING, LABELS)
    for value in (value for entry in metrics.values() for value in dataclasses.asdict(entry).values()):
        assert value is None or (type(value) in (int, float) and math.isfinite(value))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        evaluate_case(np.zeros((1, 2, 3), int), np.zeros((1, 3, 2), int), SPACING, LABELS)
