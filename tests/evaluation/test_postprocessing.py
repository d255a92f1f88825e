"""Keeping the largest component: what it may take away, and what it never touches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from autosam_net.evaluation.postprocessing import keep_largest

LABEL_MAPS = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.integers(0, 3))
FULL = np.ones((3, 3, 3))


@given(LABEL_MAPS, st.sets(st.integers(1, 3)))
def test_one_component_of_full_size_is_left_of_each_value(labels: np.ndarray, values: set[int]) -> None:
    kept = keep_largest(labels, [[value] for value in sorted(values)])
    for value in range(1, 4):
        components, count = ndimage.label(labels == value, FULL)
        sizes = np.bincount(components.ravel())[1:]
        if value in values and count:
            assert ndimage.label(kept == value, FULL)[1] == 1
            assert (kept == value).sum() == sizes.max()
        else:
            np.testing.assert_array_equal(kept == value, labels == value)


@given(LABEL_MAPS)
def test_voxels_only_turn_into_background_and_twice_is_once(labels: np.ndarray) -> None:
    before = labels.copy()
    kept = keep_largest(labels, [[1], [2], [3]])
    np.testing.assert_array_equal(labels, before)
    assert kept.dtype == labels.dtype
    assert ((kept == labels) | (kept == 0)).all()
    np.testing.assert_array_equal(keep_largest(kept, [[1], [2], [3]]), kept)


@given(LABEL_MAPS)
def test_classes_do_not_depend_on_each_other(labels: np.ndarray) -> None:
    one_by_one = keep_largest(keep_largest(labels, [[3]]), [[1]])
    np.testing.assert_array_equal(keep_largest(labels, [[1], [3]]), one_by_one)


def test_a_corner_connects_slices_and_a_tie_keeps_the_first() -> None:
    labels = np.zeros((2, 4, 4), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    np.testing.assert_array_equal(keep_largest(labels, [[1]]), labels)
    labels[:] = 0
    labels[0, 0, 0] = labels[1, 3, 3] = 1
    assert np.argwhere(keep_largest(labels, [[1]])).tolist() == [[0, 0, 0]]


def test_of_two_pieces_of_a_class_the_one_that_hangs_together_with_the_others_is_kept() -> None:
    labels = np.zeros((1, 12, 12), np.uint8)
    labels[0, 1:5, 1:5], labels[0, 5:7, 1:5], labels[0, 8:12, 8:12] = 1, 2, 2
    kept = keep_largest(labels, [[1, 2], [1], [2]])
    np.testing.assert_array_equal(kept[0, :7], labels[0, :7])
    assert not kept[0, 7:].any()
    assert not keep_largest(labels, [[1], [2]])[0, 5:7, 1:5].any()
